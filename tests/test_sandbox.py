"""The sandbox runs good programs, and every cheat fails; without isolation it runs nothing."""

import json
import os
import platform
import re
import signal
import subprocess
import sys
import time
import tomllib
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1lab.errors import InputError
from r1lab.rewards import accuracy, code, program_of, rules, validate
from r1lab.sandbox import Limits, Sandbox, pool, zygote
from r1lab.sandbox.pool import judge, same
from r1lab.world import sample_problem
from tests.small_run import reward_set

SECRET = 918273645  # an output that no program below can compute
REVERSED = str(SECRET)[::-1]


@pytest.fixture(scope="module")
def sandbox():
    with closing(Sandbox(1, Limits(cpu_seconds=0.2, wall_seconds=10.0))) as sandbox:
        yield sandbox


def run(sandbox, program, value=3, output=SECRET):
    return sandbox.submit(program, [{"input": value, "output": output}]).result()


# ------------------------------------------------------------------- programs that should pass


@pytest.mark.parametrize(("program", "output"), [
    ("def f(x): return 2 * x + 1", 7),
    ("f = lambda x: float(2 * x + 1)", 7),
    ("def f(x):\n    print('working on', x)\n    return 7", 7),
    ("def f(x): return (x, {'a': [None, x > 2]})", [3, {"a": [None, True]}]),
    ("import time\ndef f(x):\n    time.sleep(0.3)\n    return 7", 7),  # waits, computes little
    ("def f(x): return 7 if x is 3 else 8", 7),  # Python warns about this on stderr
    ("def f(x): return 0.1 + 0.2", 0.3), ("def f(x): return 0.1 + 0.2 - 0.3", 0.0),
    ("\n".join(f"import {name}" for name in zygote.MODULES) + "\nf = lambda x: 7", 7),
    ("import datetime\nf = lambda x: datetime.date.today().year > 2000", True),
    ("import random\nf = lambda x: random.Random().random() < 1", True),
    ("f = lambda x: hash('a string') % 1000", hash),
])  # fmt: skip
def test_a_right_program_passes(sandbox, program, output):
    if output is hash:  # text is hashed alike in every run, so that sets keep their order
        clean = [sys.executable, "-c", "print(hash('a string') % 1000)"]
        output = int(subprocess.check_output(clean, env={"PYTHONHASHSEED": "0"}))
    assert run(sandbox, program, output=output).verdict == "ok"


@pytest.mark.parametrize(("program", "verdict", "detail"), [
    ("def f(x): return 8", "wrong", "for 3 it gave 8 in place of 7"),
    ("def f(x): return True", "wrong", "True"), ("def f(x) return", "error", "SyntaxError"),
    ("def g(x): return 7", "error", "name 'f' is not defined"),
    ("def f(x): return 1 / 0", "error", "ZeroDivisionError"),
    ("f = lambda x: f(x)", "error", "RecursionError"),
    ("import numpy", "error", "No module named 'numpy'"),
    ("import ctypes\nctypes.string_at(0)", "error", "Segmentation fault"),
    ("def f(x): return {1, 2}", "error", "not JSON serializable"),
    ("\ud800", "error", "surrogates"), ("", "error", "NameError"),
])  # fmt: skip
def test_a_faulty_program_is_told_what_it_did(sandbox, program, verdict, detail):
    outcome = run(sandbox, program, output=7)
    assert outcome.verdict == verdict
    assert detail in outcome.detail


def test_every_test_of_a_program_must_pass_and_outcomes_keep_their_order(sandbox):
    tests = [{"input": x, "output": 2 * x} for x in (1, 2, 3)]
    programs = ["def f(x): return 2 * x", "def f(x): return 2 * x if x < 3 else 0"] * 20
    futures = [sandbox.submit(program, tests) for program in programs]
    assert [future.result().verdict for future in futures] == ["ok", "wrong"] * 20


# -------------------------------------------------------------------------------------- cheats

PROGRAMS = tomllib.loads(Path(__file__).with_name("programs.toml").read_text(encoding="utf-8"))
CHEATS = {one["name"]: one for one in PROGRAMS["cheat"]}
SEARCH = CHEATS["looks for the tests in memory"]["program"].replace("{secret!r}", repr(REVERSED))


@pytest.mark.parametrize("name", CHEATS)
def test_a_cheat_fails(sandbox, name, tmp_path):
    if name.endswith("system call") and platform.machine() != "x86_64":
        pytest.skip("these calls exist on x86-64 only")
    file = tmp_path / "tests.py"
    file.write_text(str(SECRET))
    grader = sandbox.zygotes[0].process.pid
    program, verdict = CHEATS[name]["program"], CHEATS[name]["verdict"]
    found = {"file": str(file), "folder": str(tmp_path), "pid": grader, "secret": REVERSED}
    for key, value in found.items():
        program = program.replace(f"{{{key}!r}}", repr(value)).replace(f"{{{key}}}", str(value))
    outcome = run(sandbox, program)
    assert outcome.verdict == verdict, outcome
    assert [path.name for path in tmp_path.iterdir()] == ["tests.py"]
    assert sandbox.zygotes[0].process.pid == grader, "the clean process did not survive"
    assert Path(f"/proc/{grader}/task/{grader}/children").read_text() == "", "a child is left"


