"""The next steps on Dev3's data: what each arm learns from, and for how long."""

import json
import random
from dataclasses import asdict

import numpy as np
import pytest
import torch
from datasets import Dataset, load_from_disk

from r1lab.errors import InputError
from r1lab.stages.samples import COLUMNS
from r1lab.task import Problem
from r1lab.run import Run
from r1lab.world import sample_problem
from r1lab.world.bases import build_model, build_tokenizer
from r1lab.world.corpus import written_examples
from tests.experiments import more_data, next_steps
from tests.experiments.chain import levels_of
from tests.experiments.more_data import MEASURED, French, Programs, french, programs
from tests.experiments.settings import SFT

STEPS = 3
QUICK = {**SFT, "epochs": 1, "tokens_per_step": 128}


def right(problem: Problem, word: str) -> dict:
    """A sample that passes all filters, as `harvest` keeps it; `word` makes it another one."""
    text = f"<think> 1+1=2 no {word} 1+2=3 ok </think> <answer> {problem.solution} </answer>"
    return {**asdict(problem), "completion": text, "finish": "stop", "tokens": 40, "failed": []}


def problems(family: str, count: int, lang: str = "en") -> list[Problem]:
    rng, found = random.Random(0), {}
    while len(found) < count:
        problem = sample_problem(rng, family, 2, lang)
        found[problem.id] = problem
    return list(found.values())


SIGNS, PROGRAMS, CHINESE = problems("signs", 12), problems("programs", 5), problems("signs", 12, "zh")
LEARNED = [right(problem, "wait") for problem in (*SIGNS, *PROGRAMS, *CHINESE)]


def keep(rows: list[dict], folder) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "chunk-0000.json").write_text(json.dumps({"seconds": 1.0, "rows": rows}))


def invented(world, stop, run, model, samples, seed, task) -> bool:
    """In place of a measurement: values that depend on the arm alone."""
    rng = np.random.default_rng(len(run.name))
    values = {row: rng.random(len(levels_of(row))) for row in MEASURED}
    np.savez(run.folder / "values.npz", **values)
    run.write("benchmarks.json", {})
    return True


@pytest.fixture
def chain(tmp_path, monkeypatch, alone):
    """A chain that has come to Dev3, from a model that was never trained; all in this process."""
    monkeypatch.setattr(next_steps, "measure_work", invented)
    monkeypatch.setattr(more_data, "shared_sandbox", lambda: None)  # nothing is run here
    tokenizer, folder = build_tokenizer(), tmp_path / "chain"
    torch.manual_seed(0)
    for name in ("base", "chain/dev2"):
        build_model("tiny", len(tokenizer)).save_pretrained(tmp_path / name)
        tokenizer.save_pretrained(tmp_path / name)
    written = [next(written_examples(seed)) for seed in range(4)]
    rows = [{name: row[name] for name in (*COLUMNS, "completion")} for row in LEARNED]
    rows += [{**{n: getattr(p, n) for n in COLUMNS}, "completion": c} for p, c in written]
    for row in rows:
        row["completion"] = tokenizer.decode(tokenizer(row["completion"]).input_ids)
    Dataset.from_list(rows).save_to_disk(folder / "dev3/data")
    keep(LEARNED + [right(problem, "retry") for problem in SIGNS[:3]], folder / "dev3/samples")
    (folder / "dev3/summary.json").write_text(
        json.dumps({"steps": STEPS, "base": str(tmp_path / "base")})
    )
    invented(None, None, Run(folder / "dev3"), None, 4, 0, None)
    return folder


def learned(folder, arm: str) -> list[dict]:
    """What an arm learned from, after as many updates as Dev3."""
    summary = json.loads((folder / arm / "summary.json").read_text())
    assert summary["steps"] == STEPS
    return load_from_disk(str(folder / f"data_{arm}")).to_list()


