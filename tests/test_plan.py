"""The prediction of memory: by hand, against transformers, and against measurement."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, MixtralConfig, PretrainedConfig

from r1lab.cli import main
from r1lab.errors import InputError
from r1lab.models.policy import Policy, load_model
from r1lab.stages.sft_stages import SFT_RECIPES
from r1lab.stages import rl_stages as zero
from r1lab.training import estimate
from r1lab.training.batching import pad_rows
from r1lab.run import as_json
from r1lab.training.config import TABLES, GRPOConfig
from r1lab.training.distributed import Parallel
from r1lab.training.estimate import GB, SHAPES, check_machine, check_memory, memory, weights_of
from r1lab.training.rl import grpo
from r1lab.training.sft import sft

LAUNCH = Path(__file__).resolve().parents[1] / "r1lab" / "launch"
MIDDLE = SHAPES["Qwen/Qwen2.5-1.5B"]
# Every set of settings that names a number of GPUs, with its model; but "paper", which documents.
MADE_FOR_GPUS = {
    **{name: (one.rl, one.model) for name, one in zero.PRESETS.items() if one.rl.parallel.gpus},
    **{name: (one["config"], one["model"]) for name, one in SFT_RECIPES.items()},
}
del MADE_FOR_GPUS["paper"]
PRESETS = {name: one.rl for name, one in zero.PRESETS.items()}
GPU_PRESETS = {name: name.rpartition("-")[0] for name in PRESETS if name.startswith("qwen")}


@pytest.mark.parametrize(
    ("model", "weights"),
    [("Qwen/Qwen2.5-0.5B", 494_032_768), ("Qwen/Qwen2.5-1.5B", 1_543_714_304),
     ("Qwen/Qwen2.5-7B", 7_615_616_512), ("smollm2", 134_515_008)],
)  # fmt: skip
def test_shapes_have_the_weights_of_the_cards(model, weights):
    assert weights_of(SHAPES[model])[0] == weights


def test_the_memory_of_a_preset_is_what_a_hand_computes():
    """Qwen2.5-1.5B, 1,543,714,304 weights, on 8 GPUs: 8 questions of 16 completions each."""
    parts = memory(PRESETS["qwen2.5-1.5b-8gpu"], MIDDLE, 8)
    assert parts["weights"] == parts["reference"] == 1_543_714_304 / 8 * 4
    assert parts["optimizer"] == 1_543_714_304 / 8 * 8
    assert parts["sampler copy"] == 1_543_714_304 * 2
    # 28 layers, keys and values, 2 heads of 128 numbers of 2 bytes; a quarter of room to grow
    assert parts["KV cache"] == 128 * (160 + 1024) * (28 * 2 * 2 * 128 * 2) * 1.25
    standing = 5 * 1_543_714_304 / 8 * 4 + 1_543_714_304 * 2 + 1e9
    training = parts["layers together"] + parts["activations"] + parts["head"]
    assert training > parts["KV cache"] + parts["sampler logits"]
    assert parts["peak"] == pytest.approx(standing + training)


def test_a_host_that_cannot_load_the_model_in_each_process_is_refused():
    """Every process holds model and reference whole, 4 bytes a weight, before they are sharded."""
    config, large, whole = PRESETS["qwen2.5-7b-8gpu"], SHAPES["Qwen/Qwen2.5-7B"], 4 * 7_615_616_512
    assert memory(config, large, 8)["host's memory"] == pytest.approx(2 * whole + GB)
    check_memory(config, large, 8, 80 * GB, 64 * GB)
    with pytest.raises(InputError, match="one process of 8 will need 62 GB and has 32 GB; .* the host's"):
        check_memory(config, large, 8, 80 * GB, 32 * GB)
    alone = replace(config, parallel=replace(config.parallel, offload=True))  # on one GPU, of five
    assert memory(alone, large, 1)["host's memory"] == pytest.approx(5 * whole + GB)


def test_vllm_needs_its_own_weights_and_cache():
    """Qwen2.5-1.5B on four GPUs: 256 completions of each, in a cache of 5 GiB."""
    config = PRESETS["qwen2.5-1.5b-4gpu"]
    parts, own = memory(config, MIDDLE, 4), 2 * 1_543_714_304
    assert parts["vLLM's weights"] == 2 * own, "its own, and the new ones that are handed over"
    assert parts["sampler copy"] == 0, "vLLM's own are in its place"
    assert parts["KV cache"] == 5 * 2**30
    assert parts["host's memory"] == pytest.approx(8 * 1_543_714_304 + GB)


@pytest.mark.parametrize("name", TABLES)
def test_a_preset_names_settings_that_there_are(name):
    table, known = TABLES[name], as_json(zero.Zero())
    assert table.keys() <= {"like", *known} and table.get("like", "cpu") in TABLES
    for group in ("world", "rl"):
        assert table.get(group, {}).keys() <= known[group].keys()
    assert table.get("rl", {}).get("parallel", {}).keys() <= known["rl"]["parallel"].keys()


@pytest.mark.parametrize("size", sorted({*GPU_PRESETS.values()}))
def test_one_preset_of_each_model_samples_with_vllm_and_trains_with_fsdp2(size):
    own = [PRESETS[name] for name, of in GPU_PRESETS.items() if of == size]
    samplers = {one.sampler: one for one in own}
    assert set(samplers) == {"torch", "vllm"} and samplers["vllm"].parallel.shard


@pytest.mark.parametrize("name", MADE_FOR_GPUS)
def test_what_is_for_gpus_fits_them_with_a_tenth_to_spare(name):
    config, model = MADE_FOR_GPUS[name]
    gpus = config.parallel.gpus
    assert gpus >= 1
    if isinstance(config, GRPOConfig):
        config.check(gpus)
    check_memory(config, SHAPES[model], gpus, 72 * GB)


def test_fine_tuning_needs_weights_gradients_and_optimizer_and_no_other_policy():
    parts = memory(SFT_RECIPES["openr1-1.5b"]["config"], MIDDLE, 1)
    assert parts["reference"] == 0 and "KV cache" not in parts
    training = parts["layers together"] + parts["activations"] + parts["head"]
    assert parts["peak"] == pytest.approx(16 * 1_543_714_304 + 1e9 + training)
    whole = replace(SFT_RECIPES["openr1-1.5b"]["config"], precision="float32", parallel=Parallel())
    assert memory(whole, MIDDLE, 1)["peak"] > 150 * GB, "what sharding and recomputing are for"


@pytest.mark.parametrize("change", [{"recompute": True}, {"reduce_every": True}, {"offload": True}])
def test_each_way_to_save_memory_saves_some(change):
    plain = Parallel(shard=True)
    base = replace(PRESETS["qwen2.5-1.5b-4gpu"], parallel=plain)
    saving = replace(base, parallel=replace(plain, **change))
    assert memory(saving, MIDDLE, 4)["peak"] < memory(base, MIDDLE, 4)["peak"]
    assert memory(base, MIDDLE, 8)["peak"] < memory(base, MIDDLE, 4)["peak"]


@pytest.fixture(scope="module")
def base() -> tuple[Policy, PretrainedConfig]:
    return Policy(load_model("data/base")[0]), AutoConfig.from_pretrained("data/base")


def peak_bytes(work) -> int:
    """The most that tensors allocated in `work` hold at one time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        work()
    events = [e for e in profiled.profiler.kineto_results.events() if e.name() == "[memory]"]
    live = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        live += event.nbytes()
        peak = max(peak, live)
    return peak


