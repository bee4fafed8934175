"""The paper's failed paths: labels and values by enumeration, PUCT by hand, tokens, seeds."""

import itertools
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from r1lab.models.policy import Policy
from r1lab.world.bases import build_model, build_tokenizer
from process_rewards import (
    AGGREGATES, PRMConfig, ProcessRewardModel, find_steps, step_labels, train_prm, write_search,
)  # fmt: skip
from tree_search import (
    Search, Tree, best_of_n, held_out_puzzles, learned_values, mcts, signs_tree, value_error,
)  # fmt: skip
from r1lab.sources.templates import apply_template
from r1lab.task import Problem
from r1lab.world import FAMILIES
from r1lab.world.puzzles import write_attempt

# root -> a (0.6), b (0.4); a -> c, d; b -> e, f. Only f is right. Steps cost 2 and 3 tokens.
HAND = Tree(
    names=["", "a", "b", "c", "d", "e", "f"],
    children=[[1, 2], [3, 4], [5, 6], [], [], [], []],
    prior=[1.0, 0.6, 0.4, 0.5, 0.5, 0.25, 0.75],
    cost=[0, 2, 2, 3, 3, 3, 3],
    right=[False] * 6 + [True],
)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module")
def policy(tokenizer):
    torch.manual_seed(0)
    return Policy(build_model("tiny", len(tokenizer)).eval())


@pytest.fixture(scope="module")
def puzzle():
    return FAMILIES["signs"].draw(random.Random(3), 3, "en")


@pytest.fixture(scope="module")
def prm(policy, tokenizer):
    """Untrained: its scores are random, but differ."""
    prm = ProcessRewardModel(policy.model, tokenizer)
    torch.nn.init.normal_(prm.head.weight, generator=torch.Generator().manual_seed(0))
    return prm


def attempt_at(problem: Problem, signs: Sequence[str]) -> str:
    """Write an attempt, or its beginning, at a puzzle."""
    numbers = problem.meta["numbers"]
    moves = tuple(zip(signs, numbers[1:], strict=False))
    return write_attempt(numbers[0], moves, problem.meta["target"])[0]


# ---- steps and their labels ----------------------------------------------------------------------


def test_steps_end_where_their_total_does_and_the_last_with_the_target():
    text = "<think> 9+5=14+1=15:13 no wait 9+5=14-1=13:13 ok </think> <answer> 9+5-1 </answer>"
    steps = find_steps(text)
    assert [step.signs for step in steps] == ["+", "++", "+", "+-"]
    assert [text[: step.end][-5:] for step in steps] == ["+5=14", "15:13", "+5=14", "13:13"]


@pytest.mark.parametrize("level", [1, 2, 3, 5])
def test_a_step_is_good_when_some_way_on_hits_the_target(level):
    """Against another route: try all endings of the attempt."""
    problem = FAMILIES["signs"].draw(random.Random(level), level, "en")
    numbers, target = problem.meta["numbers"], problem.meta["target"]
    for signs in itertools.product("+-", repeat=level):
        steps = find_steps(attempt_at(problem, signs))
        for label, step in zip(step_labels(problem, steps), steps, strict=True):
            endings = itertools.product([1, -1], repeat=level - len(step.signs))
            start = [1 if sign == "+" else -1 for sign in step.signs]
            totals = [numbers[0] + np.dot([*start, *end], numbers[1:]) for end in endings]
            assert label == (target in totals)


def test_a_written_search_repeats_nothing_and_stops_at_the_solution(puzzle):
    text = write_search(random.Random(0), puzzle, most=8)
    whole = [step for step in find_steps(text) if len(step.signs) == 3]
    assert len({step.signs for step in whole}) == len(whole)
    assert step_labels(puzzle, whole) == [False] * (len(whole) - 1) + [True]


# ---- the process reward model --------------------------------------------------------------------


