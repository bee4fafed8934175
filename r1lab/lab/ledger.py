"""The ledger of claims, as a lesson prints it."""

import json
from pathlib import Path

from r1lab.claims.registry import SEEDS, select
from r1lab.claims.table import expected, numbers


def ledger(*names: str, data: str | Path = "../data") -> None:
    """Print what three seeds say of claims: expected, effect with its 95 % interval, each seed.

    Args:
        names: ids of claims, or of an experiment for all of its claims.
        data: the folder that holds claims.json.

    Raises:
        InputError: there is no such claim.
    """
    entries = json.loads((Path(data) / "claims.json").read_text(encoding="utf-8"))["claims"]
    for claim in (claim for name in names for claim in select(name)):
        print(f"{claim.statement}: {_verdict(entries.get(claim.id))}")
        if claim.id in entries:
            effect, seeds = numbers(claim, entries[claim.id])
            print(f"    expected {expected(claim)}; found {effect}, by seed {seeds}")


def _verdict(entry: dict | None) -> str:
    if entry is None:
        return "NOT RUN"
    if len(entry["per_seed"]) < len(SEEDS):
        return f"{len(entry['per_seed'])} OF {len(SEEDS)} SEEDS"
    return "SHOWN" if entry["shown"] else "NOT SHOWN"