def test_predicted_activations_are_the_measured_ones_within_a_quarter(base):
    """A micro-batch of the shipped base, 1,024 tokens, as the presets for the CPU make it.

    Gradients appear as activations go: the peak is where the backward pass begins.
    """
    policy, shape = base
    config = replace(PRESETS["cpu"], microbatch_tokens=1024)
    ids, mask = pad_rows([list(range(3, 67))] * 4, [list(range(3, 67)) * 3] * 4, 0)
    policy.zero_grad(set_to_none=True)
    measured = peak_bytes(lambda: policy(ids, mask).logp.sum().backward())
    parts = memory(config, shape, 1)
    assert measured == pytest.approx(parts["activations"] + parts["head"], rel=0.25)


def test_the_prediction_holds_for_the_stored_run_within_a_half():
    """R1-Zero of the small world, measured as resident memory, summed over two processes."""
    run = Path("data/runs/zero")
    stored = json.loads((run / "config.json").read_text())
    assert stored["model"] == "data/base" and stored["questions"] == PRESETS["cpu"].questions
    measured = json.loads((run / "summary.json").read_text())["peak_memory_gb"] * 2**30
    shape = AutoConfig.from_pretrained("data/base")
    predicted = 2 * memory(PRESETS["cpu"], shape, 2)["peak"]
    assert 1 / 1.5 < predicted / measured < 1.5


def test_the_prediction_holds_for_the_run_of_a_real_model_within_a_half():
    """SmolLM2 on two cores, one process: 6.73 GiB of resident memory."""
    run = Path("data/runs/smollm2")
    stored = json.loads((run / "config.json").read_text())
    config = replace(PRESETS["smollm2"], rollouts=24, precision="float32", microbatch_tokens=1024)
    assert stored["model"] == "smollm2"
    for name in ("questions", "group_size", "rollouts", "microbatch_tokens", "processes"):
        assert stored[name] == getattr(config, name)
    assert stored["caps"] == [list(cap) for cap in config.caps]
    measured = json.loads((run / "summary.json").read_text())["peak_memory_gb"] * 2**30
    predicted = memory(config, SHAPES["smollm2"], 1)["peak"]
    assert 1 / 1.5 < predicted / measured < 1.5


