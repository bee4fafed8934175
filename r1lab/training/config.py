"""How a run of GRPO learns: every number that changes its result, beside model and task, and presets."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Literal

from r1lab.errors import InputError, require_known
from r1lab.files import read_toml
from r1lab.models.lora import LoRA, MaybeLoRA
from r1lab.objective import LossConfig
from r1lab.run import from_json
from r1lab.sampling import SamplerName, VLLMConfig
from r1lab.training.distributed import Parallel, Precision, arithmetic

# Floating-point operations per weight and token. Attention's own products are left out, so that
# long rows cost somewhat more. Tied embeddings count once: they are multiplied as the head.
# Frozen weights have no gradient of their own: beside an adapter, learning takes 4.
TRAINING_FLOPS, ADAPTER_FLOPS, SAMPLING_FLOPS = 6, 4, 2


def learning_flops(lora: LoRA | None) -> int:
    """Operations per weight and token of learning, with an adapter or without."""
    return ADAPTER_FLOPS if lora else TRAINING_FLOPS


LEAST = {  # what a setting may be
    "epochs": 1, "rollouts": 1, "questions": 1, "minibatches": 1, "warmup_steps": 0, "seed": 0,
    "flops_limit": 0, "grading_rows": 0, "learning_rate": 0, "reference_every": 1, "eval_every": 1,
    "eval_samples": 1, "final_samples": 1, "checkpoint_every": 1,
}  # fmt: skip


def refuse_too_small(config):
    """Raises InputError where a setting, of RL or of fine-tuning, is below LEAST."""
    for name, least in LEAST.items():
        if getattr(config, name, least) < least:
            raise InputError(f"{name} is {getattr(config, name)}; give at least {least}.")


@dataclass(frozen=True)
class GRPOConfig:
    """How a policy learns by group relative policy optimization.

    A rollout asks `questions` questions, samples `group_size` completions for each, and is split
    into `minibatches` updates, one inner epoch. "Step" counts updates, as in the paper. The
    defaults are for a real model of 0.5 to 1.5 billion weights; `GRPOConfig.preset("cpu")` is for
    the small world.

    Attributes:
        rollouts: the number of them; the run has rollouts x minibatches steps.
        flops_limit: the run ends with the rollout in which it has spent this many floating-point
            operations on its answers (see `flops`); 0: with the last rollout.
        warmup_steps: linear; the learning rate is constant after them.
        sampler: "torch" samples with the policy itself; "vllm" gives vLLM its weights before each
            rollout, and corrects for what remains of a difference. `vllm` says how vLLM runs.
        grading: "asynchronous" grades completions in a thread as they end, while others are still
            sampled and then scored, with the same results; worth it where grading waits (for
            programs, a judge).
        grading_rows: how many are graded together, in the order in which they end (0: all at once,
            when the last has ended).
        caps: (from step, longest completion in tokens), raised during the run.
        overlong: questions that leave no room for the longest completion are refused before the
            run, or left out.
        reference_every: steps after which the reference policy becomes the policy.
        lora: train an adapter in place of all weights; on the command line RANK, ALPHA, LAYERS. The
            reference policy is then the adapter as it was, at first the model without one.
        processes: 0 for one per core (or per GPU).
        microbatch_tokens: with padding; on a CPU 1,024 stay in a core's caches, and 8,192 take half
            again as long.
        pack: lay the rows of a micro-batch end to end instead of padding them (v2 B.1).
        share_prompts: the policy reads a prompt once for its group when it scores and learns, as it
            does when it samples. Same results to rounding; worth it where prompts are longer than
            answers, since attention then looks at a group's tokens as at one row.
        precision: of the arithmetic: of scoring, learning and sampling. Stored weights, gradients and
            the optimizer's state stay float32. Outside of float32 the sampler holds a copy of the
            weights in it, and the policy scores what was sampled itself. "auto" is bfloat16 on
            machines that have instructions for it, else float32; a run stores which.
        parallel: how the model is spread over the processes.
        eval_every: rollouts between two evaluations, of `eval_samples` samples each on the first
            `eval_problems` test problems of each level (0: all); before the first step and after
            the last, all of them are asked, with `final_samples`.
        sample_rows: completions of each rollout that are stored.
        track: send metrics to trackio or Weights & Biases, besides TensorBoard's files.
        skipped_limit: this many updates in a row with a NaN loss end the run.
    """

    rollouts: int = 200
    flops_limit: int = 0
    questions: int = 64
    group_size: int = 16
    minibatches: int = 4
    learning_rate: float = 1e-6
    lora: MaybeLoRA = None
    warmup_steps: int = 8
    max_grad_norm: float = 1.0
    temperature: float = 1.0
    sampler: SamplerName = "torch"
    vllm: VLLMConfig = VLLMConfig()
    grading: Literal["in line", "asynchronous"] = "in line"
    grading_rows: int = 0
    divide_by_std: bool = True
    loss: LossConfig = LossConfig()
    caps: tuple[tuple[int, int], ...] = ((0, 1_024),)
    overlong: Literal["refuse", "skip"] = "refuse"
    reference_every: int = 400
    seed: int = 0
    processes: int = 0
    microbatch_tokens: int = 16_384
    pack: bool = False
    share_prompts: bool = False
    precision: Precision = "float32"
    parallel: Parallel = Parallel()
    eval_every: int = 20
    eval_samples: int = 4
    eval_problems: int = 64
    final_samples: int = 4
    checkpoint_every: int = 10
    sample_rows: int = 32
    track: Literal["", "trackio", "wandb"] = ""
    skipped_limit: int = 3

    @classmethod
    def of_run(cls, stored: Mapping) -> "GRPOConfig":
        """The settings that a run's config.json holds; what is missing there is the default's."""
        return from_json(cls(lora=LoRA() if stored.get("lora") else None), stored)

    @classmethod
    def preset(cls, name: str, **changes) -> "GRPOConfig":
        """The settings of this name in TABLES, with changes.

        Raises InputError where there is no such preset.
        """
        require_known(name, TABLES, "preset")
        table = TABLES[name]
        like = cls.preset(table["like"]) if "like" in table else cls()
        return replace(from_json(like, table.get("rl", {})), **changes)

    @property
    def steps(self) -> int:
        return self.rollouts * self.minibatches

    def cap(self, step: int) -> int:
        """The longest completion allowed from `step` on."""
        return [tokens for start, tokens in self.caps if start <= step][-1]

    @property
    def rescores(self) -> bool:
        """Does the sampler compute otherwise than the policy, which then scores the samples itself?"""
        return self.sampler != "torch" or arithmetic(self.precision).itemsize < 4

    def flops(self, parameters: int, tokens: int) -> int:
        """Floating-point operations of tokens that are sampled and then learned from once.

        The reference policy reads them too, and so does the policy itself where it `rescores`.
        """
        readings = 1 + (self.loss.beta > 0) + self.rescores
        return (learning_flops(self.lora) + readings * SAMPLING_FLOPS) * parameters * tokens

    def check(self, processes: int):
        """Refuse settings that cannot train.

        Raises:
            InputError: names the setting and its remedy.
        """
        refuse_too_small(self)
        refusals = {
            f"group_size is {self.group_size}: a group of one has no mean to beat, so every advantage "
            "is 0; use at least 2.": self.group_size < 2,
            f"{self.questions} questions do not split into {self.minibatches} mini-batches; choose a "
            "multiple.": self.questions % self.minibatches,
            f"{self.questions} questions do not divide over {processes} processes; choose a "
            "multiple, or set --processes.": self.questions % processes,
            "caps must begin at step 0, for example ((0, 192), (96, 384)).": (
                not self.caps or isinstance(self.caps[0], int) or self.caps[0][0]
            ),
            f"temperature ({self.temperature:g}) and max_grad_norm ({self.max_grad_norm:g}) must be "
            "above 0, or all completions of a question are the same, or all gradients 0; use 1.": not (
                self.temperature > 0 and self.max_grad_norm > 0
            ),
            "grading before the last completion has ended needs grading_rows, for example 16, and the "
            'torch sampler, which alone reports each end; else grade "in line", with 0 rows.': (
                self.sampler != "torch" if self.grading_rows else self.grading == "asynchronous"
            ),
            "share_prompts lays answers end to end as pack does; switch one of them off.": (
                self.share_prompts and self.pack
            ),
            f"track is {self.track!r}, which is not installed: pip install {self.track}.": (
                self.track and find_spec(self.track) is None
            ),
        }
        for sentence, refused in refusals.items():
            if refused:
                raise InputError(sentence)


TABLES = read_toml(__file__, "presets")
