"""The vLLM sampler without vLLM: how it starts it, hands it weights, asks it, trains and refuses."""

import math
import sys
from dataclasses import replace
from types import ModuleType, SimpleNamespace

import pytest
import torch
from torch import nn

from r1lab import cli
from r1lab.errors import InputError
from r1lab.objective import LossConfig
from r1lab.models.policy import Policy
from r1lab.sampling import SamplingParams, TorchSampler, VLLMConfig, VLLMSampler, build_sampler
from r1lab.sampling.vllm_sampler import VERSION, WeightUpdate, import_vllm
from r1lab.training import estimate
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.world.bases import build_model, build_tokenizer
from r1lab.world.small_world import SmallWorld

TOKENIZER = build_tokenizer()
END = TOKENIZER.eos_token_id
PROMPTS = [[40, 41, 42], [43]]


def tiny(seed=0):
    torch.manual_seed(seed)
    return build_model("tiny", len(TOKENIZER))


def answer(ids, logprobs, finish):
    """A completion as vLLM gives it."""
    at = [{token: SimpleNamespace(logprob=value)} for token, value in zip(ids, logprobs, strict=True)]
    return SimpleNamespace(token_ids=ids, logprobs=at, finish_reason=finish)


CORE = SimpleNamespace(_finalizer=SimpleNamespace(detach=lambda: None))
ONE = answer([50, 51, END], [-0.5, -1.0, -0.25], "stop")
TWO = answer([52, 53], [-2.0, -3.0], "length")


@pytest.fixture
def fake(monkeypatch):
    """A module in place of vLLM that notes every call and gives prepared answers."""
    module = ModuleType("vllm")

    class LLM:
        def __init__(self, **options):
            module.calls.append(("start", options))
            torch.manual_seed(12345)
            torch.set_num_threads = lambda count: None
            self.asleep = False
            self.llm_engine = SimpleNamespace(is_sleeping=lambda: self.asleep, engine_core=CORE)

        def generate(self, prompts, params, use_tqdm):
            assert not self.asleep
            module.calls.append(("generate", list(zip(prompts, params, strict=True))))
            return [SimpleNamespace(outputs=module.answers[: one["n"]]) for one in params]

        def collective_rpc(self, method, kwargs=None):
            assert not self.asleep
            if method == "r1lab_context":
                return [64]
            weights = {name: value.clone() for name, value in kwargs["weights"]}
            module.calls.append((method, weights))
            return [(module.compared, module.differ)]

        def reset_prefix_cache(self):
            module.calls.append(("reset_prefix_cache", None))
            return module.idle

        def sleep(self, level):
            self.asleep = True
            module.calls.append(("sleep", level))

        def wake_up(self):
            self.asleep = False
            module.calls.append(("wake_up", None))

    module.__spec__ = SimpleNamespace(name="vllm")
    module.__version__, module.LLM, module.SamplingParams = f"{VERSION}+cpu", LLM, dict
    module.calls, module.answers = [], [ONE, TWO]
    module.compared, module.differ, module.idle = 3, [], True
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


@pytest.fixture
def sampler(fake):
    return VLLMSampler(tiny(), TOKENIZER)


# It starts


def test_vllm_holds_only_what_it_was_handed(fake):
    model, threads = tiny(), torch.set_num_threads
    state = torch.get_rng_state()
    build_sampler("vllm", model, TOKENIZER, VLLMConfig(kv_cache_gb=0.25))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.set_num_threads is threads
    (start, options), (update, weights), (reset, _) = fake.calls
    assert (start, update, reset) == ("start", "r1lab_update", "reset_prefix_cache")
    assert options["load_format"] == "dummy" and options["logprobs_mode"] == "processed_logprobs"
    assert options["kv_cache_memory_bytes"] == 2**28 and options["dtype"] == "float32"
    assert weights.keys() == dict(model.named_parameters()).keys()