@pytest.mark.parametrize(("preset", "words"), [
    ("smollm2", "on 1 processes without a GPU"),
    ("openr1-1.5b", "Qwen2.5-1.5B on 1 GPUs"),
    ("qwen2.5-7b-2nodes", "host's memory"),
    ("qwen2.5-7b-1gpu", "optimizer (in the host's memory)"),
])  # fmt: skip
def test_plan_says_what_and_where_and_how_well_it_knows(preset, words, monkeypatch, capsys):
    monkeypatch.setattr("r1lab.launch.commands.default_processes", lambda: 2)
    assert main(["plan", "--preset", preset]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert words in out and "peak" in out and "not run on any GPU yet" in out


@pytest.mark.parametrize(("options", "words"), [
    (["--preset", "qwen2.5-7b-8gpu", "--memory-gb", "40"], "too little memory: one process of 8"),
    (["--preset", "qwen2.5-7b-8gpu", "--gpus", "3"], "do not divide over 3 processes"),
    (["--preset", "qwen9"], "no preset 'qwen9'"),
    (["--gpus", "-1"], "-1 GPUs: give how many"),
    (["--preset", "openr1-1.5b", "--memory-gb", "24"], "too little memory: one process of 1 will need 42"),
])  # fmt: skip
def test_plan_refuses_what_cannot_be(options, words, capsys):
    assert main(["plan", *options]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_plan_says_in_one_sentence_that_the_hub_is_out_of_reach(monkeypatch, capsys):
    def offline(**source):
        raise OSError("We couldn't connect")

    monkeypatch.setattr(AutoConfig, "from_pretrained", offline)
    assert main(["plan", "--preset", "paper"]) == 2
    assert "the Hub is out of reach" in " ".join(capsys.readouterr().err.split())


def start(preset, runs):
    made = zero.PRESETS[preset]
    return grpo(made.model, zero.Zero().open_task(), replace(made.rl, processes=1), "none", runs=runs)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_preset_for_gpus_is_refused_without_one_before_anything_is_loaded(tmp_path):
    with pytest.raises(InputError, match="for 8 GPUs and there is none here.*r1lab plan"):
        start("qwen2.5-7b-8gpu", tmp_path)
    for name in ("paper", *MADE_FOR_GPUS):
        with pytest.raises(InputError, match="there is none here"):
            if name in SFT_RECIPES:
                recipe = SFT_RECIPES[name]
                sft(recipe["model"], tmp_path / "data", recipe["config"], "none", runs=tmp_path)
            else:
                start(name, tmp_path)
    assert main(["sft", "--preset", "openr1-1.5b"]) == 2
    assert not list(tmp_path.iterdir())


@pytest.fixture
def a_gpu(monkeypatch):
    """A machine with one GPU of 40 GB, from which the Hub cannot be reached."""

    def out_of_reach(**source):
        raise OSError("We couldn't connect to find it")

    card = SimpleNamespace(total_memory=40 * GB)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda number: card)
    monkeypatch.setattr(AutoConfig, "from_pretrained", out_of_reach)
    monkeypatch.setattr(estimate, "memory_bytes", lambda: 2**40)  # of a very large host


def test_too_little_memory_is_said_before_anything_is_loaded(a_gpu, tmp_path):
    with pytest.raises(InputError, match="one process of 1 will need 48 GB and has 40 GB; use more GPUs"):
        start("countdown-1.5b", tmp_path)
    recipe = SFT_RECIPES["openr1-1.5b"]
    with pytest.raises(InputError, match="one process of 1 will need 42 GB and has 40 GB"):
        sft(recipe["model"], tmp_path / "data", recipe["config"], "none", runs=tmp_path)
    assert not list(tmp_path.iterdir())
    check_machine(PRESETS["countdown-0.5b"], "Qwen/Qwen2.5-0.5B")  # fits; no Hub is asked


def test_a_model_that_does_not_exist_is_named_in_one_sentence(a_gpu):
    with pytest.raises(InputError, match="Qwen/Qwen2.5-0.6B: .* no model of the Hub has this name"):
        check_machine(PRESETS["countdown-0.5b"], "Qwen/Qwen2.5-0.6B")


def test_a_model_of_experts_is_not_taken_for_a_dense_one():
    with pytest.raises(InputError, match="what a mixtral needs is not predicted .it has experts"):
        weights_of(MixtralConfig())


@pytest.mark.parametrize(("script", "shell"), [("node.sh", "sh"), ("slurm.sbatch", "bash")])
def test_launch_scripts_parse_and_name_presets_that_exist(script, shell):
    text = (LAUNCH / script).read_text()
    subprocess.run([shell, "-n", LAUNCH / script], check=True)
    assert "torchrun" in text and '-m r1lab "${COMMAND:-zero}" --preset' in text
    assert any(preset in text for preset in GPU_PRESETS)
    bare = subprocess.run([shell, LAUNCH / script], capture_output=True, text=True)
    assert bare.returncode != 0 and "name a preset" in bare.stderr
