"""The ledger as a Markdown table, and its place in the README."""

import math
from collections import Counter
from pathlib import Path

from r1lab.claims.registry import CLAIMS, PROOFS, Claim
from r1lab.claims.runner import Laboratory, verdict
from r1lab.errors import InputError

BEGIN, END = "<!-- claims:begin -->", "<!-- claims:end -->"
HEADER = ("claim", "paper", "arms", "expected", "effect [95 % interval]", "each seed", "verdict")
BAR = r"\|"  # within a cell; a bare one would end it


def render(laboratory: Laboratory) -> str:
    """How many there are of each verdict; then a row per claim, with what is stale or was not run
    named as such; then what is exact."""
    entries, verdicts = laboratory.results(), Counter()
    rows = [HEADER, ("---",) * len(HEADER)]
    for claim in CLAIMS:
        entry = entries.get(claim.id)
        jobs = laboratory.jobs(claim)
        word = verdict(claim, entry, jobs)
        if word == "stale" and len(entry["per_seed"]) == len({job.seed for job in jobs}):
            word = f"{'shown' if entry['shown'] else 'not shown'} (stale)"
        verdicts[word] += 1
        effect, seeds = numbers(claim, entry) if entry else ("", "")
        about = claim.statement, claim.section, ", ".join(claim.arms), expected(claim)
        rows.append((*about, effect, seeds, f"**{word}**"))
    rows += [(p.statement, p.section, "", "exact", "", "", f"tested by `{p.test}`") for p in PROOFS]
    counts = ", ".join(
        f"{count} {'after ' * word[0].isdigit()}{word}" for word, count in verdicts.most_common()
    )
    lines = [f"{len(CLAIMS)} claims: {counts}. Besides, {len(PROOFS)} theorems.", ""]
    lines += [f"| {' | '.join(cell.replace('|', BAR) for cell in row)} |" for row in rows]
    return "\n".join(lines)


def update_readme(path: Path, table: str) -> None:
    """Put the table between the markers. Raises InputError where the file lacks them."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise InputError(f"{path} needs the lines {BEGIN} and {END} where the table goes.")
    path.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")


def numbers(claim: Claim, entry: dict) -> tuple[str, str]:
    """The effect with its interval, and each seed's, in the claim's unit."""
    low, high = (_signed(claim, bound) for bound in entry["ci95"])
    effect = f"{_signed(claim, entry['effect'])} {claim.unit} [{low}, {high}]"
    return effect, ", ".join(_signed(claim, value) for value in entry["per_seed"].values())


def expected(claim: Claim) -> str:
    """Where the effect is to lie, in the claim's unit."""
    low, high = claim.bounds
    if claim.relation == "within":
        return f"within ±{_signed(claim, high).lstrip('+')}"
    return f"> {_signed(claim, low)}" if math.isfinite(low) else f"< {_signed(claim, high)}"


def _signed(claim: Claim, value: float) -> str:
    """With its sign, in the claim's unit; zero as 0."""
    scale, digits = {"points": (100, 1), "%": (100, 1), "nats": (1, 3)}.get(claim.unit, (1, 1))
    text = f"{value * scale:+.{digits}f}".lstrip("+" if claim.unit == "%" else "")
    return text.replace("-", "−") if float(text) else "0"
