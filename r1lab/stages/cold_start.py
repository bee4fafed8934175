"""Cold start: R1-Zero's own samples, made readable, teach the base to begin well (Dev1; v2 B.3.2).

The paper drew several samples per prompt from R1-Zero at temperature 1.0, kept what was correct and
readable, and had annotators and then DeepSeek-V3 rewrite it: first person, thinking in the language
of the question, a summary at the end. It speaks of "thousands" of examples. Here rules do the
rewriting (`world.corpus.readable`), which only a world of so few words allows; and the base, not R1-Zero,
is fine-tuned, as in the paper.
"""

import random
from dataclasses import dataclass, field

from r1lab.stages.from_samples import Example, SampledStage
from r1lab.world.corpus import readable
from r1lab.stages.harvest import HarvestConfig
from r1lab.training.sft import SFTConfig

# R1-Zero is trained on signs; of the other families it solves what the base and that made easy.
# Without programs (the paper has 7,655 code prompts here) Dev1 ends each of them like an equation.
MIXTURE = {
    "signs/1": 0.5, "signs/2": 1.0, "signs/3": 2.0, "signs/4": 2.0, "signs/5": 0.5,
    "countdown/1": 0.5, "countdown/2": 0.5, "sums/1": 0.3, "sums/2": 0.3, "sums/3": 0.3,
    "logic/1": 0.2, "logic/2": 0.2, "logic/3": 0.2, "programs/1": 0.5, "programs/2": 0.5,
}  # fmt: skip


@dataclass(frozen=True)
class ColdStart(SampledStage):
    """The stage's settings. Mixed languages are no reason to drop a sample: they are translated."""

    source: str = "data/zero"
    base: str = "data/base"
    sampling: HarvestConfig = field(
        default_factory=lambda: HarvestConfig(
            mixture=MIXTURE, lang_weights={"en": 0.6, "zh": 0.4}, chunks=8, questions=192,
            filters=("not truncated", "readable", "correct", "no repetition"),
        )
    )  # fmt: skip
    sft: SFTConfig = field(default_factory=SFTConfig)

    def examples(self, kept: list[Example], rng: random.Random) -> list[Example]:
        """Each sample in the question's language, with both tags and a summary."""
        return [(problem, readable(problem, completion)) for problem, completion in kept]
