"""The chain of all stages: order, resume, what each starts from, and the report."""

import json
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch

from r1lab.cli import main
from r1lab.launch import commands
from r1lab.errors import InputError
from r1lab.stages import benchmarks
from r1lab.stages.benchmarks import BENCHMARKS, run_benchmarks
from r1lab.models.policy import load_model
from r1lab.report.pages import write_chain_report
from r1lab.rewards import rules
from r1lab.stages.hacking import HACKING
from r1lab.stages.pipeline import CONTROLS, STAGES, Chain, R1Config
from r1lab.stages.rl_stages import REASONING, SCENARIOS, RLStage, cannot_run_programs
from r1lab.stages.sft_stages import ColdStart, Distill, Rejection, model_folder
from r1lab.sources import Task
from r1lab.task import load_problems, save_problems
from r1lab.stages.preferences import PreferenceConfig
from r1lab.training.sft import SFTConfig

WITH_CHAT = ("questions", "group_size", "caps", "eval_samples", "eval_problems", "eval_every")
EASY = {"signs/1": 1.0, "signs/2": 1.0}


def small(stage, questions: int = 16):
    """A stage of samples, made short: easy questions, one chunk, a few steps."""
    stage = stage.with_sampling(mixture=EASY, chunks=1, questions=questions, max_tokens=96)
    return replace(stage, sft=SFTConfig(epochs=1, tokens_per_step=512, learning_rate=3e-5))


@pytest.fixture(scope="module")
def config(tmp_path_factory) -> R1Config:
    test_file = tmp_path_factory.mktemp("data") / "test.jsonl"
    save_problems(load_problems("data/test_signs.jsonl")[62:66], test_file)
    short = dict(
        rollouts=2, questions=4, group_size=4, minibatches=2, caps=((0, 64),), eval_samples=2,
        eval_problems=1, final_samples=2, eval_every=1, warmup_steps=1,
    )  # fmt: skip
    easy = dict(mixture=EASY, test=str(test_file))
    late = {"chat/1": 20.0, "unsafe/1": 20.0}
    zero = RLStage().with_rl(**short).with_world(**easy)
    return R1Config(
        base="data/zero", student="data/tiny", processes=1, zero=zero,
        cold_start=small(ColdStart()), reasoning=REASONING.with_rl(**short).with_world(**easy),
        rejection=small(Rejection()), distill=small(Distill()),
        preferences=PreferenceConfig(samples=8, examples=64, max_tokens=32, epochs=1),
        scenarios=SCENARIOS.with_rl(**short).with_world(**easy, late_from=1, late_mixture=late),
        student_rl=zero,
        hacking=HACKING.with_rl(rollouts=2, **{k: short[k] for k in WITH_CHAT}),
    )  # fmt: skip


