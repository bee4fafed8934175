"""Recipes of distillation for real models: which model reads whose traces, and how.

`r1lab sft --preset NAME` runs them. The tests take two steps of each on a shipped model and local
files; on the models that they name, and so on any GPU: not run yet. Numbers without a source are
ours, and not tuned: by `r1lab plan`, each needs less than 60 of the 80 GB of the one GPU that it is
for, and a run on a smaller one is refused before anything is loaded.
"""

from dataclasses import dataclass

from r1lab.training.config import ONE_GPU
from r1lab.training.sft import SFTConfig


@dataclass(frozen=True)
class Distillation:
    """Fine-tuning of `model` on the traces of `source` (see `sources.hub`), by `sft`."""

    model: str
    source: str
    sft: SFTConfig


# The paper (v2 B.4.3): 2 to 3 epochs, a cosine to a tenth, 64 rows a step; 1e-4 for Qwen2.5-1.5B's
# mathematical sister. R1's rows have 5,355 tokens on average (v2 Table 5).
DISTILL = SFTConfig(
    epochs=2,
    tokens_per_step=64 * 5_355,
    learning_rate=1e-4,
    warmup_steps=20,
    microbatch_tokens=32_768,
    template="r1",
    processes=1,
    parallel=ONE_GPU,
)
SFT_RECIPES: dict[str, Distillation] = {
    "openr1-0.5b": Distillation("Qwen/Qwen2.5-0.5B", "openr1_math", DISTILL),
    "openr1-1.5b": Distillation("Qwen/Qwen2.5-1.5B", "openr1_math", DISTILL),
    "openthoughts-1.5b": Distillation("Qwen/Qwen2.5-1.5B", "openthoughts", DISTILL),
}
