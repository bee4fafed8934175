"""The vLLM sampler without vLLM: what it asks for, what it makes of answers, how it trains."""

from dataclasses import replace

import pytest
import torch

from r1lab.errors import InputError
from r1lab.grpo import LossConfig
from r1lab.models.policy import Policy
from r1lab.world.bases import build_model
from r1lab.world.tokenizer import build_tokenizer
from r1lab.rewards import reward_set
from r1lab.sampling import SamplingParams, TorchSampler, VLLMConfig, VLLMSampler
from r1lab.sampling.vllm_engines import Answer
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import Parallel, World
from r1lab.training.loop import Learner

TOKENIZER = build_tokenizer()
END = TOKENIZER.eos_token_id
PROMPTS = [[40, 41, 42], [43]]


def tiny(seed=0):
    torch.manual_seed(seed)
    return build_model("tiny", len(TOKENIZER), TOKENIZER.pad_token_id, END)


class Scripted:
    """An engine that gives prepared answers and notes what it was asked."""

    shared, context = False, 512

    def __init__(self, *answers):
        self.answers, self.asked, self.held = list(answers), [], None

    def complete(self, prompts, requests):
        self.asked += zip(prompts, requests, strict=True)
        return [self.answers[: one["n"]] for one in requests]

    def update(self, weights):
        self.held = {name: value.clone() for name, value in weights}


class Copy:
    """An engine with a model of its own, as vLLM's is; `deaf` takes only the first weights."""

    shared, context = False, 512

    def __init__(self, deaf=False):
        self.sampler, self.deaf = TorchSampler(tiny(seed=9), TOKENIZER), deaf

    def complete(self, prompts, requests):
        one = requests[0]
        params = SamplingParams(n=one["n"], max_tokens=one["max_tokens"], seed=one["seed"])
        drawn = self.sampler.generate(prompts, params)
        rows = [Answer(ids, logps.tolist(), finish) for ids, logps, finish in
                zip(drawn.completion_ids, drawn.logprobs, drawn.finish, strict=True)]  # fmt: skip
        return [rows[i : i + params.n] for i in range(0, len(rows), params.n)]

    def update(self, weights):
        if self.sampler.weights_version == 0 or not self.deaf:
            self.sampler.load_weights(weights)


ONE = Answer([50, 51, END], [-0.5, -1.0, -0.1], "stop")
TWO = Answer([52, 53], [-2.0, -3.0], "length")


def sampler_of(*answers):
    return VLLMSampler(tiny(), TOKENIZER, engine=Scripted(*answers))


# From parameters to requests, from answers to rollouts


def test_answers_become_rollouts_group_after_group():
    rollouts = sampler_of(ONE, TWO).generate(PROMPTS, SamplingParams(n=2, max_tokens=5))
    assert rollouts.prompt_ids == [PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[1]]
    assert rollouts.completion_ids == [ONE.token_ids, TWO.token_ids] * 2
    assert rollouts.finish == ["stop", "length"] * 2 and rollouts.weights_version == 0
    assert rollouts.logprobs[1].tolist() == [-2, -3] and rollouts.logprobs[1].dtype == torch.float32
    assert rollouts.scorer_logps[1].tolist() == [-2, -3]


def test_requests_carry_vllms_parameters_and_a_seed_of_their_stream():
    sampler = sampler_of(ONE, TWO)
    params = SamplingParams(n=2, temperature=0.6, top_p=0.9, top_k=7, max_tokens=5, seed=3)
    sampler.generate(PROMPTS, params, [8, 9])
    sampler.generate([PROMPTS[1]], params, [9])
    sampler.generate([PROMPTS[1]], replace(params, seed=4), [9])
    asked = [request for _, request in sampler.engine.asked]
    assert [prompt for prompt, _ in sampler.engine.asked[:2]] == PROMPTS
    same = {"n": 2, "temperature": 0.6, "top_p": 0.9, "top_k": 7, "max_tokens": 5, "logprobs": 0}
    assert all(same.items() <= request.items() for request in asked)
    assert asked[0]["stop_token_ids"] == [END]
    seeds = [request["seed"] for request in asked]
    assert seeds[1] == seeds[2], "neighbours must not matter"
    assert len(set(seeds)) == 3 and all(0 <= seed < 2**62 for seed in seeds)
    assert abs(seeds[0] - seeds[1]) > 1000, "vLLM adds the sample's number: streams must not meet"


def test_greedy_asks_once_and_reports_the_policy_as_what_was_kept():
    sampler = sampler_of(ONE)
    rollouts = sampler.generate(PROMPTS, SamplingParams(n=3, temperature=0.0, max_tokens=5))
    assert [request["n"] for _, request in sampler.engine.asked] == [1, 1]
    assert rollouts.completion_ids == [ONE.token_ids] * 6
    assert not torch.cat(rollouts.logprobs).any()
    assert rollouts.scorer_logps[5].tolist() == pytest.approx(ONE.logprobs)


@pytest.mark.parametrize("truncation", [{"top_p": 0.9}, {"top_k": 5}])
def test_truncated_samples_serve_evaluation_but_not_training(truncation):
    rollouts = sampler_of(ONE).generate(PROMPTS, SamplingParams(max_tokens=5, **truncation))
    assert rollouts.completion_ids == [ONE.token_ids] * 2
    with pytest.raises(InputError, match="top_p=1 and top_k=0"):
        rollouts.scorer_logps  # noqa: B018


