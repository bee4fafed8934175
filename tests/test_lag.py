"""Rollouts of an earlier policy, and runs that end when their compute is spent."""

from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file
from test_training import SMALL, learner, run, task, tiny_policy, weights

from r1lab.errors import InputError
from r1lab.objective import LossConfig
from r1lab.training import checkpoint
from r1lab.training.config import GRPOConfig
from r1lab.training.rollout import Experience
from r1lab.run import Run
from tests.small_run import Job, tiny_model

SHORT = replace(SMALL, rollouts=4, reference_every=100, loss=LossConfig(beta=0.0))
CONFIG = replace(SHORT, checkpoint_every=1, eval_every=2, eval_samples=1, final_samples=1)


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return tiny_model(tmp_path_factory.mktemp("model"))


def work(model: str, config: GRPOConfig, folder, stops: tuple[int, ...] = ()) -> Run:
    """A whole run in this process, which is stopped after so many rollouts and goes on."""
    asked = task()
    job = Job(model, replace(asked, test=asked.test[62:64]), config)
    run = job.start(folder)
    for rollouts in (*stops, None):
        assert job.work(run, rollouts) == 0
    return run


def files_of(run, step: int, *names: str) -> list[dict[str, torch.Tensor]]:
    folder = checkpoint.checkpoint_path(run, step)
    return [load_file(folder / f"{name}.safetensors") for name in names]


@pytest.mark.parametrize("lag", [0, 1, 2])
def test_rollouts_come_from_the_policy_of_so_many_rollouts_before(lag):
    trained = learner(replace(SHORT, lag=lag))
    before, sampled = [], []
    load = trained.sample_from

    def noting(policy):
        before.append(weights(trained.policy))
        load(policy)
        sampled.append(weights(trained.sampler.model))

    trained.sample_from = noting
    trained.train()
    assert all(not torch.equal(one, other) for one, other in zip(before, before[1:]))
    for rollout, drawn_from in enumerate(sampled):
        assert torch.equal(drawn_from, before[max(0, rollout - lag)])


def test_the_sampler_s_own_log_probs_stay_beside_the_policy_s():
    _, fresh, plain = run(SHORT)
    _, seen, updates = run(replace(SHORT, lag=1))
    assert fresh[0].rollout_logps is None and "drift_mean" not in plain[0]
    first, later = seen[0], seen[2]
    assert isinstance(later, Experience) and "weights_seconds" not in updates[0]
    assert torch.allclose(torch.cat(first.old_logps), torch.cat(first.rollout_logps), atol=1e-5)
    assert not torch.allclose(torch.cat(later.old_logps), torch.cat(later.rollout_logps), atol=1e-3)
    assert updates[0]["drift_mean"] < 1e-5 < 1e-3 < updates[4]["drift_mean"]
    # The ratio of the first mini-batch is to the policy that is trained, not to the one sampled.
    assert updates[4]["ratio_max"] == pytest.approx(1, abs=1e-5)


def test_a_lagging_sampler_that_never_gets_its_weights_is_noticed():
    """Before the first update, it should hold the policy's. vLLM starts with random ones."""
    trained = learner(replace(SHORT, lag=1))
    for parameter in trained.sampler.model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    trained.sampler.load_weights = lambda named_parameters: None
    with pytest.raises(InputError, match="did not take over the weights"):
        trained.train()


def test_the_first_rollout_of_a_lagging_run_is_that_of_any_run():
    _, fresh, _ = run(replace(SHORT, rollouts=2))
    _, lagged, _ = run(replace(SHORT, rollouts=2, lag=1))
    assert fresh[0].completion_ids == lagged[0].completion_ids
    assert fresh[1].completion_ids != lagged[1].completion_ids


def test_a_lagging_run_resumes_to_the_same_weights(model, tmp_path):
    config = replace(CONFIG, lag=2)
    runs = [work(model, config, tmp_path / f"{stops}", stops) for stops in ((), (1, 2))]
    names = ("model", "earlier_1", "earlier_2")
    states = [files_of(run.folder, config.steps, *names) for run in runs]
    for whole, stopped in zip(*states, strict=True):
        assert all(torch.equal(whole[name], stopped[name]) for name in whole)
    whole, stopped = ([row["drift_mean"] for row in run.metrics if row["kind"] == "train"] for run in runs)
    assert whole == stopped and whole[-1] > 1e-4


def test_an_evaluation_asks_the_present_policy(model, tmp_path):
    """Sampling for evaluation neither lags nor moves the queue: with and without it is the same."""
    work(model, replace(CONFIG, lag=1), tmp_path / "often")
    work(model, replace(CONFIG, lag=1, eval_every=100), tmp_path / "never")
    often, never = (files_of(tmp_path / name, CONFIG.steps, "model")[0] for name in ("often", "never"))
    assert all(torch.equal(often[name], never[name]) for name in often)


@pytest.mark.parametrize("stops", [(), (1, 1)])
def test_a_run_ends_with_the_rollout_in_which_its_compute_is_spent(model, tmp_path, stops):
    free = work(model, CONFIG, tmp_path / "free", stops).summary
    parameters = tiny_policy().model.num_parameters()
    tokens = free["flops"] / CONFIG.flops(parameters, 1)
    assert free["steps"] == CONFIG.steps and tokens == int(tokens) > 0

    limited = replace(CONFIG, flops_limit=free["flops"] // 2)
    ended = work(model, limited, tmp_path / "limited", stops)
    summary, rows = ended.summary, [row for row in ended.metrics if row["kind"] == "train"]
    assert summary["flops"] >= limited.flops_limit > 0
    assert 0 < summary["steps"] == rows[-1]["step"] < CONFIG.steps
    assert summary["checkpoint"].endswith(f"step-{summary['steps']:06d}")
    written = rows[-1]["tokens_mean"] * CONFIG.questions * CONFIG.group_size
    prompts = 20 * CONFIG.questions * CONFIG.group_size  # of the last rollout, at most
    assert summary["flops"] - CONFIG.flops(parameters, round(written + prompts)) < limited.flops_limit
