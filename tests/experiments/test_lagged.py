"""Rollouts of an earlier policy: from which one, what is kept of it, and what resumes."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from safetensors.torch import load_file
from tests.test_training import SMALL, TOKENIZER, learner, run, task, tiny_policy, weights

from r1lab.errors import InputError
from r1lab.objective import LossConfig
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from tests.experiments.lagged import LaggedLearner
from tests.small_run import Job, coin_task, stored_tensors, tiny_model

SHORT = replace(SMALL, rollouts=4, reference_every=100, loss=LossConfig(beta=0.0))


def lagged(lag: int, config: GRPOConfig = SHORT) -> LaggedLearner:
    return LaggedLearner(config, task(), tiny_policy(), TOKENIZER, World(), lag=lag)


def trained(config: GRPOConfig, lag: int) -> tuple[list, list]:
    """Experiences and updates of a run."""
    seen, updates = [], []
    lagged(lag, config).train(lambda _, one, metrics: seen.append(one) or updates.extend(metrics))
    return seen, updates


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_rollouts_come_from_the_policy_of_so_many_rollouts_before(lag):
    one = lagged(lag)
    before, sampled = [], []
    load = one.sample_from

    def noting(policy):
        before.append(weights(one.policy))
        load(policy)
        sampled.append(weights(one.sampler.model))

    one.sample_from = noting
    one.train()
    assert all(not torch.equal(one, other) for one, other in zip(before, before[1:]))
    for rollout, drawn_from in enumerate(sampled):
        assert torch.equal(drawn_from, before[max(0, rollout - lag)])


def test_the_sampler_s_own_log_probs_stay_beside_the_policy_s():
    _, fresh, plain = run(SHORT)
    seen, updates = trained(SHORT, 1)
    assert fresh[0].rollout_logps is None and "drift_mean" not in plain[0]
    assert fresh[0].completion_ids == seen[0].completion_ids
    assert fresh[1].completion_ids != seen[1].completion_ids
    first, later = seen[0], seen[2]
    assert torch.allclose(torch.cat(first.old_logps), torch.cat(first.rollout_logps), atol=1e-5)
    assert not torch.allclose(torch.cat(later.old_logps), torch.cat(later.rollout_logps), atol=1e-3)
    assert updates[0]["drift_mean"] < 1e-5 < 1e-3 < updates[4]["drift_mean"]
    # The ratio of the first mini-batch is to the policy that is trained, not to the one sampled.
    assert updates[4]["ratio_max"] == pytest.approx(1, abs=1e-5)
    assert lagged(1).flops(later) == learner(SHORT).flops(later) * 10 / 8  # 6 + 2 + 2, and 6 + 2


def test_a_lagging_sampler_that_never_gets_its_weights_is_noticed():
    """Before the first update, it should hold the policy's. vLLM starts with random ones."""
    one = lagged(1)
    for parameter in one.sampler.model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    one.sampler.load_weights = lambda named_parameters: None
    with pytest.raises(InputError, match="did not take over the weights"):
        one.train()


def test_a_lagging_run_resumes_to_the_same_weights_evaluated_or_not(tmp_path):
    """Sampling for evaluation neither lags nor moves the line."""
    config = replace(SHORT, checkpoint_every=1, eval_every=2, eval_samples=1, final_samples=1)
    often = Job(tiny_model(tmp_path / "model"), coin_task(tmp_path), config, partial(LaggedLearner, lag=2))
    never = replace(often, config=replace(config, eval_every=100))
    states = []
    for name, job, stops in (("whole", often, []), ("stopped", often, [1, 2]), ("unseen", never, [])):
        run = job.start(tmp_path / name)
        for rollouts in (*stops, None):
            assert job.work(run, rollouts) == 0
        drift = [row["drift_mean"] for row in run.metrics if row["kind"] == "train"]
        stored = stored_tensors(run.model)
        assert {"earlier_1", "earlier_2"} < {name.partition(".")[0] for name in stored}
        files = [load_file(run.model / "model.safetensors"), stored]
        states.append((drift, [{name: value.tolist() for name, value in one.items()} for one in files]))
    assert states[0] == states[1] == states[2] and states[0][0][-1] > 1e-4
