"""The doors for other people's data: each shape that rows come in, each mistake in one sentence."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import datasets
import pytest

import r1lab
from r1lab import Task
from r1lab.errors import InputError
from r1lab.rewards import RewardSet, validate
from r1lab.sources import hub, load_object, load_task
from r1lab.task import columns_of, load_problems, normalized
from r1lab.training import processes
from tests.hub_rows import put

ROWS = [{"question": f"what is {n}+{n}?", "answer": 2 * n, "hint": f"h{n}"} for n in range(12)]
MY_TASK = "notebooks/my_task.py"


def one_of(prompts, completions, hint, answer, **columns):
    return [float(str(right) in text) for text, right in zip(completions, answer, strict=True)]


def turn(role: str, content: object) -> dict:
    return {"role": role, "content": str(content)}


SHAPES = {
    "list": ROWS,
    "Dataset": datasets.Dataset.from_list(ROWS),
    "DatasetDict": datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}),
    "prompt and solution": [
        {"prompt": row["question"], "solution": str(row["answer"]), "hint": "x"} for row in ROWS
    ],
    "messages": [
        {"messages": [turn("user", row["question"]), turn("assistant", row["answer"])]} for row in ROWS
    ],
    "roles": [{"prompt": [turn("user", row["question"])], "answer": float(row["answer"])} for row in ROWS],
}


@pytest.mark.parametrize("data", SHAPES.values(), ids=SHAPES)
def test_rows_of_every_shape_are_the_same_task(data):
    task = Task.from_dataset(data, test=4, rewards={"one": one_of})
    every = [*task.problems, *task.test]
    assert {p.prompt: p.solution for p in every} == {r["question"]: str(r["answer"]) for r in ROWS}
    assert len(task.test) == 4 and len({problem.id for problem in every}) == 12
    again = Task.from_dataset(data, test=4, rewards={"one": one_of})
    assert again.fingerprint() == task.fingerprint()


def test_all_columns_reach_the_rewards():
    task = Task.from_dataset(ROWS, test=4, rewards={"one": one_of})
    [problem] = task.draw(0, 0, 1)
    columns = columns_of([problem])
    assert columns["hint"][0].startswith("h") and isinstance(columns["answer"][0], int)
    assert task.rewards["one"]([""], [f"it is {columns['answer'][0]}"], **columns) == [1.0]


def test_a_split_named_test_is_the_test_and_rows_may_be_given_for_it():
    train, held = datasets.Dataset.from_list(ROWS[:9]), datasets.Dataset.from_list(ROWS[9:])
    split = Task.from_dataset(datasets.DatasetDict(train=train, test=held))
    given = Task.from_dataset(train, test=held)
    assert split.test == given.test and len(split.test) == 3 and len(split.problems) == 9


def test_a_question_of_the_test_is_never_asked_in_any_spelling():
    twins = [{"question": f" What  is {n}+{n}?", "answer": 2 * n, "id": n} for n in range(4)]
    task = Task.from_dataset([*ROWS, *twins], test=ROWS[:4])
    tested = {normalized(problem) for problem in task.test}
    asked = [problem for rollout in range(8) for problem in task.draw(0, rollout, 4)]
    assert not tested & {normalized(problem) for problem in asked}
    assert len({problem.id for problem in asked}) == 8
    cut = Task.from_dataset([*ROWS, *twins], test=6)  # twins are one question
    assert len(cut.problems) + len(cut.test) == 12


def test_levels_tests_and_languages_come_from_columns():
    row = {"prompt": "f?", "solution": None, "level": "Level 3", "lang": "zh", "tests": [{"input": 1}]}
    task = Task.from_dataset([row, {**row, "prompt": "g?"}], test=1, level="level")
    [problem] = task.problems
    assert (problem.level, problem.lang, problem.solution) == (3, "zh", "")
    assert problem.tests == [{"input": 1}]


@pytest.mark.parametrize(("change", "words"), [
    ({"prompt": "text"}, "no column 'text'; the columns are question, answer, hint"),
    ({"solution": "gold"}, "no column 'gold'; .* is the solution"),
    ({"test": 12}, "12 different questions, so test=12 .* a number from 1 to 11"),
    ({"test": 0}, "test=0"),
    ({"level": "hint2"}, "row 1: cannot be read .*'hint2'"),
    ({"data": {"validation": ROWS}}, "no split 'train' among validation"),
    ({"data": [*ROWS, {"question": " ", "answer": 1}]}, "row 13: .*the question is empty"),
    ({"data": [*ROWS, {"answer": 1}]}, "row 13: cannot be read"),
    ({"data": [{"messages": [turn("assistant", "a")] * 3, "answer": 1}]}, "row 1: .*several turns"),
])  # fmt: skip
def test_each_mistake_in_the_data_is_one_sentence(change, words):
    options = {"data": ROWS, "test": 4, **change}
    with pytest.raises(InputError, match=words) as told:
        Task.from_dataset(**options)
    assert "\n" not in str(told.value)


def test_a_file_may_end_in_a_blank_line_and_start_with_a_mark(tmp_path):
    path = tmp_path / "mine.jsonl"
    lines = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    path.write_text("\ufeff" + "\n".join(lines) + "\n\n", encoding="utf-8")
    task = Task.from_jsonl(path, test=4)
    assert task.name == "mine" and len(task.problems) == 8
    assert list(task.rewards) == ["accuracy", "format"]
    tested = Task.from_jsonl(path, test=path)
    assert len(tested.test) == 12


def test_a_file_of_the_small_world_keeps_its_problems():
    stored, task = load_problems("data/test_signs.jsonl"), Task.from_jsonl("data/test_signs.jsonl", test=16)
    assert sorted([*task.problems, *task.test], key=repr) == sorted(stored, key=repr)


@pytest.mark.parametrize(
    ("text", "words"),
    [("", "empty"), ("[1]\n", "line 1: .*of type list"), ('{"a": 1}\n{oops\n', "line 2: cannot be read")],
)
def test_a_broken_file_is_named_with_its_line(tmp_path, text, words):
    path = tmp_path / "mine.jsonl"
    path.write_text(text)
    with pytest.raises(InputError, match=words):
        Task.from_jsonl(path)
    with pytest.raises(InputError, match="no such file"):
        Task.from_jsonl(tmp_path / "none.jsonl")


def test_the_gym_judges_its_own_answers():
    task = Task.from_gym("leg_counting", test=8, min_animals=2, max_animals=3)
    assert task.check("<answer> many legs </answer>", task.test[0]) == 0
    asked = task.draw(1, 2, 8)
    assert asked == task.draw(1, 2, 8) != task.draw(1, 3, 8)
    assert not {normalized(p) for p in asked} & {normalized(p) for p in task.test}
    for problem in asked:
        said = f"<think> so </think> <answer> {problem.solution} </answer>"
        assert task.check(said, problem) == 1 and task.check("<answer> -7 </answer>", problem) == 0
        reward = pickle.loads(pickle.dumps(task.rewards["accuracy"][0]))
        columns = columns_of([problem] * 2)
        assert reward(prompts=["", ""], completions=[said, "no"], **columns) == [1.0, 0.0]


@pytest.mark.parametrize(("name", "levels"), [
    ("chain_sum", {1, 2, 3, 4, 5}), ("spell_backward", {2, 3, 4, 5}), ("bitwise_arithmetic", {2}),
    ("coin_flip", {1, 2, 3, 4, 5}), ("products", {1}), ("gsm_symbolic", {1}), ("syllogism", {1}),
    ("acre", {1}), ("word_ladder", {1}), ("propositional_logic", {1, 2, 3, 4}), ("graph_color", {1}), ("power_function", {1, 3, 4, 5}),
])  # fmt: skip
def test_a_set_of_the_gym_has_levels_and_takes_its_own_answers(name, levels):
    task = Task.from_gym(name, test=12)
    asked = [*task.draw(0, 0, 12), *task.test]
    assert {problem.level for problem in asked} == levels
    validate(RewardSet(task.rewards), asked, task.check)
    assert not {normalized(p) for p in task.draw(0, 0, 12)} & {normalized(p) for p in task.test}
    assert all(task.check("<answer> no answer </answer>", problem) < 1 for problem in asked)


@pytest.mark.parametrize(("name", "options", "words"), [
    ("game_of_life_halting", {}, "scorer of game_of_life_halting takes any text for right"),
    ("composite", {}, "does not make 'composite' of .*at least one dataset"),
    ("leg_countin", {}, "no data set 'leg_countin'; the nearest of its .* leg_counting,"),
    ("chain_sum", {"min_terms": 0}, "does not make 'chain_sum' of .*must be positive"),
    ("chain_sum", {"size": 64}, "chain_sum has 64 items, so test=64 of them cannot"),
    ("chain_sum", {"terms": 2}, "unexpected keyword argument 'terms'"),
])  # fmt: skip
def test_what_the_gym_does_not_have_is_refused(name, options, words):
    with pytest.raises(InputError, match=words):
        Task.from_gym(name, **options)


def test_sets_of_the_hub_are_read_by_their_schema_or_by_their_columns(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "LOCAL", tmp_path / "hub")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    put("gsm8k", tmp_path / "hub")
    named = Task.from_hub("gsm8k:test", test="openai/gsm8k:test")
    assert [problem.solution for problem in named.test] == ["1234", "35"]
    assert named.problems == named.test and named.test[0].family == "gsm8k"
    own = tmp_path / "hub/somebody/sums"
    own.mkdir(parents=True)
    (own / "train.jsonl").write_text("\n".join(json.dumps(row) for row in ROWS))
    other = Task.from_hub("somebody/sums", test=4)
    assert len(other.problems) == 8 and other.problems[0].solution.isdigit()
    with pytest.raises(InputError, match="somebody/nothing cannot be had .*nothing/train.jsonl"):
        Task.from_hub("somebody/nothing")


def test_the_example_is_a_task_of_at_most_40_lines():
    assert len(Path(MY_TASK).read_text().splitlines()) <= 40
    task = load_task(f"{MY_TASK}:task", template="r1_zero", rewards=[f"{MY_TASK}:nearness"])
    assert task.template == "r1_zero" and list(task.rewards) == ["nearness"]
    assert task.settings["task"] == f"{MY_TASK}:task"
    problem = task.test[0]
    assert task.check(f"so {problem.solution}", problem) and not task.check("none", problem)
    near = task.rewards["nearness"](completions=["8", "9", "x"], answer=[8, 8, 8])
    assert near == [1.0, 0.5, 0.0]


USUAL_THINGS = """
import dataclasses, enum, functools, re
class Kind(enum.Enum):
    A = 4