def test_stop_strings_cut_as_the_torch_sampler_does():
    params = SamplingParams(max_tokens=60, seed=1)
    free = TorchSampler(tiny(), TOKENIZER).generate([PROMPTS[0]], params)
    stopping = replace(params, stop=(TOKENIZER.decode(free.completion_ids[0][4:6]),))
    expected = TorchSampler(tiny(), TOKENIZER).generate([PROMPTS[0]], stopping)
    whole = Answer(free.completion_ids[0], free.logprobs[0].tolist(), free.finish[0])
    cut = sampler_of(whole).generate([PROMPTS[0]], stopping)
    assert cut.completion_ids == expected.completion_ids != free.completion_ids
    assert cut.finish == expected.finish == ["stop"]
    assert torch.equal(cut.logprobs[0], expected.logprobs[0])


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (Answer([50], [float("nan")], "length"), "not finite"),
        (Answer([50], [-9999.0], "length"), "not finite"),
        (Answer([50], [-1.0], "abort"), "gave up a completion .abort"),
    ],
)
def test_broken_answers_are_named(answer, message):
    with pytest.raises(InputError, match=message):
        sampler_of(answer).generate(PROMPTS, SamplingParams(max_tokens=5))


def test_prompts_are_checked_before_anything_is_asked():
    sampler = sampler_of(ONE)
    with pytest.raises(InputError, match="prompt 1 is empty"):
        sampler.generate([[5], []], SamplingParams(max_tokens=5))
    assert not sampler.engine.asked


# New weights


def test_all_weights_are_handed_over_at_the_start_and_at_each_update():
    model, engine = tiny(), Scripted()
    sampler = VLLMSampler(model, TOKENIZER, engine=engine)
    own = dict(model.named_parameters())
    assert engine.held.keys() == own.keys() and sampler.weights_version == 0
    sampler.load_weights((name, value + 1) for name, value in own.items())
    assert sampler.weights_version == 1 and sampler.weights_seconds >= 0
    assert all(torch.equal(engine.held[name], value + 1) for name, value in own.items())
    with pytest.raises(InputError, match="parameters are missing"):
        sampler.load_weights(list(own.items())[1:])
    assert sampler.weights_version == 1


def train(engine, monkeypatch, drift_limit=1e-4, **changes):
    """Metrics of the updates of a run with an engine in vLLM's place."""
    monkeypatch.setattr("r1lab.sampling.vllm_sampler.LocalEngine", lambda model, config: engine)
    config = GRPOConfig(
        sampler="vllm", questions=4, group_size=4, minibatches=1, warmup_steps=1,
        caps=((0, 24),), learning_rate=0.05, vllm=VLLMConfig(drift_limit=drift_limit), **changes,
    )  # fmt: skip
    learner, rows = Learner(config, Policy(tiny()), TOKENIZER, World()), []
    learner.train(config.problems, reward_set("random"), lambda *seen: rows.extend(seen[2]))
    return rows


def test_a_run_notes_what_the_weights_cost_and_how_far_the_sampler_is_off(monkeypatch):
    rows = train(Copy(), monkeypatch, rollouts=2)
    assert len(rows) == 2
    for row in rows:
        assert 0 <= row["drift_mean"] <= row["drift_max"] < 1e-4 and row["weights_seconds"] > 0
        assert row["ratio_max"] == pytest.approx(1, abs=1e-6), "the ratio is to the policy's own"


def test_a_sampler_that_keeps_its_old_weights_ends_the_run(monkeypatch):
    with pytest.raises(InputError, match="did not take over the weights"):
        train(Copy(deaf=True), monkeypatch, rollouts=2)


def test_the_loss_weighs_samples_by_the_policy_over_the_sampler(monkeypatch):
    """Log-probs reported too low by log 1.5 weigh every token 1.5 times, by log 9 only 2 times."""

    class Off(Copy):
        def __init__(self, by):
            super().__init__()
            self.by = by

        def complete(self, prompts, requests):
            groups = super().complete(prompts, requests)
            return [[one._replace(logprobs=[x - self.by for x in one.logprobs]) for one in group]
                    for group in groups]  # fmt: skip

    def gradient(by):
        loss = LossConfig(beta=0.0)
        return train(Off(by), monkeypatch, 9.0, rollouts=1, loss=loss)[0]["grad_norm"]

    plain, weighted, capped = (gradient(torch.tensor(by).log().item()) for by in (1.0, 1.5, 9.0))
    assert weighted / plain == pytest.approx(1.5, rel=1e-3)
    assert capped / plain == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize(("asked", "given"), [("auto", "bfloat16"), ("float32", "float32")])
def test_no_copy_is_made_for_vllm_and_it_computes_as_a_sharded_run_does(asked, given, monkeypatch):
    class NoCopy(World):
        def sampling_copy(self, model, apart=False):
            raise AssertionError("vLLM does not use it")

    started = []
    start = lambda model, config: started.append((model, config.dtype)) or Copy()  # noqa: E731
    monkeypatch.setattr("r1lab.sampling.vllm_sampler.LocalEngine", start)
    config = GRPOConfig(
        sampler="vllm", lag=1, parallel=Parallel(shard=True, precision="bfloat16"),
        vllm=VLLMConfig(dtype=asked),
    )  # fmt: skip
    policy = Policy(tiny())
    Learner(config, policy, TOKENIZER, NoCopy())
    assert started == [(policy.model, given)]