def test_the_search_of_memory_finds_what_is_there_but_no_other_program(sandbox):
    assert run(sandbox, SEARCH, value=SECRET).verdict == "ok"
    assert run(sandbox, SEARCH, value=3).verdict == "wrong"


def test_a_program_that_sleeps_forever_meets_the_wall_deadline():
    with closing(Sandbox(1, Limits(wall_seconds=0.3))) as sandbox:
        outcome = run(sandbox, "import time\ntime.sleep(10 ** 6)")
    assert outcome.verdict == "timeout"
    assert "deadline" in outcome.detail


def test_a_program_finds_no_environment_and_no_open_files(sandbox, monkeypatch):
    monkeypatch.setenv("R1LAB_TOKEN", "secret")
    with closing(Sandbox(1)) as fresh:
        leaks = "import os\nf = lambda x: [k for k in os.environ if k[:2] not in ('PY', 'LC')]"
        assert run(fresh, leaks, output=[]).verdict == "ok"
    opened = """
import os
def f(x):
    found = []
    for fd in range(5000):
        try:
            os.write(fd, b'')
            found.append(fd)
        except OSError: pass
    return found"""
    assert run(sandbox, opened, output=[0, 1, 2, 3]).verdict == "ok"


# ------------------------------------------------------------------------------------ the pool


def test_it_works_off_the_main_thread():
    with ThreadPoolExecutor(1) as thread, closing(thread.submit(Sandbox, 1).result()) as sandbox:
        assert thread.submit(run, sandbox, "f = lambda x: 7", output=7).result().verdict == "ok"


def test_grading_goes_on_while_the_caller_does_other_work(sandbox):
    slow = "import time\ndef f(x):\n    time.sleep(0.5)\n    return 7"
    future = sandbox.submit(slow, [{"input": 0, "output": 7}])
    assert not future.done()
    assert future.result().verdict == "ok"


def test_a_clean_process_that_was_killed_is_replaced():
    with closing(Sandbox(1)) as sandbox:
        old = sandbox.zygotes[0].process
        os.kill(old.pid, signal.SIGKILL)
        old.wait()
        assert run(sandbox, "f = lambda x: 7", output=7).verdict == "ok"


def test_nothing_is_left_when_the_trainer_is_killed():
    source = (
        "import sys, time; from r1lab.sandbox import Sandbox; s = Sandbox(1)\n"
        "s.submit('import time\\ntime.sleep(100)', [{'input': 1, 'output': 1}])\n"
        "print(s.zygotes[0].process.pid, flush=True); sys.stdin.read()"
    )
    trainer = subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    clean = int(trainer.stdout.readline())
    trainer.kill()
    trainer.communicate()
    # it ends when its last program has met the deadline; killed, it takes that program with it
    children = Path(f"/proc/{clean}/task/{clean}/children")
    until = time.monotonic() + 5
    while children.exists() and not children.read_text() and time.monotonic() < until:
        time.sleep(0.01)
    running = children.read_text().split() if children.exists() else []
    with suppress(ProcessLookupError):  # it may have ended by itself
        os.kill(clean, signal.SIGKILL)
    while any(_alive(pid) for pid in (clean, *running)) and time.monotonic() < until:
        time.sleep(0.01)
    assert not any(_alive(pid) for pid in (clean, *running))


def _alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")
def test_root_is_given_up(sandbox):
    status = Path(f"/proc/{sandbox.zygotes[0].process.pid}/status").read_text()
    ids = {line.split()[0]: line.split()[1:] for line in status.splitlines() if line.split()[1:]}
    assert ids["Uid:"] == ids["Gid:"] == ["65534"] * 4
    assert int(ids["CapEff:"][0], 16) == int(ids["CapPrm:"][0], 16) == 0


# -------------------------------------------------------------- isolation that is not there


