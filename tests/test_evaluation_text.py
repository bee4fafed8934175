"""Counting words and languages in completions."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from r1lab.evaluation.text import REFLECTIVE_WORDS, count_words, is_mixed, reflection
from r1lab.world.words import REFLECTIVE


@pytest.mark.parametrize(
    "completion, expected",
    [
        ("<think> 9+5=14:13 no wait 9-5=4:13 no but 9+4=13:13 ok </think> <answer> 9+4", 2),
        ("<think>Wait, wait. However, I made a mistake.</think><answer>4</answer>", 4),
        ("<think> 9+5=14:13 ok </think> <answer> wait </answer>", 0),
        ("9+5=14:13 no wait 9-5=4 <answer> 9-5 </answer> wait", 1),
        ("<think> no wait, cut off here: but", 2),
        ("<think> waiter butter checkout </think>", 0),
        ("<think> 9+5=14:13不等9-5=4:13不但9+4=13:13对 </think>", 2),
        ("<think> 9+5=14:13 non attends 9-5=4:13 non mais 等 wait </think>", 4),
        ("", 0),
    ],
)
def test_reflective_words_are_counted_in_the_thinking_only(completion, expected):
    assert reflection(completion) == expected


def test_the_word_list_can_be_given():
    assert reflection("<think> hmm wait hmm </think>", {"hmm"}) == 2
    assert reflection("<think> wait </think>", {}) == 0
    assert frozenset().union(*REFLECTIVE.values()) <= REFLECTIVE_WORDS  # all of the small world's


@given(st.lists(st.sampled_from(["wait", "等", "attends", "ok", "17", "等wait"]), max_size=8))
def test_counting_words_does_not_depend_on_their_order(pieces):
    words = {"wait", "等", "attends"}
    expected = sum({"等wait": 2}.get(piece, piece in words) for piece in pieces)
    assert count_words(" ".join(pieces), words) == expected
    assert count_words(" ".join(reversed(pieces)), words) == expected


@pytest.mark.parametrize(
    "completion, expected",
    [
        ("<think> 9+5=14:13 no wait 9-5=4:13 no </think>", False),
        ("<think> 9+5=14:13不等9+4=13:13对 </think>", False),
        ("<think> 9+5=14:13不wait 9+4=13:13 ok </think>", True),
        ("<think> 9+5=14:13 no attends 9+4=13:13 oui </think>", True),
        ("<think> 9+5=14:13 non attends 9+4=13:13 oui </think> <answer> ok 等 </answer>", False),
        ("<think> 我们设 x = 3, 所以 y = 4 </think>", False),
        ("<think> 我们设 x = 3, therefore y = 4 </think>", True),
        ("<think> Let us compute the sum. </think>", False),
        ("<think> 9+5=14:13 </think>", False),
    ],
)
def test_mixing_is_words_of_more_than_one_language_in_the_thinking(completion, expected):
    assert is_mixed(completion) is expected
