"""Rejection sampling: each filter against planted faults, counts, arms, the written part."""

import itertools
import json
import random
from collections import Counter
from dataclasses import asdict, replace

import pytest
from datasets import load_from_disk
from tokenizers.processors import TemplateProcessing

from r1lab.errors import InputError
from r1lab.evaluation.measure import measure
from r1lab.rewards import language, parse
from r1lab.stages import rl_stages
from r1lab.run import Run
from r1lab.stages.samples import FILTERS, make_data, select
from r1lab.stages.sft_stages import Rejection
from r1lab.task import Problem
from r1lab.training.sft import SFTConfig
from r1lab.world import FAMILIES, find_attempts, sample_problem
from r1lab.world.corpus import written_examples
from r1lab.world.person import is_safe
from r1lab.world.bases import build_tokenizer
from wordings import ask_in, in_french

SIGNS = Problem(
    "a", "signs", 2, "en", "make 13 from 9,5,1", "9+5-1",
    meta={"numbers": [9, 5, 1], "target": 13},
)  # fmt: skip
GOOD = "<think> 9+5=14+1=15:13 no wait 9+5=14-1=13:13 ok </think> <answer> 9+5-1=13 </answer>"
PROGRAM = sample_problem(random.Random(0), "programs", 1, "en")


def row(problem: Problem = SIGNS, completion: str = GOOD, failed: tuple = ()) -> dict:
    return {**asdict(problem), "completion": completion, "tokens": 50, "failed": list(failed)}


@pytest.mark.parametrize(("completion", "finish", "failed"), [
    (GOOD, "stop", []),
    (GOOD, "length", ["not truncated"]),
    (GOOD.replace("<think>", ""), "stop", ["format"]),
    (GOOD.replace("9+5-1=13 <", "9-5-1 <"), "stop", ["correct"]),
    (GOOD.replace("wait", "等"), "stop", ["one language"]),
    (GOOD.replace("14+1=15", "14-1=13"), "stop", ["no repetition"]),
])  # fmt: skip
def test_each_filter_takes_its_fault_and_nothing_else(completion, finish, failed):
    [measures] = measure([SIGNS], [completion], attempts=find_attempts)
    found = {**row(completion=completion), **measures, "truncated": finish == "length"}
    assert [name for name in FILTERS if not FILTERS[name](found)] == failed


def test_programs_are_graded_by_running_them():
    right = f"<think> x </think> <answer> {PROGRAM.solution} </answer>"
    wrong = right.replace("return x", "return 0+")
    cheat = right.replace(PROGRAM.solution, "def f (x):return 0")
    rows = measure([PROGRAM] * 3, [right, wrong, cheat])
    assert [FILTERS["correct"](one) for one in rows] == [True, False, False]


def test_few_different_samples_of_a_question_are_kept_and_everything_is_counted():
    other = replace(SIGNS, id="b")
    rows = [
        row(), row(), row(completion=GOOD + " "), row(completion=GOOD + "  "), row(other),
        row(other, failed=("format", "correct")), row(other, failed=("correct",)),
    ]  # fmt: skip
    config = replace(Rejection().sampling, per_question=2)
    kept, counts = select(config, rows)
    assert Counter(one["id"] for one in kept) == {"a": 2, "b": 1}
    table = {one["filter"]: (one["fails"], one["taken"]) for one in counts["filters"][:-1]}
    assert table["correct"] == (2, 1) and table["format"] == (1, 1)
    assert counts["filters"][-1] == {"filter": "few per question", "taken": 2}
    assert (counts["sampled"], counts["kept"], counts["tokens"]) == (7, 3, 350)
    assert counts["by_level"] == {"signs/2": {"sampled": 7, "kept": 3}}


