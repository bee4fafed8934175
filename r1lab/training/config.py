"""How one GRPO run learns: every number that changes its result, beside model and task."""

from dataclasses import dataclass, field, replace
from typing import Literal

from r1lab.errors import InputError
from r1lab.objective import LossConfig
from r1lab.sampling import SamplerName, VLLMConfig
from r1lab.training.distributed import Parallel


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
            operations on its answers (`training.compute`); 0: with the last rollout.
        warmup_steps: linear; the learning rate is constant after them.
        lag: rollouts are drawn from the policy as it was this number of rollouts before, as
            asynchronous sampling does; what that changes is weighed as a sampler's drift is.
        sampler: "torch" samples with the policy itself; "vllm" gives vLLM its weights before each
            rollout, and corrects for what remains of a difference. `vllm` says how vLLM runs.
        grading: "asynchronous" grades completions in a thread as they end, while others are still
            sampled and then scored, with the same results; worth it where grading waits (for
            programs, a judge).
        grading_rows: how many are graded together, in the order in which they end (0: all at once,
            when the last has ended).
        advantage: "group" compares answers to the same question (GRPO); "gae" asks a critic what
            was to be expected at each token (PPO).
        gae_lambda: 1 takes the reward that came, 0 the critic's word for it, one token later.
        critic_learning_rate: of the critic, constant; chosen by how well it predicts the base's
            rewards, before any comparison.
        caps: (from step, longest completion in tokens), raised during the run.
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
    lag: int = 0
    sampler: SamplerName = "torch"
    vllm: VLLMConfig = field(default_factory=VLLMConfig)
    grading: Literal["in line", "asynchronous"] = "in line"
    grading_rows: int = 0
    divide_by_std: bool = True
    advantage: Literal["group", "gae"] = "group"
    gae_lambda: float = 1.0
    critic_learning_rate: float = 1e-3
    loss: LossConfig = field(default_factory=LossConfig)
    caps: tuple[tuple[int, int], ...] = ((0, 1_024),)
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
        """The settings of this name in `training.presets`, with changes.

        Raises InputError where there is no such preset.
        """
        from r1lab.training.presets import GRPO_PRESETS  # which are made of this class

        if name not in GRPO_PRESETS:
            raise InputError(f"there is no preset {name!r}; choose one of {', '.join(GRPO_PRESETS)}.")
        return replace(GRPO_PRESETS[name], **changes)

    @property
    def steps(self) -> int:
        return self.rollouts * self.minibatches

    def cap(self, step: int) -> int:
        """The longest completion allowed from `step` on."""
        return [tokens for start, tokens in self.caps if start <= step][-1]

    def check(self, processes: int) -> None:
        """Refuse settings that cannot train.

        Raises:
            InputError: names the setting and its remedy.
        """
        for refused, sentence in self._refusals(processes):
            if refused:
                raise InputError(sentence)

    def _refusals(self, processes: int) -> list[tuple[bool, str]]:
        """What cannot train, and the sentence that says so."""
        return [
            (
                self.group_size < 2 and self.advantage == "group",
                f"group_size is {self.group_size}: a group of one has no mean to beat, so every "
                "advantage is 0; use at least 2.",
            ),
            (
                self.rollouts < 1 or self.minibatches < 1,
                f"rollouts is {self.rollouts} and minibatches {self.minibatches}; give at least 1.",
            ),
            (
                self.questions < 1 or self.questions % max(1, self.minibatches) != 0,
                f"{self.questions} questions do not split into {self.minibatches} mini-batches; "
                "choose a multiple.",
            ),
            (
                self.questions % processes != 0,
                f"{self.questions} questions do not divide over {processes} processes; choose a "
                "multiple, or set --processes.",
            ),
            (
                not self.caps or self.caps[0][0] != 0,
                "caps must begin at step 0, for example ((0, 192), (96, 384)).",
            ),
            (
                not self.temperature > 0,
                f"temperature is {self.temperature:g}: all completions of a question would be the "
                "same, and nothing could be compared; use 1.",
            ),
            (
                not self.max_grad_norm > 0,
                f"max_grad_norm is {self.max_grad_norm:g}, which cuts every gradient to nothing; use 1, "
                "or a large number for no limit.",
            ),
            (
                self.warmup_steps < 0 or self.seed < 0 or self.flops_limit < 0 or self.lag < 0,
                f"warmup_steps ({self.warmup_steps}), seed ({self.seed}), flops_limit "
                f"({self.flops_limit}) and lag ({self.lag}) must not be negative.",
            ),
            (
                self.grading == "asynchronous" and self.grading_rows < 1,
                "asynchronous grading starts before the last completion has ended; set grading_rows, "
                "for example to 16.",
            ),
            (
                self.grading_rows > 0 and self.sampler != "torch",
                f"the sampler {self.sampler!r} reports no completion before the last has ended; set "
                'grading_rows to 0 and grading to "in line".',
            ),
            (
                not 0 <= self.gae_lambda <= 1,
                f"gae_lambda is {self.gae_lambda}; it lies between 0 and 1.",
            ),
        ]