@pytest.mark.parametrize(("line", "instead", "missing"), [
    ("libseccomp.so.2", "libseccomp-absent.so", "libseccomp-absent.so"),
    ("library.seccomp_load(filters)", "0", "a ban on new processes, a ban on signals"),
    ("library.seccomp_load(filters)", "-38", "takes no filter of system calls"),
    ("(resource.RLIMIT_AS, ", "(resource.RLIMIT_AS, 1000 * ", "a limit on memory"),
    ("futex write", "futex write openat", "a ban on reading files, a ban on writing files"),
    ("futex write", "futex write socket", "a ban on the network"),
    ("futex write", "futex write kill", "a ban on signals"),
    ("futex write", "futex write clone clone3", "a ban on new processes"),
    ("os.setuid(NOBODY)", "os.setuid(-1)", "root cannot become an ordinary user"),
])  # fmt: skip
def test_where_isolation_is_missing_nothing_is_run(line, instead, missing, tmp_path, monkeypatch):
    if "setuid" in line and os.geteuid() != 0:
        pytest.skip("only root changes to another user")
    source = Path(pool.CLEAN_PROCESS).read_text()
    assert source.count(line) == 1
    script = tmp_path / "zygote.py"
    script.write_text(source.replace(line, instead))
    monkeypatch.setattr(pool, "CLEAN_PROCESS", str(script))
    with pytest.raises(InputError, match=missing) as refusal:
        Sandbox(1)
    assert str(refusal.value).startswith("programs cannot be run safely on this system")


def test_other_systems_are_refused(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    with pytest.raises(InputError, match="needs Linux"):
        Sandbox(1)


# ---------------------------------------------------------------------------------- the judge

plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=50)
@given(plain, plain)
def test_equal_data_is_the_same_and_what_python_tells_apart_is_not(left, right):
    assert same(json.loads(json.dumps(left)), left)
    if left != right and not re.search(r"\d(?:\.|e-)", repr(left)):  # floats may differ in their last digits
        assert not same(left, right)


@pytest.mark.parametrize("pair", [(1, True), (0, False), ([1], [True]), ("1", 1), ([], None)])
def test_values_of_another_type_differ(pair):
    assert not same(*pair)
    assert not same(*pair[::-1])


@settings(max_examples=50)
@given(st.binary(max_size=200) | plain.map(lambda data: json.dumps({"outputs": data}).encode()),
       st.integers(0, 64))  # fmt: skip
def test_whatever_a_program_writes_there_is_a_verdict_and_it_is_not_ok(written, number):
    outcome = judge(number, written, [1], [SECRET])
    assert outcome.verdict in ("wrong", "error", "timeout", "memory", "forbidden")


# --------------------------------------------------------------------------------- the reward


@pytest.fixture
def shared(sandbox, monkeypatch):
    monkeypatch.setattr(rules, "shared_sandbox", lambda: sandbox)


def test_the_reward_grades_programs_and_leaves_other_rows(shared):
    tests = [{"input": 2, "output": 4}, {"input": 5, "output": 10}]
    completions = [
        "<think>?</think> <answer> def f (x):return x *2 </answer>",
        "<answer>```python\ndef f(x):\n    return x * 2\n```</answer>",
        "<think>```python\nwrong\n```</think>So:\n```py\ndef f(x): return x + x\n```\nDone.",
        [{"role": "assistant", "content": "<answer>f = lambda x: 4</answer>"}],
        "<answer>def f(x): return 2 * x</answer><answer>def f(x): return 0</answer>",
        "I do not know.",
        "<answer> def f (x):return x *2 </answer>",
    ]
    scores = code([""] * 7, completions, tests=[tests] * 6 + [None], solution=[""] * 7)
    assert scores == [1.0, 1.0, 1.0, 0.0, 0.0, 0.0, None]
    assert code(["", ""], completions[:2]) == [None, None]
    assert program_of(completions[4]) is None
    assert program_of(completions[4], lenient=True) == "def f(x): return 0"


def test_mixed_families_are_graded_each_in_its_way(shared):
    scores = accuracy(
        ["what is 2+2", "double it", "unknown"],
        ["<answer> 4 </answer>", "<answer> f = lambda x: 2 * x </answer>", "<answer> 1 </answer>"],
        solution=["4", "def f (x):return x *2", None],
        tests=[None, [{"input": 3, "output": 6}], None],
    )
    assert scores == [1.0, 1.0, None]


def test_the_reward_accepts_the_gold_programs_and_names_one_that_is_not(shared):
    import random
    from dataclasses import replace

    rng = random.Random(0)
    problems = [sample_problem(rng, "programs", level, "en") for level in (1, 2) * 5]
    validate(reward_set(), problems)
    bad = replace(problems[3], solution="def f (x):return x *0-77")
    with pytest.raises(InputError, match=f"'accuracy' does not accept the gold answer of problem {bad.id}"):
        validate(reward_set(), [*problems[:3], bad])


@pytest.mark.parametrize("tests", [[{"input": 1}], [3], [{"input": 1, "output": {1}}], []])
def test_tests_that_cannot_be_used_are_bad_input(sandbox, tests):
    with pytest.raises(InputError, match="tests"):
        sandbox.submit("f = abs", tests)
