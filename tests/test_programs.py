"""How a completion's program is found, what honest programs find in the sandbox, and how they are tested."""

import sys
import tomllib
from contextlib import closing
from pathlib import Path

import pytest

from r1lab.errors import InputError
from r1lab.rewards import code, program_of, rules
from r1lab.sandbox import Limits, Sandbox
from r1lab.sandbox.pool import same, same_text

# ------------------------------------------------------------------------------------- reading it

F = "def f(x):\n    return x + 1"
IN = F.replace("\n", "\n   ")  # in a list
PRINTS = "n = int(input())\nprint(n + 1)"
HELPED = "import math\n\ndef g(x):\n    return x\n\ndef f(x):\n    return g(x) + 1"
NESTED = 'def f(x):\n    """\n    ```\n    f(1)\n    ```\n    """\n    return "```" and x + 1'
CLASS = "class Solution:\n    def add(self, a, b):\n        return a + b"
OUTPUT = "\nOutput:\n```\n2\n```"
TAGS = (
    "python", "py", "Python", "Python3", "PYTHON", 'python title="x"', "", " python", "{.python}", "py3", "python:main.py",
)  # fmt: skip


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize("tag", TAGS)
def test_a_fence_may_have_any_tag(tag, lenient):
    block = f"```{tag}\n{F}\n```"
    for text in (
        f"So:\n{block}\nDone.", f"<answer>{block}</answer>", block + OUTPUT, f"~~~{tag}\n{F}\n~~~",
        f"`````{tag}\n{F}\n`````", block.replace("\n", "\r\n"), f"```{tag}\n{F}", f"1. It:\n   ```{tag}\n   {IN}\n   ```",
        f"1. ```{tag}\n   {IN}\n   ```\n2. Done", f"- It:\n\t```{tag}\n\t" + F.replace("\n", "\n\t") + "\n\t```",
    ):  # fmt: skip
        assert program_of(text, lenient).strip() == F, text


@pytest.mark.parametrize("lenient", [False, True])
@pytest.mark.parametrize(("text", "program", "more"), [
    (F + "\n```", F, {}), (F + "\n```\nThis adds one.", F, {}), (PRINTS + "\n```", PRINTS, {}),
    (F + "\n```\nDone.", F, {"prompt": "Q\n```python\n"}), ("\n" + F + "\n```", F, {"prompt": "Q\n```python"}),
    (F, F, {"prompt": "Q\n~~~py\n"}), ("    return x + 1\n```", F, {"prompt": "```python\ndef f(x):"}),
    (f"So:\n```python\n{F}\n```", F, {"prompt": "Finish:\n```python\ndef f(x):\n"}),
    (f"```python\n{F}\n```", F, {"prompt": "See:\n```\n2\n```"}), (f"```python\n{F}```", F, {}),
    (f"```python\n{F}``` and so on", F, {}), (f"```python\n{F}\n      ```", F, {}), (f"```python\n{F}\n``` Done.", F, {}),
    (f"```python\n{F}\n```\n```bash\npython f.py\n```", F, {}), (f"```\n{F}\n```\nUse:\n```\nf(1)\n```", F, {}),
    (f"```python\n{F}\n```\n```python\nprint(f(1))\n```", F, {}), (f"```py\n{F}\n```\n```pycon\n>>> f(1)\n```", F, {}),
    (f"```python\ndef f(x): return 0\n```\nNo:\n```python\n{F}\n```", F, {}), (f"```c\nint x;\n```\n```\n{F}\n```", F, {}),
    (f"```python\ndef f(x): return 0\n\nNo:\n```python\n{F}\n```", F, {}), (f"```python\n{NESTED}\n```", NESTED, {}),
    (f"Call ```f(1)``` of:\n```python\n{F}\n```\nSee ```f(1)```\nabove.", F, {}),
    (f"```python\n{PRINTS}\n```{OUTPUT}", PRINTS, {"tests": [{"entry": "stdin"}]}),
    (f"Input:\n```\n1\n```\n```\n{PRINTS}\n```{OUTPUT}", PRINTS, {"tests": [{"entry": "stdin"}]}),
    (f"```python\n{CLASS}\n```\n```python\nprint(Solution().add(1, 2))\n```", CLASS, {"tests": [{"entry": "Solution.add"}]}),
    (f"```python\n{F}\n```\n```python\ndef test():\n    assert f(1) == 2\n```", F, {"tests": ["assert f(1) == 2"]}),
    (f"<think>\n```python\n{F}\n```\nhmm, maybe", None, {}), (f"<think>\n{F}", None, {}),
    (f"<think>no</think>\n<think>```\n{F}\n```", None, {}), (f"<answer>{HELPED}</answer>", HELPED, {}),
    (f"<think>\n```python\ndef f(x): return 0\n```</think>\n```python\n{F}\n```", F, {}),
])  # fmt: skip
def test_the_program_is_the_block_that_answers(text, program, more, lenient):
    found = program_of(text, lenient, **more)
    lines = found and [line for line in found.strip().split("\n") if line or program == HELPED]
    assert lines == (program and program.split("\n"))


