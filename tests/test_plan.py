"""The printed model of memory and time: by hand, against transformers, and against measurement."""

import json
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.profiler import ProfilerActivity, profile
from transformers import AutoConfig, Qwen2Config, Qwen2ForCausalLM

from r1lab.cli import main
from r1lab.errors import InputError
from r1lab.models.policy import Policy, load_model
from r1lab.stages.gpus import GPU_PRESETS, SHAPES
from r1lab.stages.zero import PRESETS
from r1lab.training.batching import pad_rows
from r1lab.training.distributed import Parallel
from r1lab.training.estimate import (
    GB,
    GPUS,
    ModelShape,
    check_host,
    check_memory,
    host_memory,
    memory,
    seconds,
    shape_of,
)
from r1lab.training.run import run_grpo

LAUNCH = Path(__file__).resolve().parents[1] / "r1lab" / "launch"
MIDDLE = SHAPES["Qwen/Qwen2.5-1.5B"]


@pytest.mark.parametrize("model", SHAPES)
def test_shapes_count_the_weights_that_transformers_makes(model):
    shape = SHAPES[model]
    config = Qwen2Config(
        vocab_size=shape.vocabulary, hidden_size=shape.hidden, num_hidden_layers=shape.layers,
        intermediate_size=shape.intermediate, num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads, tie_word_embeddings=shape.tied,
    )  # fmt: skip
    with torch.device("meta"):
        assert Qwen2ForCausalLM(config).num_parameters() == shape.parameters
    assert shape_of(config) == shape


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


def test_copies_of_the_weights_are_counted_and_offloaded_with_them():
    """Two earlier policies and a sampler apart; a critic is trained, and holds four times as much."""
    size = 4 * 1_543_714_304
    alone, sharded = PRESETS["cpu"], PRESETS["qwen2.5-1.5b-8gpu"]
    grown = [memory(replace(alone, **change), MIDDLE, 1)["peak"] - memory(alone, MIDDLE, 1)["peak"]
             for change in ({"lag": 2}, {"advantage": "gae"})]  # fmt: skip
    assert grown == pytest.approx([3 * size, 4 * size])
    assert memory(replace(sharded, lag=2), MIDDLE, 8)["earlier policies"] == 2 * size / 8
    offloaded = replace(sharded, parallel=replace(sharded.parallel, offload=True))
    peaks = [memory(replace(offloaded, lag=lag), MIDDLE, 8)["peak"] for lag in (0, 2)]
    assert peaks[0] == peaks[1]


def test_a_host_that_cannot_load_the_model_in_each_process_is_refused():
    """Every process holds model and reference whole, 4 bytes a weight, before they are sharded."""
    config, large = GPU_PRESETS["qwen2.5-7b-8gpu"], SHAPES["Qwen/Qwen2.5-7B"]
    assert host_memory(config, large, 8) == pytest.approx(2 * 4 * large.parameters + GB)
    assert host_memory(replace(config, lag=3), large, 8) == pytest.approx(5 * 4 * large.parameters + GB)
    check_host(config, large, 8, 8, 512 * GB)
    with pytest.raises(InputError, match="8 processes.* will need 495 GB .* has 256 GB"):
        check_host(config, large, 8, 8, 256 * GB)
    alone = replace(config, parallel=replace(config.parallel, offload=True))  # on one GPU, of five
    assert host_memory(alone, large, 1) == pytest.approx(5 * 4 * large.parameters + GB)


def test_the_time_of_a_preset_is_what_a_hand_computes():
    """Qwen2.5-0.5B on one H100: 1,024 completions of 160 + 512 tokens, recomputed layers."""
    parts = seconds(PRESETS["qwen2.5-0.5b-1gpu"], SHAPES["Qwen/Qwen2.5-0.5B"], 1, GPUS["h100"])
    assert parts["training"] == pytest.approx(8 * 494_032_768 * 1024 * 672 / (989e12 * 0.4))
    assert parts["reference"] == pytest.approx(parts["training"] / 4)
    assert parts["messages"] == 0
    # four waves of 256 rows; launching 24 layers' operators takes longer than reading the weights
    prefill = 2 * 494_032_768 * 64 * 160 / (989e12 * 0.4)
    assert parts["sampling"] == pytest.approx(4 * 1024 * 24 * 0.6e-3 + prefill)


