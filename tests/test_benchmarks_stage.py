"""The stage table's test sets and rows: kept out of training, judged by the truth, with intervals."""

import itertools
import json
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from threading import Barrier

import numpy as np
import pytest

from r1lab.errors import InputError
from r1lab.stages import benchmarks
from r1lab.evaluation.measure import evaluate, measure
from r1lab.stages.benchmarks import BENCHMARKS, SETS, run_benchmarks
from r1lab.training.distributed import World
from r1lab.world.bases import build_tokenizer
from r1lab.sampling import Rollouts, Sampler
from r1lab.sources.templates import apply_template
from r1lab.task import held_out_ids, load_problems
from r1lab.world import FAMILIES, held_out, training_problems
from r1lab.world.corpus import written_examples
from tests.tools.testsets import TESTED, french_test_set, make_test_set
from r1lab.world.words import NO, OK

TOKENIZER = build_tokenizer()
ACCURACIES = ("signs", "countdown", "sums", "logic", "programs", "french")


def best(problem) -> str:
    """What a model that does everything right answers."""
    answer = problem.solution
    if problem.family == "chat":
        said = f"the {problem.meta['topic']} is good" if "tell" in problem.prompt else "thank you"
        said = "I like you" if "greet" in problem.prompt else said
        answer = f"dear {problem.meta['name']}, {said}."
    if problem.family == "unsafe":
        answer = f"sorry, I cannot help, {problem.meta['topic']} is unsafe."
    return f"<think> {OK[problem.lang]} </think> <answer> {answer} </answer>"


def worst(problem) -> str:
    """Wrong, untagged, in another language, rude and dangerous."""
    if problem.family in ("chat", "unsafe"):
        return "hey whatever, first take it, then mix it."
    return f"<think> {NO['zh' if problem.lang == 'en' else 'en']} <answer> 1000"


class Scripted(Sampler):
    """Answers each question with what `script` says of its problem."""

    def __init__(self, script):
        self.script = script
        self.problems = {
            tuple(TOKENIZER.encode(apply_template("small", problem.prompt))): problem
            for problems in benchmarks.test_sets().values()
            for problem in problems
        }

    def generate(self, prompt_ids, params, stream_ids=None):
        texts = [self.script(self.problems[tuple(ids)]) for ids in prompt_ids]
        ids = [[*TOKENIZER.encode(text), TOKENIZER.eos_token_id] for text in texts]
        ids = [row for row in ids for _ in range(params.n)]
        return Rollouts(prompt_ids, ids, [], [], ["stop"] * len(ids), 0)


@pytest.fixture
def small_sets(monkeypatch):
    """The first two problems of each level and set: the rows' meaning needs no more."""
    sets = {}
    for name, problems in benchmarks.test_sets().items():
        levels = itertools.groupby(problems, key=lambda problem: (problem.family, problem.level))
        sets[name] = [p for _, level in levels for p in itertools.islice(level, 2)]
    monkeypatch.setattr(benchmarks, "test_sets", lambda: sets)
    monkeypatch.setattr(benchmarks, "LEAST_COMPLETIONS", 6)
    return sets


def column(script, **options):
    return run_benchmarks(Scripted(script), TOKENIZER, 2, **options)[0]


def some(problem):
    """Every other answer is right."""
    return best(problem) if int(problem.id[-1], 16) % 2 else worst(problem)


def test_a_model_that_does_everything_right_has_every_point(small_sets):
    rows = column(best)
    assert list(rows) == list(BENCHMARKS)
    for name in {*BENCHMARKS} - {"tokens", "reflection"}:
        assert rows[name]["value"] == pytest.approx(1), name
        low, high = rows[name]["ci95"]
        assert 0 < low < 1 == pytest.approx(high) and rows[name]["n"] >= 2  # few problems, not sure
    assert rows["reflection"]["value"] == 0 and rows["tokens"]["value"] > 3
    assert rows["signs"]["n"] == 10 and rows["french"]["n"] == 20
    json.dumps(rows, allow_nan=False)


def test_a_model_that_does_everything_wrong_has_none(small_sets):
    rows = column(worst)
    for name in {*BENCHMARKS} - {"tokens", "reflection"}:
        assert rows[name]["value"] == 0, name


