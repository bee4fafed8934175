"""The two ways to run vLLM, without vLLM: how they start it, hand it weights and refuse."""

import json
import math
import sys
import threading
from http.client import IncompleteRead
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import ModuleType, SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from transformers import MixtralConfig

from r1lab import cli
from r1lab.errors import InputError
from r1lab.world.bases import build_model
from r1lab.world.tokenizer import build_tokenizer
from r1lab.sampling import SamplingParams, VLLMConfig, VLLMSampler, build_sampler
from r1lab.sampling import vllm_engines
from r1lab.sampling.vllm_engines import ServerEngine, check_update, import_vllm, server_command
from r1lab.sampling.vllm_worker import WeightUpdate
from r1lab.stages import suite

TOKENIZER = build_tokenizer()
PROMPTS = [[40, 41, 42], [43]]


def tiny():
    torch.manual_seed(0)
    return build_model("tiny", len(TOKENIZER), TOKENIZER.pad_token_id, TOKENIZER.eos_token_id)


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
            if method == "r1lab_about":
                return [["processed_logprobs", 64]]
            calls.append((method, dict(kwargs["weights"])))
            return [[3, module.differ]]

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
    module.calls, module.differ = calls, []
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
    options = fake_vllm.calls[0][1]
    assert options["enable_sleep_mode"]
    assert 0 < options["gpu_memory_utilization"] < 0.05, "the rest may hold the model that trains"


def test_an_update_while_vllm_samples_is_refused(fake_vllm):
    sampler = VLLMSampler(tiny(), TOKENIZER)
    sampler.engine.llm.reset_prefix_cache = lambda: False
    with pytest.raises(InputError, match="still sampling"):
        sampler.load_weights(sampler.model.named_parameters())
    assert sampler.weights_version == 0


