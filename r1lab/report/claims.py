"""The ledger of claims as a table: what the paper says, what was expected, what three seeds gave.

`data/claims.json` holds it; the experiments behind it are in `tests/experiments` (`make claims`).
"""

import json
from collections import Counter
from pathlib import Path

from r1lab.errors import require_known
from r1lab.evaluation.table import Cell, Table
from r1lab.files import SHIPPED

HEADER = ("claim", "paper", "arms", "expected", "effect [95 % interval]", "each seed", "verdict")
UNITS = {"points": (100, 1), "%": (100, 1), "nats": (1, 3)}  # factor and digits; others (1, 1)


def print_claims(only: str = ""):
    """Print the ledger: what the paper claims, what was expected, and what three seeds gave.

    `make claims` in the repository runs what is missing.

    Args:
        only: the id of one claim, or an arm or experiment for all of its claims.
    """
    ledger = load_ledger()
    if only:
        ledger = {"claims": select(ledger["claims"], only), "theorems": []}
    print(claims_table(ledger))


def load_ledger(file: Path = SHIPPED / "claims.json") -> dict:
    """Read the claims by id, and the theorems."""
    return json.loads(file.read_text(encoding="utf-8"))


def select(claims: dict[str, dict], only: str) -> dict[str, dict]:
    """Find the claim with this id, or those of an arm or experiment of this name.

    Raises InputError where there is none.
    """
    chosen = {
        name: claim for name, claim in claims.items()
        if only == name or only in [arm.partition("/")[0] for arm in claim["arms"]]
    }  # fmt: skip
    if not chosen:
        require_known(only, claims, "claim or experiment")
    return chosen


def claims_table(ledger: dict) -> str:
    """Write in Markdown how often each verdict was given, a row for each claim, then the theorems."""
    claims, theorems = ledger["claims"].values(), ledger["theorems"]
    rows = [claim_row(claim) for claim in claims]
    for proof in theorems:
        test = f"tested by `{proof['test']}`"
        rows.append((proof["statement"], proof["section"], "", "exact", "", "", test))
    verdicts = Counter(claim["verdict"] for claim in claims).most_common()
    counts = [f"{count} {'after ' * word[0].isdigit()}{word}" for word, count in verdicts]
    words = f"{len(claims)} claims: {', '.join(counts)}. Besides, {len(theorems)} theorems."
    return f"{words}\n\n{Table(HEADER, rows)}"


def claim_row(claim: dict) -> tuple:
    """Fill the columns of `HEADER`."""
    about = claim["statement"], claim["section"], ", ".join(claim["arms"]), expected(claim)
    return *about, *numbers(claim), Cell(claim["verdict"], best=True)


def numbers(claim: dict) -> tuple[str, str]:
    """Print the effect with its interval, and each seed's, in the claim's unit; empty if it never ran."""
    if "effect" not in claim:
        return "", ""
    unit = claim["unit"]
    low, high = (_signed(unit, bound) for bound in claim["ci95"])
    seeds = ", ".join(_signed(unit, value) for value in claim["per_seed"].values())
    return f"{_signed(unit, claim['effect'])} {unit} [{low}, {high}]", seeds


def expected(claim: dict) -> str:
    """Say where the effect should lie, in the claim's unit."""
    bound = _signed(claim["unit"], claim["threshold"])
    if claim["relation"] == "within":
        return f"within ±{bound.lstrip('+')}"
    return f"{'>' if claim['relation'] == 'above' else '<'} {bound}"


def _signed(unit, value):
    """Print a value with its sign, in this unit; zero as 0."""
    scale, digits = UNITS.get(unit, (1, 1))
    text = f"{value * scale:+.{digits}f}".lstrip("+" if unit == "%" else "")
    return text.replace("-", "−") if float(text) else "0"