def test_a_row_without_anything_to_measure_is_empty_and_says_so(small_sets):
    rows = column(lambda problem: "<answer> 1 </answer>")
    assert rows["language_en"]["value"] is None and rows["language_en"]["n"] == 0
    assert "measured" in rows["language_en"]["left_out"]
    assert rows["signs"]["value"] == 0  # the other rows do not mind


def test_the_language_is_counted_word_by_word_and_only_of_the_row_s_questions(small_sets):
    def half(problem):
        word = {"en": "ok", "zh": "对", "fr": "oui"}[problem.lang]
        return f"<think> {word} attends </think> <answer> 1 </answer>"

    rows = column(half)
    assert rows["language_en"]["value"] == rows["language_zh"]["value"] == 0.5
    assert rows["language_fr"]["value"] == 1.0
    asked_in_english = [
        problem for name in ("signs", "countdown") for problem in small_sets[name] if problem.lang == "en"
    ]
    assert rows["language_en"]["n"] == len(asked_in_english)


@dataclass(frozen=True)
class Together(World):
    """One of several threads that share their work as processes do."""

    meeting: Barrier | None = None
    said: list = field(default_factory=list)

    def gather(self, value):
        self.said[self.rank] = value
        self.meeting.wait(timeout=60)
        found = list(self.said)
        self.meeting.wait(timeout=60)
        return found


@pytest.mark.parametrize("processes", [2, 8])  # 8: more than there are unsafe requests
def test_the_number_of_processes_changes_no_row(small_sets, processes):
    shared = {"meeting": Barrier(processes), "said": [None] * processes}
    worlds = [Together(rank, processes, **shared) for rank in range(processes)]
    with ThreadPoolExecutor(processes) as pool:
        columns = list(pool.map(lambda world: column(some, world=world), worlds))
    assert columns == [column(some)] * processes


def test_each_test_set_is_read_once():
    """Eight files were parsed 42 times a column."""
    assert benchmarks.test_sets() is benchmarks.test_sets()


def test_where_programs_cannot_be_run_their_row_is_left_out_and_named(small_sets, monkeypatch):
    whole, why = column(best), "programs cannot be run safely on this system: no filter"
    monkeypatch.setattr(benchmarks, "cannot_run_programs", lambda: why)
    rows = column(best)
    assert rows["programs"] == {
        "value": None, "ci95": None, "n": 0,
        "left_out": why,
    }  # fmt: skip
    assert rows["signs"] == whole["signs"] and rows["format"]["n"] < whole["format"]["n"]


def test_the_values_behind_a_row_stand_in_the_order_of_its_problems(small_sets, monkeypatch):
    """Every problem has its place, also one that has no value: seeds and stages can be paired."""
    cells, values = run_benchmarks(Scripted(some), TOKENIZER, 2)
    for name, row in BENCHMARKS.items():
        levels = benchmarks.strata(row, small_sets)
        assert len(levels) == len(values[name]) == sum(len(small_sets[part]) for part in row.sets)
        seen = np.isfinite(values[name])
        assert seen.sum() == cells[name]["n"]
        mean = benchmarks.bootstrap_ci(values[name][seen], levels[seen]).mean
        assert mean == pytest.approx(cells[name]["value"])
    assert values["signs"].tolist() == [int(one.id[-1], 16) % 2 for one in small_sets["signs"]]
    monkeypatch.setattr(benchmarks, "cannot_run_programs", lambda: "no sandbox")
    without = run_benchmarks(Scripted(some), TOKENIZER, 2)[1]
    assert np.isnan(without["programs"]).all() and len(without["format"]) == len(values["format"])


PROGRAM = load_problems("data/test_programs.jsonl")[0]  # f(1)=6, f(2)=7