def test_a_suites_model_stays_in_the_hosts_memory_beside_vllm(fake_vllm, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(suite, "load_model", lambda path, dtype: (tiny().to(dtype), TOKENIZER))
    sampler, *_ = suite.open_model("any", "vllm")
    assert fake_vllm.calls[0][1]["dtype"] == "bfloat16" and sampler.model.device.type == "cpu"


def test_weights_that_vllm_did_not_take_over_end_the_run(fake_vllm):
    sampler = VLLMSampler(tiny(), TOKENIZER)
    fake_vllm.differ = ["model.norm.weight"]
    with pytest.raises(InputError, match="of 3 tensors compared, 1 are not .*model.norm.weight"):
        sampler.load_weights(sampler.model.named_parameters())
    assert sampler.weights_version == 0


@pytest.mark.parametrize("answers", [[], [None], [[0, []]], [[3, []], [3, ["a"]]]])
def test_an_update_without_proof_is_refused(answers):
    check_update([[3, []], [2, []]])
    with pytest.raises(InputError, match="did not take over"):
        check_update(answers)


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
    with pytest.raises(InputError, match="for the cache blocks.*lower vllm.kv_cache_gb.*raise"):
        VLLMSampler(tiny(), TOKENIZER)


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
    assert Reloading(dtype).r1lab_update(policy_weights()) == [4, []]


LAZY = [["attn.qkv_proj.weight"], ["norm.weight"], ["embed.weight"]]


@pytest.mark.parametrize("lazy", [*LAZY, ["norm.weight", "embed.weight"]])
def test_an_update_that_vllm_skips_shows_at_a_lag_of_one_small_step(lazy):
    """One step at a learning rate of 1e-6 moves log-probs by less than bfloat16 rounds them."""
    worker = Reloading()
    assert worker.r1lab_update(policy_weights()) == [4, []]
    worker.lazy = lazy
    assert worker.r1lab_update(policy_weights()) == [4, []], "nothing has changed"
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



def test_what_vllm_has_no_room_for_is_refused_and_never_cut_short(fake_vllm, server):
    for config in (VLLMConfig(), VLLMConfig(server=server.url)):
        sampler = VLLMSampler(tiny(), TOKENIZER, config)
        sampler.generate(PROMPTS, SamplingParams(n=2, max_tokens=61))
        with pytest.raises(InputError, match="65 tokens, and vLLM has room for 64: raise vllm.kv_c"):
            sampler.generate(PROMPTS, SamplingParams(n=2, max_tokens=62))


def test_a_failure_of_vllm_while_it_samples_is_one_sentence(fake_vllm, monkeypatch):
    sampler = VLLMSampler(tiny(), TOKENIZER)

    def generate(*args, **options):
        raise RuntimeError("CUDA out of memory")

    sampler.engine.llm.generate = generate
    with pytest.raises(InputError, match="failed while it sampled .RuntimeError: CUDA out of memory"):
        sampler.generate(PROMPTS, SamplingParams(max_tokens=5))


def test_a_server_that_ends_in_the_middle_of_an_answer_is_one_sentence(server, monkeypatch):
    sampler = VLLMSampler(tiny(), TOKENIZER, VLLMConfig(server=server.url))

    def urlopen(*args, **options):
        raise IncompleteRead(b"half")

    monkeypatch.setattr(vllm_engines, "urlopen", urlopen)
    with pytest.raises(InputError, match="no vLLM server answers .*start one of vLLM"):
        sampler.generate(PROMPTS, SamplingParams(max_tokens=5))


def test_a_suite_on_a_gpu_samples_as_many_rows_as_its_memory_holds():
    config = tiny().config
    row = 1.25 * suite.shape_of(config).kv_bytes(2) * (suite.PROMPT_TOKENS + 1000)
    assert suite.rows_that_fit(config, 1000, free=10**12) == 256
    assert suite.rows_that_fit(config, 1000, free=math.ceil(row * 10 / 0.8)) == 10
    assert suite.rows_that_fit(config, 1000, free=0) == 1
    assert suite.rows_that_fit(MixtralConfig(), 1000, free=0) == 256  # nothing is predicted of it


# vLLM as a server


@pytest.fixture
def server(tmp_path, monkeypatch):
    """A server that speaks vLLM's routes, and what it was told."""
    told = SimpleNamespace(
        mode="processed_logprobs", weights=None, asked=[], refuse=None, version="0.32.0+cu130",
        taken=[3, []], forgotten=True,
    )  # fmt: skip
    monkeypatch.setenv("TMPDIR", str(tmp_path))

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            found = self.path == "/version"
            self.send_response(200 if found else 404)
            self.end_headers()
            self.wfile.write(json.dumps({"version": told.version} if found else {}).encode())

        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            told.asked.append(self.path)
            reply = {}
            if told.refuse == self.path:
                self.send_response(500)
                reply = {"error": "out of memory"}
            else:
                self.send_response(200)
            if self.path == "/collective_rpc" and body["method"] == "r1lab_about":
                reply = {"results": [[told.mode, 64]]}
            elif self.path == "/collective_rpc":
                told.weights = load_file(body["kwargs"]["path"])
                reply = {"results": [told.taken]}
            elif self.path == "/reset_prefix_cache":
                reply = {"success": told.forgotten}
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
    server.mode = "raw_logprobs"
    with pytest.raises(InputError, match="raw_logprobs.*start one.*--logprobs-mode processed"):
        ServerEngine(tiny(), VLLMConfig(server=server.url))


@pytest.mark.parametrize("version", ["0.31.2", "0.33.0", None])
def test_a_server_of_another_version_is_refused(server, version):
    server.version = version
    with pytest.raises(InputError, match=f"is of vLLM {version}; start one of vLLM 0.32.0 with"):
        ServerEngine(tiny(), VLLMConfig(server=server.url))
    assert not server.asked, "nothing is asked of what is not known"


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"taken": [3, ["a"]]}, "take over"), ({"taken": None}, "take over"),
     ({"forgotten": False}, "still sampling")],
)  # fmt: skip
def test_a_server_that_did_not_take_the_weights_is_named(server, changes, message):
    sampler = VLLMSampler(tiny(), TOKENIZER, VLLMConfig(server=server.url))
    vars(server).update(changes)
    with pytest.raises(InputError, match=message):
        sampler.load_weights(sampler.model.named_parameters())
    assert sampler.weights_version == 0


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
