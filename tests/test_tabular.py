"""The enumerated policy: its sums against samples, brute force and hand-made numbers."""

import itertools

import pytest
import torch

from r1lab.errors import InputError
from r1lab.objective import LossConfig, group_advantages, policy_loss
from tabular import Tree, gradient, mean_loss

TREE = Tree()


def table(seed: int, tree: Tree = TREE) -> torch.Tensor:
    shape = len(tree.states), len(tree.vocabulary)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.double).requires_grad_()


def rewards() -> torch.Tensor:
    return torch.tensor([float("b" in c and c.endswith(".")) for c in TREE.completions]).double()


@pytest.mark.parametrize("tree", [Tree(), Tree("x.", 1), Tree("abc.", 3), Tree("01", 4)])
def test_the_completions_are_all_there_and_their_chances_sum_to_one(tree):
    letters, end = tree.vocabulary[:-1], tree.vocabulary[-1]
    texts = {
        text[: text.index(end) + 1] if end in text else text
        for text in map("".join, itertools.product(tree.vocabulary, repeat=tree.max_tokens))
    }
    assert texts == set(tree.completions) and len(texts) == len(tree.completions)
    assert all(end not in state and set(state) <= set(letters) for state in tree.states)
    assert tree.probabilities(table(0, tree)).sum().item() == pytest.approx(1, abs=1e-12)
    assert tree.mask.sum(1).tolist() == [len(text) for text in tree.completions]


def test_the_uniform_policy_by_hand():
    uniform = torch.zeros(7, 3, dtype=torch.double)
    chances = dict(zip(TREE.completions, TREE.probabilities(uniform).tolist(), strict=True))
    assert chances["."] == pytest.approx(1 / 3) and chances["b."] == pytest.approx(1 / 9)
    assert chances["ab."] == chances["aaa"] == pytest.approx(1 / 27)
    assert TREE.mean(uniform, rewards()).item() == pytest.approx(1 / 9 + 3 / 27)
    values = dict(zip(TREE.states, TREE.state_values(uniform, rewards()).tolist(), strict=True))
    assert values[""] == pytest.approx(2 / 9) and values["a"] == pytest.approx(1 / 9)
    assert values["b"] == pytest.approx(1 / 3 + 2 / 9) and values["aa"] == 0


def test_the_scores_weigh_up_to_the_gradient():
    logits = table(1)
    weighed = (TREE.probabilities(logits) * rewards()) @ TREE.scores(logits)
    exact = gradient(TREE.mean(logits, rewards()), logits)
    assert torch.allclose(weighed, exact, atol=1e-12) and exact.norm() > 0.01


def test_kl_is_the_sum_of_the_states_divergences_where_they_are_visited():
    logits, ref = table(2), table(3)
    ours, theirs = logits.log_softmax(-1), ref.log_softmax(-1)
    per_state = TREE.at_states((ours.exp() * (ours - theirs)).sum(1)).sum(1)
    assert TREE.kl(logits, ref).item() == pytest.approx(TREE.mean(logits, per_state).item())
    assert TREE.kl(logits, logits).item() == pytest.approx(0, abs=1e-12)


def test_samples_follow_the_probabilities_and_the_seed():
    logits = table(4)
    draw = TREE.sample(logits, (200, 100), torch.Generator().manual_seed(0))
    shares = torch.bincount(draw.flatten(), minlength=15) / draw.numel()
    assert draw.shape == (200, 100)
    assert (shares - TREE.probabilities(logits)).abs().max() < 0.02
    again = TREE.sample(logits, (200, 100), torch.Generator().manual_seed(0))
    assert torch.equal(draw, again)


def test_the_groups_stand_for_all_ordered_draws():
    rows, orders = TREE.groups(3)
    assert orders.sum().item() == 15**3 and len(rows) == 680
    chances = TREE.probabilities(table(5))
    assert (orders * chances[rows].prod(1)).sum().item() == pytest.approx(1, abs=1e-12)


@pytest.mark.parametrize("aggregation", ["sequence", "token", "constant"])
@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize("divide_by_std", [True, False])
def test_the_mean_loss_is_that_of_all_ordered_groups_one_by_one(aggregation, ratio, divide_by_std):
    tree = Tree("b.", 2)  # 3 completions, 27 ordered groups
    logits, old, rollout = (table(seed, tree) for seed in (6, 7, 8))
    earned = torch.tensor([0.0, 1.0, 0.3], dtype=torch.double)
    config = LossConfig(0.2, 0.28, beta=0.0, aggregation=aggregation, ratio=ratio)
    total, chances = 0.0, tree.probabilities(rollout)
    for group in itertools.product(range(3), repeat=3):
        rows = list(group)
        advantages = group_advantages(earned[None, rows], divide_by_std=divide_by_std)[0]
        parts = (tree.logps(x)[rows] for x in (old, rollout))
        loss, _ = policy_loss(
            tree.logps(logits)[rows], next(parts), None, advantages, tree.mask[rows], config,
            rollout_logps=next(parts),
        )  # fmt: skip
        total = total + chances[rows].prod() * loss
    ours = mean_loss(
        tree, logits, earned, config, divide_by_std=divide_by_std, old_logits=old,
        rollout_logits=rollout,
    )  # fmt: skip
    assert ours.item() == pytest.approx(total.item(), abs=1e-12)
    assert torch.allclose(gradient(ours, logits), gradient(total, logits), atol=1e-12)


def test_too_many_groups_and_a_kl_term_are_refused():
    with pytest.raises(InputError, match="smaller size"):
        TREE.groups(9)
    with pytest.raises(InputError, match="beta"):
        mean_loss(TREE, table(0), rewards(), LossConfig(beta=0.1))