@pytest.mark.parametrize("preset", GPU_PRESETS)
def test_every_preset_fits_the_card_that_it_is_for(preset):
    config = GPU_PRESETS[preset]
    config.check(config.parallel.gpus)
    check_memory(config, SHAPES[config.model], config.parallel.gpus, 80 * GB)


@pytest.mark.parametrize(
    "change", [{"recompute": True}, {"reduce_every": True}, {"offload": True}]
)
def test_each_way_to_save_memory_saves_some(change):
    plain = Parallel(shard=True, precision="bfloat16")
    base = replace(PRESETS["qwen2.5-1.5b-4gpu"], parallel=plain)
    saving = replace(base, parallel=replace(plain, **change))
    assert memory(saving, MIDDLE, 4)["peak"] < memory(base, MIDDLE, 4)["peak"]
    assert memory(base, MIDDLE, 8)["peak"] < memory(base, MIDDLE, 4)["peak"]


@pytest.fixture(scope="module")
def base() -> tuple[Policy, ModelShape]:
    return Policy(load_model("data/base")[0]), shape_of(AutoConfig.from_pretrained("data/base"))


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
    shape = shape_of(AutoConfig.from_pretrained("data/base"))
    predicted = 2 * memory(PRESETS["cpu"], shape, 2)["peak"]
    assert 1 / 1.5 < predicted / measured < 1.5


def test_plan_prints_every_part_and_the_hours(capsys):
    assert main(["plan", "--preset", "qwen2.5-7b-2nodes"]) == 0
    out = capsys.readouterr().out
    for words in ("7,615.6 million weights", "optimizer", "host's memory at most", "KV cache", "peak",
                  "GPU-hours", "Assumed"):  # fmt: skip
        assert words in out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--preset", "qwen2.5-7b-8gpu", "--memory-gb", "40"], "too little memory: each of 8"),
        (["--preset", "qwen2.5-7b-8gpu", "--gpus", "3"], "do not divide over 3 processes"),
        (["--preset", "qwen9"], "unknown preset 'qwen9'"),
        (["--gpu", "b200"], "rates of 'b200' are not known"),
    ],
)
def test_plan_refuses_what_cannot_be(options, words, capsys):
    assert main(["plan", *options]) == 2
    assert words in " ".join(capsys.readouterr().err.split())


def test_plan_says_in_one_sentence_that_the_hub_is_out_of_reach(monkeypatch, capsys):
    def offline(name):
        raise OSError("We couldn't connect")

    monkeypatch.setattr(AutoConfig, "from_pretrained", offline)
    assert main(["plan", "--preset", "paper"]) == 2
    assert "the Hub is out of reach" in " ".join(capsys.readouterr().err.split())


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_preset_for_gpus_is_refused_without_one_before_anything_is_loaded(tmp_path):
    with pytest.raises(InputError, match="for 8 GPUs and there is none here.*r1lab plan"):
        run_grpo(PRESETS["qwen2.5-7b-8gpu"], "none", runs=tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("script", "shell"), [("node.sh", "sh"), ("slurm.sbatch", "bash")])
def test_launch_scripts_parse_and_name_presets_that_exist(script, shell):
    text = (LAUNCH / script).read_text()
    subprocess.run([shell, "-n", LAUNCH / script], check=True)
    assert "torchrun" in text and "-m r1lab zero --preset" in text
    assert any(preset in text for preset in GPU_PRESETS)
    bare = subprocess.run([shell, LAUNCH / script], capture_output=True, text=True)
    assert bare.returncode != 0 and "name a preset" in bare.stderr
