"""Rejection sampling: Dev2's best samples and written examples teach the base (Dev3; v2 B.3.3).

About 600,000 reasoning samples of the paper's 800,000 came from the checkpoint after reasoning RL,
several per prompt, of which only correct ones were kept, without mixed languages, long paragraphs
or code blocks; some 200,000 others came from DeepSeek-V3's supervised data. V3-Base, not Dev2, was
then trained for two epochs. The paper has a model judge what rules cannot; here rules grade all.
"""

import itertools
import random
from dataclasses import dataclass, field, replace

from r1lab.rewards import parse
from r1lab.stages.from_samples import Example, SampledStage
from r1lab.world.corpus import join_completion, written_examples
from r1lab.world.words import translate
from r1lab.world import FAMILIES
from r1lab.stages.harvest import HarvestConfig
from r1lab.training.sft import SFTConfig

# In the paper a half is mathematics and a quarter code; searches are the mathematics of this world.
MIXTURE = {
    "signs/1": 0.3, "signs/2": 0.8, "signs/3": 2.0, "signs/4": 2.0, "signs/5": 1.0,
    "countdown/1": 0.4, "countdown/2": 0.8, "sums/1": 0.2, "sums/2": 0.3, "sums/3": 0.3,
    "logic/1": 0.2, "logic/2": 0.2, "logic/3": 0.2, "programs/1": 0.8, "programs/2": 0.8,
}  # fmt: skip
FILTERS = ("not truncated", "format", "correct", "one language", "no repetition")


@dataclass(frozen=True)
class Rejection(SampledStage):
    """The stage's settings.

    `sampling.select="random"` is the control arm: as many samples, whatever they are like.

    Attributes:
        written_share: of all examples, the written ones (the paper: 200,000 of 800,000).
        french_share: of the reasoning examples, those that are asked and thought in French instead.
            The paper's R1 answers other languages in English or Chinese; this is what may fix it.
    """

    source: str = "runs/r1/dev2"
    base: str = "data/base"
    sampling: HarvestConfig = field(
        default_factory=lambda: HarvestConfig(
            mixture=MIXTURE, lang_weights={"en": 0.6, "zh": 0.4}, filters=FILTERS, chunks=16,
            questions=192,
        )
    )  # fmt: skip
    sft: SFTConfig = field(default_factory=lambda: SFTConfig(epochs=2))
    written_share: float = 0.25
    french_share: float = 0.0

    def examples(self, kept: list[Example], rng: random.Random) -> list[Example]:
        """The samples, a share of them in French, and the written examples."""
        samples = [
            in_french(*example) if rng.random() < self.french_share else example for example in kept
        ]
        count = round(len(kept) * self.written_share / (1 - self.written_share))
        return samples + list(itertools.islice(written_examples(self.sampling.seed), count))


def in_french(problem, completion: str) -> Example:
    """The same puzzle asked and thought about in French; as it was where there is no thinking."""
    parts = parse(completion).halves
    asked = FAMILIES[problem.family].ask_in(problem, "fr")
    if parts is None or asked == problem:
        return problem, completion
    thinking, answer = parts
    return asked, join_completion(translate(thinking, "fr"), answer)


def random_arm(config: Rejection) -> Rejection:
    """The control: the same stage, learning from as many samples that no filter has seen."""
    return replace(config, sampling=replace(config.sampling, select="random"))
