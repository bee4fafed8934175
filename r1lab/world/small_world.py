"""The small world as a task: what is asked, and what is paid."""

from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated

import tyro

from r1lab.errors import require_known
from r1lab.rewards import accuracy, format, language, random
from r1lab.rewards.preference import helpfulness, safety
from r1lab.task import Problem, Reward, Task, held_out_ids, load_problems
from r1lab.world import find_attempts, training_problems

ARMS = ("true", "random", "format")
LANG_WEIGHTS = {"en": 0.6, "zh": 0.4}


def _weights(words):
    """Read NAME WEIGHT NAME WEIGHT ... Raises ValueError where that cannot be."""
    if len(words) % 2:
        raise ValueError(f"{' '.join(words)}: give names and weights in turn, as signs/1 0.5")
    return {name: float(weight) for name, weight in zip(words[::2], words[1::2])}


Weights = Annotated[
    dict[str, float],
    tyro.constructors.PrimitiveConstructorSpec(
        nargs="*", metavar="[NAME WEIGHT [NAME WEIGHT ...]]", instance_from_str=_weights,
        is_instance=lambda value: isinstance(value, dict),
        str_from_instance=lambda weights: [str(part) for pair in weights.items() for part in pair]
    )
]  # fmt: skip


@dataclass(frozen=True)
class SmallWorld:
    """What a run of RL asks and pays in the small world.

    Attributes:
        mixture: of the training problems, "family/level" -> weight; `lang_weights` likewise.
        late_mixture: asked beside `mixture` from rollout `late_from` on.
        arm: the reward: "true", or a control ("random": a coin; "format": the tags alone).
        accuracy_weight, format_weight: of the two rule rewards. The paper adds them with the same
            weight.
        language_weight: of language consistency; None: not computed, 0: only logged.
        reward_models: folder of the reward models of the last stage, "" for none; they count from
            rollout `late_from` on, each with `preference_weight` (v2 section 3.2.3).
        test: file of held-out problems.
    """

    mixture: Weights = field(
        default_factory=lambda: {
            "signs/1": 0.5, "signs/2": 1.0, "signs/3": 3.0, "signs/4": 4.0, "signs/5": 2.0,
        }
    )  # fmt: skip
    lang_weights: Weights = field(default_factory=LANG_WEIGHTS.copy)
    late_mixture: Weights = field(default_factory=dict)
    late_from: int = 0
    arm: str = "true"
    accuracy_weight: float = 1.0
    format_weight: float = 0.1
    language_weight: float | None = None
    reward_models: str = ""
    preference_weight: float = 1.0
    # On the command line --test and --template are those of `Zero`.
    test: Annotated[str, tyro.conf.arg(name="world-test")] = "data/test_signs.jsonl"
    template: Annotated[str, tyro.conf.arg(name="world-template")] = "small"

    def task(self) -> Task:
        """Make the task. Raises InputError where a setting names nothing that exists."""
        require_known(self.arm, ARMS, "arm")
        test = load_problems(self.test)
        excluded = held_out_ids() | {problem.id for problem in test}
        return Task(
            name="small world", problems=partial(self.draw, excluded), test=test, rewards=self.rewards(),
            template=self.template, attempts=find_attempts, settings=asdict(self)
        )  # fmt: skip

    def draw(self, excluded: frozenset[str], seed: int, rollout: int, count: int) -> list[Problem]:
        """Draw the questions of a rollout, none of which has an excluded id."""
        mixture = self.mixture | self.late_mixture if rollout >= self.late_from else self.mixture
        return training_problems(seed, rollout, count, mixture, self.lang_weights, excluded)

    def rewards(self) -> dict[str, tuple[Reward, float]]:
        """Give the rewards with their weights, by name. The control arms log the rule rewards as well."""
        accuracy_weight, format_weight = self.accuracy_weight, self.format_weight
        if self.arm != "true":
            accuracy_weight, format_weight = 0.0, float(self.arm == "format")
        named = {"random": (random, 1.0)} if self.arm == "random" else {}
        named |= {"accuracy": (accuracy, accuracy_weight), "format": (format, format_weight)}
        if self.language_weight is not None:
            named["language"] = (language, self.language_weight)
        if self.reward_models:
            for name, reward in (("helpfulness", helpfulness), ("safety", safety)):
                model = reward(Path(self.reward_models) / name, first_rollout=self.late_from)
                named[name] = (model, self.preference_weight)
        return named