@pytest.fixture(scope="module")
def chain(config, tmp_path_factory):
    """A finished chain, in this process, its benchmarks replaced by a number from the weights."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "0")  # as torchrun would, with one process
        patch.setenv("WORLD_SIZE", "1")
        patch.setattr(benchmarks, "run_benchmarks", fake_benchmarks)
        chain = Chain(config, "r1", tmp_path_factory.mktemp("runs"))
        chain.run("zero", "dev2")
        chain.run("dev3")
        chain.controls()
        yield chain


def fake_benchmarks(sampler, tokenizer, k, task=None, **options) -> tuple[dict, dict]:
    if task:
        return run_benchmarks(sampler, tokenizer, k, task=task, **options)
    share = sampler.model.lm_head.weight.abs().mean().item()
    cell = {"value": share, "ci95": [share / 2, 2 * share], "n": 9}
    return dict.fromkeys(BENCHMARKS, cell), dict.fromkeys(BENCHMARKS, np.array([share]))


def settings(chain: Chain, stage: str) -> dict:
    return json.loads((chain.folder / stage / "config.json").read_text())


def test_the_chain_s_student_is_the_one_with_the_skills():
    assert R1Config().student == Distill().base == "data/small"


def test_every_stage_starts_where_the_paper_says(chain):
    """RL goes on from the stage before it; both fine-tunings begin with the base again."""
    model = {stage: str(model_folder(str(chain.folder / stage), stage)) for stage in STAGES}
    assert settings(chain, "zero")["model"] == "data/zero"
    assert settings(chain, "dev2")["model"] == model["dev1"]
    assert settings(chain, "r1")["model"] == model["dev3"]
    assert settings(chain, "student_rl")["model"] == "data/tiny"
    for stage, source, base in (
        ("dev1", "zero", "data/zero"), ("dev3", "dev2", "data/zero"), ("student_sft", "r1", "data/tiny")
    ):  # fmt: skip
        assert settings(chain, stage)["source"] == model[source]
        assert settings(chain, stage)["base"] == base


def test_the_last_stage_hears_its_reward_models_in_its_last_part_only(chain):
    rows = [json.loads(line) for line in open(chain.folder / "r1/samples.jsonl")]
    trained = [row for row in rows if row["advantage"] is not None]
    early, late = ([row for row in trained if row["step"] == step] for step in (2, 4))
    judged = {"helpfulness": "chat", "safety": "unsafe"}
    assert {row["family"] for row in early} == {"signs"}
    assert not any(row["rewards"][name] is not None for row in early for name in judged)
    assert {row["family"] for row in late} & set(judged.values())
    for row in late:
        for name, family in judged.items():
            assert (row["rewards"][name] is not None) == (row["family"] == family)


def test_a_control_differs_from_its_stage_in_one_thing(chain):
    for stage, control, name in (("dev2", "dev2_no_language", "task"), ("dev3", "dev3_random", "sampling")):
        one, other = settings(chain, stage), settings(chain, control)
        assert [key for key in one if one[key] != other[key]] == [name]
    assert other["sampling"] == {**one["sampling"], "select": "random"}
    worlds = [settings(chain, stage)["task"]["settings"] for stage in ("dev2", "dev2_no_language")]
    assert worlds[1] == {**worlds[0], "language_weight": 0.0}


def test_too_long_on_a_reward_model_starts_from_dev3_with_the_chain_s_own_model(chain):
    hacking = settings(chain, "hacking")
    assert hacking["model"] == str(model_folder(str(chain.folder / "dev3"), "dev3"))
    r1 = settings(chain, "r1")["task"]["settings"]
    assert hacking["world"]["reward_models"] == r1["reward_models"]
    assert {"model.jsonl", "human.jsonl"} < {path.name for path in (chain.folder / "hacking").iterdir()}


def test_the_summary_tells_of_every_stage(chain):
    told = json.loads((chain.folder / "summary.json").read_text())
    assert list(told) == ["base", "student", *STAGES, *CONTROLS]
    for stage in STAGES:
        assert told[stage]["tokens"] > 0 and told[stage]["cpu_hours"] > 0
        assert told[stage]["benchmarks"].keys() == BENCHMARKS.keys()


def test_the_hours_are_those_of_the_run_s_own_processes(chain):
    file = chain.folder / "dev2/summary.json"
    run, settings_file = json.loads(file.read_text()), chain.folder / "dev2/config.json"
    before, settings_before = file.read_text(), settings_file.read_text()
    file.write_text(json.dumps({**run, "wall_seconds": 3600.0, "machine": {"cores": 64}}))
    assert Chain(R1Config(), "r1", chain.runs).summary()["dev2"]["cpu_hours"] == 1
    settings_file.write_text(json.dumps({**settings(chain, "dev2"), "processes": 0}))
    assert chain.summary()["dev2"]["cpu_hours"] == 64
    file.write_text(before)
    settings_file.write_text(settings_before)


def test_the_report_shows_every_stage_and_benchmark(chain):
    page = write_chain_report(chain.folder).read_text()
    for benchmark in BENCHMARKS.values():
        assert benchmark.title in page
    for title in ("R1-Zero", "Dev1", "Dev2", "Dev3", "Student, distilled", "Student, RL"):
        assert title in page
    assert page.count("<img") == 2


def test_the_report_command_prints_the_tables(chain, capsys):
    assert main(["report", str(chain.folder)]) == 0
    printed = capsys.readouterr().out
    assert "| Benchmark (problems) | Base | R1-Zero | Dev1 | Dev2 | Dev3 | R1 |" in printed
    assert printed.count("| Signs, pass@1 (") == 3


def test_a_finished_chain_is_left_as_it_is(chain):
    before = {p: p.stat().st_mtime_ns for p in chain.folder.rglob("*.safetensors")}
    chain.run()
    assert before == {p: p.stat().st_mtime_ns for p in chain.folder.rglob("*.safetensors")}


def half_chain(runs, *finished: str, started: str = ""):
    """A chain's folder: stages with a model and a summary, and one that was stopped on the way."""
    for stage in (*finished, *([started] if started else [])):
        step = runs / "r1" / stage / "checkpoints/step-000002"
        step.mkdir(parents=True)
        for file in (step / "config.json", step / "trainer.pt", step.parents[1] / "config.json"):
            file.write_text("{}")
        if stage in finished:
            (runs / "r1" / stage / "summary.json").write_text("{}")