def test_the_random_arm_learns_from_as_many_samples_of_any_kind():
    rows = [row(replace(SIGNS, id=str(i)), failed=("correct",) * (i % 2)) for i in range(100)]
    true, _ = select(Rejection().sampling, rows)
    control, counts = select(Rejection().with_sampling(select="random").sampling, rows)
    assert len(control) == len(true) == 50 and counts["select"] == "random"
    assert 10 < sum(bool(one["failed"]) for one in control) < 40


def test_a_sample_is_learned_without_a_token_that_begins_a_text(tmp_path):
    """Tokenizers like Llama's put one before each text that they read."""
    tokenizer, run = build_tokenizer(), Run(tmp_path / "run")
    begin = tokenizer.eos_token
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{begin} $A", special_tokens=[(begin, tokenizer.eos_token_id)]
    )
    assert tokenizer(GOOD).input_ids[0] == tokenizer.eos_token_id
    (run.folder / "samples").mkdir(parents=True)
    chunk = {"rows": [{**row(), "levels": 1}] * 4, "seconds": 1.0}
    (run.folder / "samples/chunk-0000.json").write_text(json.dumps(chunk))
    make_data(Rejection(), run, "somewhere", tokenizer, False)
    assert begin not in load_from_disk(run.folder / "data")[0]["completion"]


def test_a_quarter_is_written():
    kept = [(replace(SIGNS, id=str(i)), GOOD) for i in range(300)]
    examples = Rejection().examples(kept, random.Random(0))
    assert examples[:300] == kept and len(examples) == 400
    assert {problem.family for problem, _ in examples[300:]} == {"chat", "unsafe"}


def test_an_example_in_french_is_asked_and_thought_in_french():
    problem, text = in_french(SIGNS, GOOD)
    assert problem.prompt == "fais 13 avec 9,5,1" and parse(text).well_formed
    assert language([""], [text], lang=["fr"]) == [1.0]
    assert FAMILIES["signs"].check(parse(text).halves[1], problem.meta)


@pytest.mark.parametrize("family", ["signs", "countdown", "sums", "programs", "logic"])
def test_a_question_in_another_language_is_the_same_question(family):
    rng = random.Random(0)
    for level in FAMILIES[family].levels:
        problem = sample_problem(rng, family, level, "zh")
        french = ask_in(problem, "fr")
        assert french.prompt != problem.prompt and french.lang == "fr"
        assert ask_in(french, "zh") == problem


def test_written_examples_are_harmless_and_in_the_tokenizers_words():
    tokenizer = build_tokenizer()
    for problem, text in itertools.islice(written_examples(0), 200):
        assert parse(text).well_formed and is_safe(problem.prompt, text)
        assert tokenizer.unk_token_id not in tokenizer(text).input_ids


def test_without_a_sandbox_programs_are_left_out_and_named(monkeypatch):
    def refuse():
        raise InputError("libseccomp is missing")

    mixture = Rejection().sampling.mixture
    assert rl_stages.runnable(mixture) == mixture and rl_stages.cannot_run_programs() is None
    monkeypatch.setattr(rl_stages, "shared_sandbox", refuse)
    assert set(mixture) - set(rl_stages.runnable(mixture)) == {"programs/1", "programs/2"}
    assert rl_stages.cannot_run_programs() == "libseccomp is missing"


def test_the_stage_stores_its_data_with_their_counts(tmp_path, alone):
    stage = Rejection(source="data/zero", sft=SFTConfig(steps=1), processes=1).with_sampling(
        mixture={"signs/1": 1.0, "programs/1": 1.0}, chunks=1, questions=12, max_tokens=64
    )
    run = stage.run("dev3", tmp_path)
    rows = load_from_disk(run.folder / "data")
    provenance = json.loads((run.folder / "data" / "provenance.json").read_text())
    assert provenance["sampled"] == 48 and provenance["kept"] == len(
        [family for family in rows["family"] if family in ("signs", "programs")]
    )
    assert rows.column_names == ["id", "family", "level", "lang", "prompt", "completion"]
    assert {"signs", "programs", "chat"} <= set(rows["family"])
