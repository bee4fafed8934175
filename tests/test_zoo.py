"""The reward-hacking zoo: each exploit pays on the naive reward and not on its patched twin."""

import pytest

import zoo
from zoo import ZOO, if_right
from r1lab.rewards import RewardSet, accuracy, format, language

names = [one.name for one in ZOO]


@pytest.mark.parametrize("one", ZOO, ids=names)
def test_the_exploit_pays_on_the_naive_reward_only_and_honesty_on_both(one):
    """The exploit is wrong, says nothing, or thinks in another language; the honest one does not."""
    naive, patched = one.scores(one.exploit)
    assert naive >= 0.99 and patched <= 0.01
    naive, patched = one.scores(one.honest)
    assert naive == patched > 0.2
    columns = {name: [value] for name, value in one.row.items()}

    def verdicts(completion):
        asked = {"prompts": columns["prompt"], "completions": [completion], **columns}
        return [reward(**asked)[0] for reward in (accuracy, format, language)]

    assert min(verdicts(one.exploit)) == 0.0 and verdicts(one.honest) == [1.0, 1.0, 1.0]


def test_names_are_different_and_each_is_seen_somewhere():
    assert len(set(names)) == len(ZOO) >= 10 and all(one.seen for one in ZOO)


def test_a_bonus_for_right_answers_is_nothing_without_one():
    rows = {"prompts": ["p"] * 3, "solution": ["5", "5", " "], "lang": ["en"] * 3}
    completions = [f"<think> ok </think> <answer> {n} </answer>" for n in (5, 6, 5)]
    bonus = if_right(language)
    assert bonus(completions=completions, **rows) == [1.0, 0.0, 0.0]


def test_naive_rewards_work_in_a_reward_set():
    signs = [one for one in ZOO if one.row is zoo.SIGNS]
    naive = [one.naive for one in signs]
    rewards = RewardSet({reward.__name__: (reward, 1.0) for reward in naive})
    columns = {name: [value] for name, value in zoo.SIGNS.items()}
    totals, parts = rewards(prompts=["p"], completions=[signs[0].honest], **columns)
    assert len(parts) == 5 and totals[0] > 4


@pytest.mark.parametrize(
    ("text", "found"), [("9+5=14:13 no", 1.0), ("130", 0.0), ("213", 0.0), ("=-13", 0.0), ("9+5", 0.0)]
)
def test_the_target_is_looked_for_as_a_whole_number(text, found):
    columns = {name: [value] for name, value in zoo.SIGNS.items()}
    assert zoo.target_anywhere(prompts=["p"], completions=[text], **columns) == [found]