@pytest.mark.parametrize(("text", "program"), [
    (HELPED, HELPED), (f"Here it is:\n\n{HELPED}\n\nThis works.", HELPED), (PRINTS, PRINTS), (CLASS, CLASS),
    (f"{F}\n\ndef g(x):\n    return x", f"{F}\n\ndef g(x):\n    return x"), (f"Sure.\nimport re\n{CLASS}\n", f"import re\n{CLASS}"),
    (f"M = 7\n@cache\n{F}", f"M = 7\n@cache\n{F}"), ("so it is def f(x): return 2*x", "def f(x): return 2*x"),
    ("def f(x): return 3 no def f(x): return 2*x", "def f(x): return 2*x"), ("It is `def f(x): return x`.", "def f(x): return x"),
    ("def f(x): return 3*\ndef f(x): return 2*x", "def f(x): return 2*x"), ("So:\nf = lambda x: 2*x\nDone.", "f = lambda x: 2*x"),
])  # fmt: skip
def test_a_program_that_nothing_marks_keeps_its_helpers(text, program):
    assert program_of(text, lenient=True).strip() == program
    assert program_of(text) is None


# ------------------------------------------------------------------------------------- running it


@pytest.fixture(scope="module")
def sandbox():
    with closing(Sandbox(1, Limits(cpu_seconds=0.5), contest=Limits(cpu_seconds=1.0))) as sandbox:
        yield sandbox


HONEST = tomllib.loads(Path(__file__).with_name("programs.toml").read_text(encoding="utf-8"))["honest"]
LONG = {"program": "print(int(input()) + 1)", "input": "9" * 5000, "output": "1" + "0" * 5000}


@pytest.mark.parametrize("case", [*HONEST, LONG])
def test_an_honest_program_passes(sandbox, case):
    outcome = sandbox.submit(case["program"], [{**case, "entry": "stdin"}]).result()
    if "lru_cache" in case["program"] and sys.version_info[:2] in ((3, 12), (3, 13)):
        assert outcome.verdict == "error" and "RecursionError" in outcome.detail, "C functions nest 10,000 deep"
    else:
        assert outcome.verdict == "ok", outcome


def test_each_run_of_a_whole_program_counts(sandbox):
    tests = [{"input": "3\n1 2\n", "output": "3\n", "entry": "stdin"}, {"input": "2\n4 5\n", "output": "9"}]
    program = "n = int(input())\nprint(sum(map(int, input().split())))"
    files = "print(open('/etc/hostname').read())"
    wrong = [tests[0], {**tests[1], "output": "8"}]
    runs = [(program, tests), (program, wrong), (files, tests), ("while True: pass", tests)]
    verdicts = [sandbox.submit(*run).result().verdict for run in runs]
    assert verdicts == ["ok", "wrong", "forbidden", "timeout"]


@pytest.mark.parametrize("module", (
    "threading", "subprocess", "socketserver", "multiprocessing", "asyncio", "concurrent.futures", "tempfile", "sqlite3",
    "mmap", "_posixsubprocess", "ssl", "importlib.metadata",
))  # fmt: skip
def test_what_no_program_gets_is_named(sandbox, module):
    for program in (f"import {module}", f"import importlib\nimportlib.import_module('{module}').x"):
        outcome = sandbox.submit(program, [{"input": "", "output": "", "entry": "stdin"}]).result()
        assert outcome.verdict == "forbidden"
        assert "threads" in outcome.detail
    fallback = f"try:\n    import {module}\nexcept ImportError:\n    pass\nf = abs"
    assert sandbox.submit(fallback, [{"input": 1, "output": 1}]).result().verdict in ("ok", "forbidden")


# ------------------------------------------------------------------------------------- judging it


