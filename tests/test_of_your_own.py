"""What the READMEs print for a task, a loss and a stage of one's own works as printed."""

import re
from pathlib import Path

import pytest

import r1lab
from r1lab.doctor.command import diagnose
from r1lab.errors import InputError
from r1lab.training.config import GRPOConfig

TEXT = Path("notebooks/README.md").read_text(encoding="utf-8")
TASK = re.search(r"```python\n(.*?)```", Path("README.md").read_text(encoding="utf-8"), re.DOTALL).group(1)
SHORT = GRPOConfig.preset(
    "cpu", rollouts=1, questions=2, group_size=4, minibatches=2, eval_samples=1, final_samples=1,
    caps=((0, 32),), processes=1,
)  # fmt: skip


def printed(title: str) -> str:
    """The code block under this title."""
    section = TEXT.split(f"**{title}.**")[1]
    return re.search(r"```python\n(.*?)```", section, re.DOTALL).group(1)


@pytest.fixture
def names(tmp_path, monkeypatch, alone) -> dict:
    """A notebook's names: its runs lie in a folder of their own, and are short."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").symlink_to(Path(__file__).parents[1] / "data")
    monkeypatch.setattr(GRPOConfig, "preset", lambda name, **changes: SHORT)
    return {}


def test_a_task_of_ones_own(names):
    assert len([line for line in TASK.splitlines() if line.strip() and "import" not in line]) <= 12
    exec(TASK, names)
    run = names["run"]
    assert run.finished and run.config["rollouts"] == 1 + 4
    assert (run.folder / "report.html").is_file()
    trained = [row for row in run.samples if row["advantage"] is not None]
    assert all("last number" in row["rewards"] for row in trained)
    assert "data:image/png" in run._repr_html_()
    with pytest.raises(InputError, match="only the notebook or script .* knows it"):
        r1lab.Run(run.folder).resume()
    Path("mine.py").write_text(TASK.split("run = ")[0])
    assert isinstance(diagnose(run.folder, task="mine.py:task"), list), "the doctor is given it again"


def test_a_loss_of_ones_own(names):
    exec(TASK.split("run = ")[0] + printed("A loss"), names)
    assert names["run"].finished


def test_a_stage_of_ones_own(names):
    code = printed("A stage")
    assert len([line for line in code.splitlines() if line.strip()]) <= 30
    exec(TASK.split("run = ")[0] + code, names)
    kept = names["run"].summary["kept"]
    assert len(kept) == 16 and any(kept.values())
