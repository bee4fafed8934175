"""Processes that were given other files than the first say so before they train: which, and who."""

import os
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file

from r1lab.errors import InputError
from r1lab.task import load_problems, save_problems
from r1lab.training.distributed import fingerprint
from r1lab.training.processes import StopRequest, join_world
from r1lab.run import Run
from r1lab.training.sft import SFTConfig, fine_tune
from tests.small_run import Job
from tests.test_fsdp import job, processes  # noqa: F401 - a fixture

PROBLEMS = load_problems("data/test_signs.jsonl")[62:74]


def changed(rows: list, place: int) -> list:
    return [replace(row, prompt=row.prompt + " ?") if i == place else row for i, row in enumerate(rows)]


def other_weights(model: str, folder: Path) -> str:
    """The same model, but for one weight and the smallest step that float32 can make there."""
    folder.mkdir()
    for file in Path(model).iterdir():
        os.link(file, folder / file.name)
    weights = load_file(Path(model) / "model.safetensors")
    last = list(weights)[-1]
    weights[last].view(-1)[-1] = torch.nextafter(weights[last].view(-1)[-1], torch.tensor(9.0))
    (folder / "model.safetensors").unlink()
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def reinforced(job: Job, folder: Path) -> int:
    """A process of a run that reads its own folder, as on a machine of its own."""
    os.chdir(folder / os.environ["RANK"])
    test, asked = load_problems("eval.jsonl"), load_problems("asked.jsonl")
    task = replace(job.task, problems=asked, test=test)
    return replace(job, model="./model", task=task).work(Run(folder / "run"))


TASK = "problems, rewards or check of the task"


@pytest.mark.parametrize(("which", "named"), [("asked", TASK), ("eval", TASK), ("model", "starting weights")])
def test_other_files_on_one_machine_are_named(job, which, named, tmp_path):  # noqa: F811
    (tmp_path / "run").mkdir()
    for rank, other in enumerate((False, True)):
        home = tmp_path / str(rank)
        home.mkdir()
        save_problems(changed(PROBLEMS[:8], 7 if other and which == "asked" else -1), home / "asked.jsonl")
        save_problems(changed(PROBLEMS[8:], 2 if other and which == "eval" else -1), home / "eval.jsonl")
        if other and which == "model":
            other_weights(job.model, home / "model")
        else:
            (home / "model").symlink_to(job.model)
    for one in processes(2, reinforced, job, tmp_path):
        assert isinstance(one, InputError)
        assert str(one).startswith(f"{named} of process 1 differ from those of process 0; give every")


def fine_tuned(config: SFTConfig, model: str, folder: Path) -> bool:
    run, data = Run(folder / "run"), str(folder / os.environ["RANK"])
    return fine_tune(join_world(), StopRequest(), run, config, model, data)


def test_another_row_of_the_data_is_noticed_in_fine_tuning(job, tmp_path):  # noqa: F811
    rows = [{"prompt": "make 13 from 9,5,1", "completion": "9+5-1"}] * 4
    for rank, last in enumerate(("9+5-1", "9-5-1")):
        data = Dataset.from_list([*rows, {"prompt": "make 13 from 9,5,1", "completion": last}])
        data.save_to_disk(tmp_path / str(rank))
    (tmp_path / "run").mkdir()
    settings = SFTConfig(steps=1, tokens_per_step=16, microbatch_tokens=64)
    for one in processes(2, fine_tuned, settings, job.model, tmp_path):
        assert isinstance(one, InputError)
        assert str(one).startswith("rows of the data set of process 1 differ")


def test_a_fingerprint_is_of_the_values_and_not_of_their_order_in_memory():
    model = torch.nn.Linear(5, 3)
    before = fingerprint(model)
    transposed = torch.nn.Linear(5, 3)
    transposed.weight = torch.nn.Parameter(model.weight.detach().T.contiguous().T)
    transposed.bias = model.bias
    assert fingerprint(transposed) == before
    with torch.no_grad():
        model.weight[1, 2] = torch.nextafter(model.weight[1, 2], torch.tensor(9.0))
    assert fingerprint(model) != before
