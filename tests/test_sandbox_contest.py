"""Programs of contests in the sandbox: standard input to standard output, and methods."""

from contextlib import closing

import pytest

from r1lab.sandbox import Limits, Outcome, Sandbox
from r1lab.sandbox.pool import same_text


@pytest.fixture(scope="module")
def sandbox():
    with closing(Sandbox(1, contest=Limits(cpu_seconds=0.5))) as sandbox:
        yield sandbox


@pytest.mark.parametrize(
    "program",
    [
        "n = int(input())\nprint(sum(map(int, input().split())))\nprint('yes' if n > 2 else 'no')",
        "import sys\nn, *x = map(int, sys.stdin.read().split())\nprint(float(sum(x)))\nprint('yes' * (n > 2) or 'no')",
        "n, rest = open(0).read().split('\\n', 1)\nprint(reduce(add, map(int, rest.split())))\nprint(['no', 'yes'][int(n) > 2])",
    ],
)
def test_a_whole_program_reads_its_input_and_prints(sandbox, program):
    tests = [
        {"input": "3\n1 2 3\n", "output": "6\nyes\n", "entry": "stdin"},
        {"input": "2\n4 5\n", "output": "9\nno"},
    ]
    assert sandbox.submit(program, tests).result() == Outcome("ok")
    wrong = sandbox.submit(program, [tests[0], {"input": "2\n4 5\n", "output": "8\nno"}]).result()
    assert wrong.verdict == "wrong"


def test_a_program_that_opens_a_file_by_name_is_still_ended(sandbox):
    tests = [{"input": "1", "output": "1", "entry": "stdin"}]
    assert sandbox.submit("print(open('/etc/hostname').read())", tests).result().verdict == "forbidden"
    assert sandbox.submit("while True: pass", tests).result().verdict == "timeout"


def test_a_method_is_called_with_the_list_of_its_arguments(sandbox):
    program = "class Solution:\n    def add(self, x: List[int], n: int) -> int:\n        return sum(x) * n"
    tests = [{"input": [[1, 2], 3], "output": 9, "entry": "Solution.add"}, {"input": [[], 1], "output": 0}]
    assert sandbox.submit(program, tests).result() == Outcome("ok")
    assert sandbox.submit("class Solution: pass", tests).result().verdict == "error"


@pytest.mark.parametrize(("answer", "equal"), [
    ("1 2\nok", True), (" 1.0  2 \nok\n\n", True), ("1 3\nok", False), ("1 2 ok", False),
    ("1 2\nOK", False), ("1 2\nok\nok", False), ("1 sNaN\nok", False), (7, False), (None, False),
])  # fmt: skip
def test_printed_text_is_compared_line_by_line_and_numbers_by_value(answer, equal):
    assert same_text(answer, "1 2\nok\n") is equal
