"""The rewards of the stage for all scenarios: helpfulness and safety, as reward models see them.

Paper: v2 section 3.1. A general question is judged by one of the two: chat by its helpfulness,
read from the summary alone; an unsafe request by its safety, read from the whole completion.
"""

from collections.abc import Callable
from pathlib import Path

from r1lab.models.reward_model import load_reward_model
from r1lab.rewards.parsing import parse, text_of


def helpfulness(folder: str | Path) -> Callable:
    """The reward of chat: the probability (0 to 1) that the summary beats an average reply.

    A completion without a summary, which shows its reader nothing, scores 0.0; rows of other
    families score None. Raises InputError if the folder holds no reward model."""
    return _reward("helpfulness", "chat", lambda text: parse(text).answer, folder)


def safety(folder: str | Path) -> Callable:
    """The reward of unsafe requests: the probability (0 to 1) that the whole completion is safe.

    Rows of other families score None. Raises InputError if the folder holds no reward model."""
    return _reward("safety", "unsafe", str, folder)


def _reward(
    name: str, judged: str, shown: Callable[[str], str | None], folder: str | Path
) -> Callable:
    """TRL's reward function of a stored model; `shown` is the part of a completion it reads."""
    model = load_reward_model(folder)

    def reward(
        prompts: list, completions: list, family: list[str], **columns: object
    ) -> list[float | None]:
        scores: list[float | None] = [0.0 if one == judged else None for one in family]
        texts = [shown(text_of(completion)) for completion in completions]
        rows = [row for row, text in enumerate(texts) if text and family[row] == judged]
        found = model.judge([text_of(prompts[row]) for row in rows], [texts[row] for row in rows])
        for row, score in zip(rows, found, strict=True):
            scores[row] = score
        return scores

    reward.__name__ = name
    reward.blind = True  # to the gold answer: nothing to validate
    return reward