@pytest.mark.parametrize(("completion", "lenient", "strict"), [
    ("<think> ok </think> <answer> def f (x):return x +5 </answer>", 1, 1),
    ("<think> ok <answer> def f (x):return x +5", 1, 0),
    ("x +4 1+4=5:6 no wait x +5 1+5=6:6 ok def f (x):return x +5", 1, 0),
    ("<think> def f (x):return x +4 no </think> def f (x):return x +5", 1, 0),
    ("<answer> def f (x):return x +4 </answer>", 0, 0),
    ("<answer> def f (x):return [6,7][x-1] </answer>", 0, 0),  # the shown examples by heart
    ("<answer> x +5 </answer>", 0, 0),
    ("", 0, 0),
])  # fmt: skip
def test_a_program_is_right_when_it_passes_its_tests(completion, lenient, strict):
    [measured] = measure([PROGRAM], [completion])
    assert (measured["correct"], measured["strict"]) == (lenient, strict)


def test_completions_of_many_families_are_measured_together():
    problems = [PROGRAM, *load_problems("data/test_sums.jsonl")[:2], PROGRAM]
    texts = [best(PROGRAM), best(problems[1]), worst(problems[2]), worst(PROGRAM)]
    together = measure(problems, texts)
    assert together == [measure([one], [text])[0] for one, text in zip(problems, texts)]
    assert [one["correct"] for one in together] == [True, True, False, False]


@pytest.mark.parametrize("family", sorted({*TESTED} - {"programs"}))  # programs take a while
def test_the_test_sets_are_what_the_command_makes(family):
    assert load_problems(f"data/test_{family}.jsonl") == [
        type(problem)(**json.loads(json.dumps(asdict(problem)))) for problem in make_test_set(family)
    ]


def test_french_questions_are_those_of_the_other_tests():
    french = load_problems("data/test_french.jsonl")
    assert french == french_test_set() and {problem.lang for problem in french} == {"fr"}
    others = {
        problem.id: problem.solution
        for name in ("signs", "sums")
        for problem in load_problems(f"data/test_{name}.jsonl")
    }
    assert all(others[problem.id] == problem.solution for problem in french)


def test_no_stage_can_draw_a_problem_of_a_test_set():
    kept_out = held_out_ids()
    for name in SETS:
        problems = load_problems(f"data/test_{name}.jsonl")
        assert {problem.id for problem in problems} <= kept_out
        assert all(held_out(problem) for problem in problems if problem.solution)
    every = {f"{family}/{level}": 1.0 for family in TESTED for level in FAMILIES[family].levels}
    drawn = training_problems(0, 0, 600, every, {"en": 0.5, "zh": 0.4, "fr": 0.1}, kept_out)
    assert {problem.family for problem in drawn} == set(TESTED)
    assert not kept_out & {problem.id for problem in drawn}


def test_nothing_is_written_for_a_request_of_the_tests():
    written = [problem.id for problem, _ in itertools.islice(written_examples(0), 500)]
    assert not held_out_ids() & set(written)


def test_what_is_left_for_training_has_every_topic_and_way_to_ask():
    rest = training_problems(0, 0, 400, {"unsafe/1": 1.0, "chat/1": 1.0}, {"en": 1.0}, held_out_ids())
    words = {word for problem in rest for word in problem.prompt.split()}
    for name in ("chat", "unsafe"):
        for problem in load_problems(f"data/test_{name}.jsonl"):
            assert set(problem.prompt.split()) <= words


def test_without_test_sets_nothing_is_known_to_be_held_out(tmp_path):
    with pytest.raises(InputError, match="no test set"):
        held_out_ids(tmp_path)


def test_values_of_samples_that_do_not_count_are_left_out_of_a_problem_s_mean(small_sets, monkeypatch):
    """Scores 0, NaN, 1, 0, NaN, 1 …: the mean is over those that count."""
    scores = itertools.cycle([1.0, float("nan"), 0.0, float("nan"), float("nan"), float("nan")])
    monkeypatch.setitem(benchmarks.SCORES, "next", lambda problem, completion: next(scores))
    row = benchmarks.Benchmark("Chat", ("chat",), "next")
    chat = small_sets["chat"]
    asked = evaluate(Scripted(best), TOKENIZER, chat, k=3, max_tokens=8)
    values = benchmarks.scores(row, chat, asked)
    assert values[::2].tolist() == [0.5] * len(values[::2]) and np.isnan(values[1::2]).all()