@pytest.mark.parametrize(("printed", "expected", "equal"), [
    ("0.3333333333333333", "0.333333", True), ("0.3334", "0.333333", False), ("2", "2.0", True), ("2.0", "2", True),
    ("2.0000001", "2", False), ("3", "2.0", False), ("inf", "inf", True), ("1e308", "inf", False), ("-inf", "inf", False),
    ("nan", "nan", True), ("1.0", "nan", False), ("nan", "1.0", False), ("1e-7", "0.0", True), ("1000000.5", "1000000.0", True),
    ("Case #1: 0.33333333", "Case #1: 0.333333", True), ("Case #2: 0.33333333", "Case #1: 0.333333", False),
    ("[0.1, 0.30000000000000004]", "[0.1, 0.3]", True), ("[1.0, 2]", "[1, 2]", False), ("x 2", "x 2.0", False),
    ("a  b", "a b", False), ("1  2", "1 2", True), ("1.0 0.33333333", "1 0.333333", True), ("0.5 0.5", "0.5", False),
    ("YES 0010", "YES 10", False), ("0010", "10", True), ("1.2.3", "1.2.30", False), ("abc", "1.0", False), ("1.5", "", False),
    ("1 2\nOK", "1 2\nok", False), ("1 2", "1 2\n\n", False), (" 1.0  2 ", "1 2", True), ("1 sNaN", "1 2", False),
    ("1.0 inf", "1 inf", True), ("9" * 5000, "9" * 5000, True), ("9" * 5000, "9" * 4999 + "8", False),
])  # fmt: skip
def test_printed_floats_are_near_and_all_else_is_exact(printed, expected, equal):
    assert same_text(f"{printed}\nok", f"{expected}\nok") is equal
    assert not same_text(None, expected)
    assert same(0.1 + 0.2 - 0.3, 0.0)
    assert not same(0.333333, 1 / 3)


METHOD = "class S:\n    def add(self, x: List[int], n: int) -> int:\n        return sum(x) * n"
ADD = "def add(a, b=1, *more):\n    return a + b"


@pytest.mark.parametrize(("program", "tests", "verdict"), [
    (ADD, ["assert add(2, 3) == 5", "assert add([1], b=[2]) == [1, 2]\nassert add(1) == 2"], "ok"),
    (ADD, ["assert add(2, 3) == 6"], "wrong"), (ADD, ["assert add(2) is None"], "wrong"), ("", ["assert add(2) == 3"], "error"),
    (ADD, [{"arguments": [2, 3], "output": 5, "entry": "add"}, {"arguments": ["a", "b"], "output": "ab"}], "ok"),
    (ADD, [{"arguments": [2, 3], "output": 6, "entry": "add"}], "wrong"), ("f = sorted", ["assert f((2, 1)) == [1, 2]"], "ok"),
    ("f = lambda x: (x, -x)", ["assert f(1) == (1, -1)", "assert sum(f(2)) == 0"], "ok"), ("f = max", ["assert f(1, 2) == 2"], "ok"),
    ("class f:\n    def __init__(s, x): pass\n    def __eq__(s, o): return True", ["assert f(1) == 3"], "error"),
    (METHOD, [{"input": [[1, 2], 3], "output": 9, "entry": "S.add"}, {"input": [[], 1], "output": 0}], "ok"),
    ("class S: pass", [{"input": [1], "output": 0, "entry": "S.add"}], "error"), ("f = len", [{"input": [1, 2], "output": 2}], "ok"), ("def g(x): return x", [{"input": 7, "output": 7, "entry": "g"}], "ok"),
])  # fmt: skip
def test_tests_may_be_asserts_or_lists_of_arguments(sandbox, monkeypatch, program, tests, verdict):
    assert sandbox.submit(program, tests).result().verdict == verdict
    monkeypatch.setattr(rules, "shared_sandbox", lambda: sandbox)
    assert code(["Q"], [f"```python\n{program}\n```"], tests=[tests]) == [float(verdict == "ok")]


@pytest.mark.parametrize("text", ["assert f(1) < 3", "assert f(1) == g(2)", "f(1)", "assert f(1", "assert f(1) == {1}", ""])
def test_asserts_that_tell_the_program_or_nobody_what_is_expected_are_bad_input(sandbox, text):
    with pytest.raises(InputError, match="assert f\\(1, 2\\) == 3"):
        sandbox.submit("f = abs", [text])