def test_on_a_gpu_it_sleeps_whenever_it_does_not_sample(fake, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    sampler = VLLMSampler(tiny(), TOKENIZER)
    for _ in range(2):
        sampler.load_weights(sampler.model.named_parameters())
        sampler.generate(PROMPTS, SamplingParams(max_tokens=5))
    step = ["r1lab_update", "reset_prefix_cache", "generate", "sleep"]
    names = [name for name, _ in fake.calls]
    assert names == ["start", *step[:2], *step, "wake_up", *step]
    options = fake.calls[0][1]
    assert options["enable_sleep_mode"]
    assert 0 < options["gpu_memory_utilization"] < 0.05, "the rest may hold the model that trains"


def test_a_suites_model_stays_in_the_hosts_memory_beside_vllm(fake, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(estimate, "load_model", lambda path, dtype: (tiny().to(dtype), TOKENIZER))
    sampler, *_ = estimate.open_model("any", "vllm")
    assert fake.calls[0][1]["dtype"] == "bfloat16" and sampler.model.device.type == "cpu"


def test_a_suite_on_a_gpu_samples_as_many_rows_as_its_memory_holds():
    config = tiny().config
    row = 1.25 * estimate.kv_bytes(config, 2) * (estimate.PROMPT_TOKENS + 1000)
    assert estimate.rows_that_fit(config, 1000, free=10**12) == 256
    assert estimate.rows_that_fit(config, 1000, free=math.ceil(row * 10 / 0.8)) == 10
    assert estimate.rows_that_fit(config, 1000, free=0) == 1


def test_another_version_and_a_vllm_for_another_device_are_refused(fake):
    fake.__version__ = "0.31.2"
    with pytest.raises(InputError, match=r"its version 0\.31\.2.*install 0\.32\.0"):
        import_vllm()
    del fake.LLM
    with pytest.raises(InputError, match="vLLM cannot be used here .*LLM"):
        import_vllm()


@pytest.mark.parametrize("command", ["eval data/tiny", "sample data/tiny"])
def test_the_commands_say_in_one_sentence_that_vllm_is_missing(command, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "vllm", None)
    assert cli.main([*command.split(), "--sampler", "vllm"]) == cli.BAD_INPUT
    said = " ".join(capsys.readouterr().err.split())
    assert "vLLM cannot be used here" in said and "install 0.32.0" in said and "torch sampler" in said


def test_a_failure_of_vllm_is_one_sentence(sampler, fake):
    def fail(*args, **options):
        raise ValueError("No available memory\nfor the cache blocks")

    sampler.llm.generate = fail
    with pytest.raises(InputError, match="failed while it sampled .ValueError: No available memory"):
        sampler.generate(PROMPTS, SamplingParams(max_tokens=5))
    fake.LLM = fail
    with pytest.raises(InputError, match="for the cache blocks.*lower vllm.kv_cache_gb.*raise"):
        VLLMSampler(tiny(), TOKENIZER)


# From parameters to requests, from answers to rollouts


def test_answers_become_rollouts_group_after_group(sampler, fake):
    rollouts = sampler.generate(PROMPTS, SamplingParams(n=2, max_tokens=5))
    assert rollouts.prompt_ids == [PROMPTS[0], PROMPTS[0], PROMPTS[1], PROMPTS[1]]
    assert rollouts.completion_ids == [ONE.token_ids, TWO.token_ids] * 2
    assert rollouts.finish == ["stop", "length"] * 2 and rollouts.weights_version == 0
    assert rollouts.logprobs[1].tolist() == [-2, -3] and rollouts.logprobs[1].dtype == torch.float32
    assert rollouts.scorer_logps[1].tolist() == [-2, -3]
    asked = fake.calls[-1][1]
    assert [prompt for prompt, _ in asked] == [{"prompt_token_ids": ids} for ids in PROMPTS]


def test_requests_carry_vllms_parameters_and_a_seed_of_their_stream(sampler, fake):
    params = SamplingParams(n=2, temperature=0.6, top_p=0.9, top_k=7, max_tokens=5, seed=3)
    sampler.generate(PROMPTS, params, [8, 9])
    sampler.generate([PROMPTS[1]], params, [9])
    sampler.generate([PROMPTS[1]], replace(params, seed=4), [9])
    asked = [request for name, call in fake.calls if name == "generate" for _, request in call]
    same = {"n": 2, "temperature": 0.6, "top_p": 0.9, "top_k": 7, "max_tokens": 5, "logprobs": 0}
    assert all(same.items() <= request.items() for request in asked)
    assert asked[0]["stop_token_ids"] == [END]
    seeds = [request["seed"] for request in asked]
    assert seeds[1] == seeds[2], "neighbours must not matter"
    assert len(set(seeds)) == 3 and all(0 <= seed < 2**62 for seed in seeds)
    assert abs(seeds[0] - seeds[1]) > 1000, "vLLM adds the sample's number: streams must not meet"


def test_greedy_asks_once_and_reports_the_policy_as_what_was_kept(sampler, fake):
    rollouts = sampler.generate(PROMPTS, SamplingParams(n=3, temperature=0.0, max_tokens=5))
    assert [request["n"] for _, request in fake.calls[-1][1]] == [1, 1]
    assert rollouts.completion_ids == [ONE.token_ids] * 6
    assert not torch.cat(rollouts.logprobs).any()
    assert rollouts.scorer_logps[5].tolist() == [-0.5, -1.0, -0.25]


@pytest.mark.parametrize("truncation", [{"top_p": 0.9}, {"top_k": 5}])
def test_truncated_samples_serve_evaluation_but_not_training(sampler, truncation):
    rollouts = sampler.generate(PROMPTS, SamplingParams(max_tokens=5, **truncation))
    assert rollouts.completion_ids == [ONE.token_ids] * 2
    with pytest.raises(InputError, match="top_p=1 and top_k=0"):
        rollouts.scorer_logps  # noqa: B018


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_damaged_weights_are_named(sampler, fake, temperature):
    fake.answers = [answer([50], [math.nan], "length")]
    with pytest.raises(InputError, match="not finite"):
        sampler.generate(PROMPTS, SamplingParams(temperature=temperature, max_tokens=5))


def test_prompts_are_checked_before_anything_is_asked(sampler, fake):
    with pytest.raises(InputError, match="prompt 1 is empty"):
        sampler.generate([[5], []], SamplingParams(max_tokens=5))
    sampler.generate(PROMPTS, SamplingParams(n=2, max_tokens=61))
    with pytest.raises(InputError, match="65 tokens, and vLLM has room for 64: raise vllm.kv_c"):
        sampler.generate(PROMPTS, SamplingParams(n=2, max_tokens=62))
    assert [name for name, _ in fake.calls].count("generate") == 1


# New weights


def test_all_weights_are_handed_over_at_the_start_and_at_each_update(sampler, fake):
    own = dict(sampler.model.named_parameters())
    assert sampler.weights_version == 0
    sampler.load_weights((name, value + 1) for name, value in own.items())
    assert sampler.weights_version == 1 and sampler.weights_seconds >= 0
    handed = [call for name, call in fake.calls if name == "r1lab_update"]
    assert all(torch.equal(handed[0][name], value) for name, value in own.items())
    assert all(torch.equal(handed[1][name], value + 1) for name, value in own.items())
    with pytest.raises(InputError, match="parameters are missing"):
        sampler.load_weights(list(own.items())[1:])
    assert sampler.weights_version == 1


@pytest.mark.parametrize(("changes", "message"), [
    ({"differ": ["model.norm.weight"]}, "of 3 tensors compared, 1 are not .*model.norm.weight"),
    ({"compared": 0}, "did not take over the weights"),
    ({"idle": False}, "still sampling"),
])  # fmt: skip
def test_an_update_without_proof_ends_the_run(sampler, fake, changes, message):
    vars(fake).update(changes)
    with pytest.raises(InputError, match=message):
        sampler.load_weights(sampler.model.named_parameters())
    assert sampler.weights_version == 0


# In vLLM's worker


class Reloading(WeightUpdate):
    """A worker whose model fuses q, k and v and fills up its vocabulary, as vLLM's do.

    `lazy` names parameters that stay as they are.
    """

    device = "cpu"

    def __init__(self, dtype=torch.float32, lazy=()):
        self.lazy, self.model = lazy, nn.ModuleDict({
            "attn": nn.ModuleDict({"qkv_proj": nn.Linear(4, 8)}),
            "norm": nn.LayerNorm(4, bias=False), "embed": nn.Embedding(16, 4),
            "packed": nn.Linear(4, 4, bias=False),
        }).to(dtype).requires_grad_(False)  # fmt: skip
        self.model.packed_modules_mapping = {"qkv_proj": ["q_proj", "k_proj", "v_proj"]}
        self.model.packed.weight = nn.Parameter(torch.empty(0, dtype=dtype))

    def get_model(self):
        return self.model

    def reload_weights(self, weights_iterator):
        new, own = dict(weights_iterator), dict(self.model.named_parameters())
        assert not any(value.requires_grad for value in new.values())
        for part in ("weight", "bias"):
            new[f"attn.qkv_proj.{part}"] = torch.cat([new[f"attn.{x}_proj.{part}"] for x in "qkv"])
        new["embed.weight"] = torch.cat([new["embed.weight"], torch.zeros(3, 4)])
        for name in own.keys() - {"packed.weight", *self.lazy}:
            own[name].data.copy_(new[name])


def policy_weights(step=0.0):
    """What the trainer hands over: an update with Adam moves each value by its learning rate."""
    torch.manual_seed(0)
    shapes = {f"attn.{x}_proj.weight": (rows, 4) for x, rows in zip("qkv", (4, 2, 2), strict=True)}
    shapes |= {f"attn.{x}_proj.bias": (rows,) for x, rows in zip("qkv", (4, 2, 2), strict=True)}
    shapes |= {"norm.weight": (4,), "embed.weight": (13, 4), "packed.weight": (4, 4)}
    made = {name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()}
    return [(name, value + step * torch.randn_like(value).sign()) for name, value in made.items()]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_worker_compares_what_it_holds_with_what_it_was_handed(dtype):
    """Fused, filled up and rounded tensors as well; not those that are packed for a CPU."""
    assert Reloading(dtype).r1lab_update(policy_weights()) == (4, [])


LAZY = [["attn.qkv_proj.weight"], ["norm.weight"], ["embed.weight"]]


@pytest.mark.parametrize("lazy", [*LAZY, ["norm.weight", "embed.weight"]])
def test_an_update_that_vllm_skips_shows_at_a_lag_of_one_small_step(lazy):
    """One step at a learning rate of 1e-6 moves log-probs by less than bfloat16 rounds them."""
    worker = Reloading()
    assert worker.r1lab_update(policy_weights()) == (4, [])
    worker.lazy = lazy
    assert worker.r1lab_update(policy_weights()) == (4, []), "nothing has changed"
    compared, differ = worker.r1lab_update(policy_weights(1e-6))
    assert (compared, sorted(differ)) == (4, sorted(lazy))


def test_the_worker_reloads_a_head_that_is_tied_to_the_embedding():
    """What vLLM packs for the CPU once must be packed again, or the old head goes on answering."""
    weight, packed = torch.ones(2), []
    method = SimpleNamespace(process_weights_after_loading=lambda head: packed.append(head))
    head = SimpleNamespace(weight=weight, quant_method=method)
    for tied in (True, False):
        embedding = SimpleNamespace(weight=weight if tied else torch.ones(2))
        worker = WeightUpdate()
        worker.device, loaded = "cpu", {}
        worker.reload_weights = lambda weights_iterator: loaded.update(weights_iterator)
        model = SimpleNamespace(lm_head=head, model=SimpleNamespace(embed_tokens=embedding))
        model.named_parameters = lambda: []
        worker.get_model = lambda: model
        worker.r1lab_update([("a", torch.zeros(1, requires_grad=True))])
        assert not loaded["a"].requires_grad and packed == [head]



# Training with it


def copying(deaf=False, off=0.0):
    """An LLM with a model of its own, as vLLM's is.

    `deaf` takes only the first weights; `off` is what its log-probs are too low by.
    """

    class LLM:
        def __init__(self, **options):
            self.sampler = TorchSampler(tiny(seed=9), TOKENIZER)
            self.llm_engine = SimpleNamespace(engine_core=CORE)

        def generate(self, prompts, params, use_tqdm):
            one = params[0]
            asked = SamplingParams(n=one["n"], max_tokens=one["max_tokens"], seed=one["seed"])
            drawn = self.sampler.generate([each["prompt_token_ids"] for each in prompts], asked)
            rows = [answer(ids, (logps - off).tolist(), finish) for ids, logps, finish in
                    zip(drawn.completion_ids, drawn.logprobs, drawn.finish, strict=True)]  # fmt: skip
            return [SimpleNamespace(outputs=rows[i : i + asked.n]) for i in range(0, len(rows), asked.n)]

        def collective_rpc(self, method, kwargs=None):
            if method == "r1lab_context":
                return [512]
            if self.sampler.weights_version == 0 or not deaf:
                self.sampler.load_weights(kwargs["weights"])
            return [(1, [])]

        def reset_prefix_cache(self):
            return True

    return LLM


def train(fake, llm, drift_limit=1e-4, **changes):
    """Metrics of the updates of a run."""
    fake.LLM = llm
    config = GRPOConfig.preset(
        "cpu", sampler="vllm", questions=4, group_size=4, minibatches=1, warmup_steps=1,
        caps=((0, 24),), learning_rate=0.05, vllm=VLLMConfig(drift_limit=drift_limit), **changes,
    )  # fmt: skip
    learner = Learner(config, SmallWorld(arm="random").task(), Policy(tiny()), TOKENIZER, World())
    rows = []
    learner.train(lambda *seen: rows.extend(seen[2]))
    return rows


def test_a_run_notes_what_the_weights_cost_and_how_far_the_sampler_is_off(fake):
    rows = train(fake, copying(), rollouts=2)
    assert len(rows) == 2
    for row in rows:
        assert 0 <= row["drift_mean"] <= row["drift_max"] < 1e-4 and row["weights_seconds"] > 0
        assert row["ratio_max"] == pytest.approx(1, abs=1e-6), "the ratio is to the policy's own"


def test_a_sampler_that_keeps_its_old_weights_ends_the_run(fake):
    with pytest.raises(InputError, match="did not take over the weights"):
        train(fake, copying(deaf=True), rollouts=2)


def test_the_loss_weighs_samples_by_the_policy_over_the_sampler(fake):
    """Log-probs reported too low by log 1.5 weigh every token 1.5 times, by log 9 only 2 times."""

    def gradient(by):
        loss = LossConfig(beta=0.0)
        return train(fake, copying(off=math.log(by)), 9.0, rollouts=1, loss=loss)[0]["grad_norm"]

    plain, weighted, capped = (gradient(by) for by in (1.0, 1.5, 9.0))
    assert weighted / plain == pytest.approx(1.5, rel=1e-3)
    assert capped / plain == pytest.approx(2.0, rel=1e-3)


@pytest.mark.parametrize(("asked", "given"), [("auto", "bfloat16"), ("float32", "float32")])
def test_no_copy_is_made_for_vllm_and_it_computes_as_a_sharded_run_does(asked, given, fake):
    class NoCopy(World):
        def sampling_copy(self, *args, **options):
            raise AssertionError("vLLM does not use it")

    config = GRPOConfig.preset(
        "cpu", sampler="vllm", precision="bfloat16",
        vllm=VLLMConfig(dtype=asked),
    )  # fmt: skip
    policy = Policy(tiny())
    learner = Learner(config, SmallWorld().task(), policy, TOKENIZER, NoCopy())
    assert learner.sampler.model is policy.model and fake.calls[0][1]["dtype"] == given