def test_a_score_is_read_at_its_own_step_and_does_not_see_what_follows(prm, puzzle):
    prompt = apply_template("small", puzzle.prompt)
    text = write_search(random.Random(0), puzzle, most=3)
    whole = prm.scores([(prompt, text)])[0]
    ends = [step.end for step in find_steps(text)]
    cut = prm.scores([(prompt, text[:end]) for end in ends])  # rows of other lengths, padded
    assert len(whole) == len(ends) and len(set(whole)) > 1
    assert [own[-1] for own in cut] == pytest.approx(whole, abs=1e-5)
    assert prm.scores([(prompt, "<answer> 1+2 </answer>")]) == [[0.0]]


def test_training_lowers_the_loss_and_repeats_itself(policy, tokenizer):
    config = PRMConfig(mixture={"signs/1": 1.0}, problems=480, learning_rate=3e-3)
    prm, losses = train_prm(policy.model, tokenizer, config)
    again = train_prm(policy.model, tokenizer, replace(config, problems=72))[1]
    other = train_prm(policy.model, tokenizer, replace(config, problems=72, seed=1))[1]
    assert np.mean(losses[-5:]) < losses[0] - 0.02
    assert again == losses[:3] and other != again
    assert not torch.equal(prm.body.norm.weight, policy.model.model.norm.weight)


def test_the_reward_has_trls_signature_and_adds_up_its_steps(policy, tokenizer, puzzle):
    prm = ProcessRewardModel(policy.model, tokenizer)  # its head is 0: every score is 1/2
    prompt, text = apply_template("small", puzzle.prompt), write_search(random.Random(0), puzzle, 2)
    count = len(find_steps(text))
    expected = {"sum": count / 2, "mean": 0.5, "min": 0.5, "last": 0.5}
    for how in AGGREGATES:
        reward = prm.reward(how)
        paid = reward(prompts=[prompt] * 2, completions=[text, "no steps"], solution=["", ""])
        assert paid == pytest.approx([expected[how], 0.0])


# ---- trees ---------------------------------------------------------------------------------------


def test_exact_values_by_hand():
    assert HAND.values(best=True) == [1, 0, 1, 0, 0, 0, 1]
    chance = HAND.values(best=False)
    assert chance == pytest.approx([0.4 * 0.75, 0, 0.75, 0, 0, 0, 1])


def test_a_signs_tree_holds_all_attempts_their_tokens_and_the_policys_prior(policy, tokenizer, puzzle):
    tree = signs_tree(policy, tokenizer, puzzle)
    assert len(tree.names) == 2**4 - 1 and sum(tree.right) == 1
    assert tree.values(best=True)[0] == 1
    for node, own in enumerate(tree.children):
        assert all(tree.names[child][:-1] == tree.names[node] for child in own)
        assert not own or sum(tree.prior[child] for child in own) == pytest.approx(1)
    right = tree.names[tree.right.index(True)]
    path = [tree.names.index(right[:length]) for length in range(1, 4)]
    # "<think>" and the first number stand in every attempt, and are not paid.
    assert sum(tree.cost[node] for node in path) == len(tokenizer(attempt_at(puzzle, right)).input_ids) - 1


def test_the_prior_is_what_the_policy_says_of_the_two_signs(policy, tokenizer, puzzle):
    tree = signs_tree(policy, tokenizer, puzzle)
    prompt = tokenizer(apply_template("small", puzzle.prompt)).input_ids
    opening = tokenizer(f"<think> {puzzle.meta['numbers'][0]}").input_ids
    logits = policy.model(torch.tensor([prompt + opening])).logits[0, -1]
    signs = tokenizer.convert_tokens_to_ids(["+", "-"])
    expected = logits[signs].softmax(-1).tolist()
    assert [tree.prior[node] for node in tree.children[0]] == pytest.approx(expected, abs=1e-5)


def test_learned_values_stand_at_the_nodes_they_are_about(policy, tokenizer, prm, puzzle):
    tree = signs_tree(policy, tokenizer, puzzle)
    said = learned_values(prm, puzzle, tree)
    for node in (1, 4, 9):
        signs = tree.names[node]
        text = f"<think> {attempt_at(puzzle, signs)}"
        text = text if len(signs) == 3 else text.rsplit(":", 1)[0]
        alone = prm.scores([(apply_template("small", puzzle.prompt), text)])[0][-1]
        assert said[node] == pytest.approx(alone, abs=1e-5)


