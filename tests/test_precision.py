"""bfloat16 apart from sharding: what computes in it, what stays float32, and what is measured."""

from dataclasses import replace

import pytest
import torch
from tests.test_training import SMALL, learner, run, weights

from r1lab.training import distributed
from r1lab.training.distributed import World, arithmetic, settled
from r1lab.training.supervised import SupervisedConfig, add_gradient

HALF = replace(SMALL, precision="bfloat16")


@pytest.fixture
def machine(monkeypatch):
    """Say whether this machine has instructions for bfloat16."""
    return lambda fast: monkeypatch.setattr(distributed, "bfloat16_is_fast", lambda: fast)


@pytest.mark.parametrize(("asked", "fast", "used", "warned"), [
    ("auto", True, "bfloat16", False), ("auto", False, "float32", False), ("float32", True, "float32", False),
    ("bfloat16", True, "bfloat16", False), ("bfloat16", False, "bfloat16", True),
])  # fmt: skip
def test_auto_is_what_the_machine_computes_fast_and_slow_is_said(asked, fast, used, warned, machine, capsys):
    machine(fast)
    for config in (SMALL, SupervisedConfig(steps=1)):
        assert settled(replace(config, precision=asked)).precision == used
        assert ("computes it slowly" in capsys.readouterr().err) is warned
    assert arithmetic(asked) == getattr(torch, used)


@pytest.mark.parametrize(("has", "fast"), [
    ({"avx512_bf16": True}, True), ({"amx_bf16": True, "avx512_bf16": False}, True), ({"avx2": True}, False),
])  # fmt: skip
def test_a_processor_is_asked_for_its_instructions(has, fast, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: has)
    assert distributed.bfloat16_is_fast() is fast


def test_weights_stay_float32_and_the_sampler_holds_them_rounded():
    trained, seen, updates = run(HALF)
    assert {p.dtype for p in trained.policy.parameters()} == {torch.float32}
    moments = [state["exp_avg"].dtype for state in trained.optimizer.state.values()]
    assert set(moments) == {torch.float32}
    trained.refresh_sampler()
    pairs = zip(trained.sampler.model.parameters(), trained.policy.parameters(), strict=True)
    assert all(torch.equal(held, own.bfloat16()) for held, own in pairs)
    # What the ratio is to is the scorer's; how far the sampler's lay off is in the metrics.
    assert all(0 < row["drift_mean"] < 0.01 for row in updates)
    assert updates[0]["ratio_max"] == pytest.approx(1, abs=1e-6)
    assert seen[0].rollout_logps is not None


@pytest.mark.parametrize("shared", [False, True])
def test_an_update_is_near_the_one_in_float32(shared):
    gradients = []
    for config in (SMALL, replace(HALF, share_prompts=shared)):
        one = learner(config)
        pairs = [([3, 4, 5], [6 + i, 7, 8]) for i in range(4)]
        one.policy.precision = arithmetic(config.precision)
        add_gradient(config, one.policy, pairs, one.tokenizer, World())
        gradients.append(torch.cat([p.grad.flatten() for p in one.policy.parameters()]))
    error = (gradients[1] - gradients[0]).norm() / gradients[0].norm()
    assert 1e-4 < error < 0.05, "less: it was not bfloat16 that computed"


def test_scores_in_bfloat16_are_those_of_the_policy_s_own_weights():
    """A copy of the policy, as the reference is, computes with its own weights after an update."""
    trained, _, _ = run(replace(HALF, rollouts=1))
    before, reference = weights(trained.policy), weights(trained.modules["reference"])
    assert trained.modules["reference"].precision == torch.bfloat16
    assert not torch.equal(before, reference)
    ids, mask = torch.arange(3, 19).view(2, 8), torch.arange(8).expand(2, -1) > 2
    own, theirs = (one(ids, mask).logp for one in (trained.policy, trained.modules["reference"]))
    assert not torch.equal(own, theirs)
