"""Lesson 09's ways to spend tokens, on tiny random models, from the questions to the ledger's values."""

import json

import numpy as np
import pytest

from r1lab.evaluation.measure import MEASURES, Evaluation
from tests.experiments.thinking import Thinking, capped, chosen, matched, thinking
from tests.small_run import tiny_model

QUICK = {
    "problems": 1, "levels": (2, 3), "samples": 2, "answers": 2, "cap": 8, "caps": (4,), "most": (2,),
    "least": (2,), "limit": 4, "room": 4, "prm": {"problems": 24},
}  # fmt: skip


def test_every_model_is_asked_in_every_way(tmp_path):
    place = tiny_model(tmp_path / "model")
    config = Thinking(models={"base": place, "r1": place}, seed=3, **QUICK)
    values = thinking(config, tmp_path / "arms")
    ways = {"cap_4", "close_2", "wait_2", "vote_1", "vote_2", "best_1", "best_2", "vote_matched"}
    arms = {name.partition("/")[0] for name in values} - {"levels"}
    assert arms == {f"base_{way}" for way in ways} | {f"r1_{way}" for way in (*ways, "tea_2")}
    assert values["levels/accuracy"].tolist() == values["levels/tokens"].tolist() == [2, 3]
    assert (values["r1_close_2/tokens"] <= 2 + 1 + 4).all() and (values["r1_wait_2/tokens"] > 2).all()
    assert np.array_equal(values["base_vote_2/tokens"], values["base_best_1/tokens"])
    seconds = json.loads((tmp_path / "arms/r1/summary.json").read_text())["wall_seconds"]
    again = thinking(config, tmp_path / "arms")  # what is finished is left as it is
    assert again.keys() == values.keys() and seconds > 0


def evaluation(correct, answer, tokens) -> Evaluation:
    arrays = {"correct": np.array(correct), "answer": np.array(answer), "tokens": np.array(tokens)}
    nothing = np.zeros_like(arrays["correct"])
    texts = [[""] * len(row) for row in correct]
    return Evaluation(np.arange(1), np.array([2]), ["p"], texts, dict.fromkeys(MEASURES, nothing) | arrays)


def test_the_vote_the_judge_and_a_cap_by_hand():
    free = evaluation([[1, 0, 0, 1]], [[0, 1, 1, 0]], [[10, 20, 30, 40]])
    found = chosen(Thinking(answers=4), free, np.array([[0.9, 0.1, 0.8, 0.8]]))
    accuracy = {way: pair[0].tolist() for way, pair in found.items()}
    assert accuracy == {
        "vote_1": [0.5], "vote_2": [0.5], "vote_4": [0.5],  # two against two: shared
        "best_1": [0.5], "best_2": [0.75], "best_4": [1.0],  # of the second pair, a tie is shared
    }  # fmt: skip
    assert found["vote_4"][1].tolist() == [100] and found["best_4"][1].tolist() == [200]
    assert [values.tolist() for values in capped(free, 25)] == [[0.25], [20.0]]


@pytest.mark.parametrize(("tokens", "expected"), [(200, 0.6), (200 * 2**0.5, 0.65), (50, 0.5), (900, 0.8)])
def test_the_vote_at_equal_tokens_lies_between_two_sizes(tokens, expected):
    found = {f"vote_{n}": (np.array([0.5 + 0.1 * place]), np.array([100.0 * n]))
             for place, n in enumerate((1, 2, 4, 8))}  # fmt: skip
    found["wait_9"] = np.array([0.0]), np.array([float(tokens)])
    assert matched(Thinking(answers=8), found, "wait_9")[0].tolist() == pytest.approx([expected])