# ---- searches ------------------------------------------------------------------------------------


def test_puct_by_hand():
    search = Search(HAND, 0, visits=Counter({1: 4, 2: 5}), totals=Counter({1: 3.0}))
    assert search.puct(1, siblings=9, c=2.0) == pytest.approx(0.75 + 2 * 0.6 * 3 / 5)
    assert search.puct(3, siblings=0, c=1.0) == 0


def test_mcts_visits_a_hand_made_tree_as_computed_by_hand():
    """Values: a 0.1, b 0.5; c = 1.

    1: nothing is visited, the likeliest: a. 2: a 0.1 + 0.6/2 = 0.4, b 0.4: a comes first, and below
    it c and d tie: c (0). 3: a 0.05 + 0.6 sqrt(2)/3 = 0.333, b 0.4 sqrt(2) = 0.566: b.
    4: a 0.05 + 0.6 sqrt(3)/3 = 0.396, b 0.5 + 0.4 sqrt(3)/2 = 0.846: b, then f (0.75 over 0.25;
    with no visits below b both scores are 0, and the likelier comes first). f is right.
    """
    values = [0.0, 0.1, 0.5, 0.0, 0.0, 0.0, 0.0]
    search = mcts(HAND, values, budget=100)
    assert [HAND.names[node] for node in search.written] == ["a", "c", "b", "f"]
    assert search.visits == {0: 3, 1: 2, 2: 1, 3: 1}  # of finished simulations
    assert search.found_at == search.spent == 2 + 3 + 2 + 3


def test_a_budget_is_never_exceeded_and_readers_are_paid():
    values = HAND.values(best=True)
    assert mcts(HAND, values, budget=100).found_at == 5 + 2  # a first: the likeliest
    assert mcts(HAND, values, budget=100, readers=2).found_at == 2 * 7
    for budget in range(15):
        search = mcts(HAND, values, budget)
        assert search.spent <= budget and (search.found_at is not None) == (budget >= 7)


@pytest.mark.parametrize("seed", range(20))
def test_best_of_n_pays_every_attempt_in_full(seed):
    rng = random.Random(seed)
    search = best_of_n(HAND, 23, rng)
    whole = len(search.written) // 2
    assert search.spent == 5 * whole <= 23 and (search.found_at or whole == 4)
    assert bool(search.found_at) == (6 in search.written)
    assert search == best_of_n(HAND, 23, random.Random(seed))


def test_rollouts_are_paid_and_seeded():
    search, again = (mcts(HAND, None, 50, rng=random.Random(1)) for _ in range(2))
    assert search == again
    assert search.spent == sum(HAND.cost[node] for node in search.written)


def test_a_width_of_one_is_stuck_where_the_likeliest_path_ends():
    search = mcts(HAND, HAND.values(best=True), 1000, width=1)
    assert search.found_at is None and search.spent == 5  # a, c: the local optimum


def test_rollouts_find_what_the_prior_finds_on_average():
    found = [best_of_n(HAND, 5, random.Random(seed)).found_at is not None for seed in range(4000)]
    assert np.mean(found) == pytest.approx(HAND.values(best=False)[0], abs=0.03)


# ---- what the lesson compares ------------------------------------------------------------------------------


def test_value_error_compares_siblings_and_the_blind_guess():
    said = [0.5, 0.2, 0.9, 0.0, 0.0, 0.8, 0.3]
    tree = replace(HAND, names=["", "+", "-", "++", "+-", "-+", "--"])
    first, second = (value_error([tree], [said], depth) for depth in (1, 2))
    assert first == {"error": pytest.approx((0.04 + 0.01) / 2), "blind": 0.25, "right": 1}
    assert second["right"] == 0 and second["blind"] == 0.1875


def test_held_out_puzzles_are_different_and_always_the_same():
    puzzles = held_out_puzzles(3, 20)
    assert len({problem.id for problem in puzzles}) == 20
    assert puzzles == held_out_puzzles(3, 20) and puzzles[0].lang == "en"
