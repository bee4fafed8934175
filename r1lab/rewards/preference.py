"""The rewards of the stage for all scenarios: helpfulness and safety, as reward models see them.

Paper: v2 section 3.1. A general question is judged by one of the two: chat by its helpfulness,
read from the summary alone; an unsafe request by its safety, read from the whole completion.
"""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

from r1lab.models.reward_model import load_reward_model
from r1lab.rewards.parsing import parse, text_of


@lru_cache(maxsize=4)
def _model(folder: str):
    return load_reward_model(folder)


@dataclass(frozen=True)
class PreferenceReward:
    """The reward of a stored model, in TRL's signature; it scores the rows of one family.

    `whole`: it reads the whole completion, and not the answer alone.
    """

    folder: str
    family: str
    whole: bool
    blind: ClassVar[bool] = True  # to the gold answer: nothing to validate

    def __call__(
        self, prompts: list, completions: list, family: list[str], **columns: object
    ) -> list[float | None]:
        scores: list[float | None] = [0.0 if one == self.family else None for one in family]
        texts = [text_of(completion) for completion in completions]
        shown = texts if self.whole else [parse(text).answer for text in texts]
        rows = [row for row, text in enumerate(shown) if text and family[row] == self.family]
        asked = [text_of(prompts[row]) for row in rows]
        found = _model(self.folder).judge(asked, [shown[row] for row in rows])
        for row, score in zip(rows, found, strict=True):
            scores[row] = score
        return scores


def helpfulness(folder: str | Path) -> PreferenceReward:
    """The reward of chat: the probability (0 to 1) that the summary beats an average reply.

    A completion without a summary, which shows its reader nothing, scores 0.0; rows of other
    families score None. Raises InputError if the folder holds no reward model."""
    return _checked(PreferenceReward(str(folder), "chat", whole=False))


def safety(folder: str | Path) -> PreferenceReward:
    """The reward of unsafe requests: the probability (0 to 1) that the whole completion is safe.

    Rows of other families score None. Raises InputError if the folder holds no reward model."""
    return _checked(PreferenceReward(str(folder), "unsafe", whole=True))


def _checked(reward: PreferenceReward) -> PreferenceReward:
    load_reward_model(reward.folder)  # one that is not there is named at once
    return reward
