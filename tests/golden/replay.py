"""Replay the golden record: do today's runs give the recorded numbers, to the last bit?

    python -m tests.golden.replay                  all cases
    python -m tests.golden.replay arm-true chain   these alone
    python -m tests.golden.replay --quick          what `make test` replays
    python -m tests.golden.replay --record [NAMES] write what comes out into record.json
    python -m tests.golden.replay --zero-to-the-end  `make zero` as a whole, against data/runs/zero

The bounds of an interval (`ci95`, `*_ci95`) that had the width 0 when it was recorded are passed over.
Each case runs in a process of its own, forked from this one before anything was computed, with one
thread, so that neither the load of the machine nor another case can change a result. Exit code 1
where a case differs or fails.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from tempfile import TemporaryDirectory

# Before torch is imported.
os.environ.update(OMP_NUM_THREADS="1", TOKENIZERS_PARALLELISM="false", HF_HUB_OFFLINE="1")

import torch

import r1lab
from tests.golden import cases

RECORD = Path(__file__).with_name("record.json")
MISSING = "nothing"


def main(arguments: list[str] | None = None) -> int:
    """Run the chosen cases, print the table, and record where that is asked for."""
    options = parser().parse_args(arguments)
    if options.zero_to_the_end:
        return zero_to_the_end()
    chosen = chosen_cases(options.names, options.quick)
    stored = json.loads(RECORD.read_text(encoding="utf-8")) if RECORD.is_file() else {"cases": {}}
    bad = 0
    found = {}
    started = time.monotonic()
    with TemporaryDirectory() as folder, ThreadPoolExecutor(options.jobs) as pool:
        results = pool.map(lambda name: in_a_process(name, Path(folder) / name), chosen)
        for name, (result, seconds) in zip(chosen, results, strict=True):
            verdict = judged(stored["cases"].get(name), result)
            if options.record and "failed" not in result:
                found[name] = result
                verdict = f"recorded (before: {verdict.partition(':')[0]})"
            bad += not verdict.startswith(("equal", "recorded"))
            print(f"{name:24} {seconds:6.1f} s of work  {verdict}", flush=True)
    print(f"{len(chosen)} cases in {time.monotonic() - started:.0f} s, {bad} of them not equal")
    if options.record:
        write(stored["cases"] | found)
    elif bad:
        print(f"recorded: {stored['made']}\nhere:     {about()}")
    return int(bad > 0)


def write(found: dict[str, dict]) -> None:
    """The record, one line for each case."""
    lines = [f"{json.dumps(name)}: {json.dumps(found[name])}" for name in sorted(found)]
    made = json.dumps(about())
    text = '{"made": ' + made + ',\n"cases": {\n' + ",\n".join(lines) + "\n}}\n"
    RECORD.write_text(text, encoding="utf-8")


def parser() -> argparse.ArgumentParser:
    """The options of the command line."""
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    made.add_argument("names", nargs="*", help="cases; all where none is named")
    made.add_argument("--quick", action="store_true", help="only the cases of make test")
    made.add_argument("--record", action="store_true", help="write record.json")
    made.add_argument("--zero-to-the-end", action="store_true", help="make zero as a whole")
    made.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
    return made


def chosen_cases(names: list[str], quick: bool) -> list[str]:
    """The cases to run, the last ones of the file first: they are the longest."""
    if unknown := set(names) - set(cases.CASES):
        sys.exit(f"there is no case {', '.join(unknown)}; choose among {', '.join(cases.CASES)}.")
    return names or [name for name in reversed(cases.CASES) if not quick or name in cases.QUICK]


def in_a_process(name: str, folder: Path) -> tuple[dict, float]:
    """What a case returns, run in a forked process, and the processor's seconds that it took."""
    folder.mkdir()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            run_case(name, folder)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)
    _, _, used = os.wait4(child, 0)
    seconds = used.ru_utime + used.ru_stime
    file = folder / "result.json"
    if not file.is_file():
        tail = (folder / "output.txt").read_text(encoding="utf-8", errors="replace")[-3000:]
        return {"failed": tail}, seconds
    return json.loads(file.read_text(encoding="utf-8")), seconds


def run_case(name: str, folder: Path) -> None:
    """In the forked process: run the case, and leave its result in the folder."""
    output = os.open(folder / "output.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(output, 1)
    os.dup2(output, 2)
    torch.set_num_threads(1)
    result = cases.CASES[name](folder)
    (folder / "result.json").write_text(json.dumps(result, ensure_ascii=False), encoding="utf-8")


def judged(recorded: object, result: dict) -> str:
    """ "equal", or where the result first differs from the record."""
    if "failed" in result:
        return "FAILED\n" + result["failed"]
    if recorded is None:
        return "DIFFERS: it was never recorded"
    first = next(differences(recorded, result), None)
    return "equal" if first is None else f"DIFFERS: {first}"


def differences(recorded: object, found: object, place: str = "") -> Iterator[str]:
    """Where two results are not the same. What came later, in `found` alone, is no difference, nor is
    an interval that the record holds with the width 0: it has an exact bound since."""
    bounds = place.endswith("ci95") and isinstance(recorded, list) and len(recorded) == 2
    if bounds and recorded[0] == recorded[1] and isinstance(found, list) and len(found) == 2:
        return
    if isinstance(recorded, dict) and isinstance(found, dict):
        for name, value in recorded.items():
            yield from differences(value, found.get(name, MISSING), f"{place}.{name}")
    elif isinstance(recorded, list) and isinstance(found, list):
        if len(recorded) != len(found):
            yield f"{place} has {len(found)} entries, recorded {len(recorded)}"
        for number, values in enumerate(zip(recorded, found, strict=False)):
            yield from differences(*values, f"{place}[{number}]")
    elif repr(recorded) != repr(found):  # the shortest text that is exactly this float
        yield f"{place.strip('.')} is {found!r}, recorded {recorded!r}"


def zero_to_the_end() -> int:
    """Run `make zero` as a whole, and compare it with the stored run row by row."""
    with TemporaryDirectory() as folder:
        rows = cases.whole_zero(Path(folder))
    stored = cases.stored_zero()
    first = next(differences(stored, rows), None)
    print(f"make zero: {len(rows)} rows", "equal" if first is None else f"DIFFERS: {first}")
    return int(first is not None)


def about() -> dict:
    """What the numbers were made by and on."""
    cpu = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    names = [line.split(":", 1)[1].strip() for line in cpu.splitlines() if "model name" in line]
    root = Path(r1lab.__file__).parents[1]
    head = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=root, capture_output=True, text=True)
    return {
        "commit": head.stdout.strip(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "machine": names[0] if names else platform.processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.exit(main())
