"""How a run of GRPO learns: every number that changes its result, beside model and task, and presets."""

from dataclasses import dataclass, field, replace
from typing import Literal

from r1lab.errors import InputError
from r1lab.objective import LossConfig
from r1lab.sampling import SamplerName, VLLMConfig
from r1lab.training.distributed import Parallel

# Floating-point operations per weight and token. Attention's own products are left out, so that
# long rows cost somewhat more. Tied embeddings count once: they are multiplied as the head.
TRAINING_FLOPS, SAMPLING_FLOPS = 6, 2


LEAST = {  # what a setting may be
    "rollouts": 1, "questions": 1, "minibatches": 1, "warmup_steps": 0, "seed": 0,
    "flops_limit": 0, "grading_rows": 0, "learning_rate": 0,
}  # fmt: skip


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
        processes: 0 for one per core (or per GPU).
        microbatch_tokens: with padding; on a CPU 1,024 stay in a core's caches, and 8,192 take half
            again as long.
        pack: lay the rows of a micro-batch end to end instead of padding them (v2 B.1).
        parallel: how the model is spread over the processes.
        eval_every: rollouts between two evaluations, of `eval_samples` samples each on the first
            `eval_problems` test problems of each level (0: all); before the first step and after
            the last, all of them are asked, with `final_samples`.
        sample_rows: completions of each rollout that are stored.
        skipped_limit: this many updates in a row with a NaN loss end the run.
    """

    rollouts: int = 200
    flops_limit: int = 0
    questions: int = 64
    group_size: int = 16
    minibatches: int = 4
    learning_rate: float = 1e-6
    warmup_steps: int = 8
    max_grad_norm: float = 1.0
    temperature: float = 1.0
    sampler: SamplerName = "torch"
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    grading: Literal["in line", "asynchronous"] = "in line"
    grading_rows: int = 0
    divide_by_std: bool = True
    loss: LossConfig = field(default_factory=LossConfig)
    caps: tuple[tuple[int, int], ...] = ((0, 1_024),)
    overlong: Literal["refuse", "skip"] = "refuse"
    reference_every: int = 400
    seed: int = 0
    processes: int = 0
    microbatch_tokens: int = 16_384
    pack: bool = False
    parallel: Parallel = field(default_factory=Parallel)
    eval_every: int = 20
    eval_samples: int = 4
    eval_problems: int = 64
    final_samples: int = 4
    checkpoint_every: int = 10
    sample_rows: int = 32
    skipped_limit: int = 3

    @classmethod
    def preset(cls, name: str, **changes) -> "GRPOConfig":
        """The settings of this name in GRPO_PRESETS, with changes.

        Raises InputError where there is no such preset.
        """
        if name not in GRPO_PRESETS:
            raise InputError(f"there is no preset {name!r}; choose one of {', '.join(GRPO_PRESETS)}.")
        return replace(GRPO_PRESETS[name], **changes)

    @property
    def steps(self) -> int:
        return self.rollouts * self.minibatches

    def cap(self, step: int) -> int:
        """The longest completion allowed from `step` on."""
        return [tokens for start, tokens in self.caps if start <= step][-1]

    def flops(self, parameters: int, tokens: int) -> int:
        """Floating-point operations of tokens that are sampled and then learned from once.

        The reference policy reads them too, and so does the policy itself where vLLM samples.
        """
        readings = 1 + (self.loss.beta > 0) + (self.sampler != "torch")
        return (TRAINING_FLOPS + readings * SAMPLING_FLOPS) * parameters * tokens

    def check(self, processes: int) -> None:
        """Refuse settings that cannot train.

        Raises:
            InputError: names the setting and its remedy.
        """
        for name, least in LEAST.items():
            if getattr(self, name) < least:
                raise InputError(f"{name} is {getattr(self, name)}; give at least {least}.")
        refusals = {
            f"group_size is {self.group_size}: a group of one has no mean to beat, so every advantage "
            "is 0; use at least 2.": self.group_size < 2,
            f"{self.questions} questions do not split into {self.minibatches} mini-batches; choose a "
            "multiple.": self.questions % self.minibatches,
            f"{self.questions} questions do not divide over {processes} processes; choose a "
            "multiple, or set --processes.": self.questions % processes,
            "caps must begin at step 0, for example ((0, 192), (96, 384)).": not self.caps
            or self.caps[0][0],
            f"temperature ({self.temperature:g}) and max_grad_norm ({self.max_grad_norm:g}) must be "
            "above 0, or all completions of a question are the same, or all gradients 0; use 1.": not (
                self.temperature > 0 and self.max_grad_norm > 0
            ),
            "grading before the last completion has ended needs grading_rows, for example 16, and the "
            'torch sampler, which alone reports each end; else grade "in line", with 0 rows.': (
                self.sampler != "torch" if self.grading_rows else self.grading == "asynchronous"
            ),
        }
        for sentence, refused in refusals.items():
            if refused:
                raise InputError(sentence)


# Presets by name: the small world's, the paper's, and those of real models on GPUs. `stages.zero`
# says which model and task go with a name. Those of GPUs have not run on any GPU yet: numbers
# without a source are ours, and not tuned; by `r1lab plan`, each fits the machine it names.

# Sharding over one GPU is what bfloat16 and recomputed activations come with: without them, 1.5B
# would need 125 GB for R1-Zero and more for fine-tuning.
ONE_GPU = Parallel(shard=True, precision="bfloat16", recompute=True, gpus=1)
CPU = GRPOConfig(
    rollouts=44, questions=24, learning_rate=1e-4, caps=((0, 320), (80, 448)),
    microbatch_tokens=1_024, reference_every=40, eval_every=5, eval_samples=16, eval_problems=16,
    final_samples=16, checkpoint_every=2,
)  # fmt: skip
# TinyZero (README): of the Qwen2.5 bases on Countdown, 0.5B fails and 1.5B learns to search. Rate
# and group are of the order that the field uses at this size; KL as in the paper (v2 2.1).
COUNTDOWN = GRPOConfig(
    caps=((0, 512), (400, 1_024)), processes=1, parallel=ONE_GPU, checkpoint_every=20
)
GRPO_PRESETS: dict[str, GRPOConfig] = {
    "cpu": CPU,
    # v2 §2.1 and §3.2.1. The paper leaves open: clip (it gives 10 for R1's first RL stage),
    # aggregation, the optimizer's settings. 512 GPUs: v2 B.4.4. It documents; a model of 671
    # billion weights does not fit the way we spread it.
    "paper": replace(
        CPU, rollouts=650, questions=512, minibatches=16, learning_rate=3e-6,
        loss=LossConfig(clip_low=10.0, clip_high=10.0, beta=0.001, aggregation="sequence"),
        caps=((0, 32_768), (8_200, 65_536)), microbatch_tokens=65_536, reference_every=400,
        parallel=replace(ONE_GPU, reduce_every=True, gpus=512),
    ),
    # A real language model on two cores; a rollout is 64 short answers.
    "smollm2": GRPOConfig(
        rollouts=60, questions=8, group_size=8, minibatches=2, learning_rate=1e-5,
        caps=((0, 64), (60, 96)), microbatch_tokens=2_048, reference_every=40, eval_problems=8,
    ),
    "countdown": COUNTDOWN,
    "gsm8k": replace(COUNTDOWN, rollouts=116),
    "math": replace(COUNTDOWN, rollouts=234, caps=((0, 1_024), (400, 2_048))),
}  # fmt: skip

# GiB of vLLM's key-value cache: room for 256 completions of half the cap.
CACHES = {"qwen2.5-0.5b": 2.0, "qwen2.5-1.5b": 5.0, "qwen2.5-7b": 10.0}
MACHINES = {"1gpu": 1, "4gpu": 4, "8gpu": 8, "2nodes": 16}  # GPUs in all


def spread(size: str, gpus: int) -> GRPOConfig:
    """Countdown's settings for a model of this size over so many GPUs.

    On one GPU and on eight the torch sampler draws; on four, and on two nodes, vLLM, while FSDP2
    trains. Only memory and time change, not what is learned. Rows are sorted and padded, not
    packed: attention (sdpa) would multiply every token with its whole line, which by the plan
    makes training 40 to 140 % longer, and padding is less.
    """
    large = size.endswith("7b")
    # Where 20 bytes a weight, divided over the GPUs, leave no room beside the sampler's copy, the
    # shares wait in the host's memory.
    parallel = replace(ONE_GPU, reduce_every=large, offload=large and gpus < 8, gpus=gpus)
    sampling = {"sampler": "vllm", "vllm": VLLMConfig(kv_cache_gb=CACHES[size])}
    return replace(
        COUNTDOWN, parallel=parallel, processes=0, **(sampling if gpus in (4, 16) else {})
    )


for _size in CACHES:
    for _machine, _gpus in MACHINES.items():
        GRPO_PRESETS[f"{_size}-{_machine}"] = spread(_size, _gpus)
