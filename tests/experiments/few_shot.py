"""Do solved examples before the question help or hurt?

The paper finds that they hurt R1 (v1 section 5, v2 section 6, without a number). Here the base,
R1-Zero and R1 of a finished chain are asked held-out puzzles with two solved examples before each,
in the corpus' own form, and without. The ledger runs it (`python -m tests.experiments --only
few-shot`).
"""

from dataclasses import dataclass
from pathlib import Path

from r1lab.models.policy import load_model
from r1lab.stages.sft_stages import model_folder
from wordings import FEW_SHOT, USUAL
from tests.experiments.next_steps import Asked, Kept, Trial, ask, start, tabulate

# Examples of Countdown are too long: of the model's 512 positions they would leave too few.
PUZZLES, MAX_TOKENS = "data/test_signs.jsonl", 288
ARMS = ("base", "zero", "r1")


@dataclass(frozen=True)
class FewShot(Trial):
    """`chain`: the folder of a finished one. `problems`: of each level, so many are asked."""

    chain: str = "runs/r1"
    base: str = "data/base"
    problems: int = 64


def few_shot(config: FewShot = FewShot(), folder: Path = Path("runs/few_shot")) -> Kept:
    """Ask the three models both ways; each row of the table is against R1 asked as usual."""
    places = {arm: str(Path(config.chain) / arm) for arm in ARMS[1:]}
    models = {"base": Path(config.base)}
    models |= {arm: model_folder(place, "few-shot") for arm, place in places.items()}
    for model in models.values():
        load_model(str(model))  # a missing one is reported before the folder is made
    start(config, folder)
    asked = Asked(PUZZLES, config.problems, config.samples, MAX_TOKENS, config.seed)
    measured, levels = {}, {}
    for arm, model in models.items():
        found = ask(config, asked, (USUAL, FEW_SHOT), model, folder / f"{arm}.npz")
        levels["signs"] = found["levels"]
        for way, name in ((USUAL, arm), (FEW_SHOT, f"{arm}_{FEW_SHOT}")):
            measured[name] = {"signs": found[way]}
    return tabulate(measured, "r1", levels, folder)
