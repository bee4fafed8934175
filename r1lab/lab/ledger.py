"""The ledger of claims, as a lesson prints it."""

from r1lab.files import SHIPPED
from r1lab.report.claims import expected, load_ledger, numbers, select


def ledger(*names: str) -> None:
    """Print what three seeds say of claims: expected, effect with its 95 % interval, each seed.

    Args:
        names: ids of claims, or of an experiment for all of its claims.
    Raises:
        InputError: there is no such claim.
    """
    claims = load_ledger(SHIPPED / "claims.json")["claims"]
    for claim in (claim for name in names for claim in select(claims, name).values()):
        print(f"{claim['statement']}: {claim['verdict'].upper()}")
        if "effect" in claim:
            effect, seeds = numbers(claim)
            print(f"    expected {expected(claim)}; found {effect}, by seed {seeds}")
