"""`python -m tests.experiments`: run the claims that are missing, then print the table, also into its
page."""

import re
import sys
from functools import partial
from pathlib import Path

import tyro

from r1lab.cli import exit_code
from r1lab.errors import InputError
from r1lab.files import write_text
from r1lab.report.claims import claims_table, load_ledger
from tests.experiments.runner import Laboratory, run_missing

SECONDS = {"s": 1, "m": 60, "h": 3600}


def run_claims(only: str | None = None, seed: int | None = None, budget: str | None = None) -> None:
    """Run the claims that are missing or stale, and print the table.

    Args:
        only: the id of one claim, or chain, search, few-shot, french, programs, one-loss,
            wordings, wordings-llama, english, skill, thinking, cold-starts or distil for all claims
            of such an experiment.
        seed: one of their seeds alone (0 to 2; of the chain and what starts from it 1 to 3).
        budget: start no run that would probably end later, for example 30m or 2h; 0s runs nothing.
    """
    laboratory = Laboratory()
    missing = run_missing(laboratory, only=only, seed=seed, budget_seconds=budget_seconds(budget))
    table = claims_table(load_ledger(laboratory.ledger))
    print(table)
    page = Path("notebooks/claims.md")
    if page.is_file():
        put_between(page, "claims", table)
    if missing:
        print(f"\n{len(missing)} runs are still missing; the same command goes on with them.")
        print("A run whose base is not in data/ waits for `r1lab pretrain --preset NAME`; a next step "
              "that starts from a chain for `python -m tests.experiments --only chain`.")  # fmt: skip


def put_between(path: str | Path, name: str, text: str):
    """Write the text between the lines `<!-- NAME:begin -->` and `<!-- NAME:end -->` of a file.

    Raises InputError where the file lacks them."""
    path = Path(path)
    begin, end = f"<!-- {name}:begin -->", f"<!-- {name}:end -->"
    before, opened, rest = path.read_text(encoding="utf-8").partition(begin)
    _, closed, after = rest.partition(end)
    if not opened or not closed:
        raise InputError(f"{path} needs the lines {begin} and {end} around its table; add them.")
    write_text(path, f"{before}{begin}\n{text}\n{end}{after}")


def budget_seconds(budget: str | None) -> float | None:
    """Raises InputError where it is no time."""
    if budget is None:
        return None
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([smh])", budget)
    if not match:
        raise InputError(f"A budget is a number and s, m or h, for example 30m; not {budget!r}.")
    return float(match[1]) * SECONDS[match[2]]


if __name__ == "__main__":
    sys.exit(exit_code(partial(tyro.cli, run_claims)))
