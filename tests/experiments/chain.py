"""What is kept of a finished chain: of each stage one value per problem, for the ledger's claims."""

import numpy as np
from jaxtyping import Int

from r1lab.files import read_rows
from r1lab.stages import benchmarks
from r1lab.stages.benchmarks import BENCHMARKS, REASONING, strata
from r1lab.stages.hacking import PAYERS, SHORT
from r1lab.stages.pipeline import MEASURED, Chain

KEPT = (*REASONING, "french", "language_en", "language_zh", "helpfulness", "safety")


def levels_of(row: str) -> Int[np.ndarray, "problem"]:
    """A number for each level of each test set that a benchmark is over, problem by problem."""
    return strata(BENCHMARKS[row], benchmarks.test_sets())


def chain_values(chain: Chain) -> dict[str, np.ndarray]:
    """By PART/ROW one value per problem, NaN where there is none; levels by levels/ROW."""
    values = {f"levels/{row}": levels_of(row) for row in KEPT}
    for stage in MEASURED:
        with np.load(chain.folder / stage / "values.npz") as rows:
            values |= {f"{stage}/{row}": rows[row] for row in KEPT}
    for payer in PAYERS:
        late = after_short(read_rows(chain.folder / f"hacking/{payer}.jsonl"))
        values |= {f"hacking_{payer}/{judge}": change for judge, change in late.items()}
        values |= {f"levels/{judge}": np.ones(len(change)) for judge, change in late.items()}
    return values


def after_short(rows: list[dict]) -> dict[str, np.ndarray]:
    """What each judge thinks in the last quarter of the rollouts, minus what it thought of the three
    next to the step at which R1's own stage ends. Rollouts take the place of problems."""
    train = [row for row in rows if row["kind"] == "train"]
    near = sorted(train, key=lambda row: abs(row["step"] - SHORT))[:3]
    late = train[-(len(train) // 4) :]
    return {
        judge: np.array([row[judge] for row in late]) - np.mean([row[judge] for row in near])
        for judge in PAYERS
    }
