"""The vLLM sampler without vLLM: what it asks for, what it makes of answers, how it refuses."""

import json
import sys
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from r1lab import cli
from r1lab.errors import InputError
from r1lab.grpo import LossConfig
from r1lab.models.policy import Policy
from r1lab.models.small import build_model
from r1lab.models.tokenizer import build_tokenizer
from r1lab.rewards import reward_set
from r1lab.sampling import SamplingParams, TorchSampler, VLLMConfig, VLLMSampler, build_sampler
from r1lab.sampling import vllm_engines
from r1lab.sampling.vllm_engines import Answer, ServerEngine, import_vllm, server_command
from r1lab.sampling.vllm_worker import WeightUpdate
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner

TOKENIZER = build_tokenizer()
END = TOKENIZER.eos_token_id
PROMPTS = [[40, 41, 42], [43]]


def tiny(seed=0):
    torch.manual_seed(seed)
    return build_model("tiny", len(TOKENIZER), TOKENIZER.pad_token_id, END)


class Scripted:
    """An engine that gives prepared answers and notes what it was asked."""

    shared = False

    def __init__(self, *answers):
        self.answers, self.asked, self.held = list(answers), [], None

    def complete(self, prompts, requests):
        self.asked += zip(prompts, requests, strict=True)
        return [self.answers[: one["n"]] for one in requests]

    def update(self, weights):
        self.held = {name: value.clone() for name, value in weights}


class Copy:
    """An engine with a model of its own, as vLLM's is; `deaf` takes only the first weights."""

    shared = False

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


# vLLM in this process


@pytest.fixture
def fake_vllm(monkeypatch):
    """A module in vLLM's place that notes every call."""
    calls = []

    class LLM:
        def __init__(self, **options):
            calls.append(("start", options))
            torch.manual_seed(12345)
            torch.set_num_threads = lambda count: None
            self.asleep = False
            self.llm_engine = SimpleNamespace(is_sleeping=lambda: self.asleep)

        def generate(self, prompts, params, use_tqdm):
            assert not self.asleep
            calls.append(("generate", prompts))
            token = SimpleNamespace(logprob=-0.5)
            one = SimpleNamespace(token_ids=[7], logprobs=[{7: token}], finish_reason="length")
            return [SimpleNamespace(outputs=[one] * each["n"]) for each in params]

        def collective_rpc(self, method, kwargs):
            assert not self.asleep
            calls.append((method, dict(kwargs["weights"])))

        def reset_prefix_cache(self):
            calls.append(("reset_prefix_cache", None))
            return True

        def sleep(self, level):
            self.asleep = True
            calls.append(("sleep", level))

        def wake_up(self):
            self.asleep = False
            calls.append(("wake_up", None))

    module = ModuleType("vllm")
    module.__spec__ = SimpleNamespace(name="vllm")
    module.__version__, module.LLM, module.SamplingParams = "0.32.0+cpu", LLM, dict
    module.calls = calls
    monkeypatch.setitem(sys.modules, "vllm", module)
    return module


def test_the_engine_in_this_process_holds_only_what_it_was_handed(fake_vllm):
    model, threads = tiny(), torch.set_num_threads
    state = torch.get_rng_state()
    sampler = build_sampler("vllm", model, TOKENIZER, VLLMConfig(kv_cache_gb=0.25))
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.set_num_threads is threads
    (start, options), (update, weights), (reset, _) = fake_vllm.calls
    assert (start, update, reset) == ("start", "r1lab_update", "reset_prefix_cache")
    assert options["load_format"] == "dummy" and options["logprobs_mode"] == "processed_logprobs"
    assert options["kv_cache_memory_bytes"] == 2**28 and options["dtype"] == "float32"
    assert weights.keys() == dict(model.named_parameters()).keys()
    rollouts = sampler.generate(PROMPTS, SamplingParams(n=2, max_tokens=5))
    assert rollouts.completion_ids == [[7]] * 4 and rollouts.logprobs[0].tolist() == [-0.5]
    assert fake_vllm.calls[-1][1] == [{"prompt_token_ids": prompt} for prompt in PROMPTS]


