"""The rewards of the stage for all scenarios: helpfulness and safety, as reward models see them.

Paper: v2 section 3.1. A general question is judged by one of the two: chat by its helpfulness,
read from the summary alone; an unsafe request by its safety, read from the whole completion.
"""

from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import ClassVar

from r1lab.models.reward_model import load_reward_model
from r1lab.rewards.parsing import parse, text_of
from r1lab.task import Scores


@dataclass(frozen=True)
class PreferenceReward:
    """The reward of a stored model, in TRL's signature: a probability from 0 to 1.

    Rows of other families score None. A completion without a summary, which shows its reader
    nothing, scores 0.0 where the summary is what is read.

    Attributes:
        folder: the reward model's. Raises InputError if it holds none.
        family: whose rows are scored.
        whole: it reads the whole completion, and not the answer alone.
        first_rollout: before it (column `rollout`, where there is one) all rows score None.
    """

    folder: str | Path
    family: str
    whole: bool
    first_rollout: int = 0
    blind: ClassVar[bool] = True  # to the gold answer: nothing to validate

    def __post_init__(self):
        load_reward_model(self.folder)  # a missing one is named at once

    def __call__(self, prompts: list, completions: list, family: list[str], **columns: object) -> Scores:
        if (columns.get("rollout") or [self.first_rollout])[0] < self.first_rollout:
            return [None] * len(completions)
        scores = [0.0 if one == self.family else None for one in family]
        texts = [text_of(completion) for completion in completions]
        shown = texts if self.whole else [parse(*row).answer for row in zip(texts, prompts)]
        rows = [row for row, text in enumerate(shown) if text and family[row] == self.family]
        asked = [text_of(prompts[row]) for row in rows]
        judged = _model(self.folder).judge(asked, [shown[row] for row in rows])
        for row, score in zip(rows, judged):
            scores[row] = score
        return scores


_model = lru_cache(maxsize=4)(load_reward_model)
# The reward of chat: the probability that the summary beats an average reply.
helpfulness = partial(PreferenceReward, family="chat", whole=False)
# The reward of unsafe requests: the probability that the whole completion is safe.
safety = partial(PreferenceReward, family="unsafe", whole=True)
