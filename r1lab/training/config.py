"""What one GRPO run is: every number that changes its result."""

from collections.abc import Container
from dataclasses import dataclass, field
from typing import Literal

from r1lab.errors import InputError
from r1lab.world.wordings import NAMES, in_wordings
from r1lab.grpo import LossConfig
from r1lab.sampling import SamplerName, VLLMConfig
from r1lab.task import Problem
from r1lab.world import training_problems
from r1lab.training.distributed import Parallel
from r1lab.sources.hub import questions


@dataclass(frozen=True)
class GRPOConfig:
    """A run of group relative policy optimisation.

    A rollout asks `questions` questions, samples `group_size` completions for each, and is split
    into `minibatches` updates, one inner epoch. "Step" counts updates, as in the paper.

    Attributes:
        model: folder or Hub id of the policy at the start.
        mixture: of the training problems, "family/level" -> weight; `lang_weights` likewise.
        data: in place of a mixture, a file of problems or a set of the Hub (`sources.hub`), each
            problem once an epoch.
        template: see `sources.templates`.
        wordings: names in `evaluation.prompts.NAMES`; each question is asked in one of them, drawn
            by seed and rollout, where its family has others than the usual. None: the usual.
        arm: the reward: "true", or a control ("random": a coin; "format": the tags alone).
        accuracy_weight, format_weight: of the two rule rewards.
        language_weight: of language consistency; None: not computed, 0: only logged.
        reward_models: folder of the reward models of the last stage, "" for none.
        preference_weight: of each of their rewards.
        preference_from: step from which they count, and `late_mixture` is asked beside `mixture`.
        rollouts: how many; the run has rollouts x minibatches steps.
        flops_limit: the run ends with the rollout in which it has spent so many floating-point
            operations on its answers (`training.compute`); 0: with the last rollout.
        caps: (from step, longest completion in tokens), raised during the run.
        advantage: "group" compares answers to the same question (GRPO); "gae" asks a critic what
            was to be expected at each token (PPO).
        gae_lambda: 1 takes the reward that came, 0 the critic's word for it, one token later.
        critic_learning_rate: of the critic, constant; chosen by how well it foretells the base's
            rewards, before any comparison.
        demonstrations: folder of a data set (see `training.demonstrations`) that each update learns
            from as well, RL and SFT in one loss; "" for none.
        demonstration_weight: of their mean loss per token beside the loss of RL.
        demonstration_rows: so many of them in each update.
        reference_every: steps after which the reference policy becomes the policy.
        lag: rollouts are drawn from the policy as it was so many rollouts before, as asynchronous
            sampling does; what that changes is weighed as a sampler's drift is.
        sampler: "torch" samples with the policy itself; "vllm" gives vLLM its weights before each
            rollout, and corrects for what remains of a difference. `vllm` says how vLLM runs.
        grading: "asynchronous" grades completions in a thread as they end, while others are still
            sampled and then scored, with the same results; worth it where grading waits (for
            programs, a judge).
        grading_rows: so many are graded together, in the order in which they end (0: all at once,
            when the last has ended).
        warmup_steps: linear; the learning rate is constant after them.
        processes: 0 for one per core (or per GPU).
        pack: lay the rows of a micro-batch end to end instead of padding them (v2 B.1).
        parallel: how the model is spread over the processes.
        microbatch_tokens: with padding; 1,024 stay in a core's caches, 8,192 take half as long again.
        eval_file: held-out problems, or a set of the Hub; evaluated every `eval_every` rollouts with
            `eval_samples` samples each, on the first `eval_problems` of each level (0: all), and on
            all of them with `final_samples` before the first step and after the last.
        skipped_limit: so many updates in a row with a NaN loss end the run.
    """

    model: str = "data/base"
    mixture: dict[str, float] = field(
        default_factory=lambda: {
            "signs/1": 0.5, "signs/2": 1.0, "signs/3": 3.0, "signs/4": 4.0, "signs/5": 2.0,
        }
    )  # fmt: skip
    lang_weights: dict[str, float] = field(default_factory=lambda: {"en": 0.6, "zh": 0.4})
    data: str = ""
    template: str = "small"
    wordings: tuple[str, ...] = ()
    arm: str = "true"
    accuracy_weight: float = 1.0
    format_weight: float = 0.1
    language_weight: float | None = None
    reward_models: str = ""
    preference_weight: float = 1.0
    preference_from: int = 0
    late_mixture: dict[str, float] = field(default_factory=dict)
    rollouts: int = 44
    flops_limit: int = 0
    questions: int = 24
    group_size: int = 16
    minibatches: int = 4
    learning_rate: float = 1e-4
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
    demonstrations: str = ""
    demonstration_weight: float = 0.0
    demonstration_rows: int = 32
    caps: tuple[tuple[int, int], ...] = ((0, 320), (80, 448))
    reference_every: int = 40
    seed: int = 0
    processes: int = 0
    microbatch_tokens: int = 1024
    pack: bool = False
    parallel: Parallel = field(default_factory=Parallel)
    eval_file: str = "data/test_signs.jsonl"
    eval_every: int = 5
    eval_samples: int = 16
    eval_problems: int = 16
    final_samples: int = 16
    checkpoint_every: int = 2
    sample_rows: int = 32
    skipped_limit: int = 3

    @property
    def steps(self) -> int:
        return self.rollouts * self.minibatches

    def cap(self, step: int) -> int:
        """The longest completion allowed from `step` on."""
        return [tokens for start, tokens in self.caps if start <= step][-1]

    def problems(self, rollout: int, exclude: Container[str] = ()) -> list[Problem]:
        """The questions of a rollout, the same on every process and after every resume.

        Args:
            exclude: ids of problems that are kept for testing.
        """
        drawn = self._drawn(rollout, exclude)
        seed = f"{self.seed}/{rollout}"
        return in_wordings(drawn, self.wordings, seed) if self.wordings else drawn

    def _drawn(self, rollout: int, exclude: Container[str]) -> list[Problem]:
        if self.data:
            return questions(self.data, self.seed, rollout, self.questions, exclude)
        late = rollout * self.minibatches >= self.preference_from
        mixture = self.mixture | self.late_mixture if late else self.mixture
        return training_problems(
            self.seed, rollout, self.questions, mixture, self.lang_weights, exclude
        )

    def check(self, processes: int) -> None:
        """Refuse settings that cannot train.

        Raises:
            InputError: names the setting and its remedy.
        """
        if self.group_size < 2 and self.advantage == "group":
            raise InputError(
                f"group_size is {self.group_size}: a group of one has no mean to beat, so every "
                "advantage is 0; use at least 2."
            )
        if self.questions % self.minibatches:
            raise InputError(
                f"{self.questions} questions do not split into {self.minibatches} mini-batches; "
                "choose a multiple."
            )
        if self.questions % processes:
            raise InputError(
                f"{self.questions} questions do not divide over {processes} processes; choose a "
                "multiple, or set --processes."
            )
        if not self.caps or self.caps[0][0] != 0:
            raise InputError("caps must begin at step 0, for example ((0, 192), (96, 384)).")
        if self.arm not in ("true", "random", "format"):
            raise InputError(f"unknown arm {self.arm!r}; choose true, random or format.")
        if self.grading == "asynchronous" and self.grading_rows < 1:
            raise InputError(
                "asynchronous grading begins before the last completion has ended; set grading_rows, "
                "for example to 16."
            )
        if self.grading_rows and self.sampler != "torch":
            raise InputError(
                f"the sampler {self.sampler!r} tells of no completion before the last has ended; set "
                'grading_rows to 0 and grading to "in line".'
            )
        if not 0 <= self.gae_lambda <= 1:
            raise InputError(f"gae_lambda is {self.gae_lambda}; it lies between 0 and 1.")
        if unknown := set(self.wordings) - set(NAMES):
            raise InputError(
                f"there is no wording {', '.join(map(repr, sorted(unknown)))}; choose among "
                f"{', '.join(NAMES)}."
            )
        if self.flops_limit < 0:
            raise InputError(
                f"flops_limit is {self.flops_limit}; give a number of operations, or 0 for no limit."
            )
        if self.lag < 0:
            raise InputError(f"lag is {self.lag}; no rollout can be drawn from a later policy.")
        self._check_demonstrations()

    def _check_demonstrations(self) -> None:
        weight, rows = self.demonstration_weight, self.demonstration_rows
        if bool(self.demonstrations) != (weight > 0) or weight < 0:
            raise InputError(
                f"demonstrations is {self.demonstrations!r} and demonstration_weight {weight:g}; name "
                "a data set and give it a weight above 0, or leave out both."
            )
        if rows < 1:
            raise InputError(f"demonstration_rows is {rows}; give at least 1.")
