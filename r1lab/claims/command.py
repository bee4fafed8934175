"""`r1lab claims`: run what is missing, then print the table and put it into the README."""

import re
from pathlib import Path

from r1lab.claims.replay import replay_stale
from r1lab.claims.runner import Laboratory, run_missing
from r1lab.claims.table import BEGIN, render, update_readme
from r1lab.errors import InputError

SECONDS = {"s": 1, "m": 60, "h": 3600}


def run_claims(
    only: str | None = None, seed: int | None = None, budget: str | None = None,
    replay: bool = False,
) -> None:  # fmt: skip
    """Run the claims that are missing or stale, and print the table.

    Args:
        only: the id of one claim, or chain, search, few-shot, french, programs, one-loss or
            wordings for all claims of such an experiment.
        seed: one of their seeds alone (0 to 2; of the chain and what starts from it 1 to 3).
        replay: first begin each stale run anew; where it begins alike to the last bit, keep its result.
        budget: start no run that would probably end later, for example 30m or 2h; 0s runs nothing.
    """
    laboratory = Laboratory()
    if replay:
        print(f"{len(replay_stale(laboratory))} stale runs begin as they did, and are kept.")
    missing = run_missing(laboratory, only=only, seed=seed, budget_seconds=_seconds(budget))
    table = render(laboratory)
    print(table)
    readme = Path("README.md")
    if readme.is_file() and BEGIN in readme.read_text(encoding="utf-8"):
        update_readme(readme, table)
    if missing:
        print(f"\n{len(missing)} runs are still missing; the same command goes on with them.")
        print("A run whose base is not in data/ waits for `r1lab pretrain --preset NAME`; a next step "
              "that starts from a chain for `r1lab claims --only chain`.")  # fmt: skip


def _seconds(budget: str | None) -> float | None:
    if budget is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if not match:
        raise InputError(f"A budget is a number and s, m or h, for example 30m; not {budget!r}.")
    return float(match[1]) * SECONDS[match[2]]