@pytest.mark.parametrize(("finished", "started", "options", "words"), [
    ((), "", ("--from", "dev2"), "before dev2 comes dev1, which .* was not started"),
    (("zero",), "dev1", ("--from", "dev2"), "before dev2 comes dev1, which .* stopped on the way"),
    (STAGES[:5], "", ("--from", "student_rl"), "before student_rl comes student_sft"),
    (STAGES[:3], "dev3", ("--controls",), "before the control arms comes dev3, which .* stopped"),
])  # fmt: skip
def test_a_stage_without_the_finished_one_before_it_is_refused_before_any_work(
    tmp_path, monkeypatch, capsys, finished, started, options, words
):
    monkeypatch.setattr(commands, "Chain", partial(Chain, runs=tmp_path))
    half_chain(tmp_path, *finished, started=started)
    before = sorted(tmp_path.rglob("*"))
    assert main(["r1", *options]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert re.search(words, said)
    missing = re.search(r"comes (\w+)", said).group(1)
    assert f"r1lab r1 --name r1 --to {missing}" in said
    assert sorted(tmp_path.rglob("*")) == before  # nothing was measured, nothing started


def test_other_settings_do_not_train_a_chain_s_reward_models_anew(chain, monkeypatch, capsys):
    monkeypatch.setattr(commands, "Chain", partial(Chain, runs=chain.runs))
    models = sorted((chain.folder / "reward_models").rglob("*"))
    before = [path.stat().st_mtime_ns for path in models]
    for start in (commands.hacking, partial(commands.r1, first="r1")):
        with pytest.raises(InputError, match="reward_models was started with other settings .*seed"):
            start(replace(chain.config, seed=1), "r1")
    assert [path.stat().st_mtime_ns for path in models] == before
    commands.hacking(chain.config, "r1")  # with its own settings it is found
    assert "score of the model" in capsys.readouterr().out


def test_where_no_program_can_be_run_the_chain_goes_on_without(config, tmp_path, monkeypatch, alone, capsys):
    def refuse(*args, **options):
        raise InputError("programs cannot be run safely on this system: no filter; leave them out")

    monkeypatch.setattr(rules, "Sandbox", refuse)
    monkeypatch.setattr(benchmarks, "run_benchmarks", without_programs)
    monkeypatch.setattr(commands, "Chain", partial(Chain, runs=tmp_path))
    rules.shared_sandbox.cache_clear()
    mixed = EASY | {"programs/1": 20.0}
    config = replace(
        config, cold_start=config.cold_start.with_sampling(mixture=mixed),
        reasoning=config.reasoning.with_world(mixture=mixed),
    )  # fmt: skip
    commands.r1(config, "r1", last="dev2")
    said = " ".join(capsys.readouterr().out.split())
    assert "asks for no programs: programs cannot be run safely on this system: no filter" in said
    commands.r1(config, "r1", last="dev2")  # what is finished is found again
    chain = Chain(config, "r1", tmp_path)
    assert settings(chain, "dev2")["task"]["settings"]["mixture"] == EASY
    late = SCENARIOS.with_world(late_mixture={"chat/1": 1.0, "programs/2": 1.0})
    assert late.possible(chain.stage("r1")).world.late_mixture == {"chat/1": 1.0}
    # A stage that had programs where they could be run keeps them.
    chain.stage("r1").folder.mkdir()
    chain.stage("r1").write("config.json", {"mixture": REASONING.world.mixture})
    assert late.possible(chain.stage("r1")) == late
    page = " ".join((chain.folder / "report.html").read_text().split())
    assert (
        "Programs were left out of Base, Student, R1-Zero, Dev1, Dev2, in training or measuring or "
        "both: programs cannot be run safely on this system: no filter." in page
    )
    assert "over 4 reasoning benchmarks" in page and "(mean of 4)" in page


def without_programs(*args, **options) -> tuple[dict, dict]:
    cells, values = fake_benchmarks(*args, **options)
    missing = {"value": None, "ci95": None, "n": 0, "left_out": cannot_run_programs()}
    return cells | {"programs": missing}, values


@pytest.mark.parametrize(
    ("stages", "processes", "words"),
    [(("r1", "dev1"), 1, "dev1 comes before r1"), (("dev7",), 1, "there is no stage 'dev7'; choose one of zero"),
     ((), 3, "4 questions do not divide over 3 processes")],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_before_any_work(config, tmp_path, stages, processes, words):
    with pytest.raises(InputError, match=words):
        Chain(replace(config, processes=processes), runs=tmp_path).run(*stages)
    assert not list(tmp_path.iterdir())


def test_a_folder_without_a_chain_has_no_report(tmp_path):
    with pytest.raises(InputError, match="summary.json is missing"):
        write_chain_report(tmp_path)


def test_the_models_of_the_stages_differ(chain):
    weights = [load_model(model_folder(str(chain.folder / stage), stage))[0].state_dict() for stage in STAGES]
    first = [next(iter(state.values())) for state in weights[:5]]
    assert not any(torch.equal(a, b) for i, a in enumerate(first) for b in first[:i])


def test_a_task_of_ones_own_goes_through_every_stage(config, tmp_path, alone):
    """Judged by its own check; samples are filtered and not rewritten, and no judge of chat comes in."""
    rows = [{"question": f"compute {a}+{b}", "answer": str(a + b)} for a in range(9) for b in range(9)]
    check = lambda completion, problem: problem.solution in completion  # noqa: E731
    task = Task.from_dataset(rows, test=4, template="small", name="additions", check=check)
    chain = Chain(replace(config, samples=1), "mine", tmp_path, task)
    chain.run()
    summary = chain.summary()
    assert list(summary) == ["base", "student", *STAGES]
    assert all(list(told["benchmarks"]) == ["additions"] for told in summary.values())
    assert not (chain.folder / "reward_models").exists()
    provenance = json.loads((chain.folder / "dev3/data/provenance.json").read_text())
    assert [one["filter"] for one in provenance["filters"]] == [
        "not truncated", "format", "correct", "few per question"
    ]  # fmt: skip
    assert "additions, pass@1" in write_chain_report(chain.folder).read_text()
