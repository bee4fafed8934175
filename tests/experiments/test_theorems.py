"""The ledger's exact claims: on policies whose answers can all be listed, means are sums."""

from dataclasses import replace

import pytest
import torch

from r1lab.objective import LossConfig
from tabular import Tree, gradient, mean_loss
from tests.experiments.registry import PROOFS

TREE = Tree("ab.", 3)
DR_GRPO = LossConfig(beta=0.0, aggregation="constant")
GROUP, POLICIES = 3, range(5)


def policy_and_rewards(seed: int, tree: Tree = TREE) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits drawn at random, and a third of the completions right."""
    generator = torch.Generator().manual_seed(seed)
    shape = len(tree.states), len(tree.vocabulary)
    logits = torch.randn(shape, generator=generator, dtype=torch.double)
    rewards = torch.zeros(len(tree.completions), dtype=torch.double)
    rewards[torch.randperm(len(rewards), generator=generator)[: len(rewards) // 3]] = 1
    return logits.requires_grad_(), rewards


def step(logits, rewards, config=DR_GRPO, *, tree=TREE, **options) -> torch.Tensor:
    """Where the mean update of GRPO goes: minus the gradient of the mean loss."""
    options = {"divide_by_std": False, "size": GROUP, **options}
    return -gradient(mean_loss(tree, logits, rewards, config, **options), logits)


@pytest.mark.parametrize("seed", POLICIES)
def test_group_mean_keeps_the_gradient(seed):
    logits, rewards = policy_and_rewards(seed)
    true = gradient(TREE.mean(logits, rewards), logits)
    expected = true * (GROUP - 1) / GROUP / TREE.max_tokens
    assert torch.allclose(step(logits, rewards), expected, atol=1e-12)


def test_std_weighs_sure_and_hopeless_questions_more():
    weights = []
    for seed in POLICIES:
        logits, rewards = policy_and_rewards(seed)
        plain = step(logits, rewards, size=4)  # groups of 3 would all have the same std
        divided = step(logits, rewards, size=4, divide_by_std=True)
        weight = divided.norm() / plain.norm()
        assert torch.allclose(divided, weight * plain, atol=1e-10)  # one question: the same way
        distance = (TREE.mean(logits, rewards) - 0.5).abs().item()
        weights.append((distance, weight.item()))
    ordered = [weight for _, weight in sorted(weights)]
    assert ordered == sorted(ordered) and ordered[-1] > 1.03 * ordered[0]


@pytest.mark.parametrize("seed", POLICIES)
def test_averaging_each_answer_lengthens_wrong_ones(seed):
    logits, rewards = policy_and_rewards(seed)
    lengths, wrong = TREE.mask.sum(1).double(), 1 - rewards
    wrong_length = TREE.mean(logits, lengths * wrong) / TREE.mean(logits, wrong)
    longer = gradient(wrong_length, logits)
    constant = step(logits, rewards)
    own = step(logits, rewards, replace(DR_GRPO, aggregation="sequence"))
    assert own @ longer / own.norm() > constant @ longer / constant.norm()


@pytest.mark.parametrize("seed", POLICIES)
def test_token_weights_undo_a_drift_in_one_token_alone(seed):
    weighed = replace(DR_GRPO, rollout_weight_cap=1e9)
    # A cap below every weight makes them all equal: the same as none.
    equal = replace(DR_GRPO, rollout_weight_cap=1e-9)
    for tree, exact in ((Tree("abc.", 1), True), (TREE, False)):
        logits, rewards = policy_and_rewards(seed, tree)
        generator = torch.Generator().manual_seed(50 + seed)
        drift = torch.randn(logits.shape, generator=generator, dtype=torch.double)
        sampler = logits.detach() + 0.5 * drift
        wanted = step(logits, rewards, tree=tree)
        ignored = step(logits, rewards, equal, tree=tree, rollout_logits=sampler) / 1e-9
        error = step(logits, rewards, weighed, tree=tree, rollout_logits=sampler) - wanted
        assert (ignored - wanted).norm() > 0.05 * wanted.norm()
        assert (error.norm() < 1e-10) == exact


def test_the_ledgers_proofs_are_these():
    assert {proof.test for proof in PROOFS} <= set(globals())
    assert len({proof.id for proof in PROOFS}) == len(PROOFS)