@dataclasses.dataclass(frozen=True)
class Reward:
    right: str
    def __call__(self, completions, **columns):
        return [float(completion == self.right) for completion in completions]
@functools.cache
def gold(n):
    return str(Kind.A.value) if n == 0 else gold(n - 1)
@functools.lru_cache(maxsize=2)
def digits(text, pattern=re.compile("[0-9]+")):
    return pattern.findall(text)
def check(completion, problem):
    return gold(3) in digits(completion) and completion == "5"
task = dataclasses.replace(task, check=check, rewards={"right": Reward(gold(2))})
"""


@pytest.mark.parametrize("more", ["", USUAL_THINGS], ids=["the example", "usual things of Python"])
def test_a_task_of_a_file_reaches_a_process_that_never_saw_the_file(more, tmp_path):
    (tmp_path / "mine.py").write_text(Path(MY_TASK).read_text() + more)
    task = load_task(f"{tmp_path}/mine.py:task")
    (tmp_path / "task.bin").write_bytes(processes._packed(task))
    (tmp_path / "mine.py").unlink()
    code = (
        "import pickle, sys; [task] = pickle.load(open(sys.argv[1], 'rb')); "
        "print(task.check('4', task.test[0]), len(task.draw(0, 0, 4)))"
    )
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "task.bin"], capture_output=True, text=True)
    assert done.stdout == "False 4\n", done.stderr


@pytest.mark.parametrize(("source", "words"), [
    ("nothing.py:task", "nothing.py: no such file"),
    ("broken.py:task", r"broken.py does not import \(ZeroDivisionError: division by zero\)"),
    ("leaving.py:task", r"leaving.py does not import \(SystemExit: 3\)"),
    ("good.py:tusk", "has no 'tusk'; it has one, two"),
    ("good.py:one", "good.py:one is of type int; it must be a Task"),
    ("signs2", "'signs2' names no task; .* gym:NAME, hub:NAME or a .jsonl file"),
])  # fmt: skip
def test_what_cannot_be_loaded_is_one_sentence(source, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("broken.py").write_text("1/0")
    Path("leaving.py").write_text("raise SystemExit(3)")
    Path("good.py").write_text("one, two = 1, 2")
    with pytest.raises(InputError, match=words) as told:
        load_task(source)
    assert "\n" not in str(told.value)


def test_other_problems_and_rewards_can_be_added_to_a_task(tmp_path):
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in ROWS))
    for source in (f"{MY_TASK}:task", str(path)):
        assert len(load_task(source, test=str(path)).test) == 12
    with pytest.raises(InputError, match="gym:leg_counting has test problems that its scorer knows"):
        load_task("gym:leg_counting", test=str(path))
    assert load_task("gym:leg_counting").settings["task"] == "gym:leg_counting"
    assert load_object(f"{MY_TASK}:rows", "reward")[0] == {"question": "compute 10+10-1", "answer": 19}


def test_the_package_names_its_nouns():
    assert r1lab.Task is Task and r1lab.Problem is type(load_problems("data/test_signs.jsonl")[0])
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        r1lab.nothing