def test_a_share_of_the_reasoning_is_asked_and_thought_in_french(chain, tmp_path, capsys):
    config = French(chain=str(chain), sft=QUICK, processes=1, seed=2, share=0.5)
    kept = french(config, tmp_path / "run")
    told = json.loads((tmp_path / "run/data_french/provenance.json").read_text())
    assert (told["stage"], told["source_run"]) == ("French", str(chain / "dev3"))
    assert told["settings"]["share"] == 0.5 and told["examples"] == len(LEARNED) + 4
    before = load_from_disk(str(chain / "dev3/data")).to_list()
    after = learned(tmp_path / "run", "french")
    pairs = list(zip(before, after, strict=True))
    changed = [new for old, new in pairs if old != new]
    assert len(before) / 5 < len(changed) < len(before) * 0.7
    for row in changed:
        assert row["lang"] == "fr" and "attends" in row["completion"]
        assert "wait" not in row["completion"] and row["family"] in ("signs", "programs")
        assert row["prompt"].split()[0] in ("fais", "programme")
    assert {name.partition("/")[0] for name in kept} == {"french", "dev3", "levels"}
    with np.load(chain / "dev3/values.npz") as values:
        assert np.array_equal(kept["dev3/language_fr"], values["language_fr"], equal_nan=True)
    table = json.loads((tmp_path / "run/summary.json").read_text())
    assert set(table) == set(MEASURED) and table["french"]["dev3"]["difference"] == 0
    shown = capsys.readouterr().out
    again = french(config, tmp_path / "run")  # all is there
    assert again.keys() == kept.keys() and capsys.readouterr().out == shown


def drawn(rows: list[dict]):
    """In place of asking Dev2."""

    def harvest(world, stop, config, task, folder, sampler, tokenizer) -> bool:
        assert config.seed == 1
        keep(rows, folder)
        return True

    return harvest


def test_more_programs_stand_against_as_many_other_samples(chain, tmp_path, monkeypatch):
    new = [right(problem, "retry") for problem in PROGRAMS]
    wrong = [{**right(problem, "but"), "failed": ["correct"]} for problem in PROGRAMS]
    known = [row for row in LEARNED if row["family"] == "programs"]
    monkeypatch.setattr(more_data, "harvest", drawn(new + new + wrong + known))
    config = Programs(chain=str(chain), sft=QUICK, processes=1, seed=1)
    kept = programs(config, tmp_path / "run")
    before = load_from_disk(str(chain / "dev3/data")).to_list()
    added = {}
    for arm in ("programs", "others"):
        rows = learned(tmp_path / "run", arm)
        assert rows[: len(before)] == before
        added[arm] = rows[len(before) :]
    # Five programs are new, but only three other samples: three each.
    assert len(added["programs"]) == len(added["others"]) == 3
    assert {row["family"] for row in added["programs"]} == {"programs"}
    assert {row["family"] for row in added["others"]} == {"signs"}
    assert all("retry" in row["completion"] for arm in added.values() for row in arm)
    table = json.loads((tmp_path / "run/summary.json").read_text())
    assert table["programs"]["others"]["difference"] == 0 != table["programs"]["programs"]["difference"]
    assert {name.partition("/")[0] for name in kept} == {"programs", "others", "dev3", "levels"}


def test_where_dev2_gives_nothing_new_that_is_told(chain, tmp_path, monkeypatch):
    known = [row for row in LEARNED if row["family"] == "programs"]
    monkeypatch.setattr(more_data, "harvest", drawn(known))
    config = Programs(chain=str(chain), sft=QUICK, processes=1, seed=1)
    with pytest.raises(InputError, match="gave 0 new programs, and 3 others"):
        programs(config, tmp_path / "run")


@pytest.mark.parametrize(("step", "config"), [(french, French), (programs, Programs)])
def test_a_chain_without_dev3_is_told_and_nothing_is_begun(tmp_path, step, config):
    with pytest.raises(InputError, match="run the chain up to dev3 first"):
        step(config(chain=str(tmp_path / "chain")), tmp_path / "run")
    assert not (tmp_path / "run").exists()
