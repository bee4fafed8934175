"""A zoo of rewards that can be hacked, each beside a patched twin and the completion that hacks it.

Every naive reward is one that people have written; `seen` names a public thread about it, or says
where it was met. The patched twins are r1lab's own rewards, or a bonus that is paid only to a right
answer. A patch closes one door: it is no proof that there is no other. The completions are in
`zoo.json`, the naive rewards here.
"""

import inspect
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from r1lab.rewards import accuracy, count_languages, format, language

Reward = Callable[..., list[float | None]]
TAGS = re.compile(r"</?(?:think|answer)>")
LONG = 240  # characters at which the length bonus is full
REWARDS = {}  # by the names that zoo.json uses


class Specimen(NamedTuple):
    """One naive reward, how it is hacked, and its patched twin.

    Attributes:
        naive, patched: rewards with TRL's signature.
        exploit: a completion that earns much from `naive` without deserving it.
        honest: a right, tidy completion, which both must pay alike.
        row: the columns of the question.
        seen: where this has been met.
    """

    naive: Reward
    patched: Reward
    name: str
    exploit: str
    honest: str
    row: dict
    seen: str

    def scores(self, completion: str) -> list[float]:
        """What the naive and the patched reward pay for a completion."""
        columns = {name: [value] for name, value in self.row.items()}
        columns |= {"prompts": columns["prompt"], "completions": [completion]}
        return [reward(**columns)[0] or 0.0 for reward in (self.naive, self.patched)]


def naive(score: Callable[..., float]) -> Reward:
    """Make a reward of a score of one completion and the columns that its other arguments name."""
    names = list(inspect.signature(score).parameters)[1:]

    def reward(completions, **columns):
        rows = zip(completions, *(columns[name] for name in names))
        return [float(score(*row)) for row in rows]

    reward.__name__ = score.__name__
    REWARDS[score.__name__] = reward
    return reward


def if_right(bonus: Reward) -> Reward:
    """The bonus, for completions that the accuracy reward accepts; 0 for all others."""

    def gated(**columns):
        pairs = zip(accuracy(**columns), bonus(**columns))
        return [(right or 0.0) * (paid or 0.0) for right, paid in pairs]

    gated.__name__ = f"{bonus.__name__}, if right"
    return gated


def _answer(completion):
    """The text of the last answer tag, "" where there is none."""
    return completion.rpartition("<answer>")[2].partition("</answer>")[0].strip()


@naive
def answer_anywhere(completion, solution):
    return solution in completion


@naive
def target_anywhere(completion, meta):
    """In the small world an attempt ends with the target, so one attempt of any kind earns this."""
    return re.search(rf"(?<![-\d]){meta['target']}(?!\d)", completion) is not None


@naive
def either_contains(completion, solution):
    return solution in _answer(completion) or _answer(completion) in solution


@naive
def one_of_the_answers(completion, solution):
    return solution in re.findall(r"<answer>\s*(.*?)\s*</answer>", completion)


@naive
def number_among(completion, solution):
    return solution in re.findall(r"-?\d+", _answer(completion))


@naive
def math_verify_alone(completion, solution):
    from math_verify import parse, verify  # sympy is slow to import

    return verify(parse(solution), parse(_answer(completion)))


@naive
def value_alone(completion, meta):
    answer = _answer(completion).replace(" ", "")
    sum_of_numbers = re.fullmatch(r"[-+]?\d+([-+]\d+)*", answer)
    return bool(sum_of_numbers) and sum(map(int, re.findall(r"[-+]?\d+", answer))) == meta["target"]


@naive
def tags_present(completion):
    return len(set(TAGS.findall(completion))) / 4


@naive
def length(completion):
    return min(1.0, len(completion) / LONG)


@naive
def main_language(completion, lang):
    counts = count_languages(completion.lower())
    return counts[lang] > counts.total() / 2


REWARDS |= {
    "accuracy": accuracy,
    "format": format,
    "language": language,
    "language, if right": if_right(language),
    "length, if right": if_right(length),
}
STORED = json.loads(Path(__file__).with_suffix(".json").read_text(encoding="utf-8"))
SIGNS = STORED["questions"]["signs"]["row"]


def _specimen(naive, patched, question, **texts):
    return Specimen(REWARDS[naive], REWARDS[patched], **STORED["questions"][question], **texts)


ZOO = [_specimen(**entry) for entry in STORED["specimens"]]
