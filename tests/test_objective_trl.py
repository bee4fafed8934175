"""Loss and gradient equal those of TRL's trainer wherever both define them."""

import itertools
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import torch

from r1lab.objective import LossConfig, policy_loss

trl = pytest.importorskip("trl", reason="TRL is a test dependency: pip install -e .[test]")

LOSS_TYPES = {"grpo": "sequence", "bnpo": "token", "dapo": "token", "dr_grpo": "constant"}


def ragged_batch(seed: int, rows: int = 6, width: int = 9) -> dict[str, torch.Tensor]:
    """Completions of 1 to `width` tokens, ratios from about 0.3 to 3, advantages of both signs."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, width + 1, (rows,), generator=generator)
    lengths[0] = width

    def noise():
        return torch.randn(rows, width, generator=generator, dtype=torch.float64)

    logps = -noise().abs() - 0.5
    return {
        "logps": logps, "old": logps + 0.4 * noise(), "ref": logps + 0.4 * noise(),
        "rollout": logps + 0.4 * noise(), "advantages": noise()[:, 0], "per_token": noise(),
        "mask": torch.arange(width) < lengths[:, None],
    }  # fmt: skip


def trl_loss(batch, config: LossConfig, loss_type: str, advantages, drift, **changes):
    """`GRPOTrainer._compute_loss` on our tensors, with changes of its settings: (loss, gradient)."""
    logps, mask = batch["logps"].clone().requires_grad_(), batch["mask"]
    trainer = MagicMock()
    trainer._get_per_token_logps_and_entropies.return_value = logps, torch.zeros_like(logps), None
    settings = dict(
        beta=config.beta, epsilon_low=config.clip_low, epsilon_high=config.clip_high,
        loss_type=loss_type, top_entropy_quantile=1.0, importance_sampling_level=config.ratio,
        off_policy_mask_threshold=None, use_vllm=drift is not None,
        vllm_importance_sampling_correction=True, max_completion_length=mask.shape[1],
        current_gradient_accumulation_steps=1, aux_loss_enabled=False,
        _entropy_bonus_enabled=False, get_off_policy_mask=trl.GRPOTrainer.get_off_policy_mask,
        args=SimpleNamespace(
            delta=None, use_bias_correction_kl=config.weigh_kl, steps_per_generation=1
        ),
        accelerator=MagicMock(num_processes=1, gather=lambda x: x),
    )  # fmt: skip
    trainer.configure_mock(**settings | changes)
    trainer.model.training = True
    ids = torch.ones_like(mask, dtype=torch.long)
    inputs = {
        "prompt_ids": ids[:, :1], "prompt_mask": ids[:, :1], "completion_ids": ids,
        "completion_mask": mask.long(), "advantages": advantages, "num_items_in_batch": mask.sum(),
        "old_per_token_logps": batch["old"], "ref_per_token_logps": batch["ref"],
        "importance_sampling_ratio": drift,
        "sampling_per_token_logps": batch["old" if drift is None else "rollout"],
    }  # fmt: skip
    loss = trl.GRPOTrainer._compute_loss(trainer, MagicMock(), inputs)
    return loss.item(), torch.autograd.grad(loss, logps)[0]


def our_loss(batch, config: LossConfig, advantages, rollout):
    logps = batch["logps"].clone().requires_grad_()
    loss, _ = policy_loss(
        logps, batch["old"], batch["ref"], advantages, batch["mask"], config, rollout_logps=rollout
    )
    return loss.item(), torch.autograd.grad(loss, logps)[0]


@pytest.mark.parametrize("clip", [(0.2, 0.2), (0.2, 0.28), (10.0, 10.0)], ids=str)
@pytest.mark.parametrize("ratio", ["token", "sequence"])
@pytest.mark.parametrize("loss_type", LOSS_TYPES)
def test_loss_and_gradient_equal_those_of_trl(loss_type, ratio, clip):
    for seed, (beta, weigh_kl), drifts, per_token in itertools.product(
        range(3), [(0.0, False), (0.05, False), (0.05, True)], [False, True], [False, True]
    ):
        if ratio == "sequence" and (weigh_kl or per_token):
            continue  # see the next test
        batch = ragged_batch(seed)
        if ratio == "sequence":  # one drift for each completion
            batch["rollout"] = batch["old"] + 0.4 * batch["advantages"][:, None]
        config = LossConfig(
            *clip, beta=beta, aggregation=LOSS_TYPES[loss_type], ratio=ratio, weigh_kl=weigh_kl
        )
        advantages = batch["per_token" if per_token else "advantages"]
        drift = (batch["old"] - batch["rollout"]).exp().clamp(max=2.0) if drifts else None
        value, gradient = our_loss(batch, config, advantages, batch["rollout"] if drifts else None)
        other, other_gradient = trl_loss(batch, config, loss_type, advantages, drift)
        case = f"seed {seed}, beta {beta}, weighed {weigh_kl}, drift {drifts}, tokens {per_token}"
        assert value == pytest.approx(other, abs=1e-10), case
        assert torch.allclose(gradient, other_gradient, atol=1e-10), case
        assert gradient[batch["mask"]].abs().max() > 1e-3, "a comparison of nothing"


DIFFERENT = {
    "an advantage per token": (LossConfig(10.0, 10.0, 0.0, "sequence", "sequence"), "per_token"),
    "a weighed KL": (
        LossConfig(10.0, 10.0, 0.05, "sequence", "sequence", weigh_kl=True), "advantages"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", DIFFERENT)
def test_where_our_gradient_differs_from_that_of_trl(case):
    """With a ratio per sequence, TRL spreads over the whole completion what belongs to one token:
    its advantage, the sampler's drift, and the weight of its KL. Ours is the form of GSPO-token, and V3.2's weight."""
    config, advantages = DIFFERENT[case]
    batch = ragged_batch(0)
    value, gradient = our_loss(batch, config, batch[advantages], None)
    other, other_gradient = trl_loss(batch, config, "grpo", batch[advantages], None)
    assert (gradient - other_gradient).abs().max() > 1e-3
    if not config.weigh_kl:
        assert value == pytest.approx(other, abs=1e-10), "the values are the same"