def test_on_a_gpu_it_sleeps_whenever_it_does_not_sample(fake_vllm, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    sampler = VLLMSampler(tiny(), TOKENIZER)
    for _ in range(2):
        sampler.load_weights(sampler.model.named_parameters())
        sampler.generate(PROMPTS, SamplingParams(max_tokens=5))
    step = ["r1lab_update", "reset_prefix_cache", "generate", "sleep"]
    names = [name for name, _ in fake_vllm.calls]
    assert names == ["start", *step[:2], *step, "wake_up", *step]
    assert fake_vllm.calls[0][1]["enable_sleep_mode"]


def test_an_update_while_vllm_samples_is_refused(fake_vllm):
    sampler = VLLMSampler(tiny(), TOKENIZER)
    sampler.engine.llm.reset_prefix_cache = lambda: False
    with pytest.raises(InputError, match="still sampling"):
        sampler.load_weights(sampler.model.named_parameters())
    assert sampler.weights_version == 0


def test_another_version_is_refused(fake_vllm):
    fake_vllm.__version__ = "0.31.2"
    with pytest.raises(InputError, match=r"vLLM 0\.31\.2.*install 0\.32\.0"):
        import_vllm()


def test_a_missing_vllm_is_named(monkeypatch):
    monkeypatch.setattr(vllm_engines, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"not installed: install 0\.32\.0.*torch sampler"):
        build_sampler("vllm", tiny(), TOKENIZER)


@pytest.mark.parametrize("command", ["eval data/tiny", "sample data/tiny"])
def test_the_commands_say_in_one_sentence_that_vllm_is_missing(command, monkeypatch, capsys):
    monkeypatch.setattr(vllm_engines, "find_spec", lambda name: None)
    assert cli.main([*command.split(), "--sampler", "vllm"]) == cli.BAD_INPUT
    told = " ".join(capsys.readouterr().err.split())
    assert "vLLM is not installed: install 0.32.0" in told and "make test-vllm" in told


def test_a_vllm_for_another_device_is_named(monkeypatch, fake_vllm):
    del fake_vllm.LLM
    with pytest.raises(InputError, match="cannot be imported .*LLM"):
        import_vllm()


def test_why_vllm_did_not_start_is_one_sentence(fake_vllm):
    def fail(**options):
        raise ValueError("No available memory\nfor the cache blocks")

    fake_vllm.LLM = fail
    with pytest.raises(InputError, match="No available memory for the cache blocks.*kv_cache_gb"):
        VLLMSampler(tiny(), TOKENIZER)


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
        worker.get_model = lambda: model
        worker.r1lab_update([("a", torch.zeros(1, requires_grad=True))])
        assert not loaded["a"].requires_grad and packed == [head]


# vLLM as a server


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that speaks vLLM's routes, and what it was told."""
    told = SimpleNamespace(mode=["processed_logprobs"], weights=None, asked=[], refuse=None)
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.asked.append(self.path)
            reply = {}
            if told.refuse == self.path:
                self.send_response(500)
                reply = {"error": "out of memory"}
            else:
                self.send_response(200)
            if self.path == "/collective_rpc" and body["method"] == "r1lab_logprobs_mode":
                reply = {"results": [told.mode]}
            elif self.path == "/collective_rpc":
                told.weights = load_file(body["kwargs"]["path"])
            elif self.path == "/inference/v1/generate" and not reply:
                reply = {"choices": [choice(body, i) for i in reversed(range(2))]}
            self.end_headers()
            self.wfile.write(json.dumps(reply).encode())

        def log_message(self, *words):
            return

    def choice(body, index):
        tokens = [*body["token_ids"], index]
        return {
            "index": index, "token_ids": tokens, "finish_reason": "length",
            "logprobs": {"content": [{"logprob": -1.0 * token} for token in tokens]},
        }  # fmt: skip

    listening = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    told.url = f"http://127.0.0.1:{listening.server_port}/"
    yield told
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_a_server_takes_weights_and_answers_in_order(server):
    model = tiny()
    sampler = build_sampler("vllm", model, TOKENIZER, VLLMConfig(server=server.url))
    rollouts = sampler.generate(PROMPTS, SamplingParams(n=2, max_tokens=5))
    assert rollouts.completion_ids == [[*p, i] for p in PROMPTS for i in range(2)]
    assert rollouts.logprobs[3].tolist() == [-43, -1]
    with torch.no_grad():
        model.model.norm.weight.add_(1)
    sampler.load_weights(model.named_parameters())
    assert torch.equal(server.weights["model.norm.weight"], model.model.norm.weight)
    assert server.asked[-2:] == ["/collective_rpc", "/reset_prefix_cache"]
    assert sampler.weights_version == 1


def test_a_server_of_raw_log_probs_is_refused(server):
    server.mode = ["raw_logprobs"]
    with pytest.raises(InputError, match="raw_logprobs.*start one with.*--logprobs-mode processed"):
        ServerEngine(tiny(), VLLMConfig(server=server.url))


def test_a_servers_refusal_is_told_in_its_words(server):
    sampler = VLLMSampler(tiny(), TOKENIZER, VLLMConfig(server=server.url))
    server.refuse = "/inference/v1/generate"
    with pytest.raises(InputError, match="500.*out of memory"):
        sampler.generate(PROMPTS, SamplingParams(max_tokens=5))


def test_no_server_no_sampler():
    with pytest.raises(InputError, match="no vLLM server answers at http://127.0.0.1:9 .*--model"):
        VLLMSampler(tiny(), TOKENIZER, VLLMConfig(server="http://127.0.0.1:9"))


def test_a_server_listens_to_this_machine_alone_unless_told():
    command = server_command("data/base")
    assert command[command.index("--host") + 1] == "127.0.0.1"
