"""What the benchmarks share: the spread of repeats, and what is stored beside every result."""

import json
import shlex
import statistics
import sys
from datetime import UTC, datetime
from pathlib import Path

from r1lab.machine import commit, machine

ROOT = Path(__file__).parents[2]


def spread(values: list[float]) -> dict[str, float]:
    return {"min": min(values), "median": statistics.median(values), "max": max(values)}


def record(result: dict, out: Path | None) -> None:
    """Prints a result with what made it (command, commit, date, machine); stores it in `out`."""
    script = Path(sys.argv[0]).resolve().relative_to(ROOT)
    made = {
        "command": shlex.join(["python", str(script), *sys.argv[1:]]),
        "commit": commit(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    result = made | result | {"machine": machine()}
    print(json.dumps(result, indent=1))
    if out:
        out.write_text(json.dumps(result, indent=2) + "\n")
