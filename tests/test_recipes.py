"""Each recipe for a real model runs: the same code, two steps, a shipped model, local files."""

import gc
import os
import signal
from dataclasses import replace
from pathlib import Path

import datasets
import pytest
import torch.distributed as dist
from datasets import load_from_disk

from r1lab import cli
from r1lab.stages.sft_stages import SFT_RECIPES
from r1lab.stages.rl_stages import PRESETS
from r1lab.sources import hub
from r1lab.sources.templates import TEMPLATES
from r1lab.training import rl
from r1lab.training.rl import grpo
from r1lab.training.sft import sft
from tests.hub_rows import put

ROOT = Path(__file__).resolve().parents[1]
RECIPES = [name for name in PRESETS if name.startswith(("countdown", "gsm8k", "math"))]
# One rollout of two updates on a model of a hundred thousand weights.
TWO_STEPS = {
    "rollouts": 1, "questions": 2, "group_size": 2, "minibatches": 2,
    "caps": ((0, 6),), "eval_problems": 1, "eval_samples": 1, "final_samples": 1, "processes": 1,
    "microbatch_tokens": 1024, "checkpoint_every": 1,
}  # fmt: skip


@pytest.fixture
def here(tmp_path, monkeypatch, alone):
    """A folder with the shipped model and local copies; workers run in this process."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    # The tiny model stands for one that reads English.
    monkeypatch.setattr(rl, "refuse_unknown_words", lambda *_: None)
    os.symlink(ROOT / "data" / "tiny", tmp_path / "tiny")
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield tmp_path
    if dist.is_initialized():
        dist.destroy_process_group()
        # A group that is garbage would be collected in whatever process is forked later, the
        # grader's for one, and wait there for threads that a fork does not copy.
        gc.collect()
    for number, handler in handlers.items():
        signal.signal(number, handler)


def copies(home: Path) -> None:
    sums = [(a, b) for a in range(2, 6) for b in range(6, 9)]
    asked = [{"question": f"What is {a} and {b}?", "answer": f"#### {a + b}"} for a, b in sums]
    boxed = [
        {"problem": f"What is ${a}+{b}$?", "level": "Level 3", "type": "Algebra", "answer": str(a + b),
         "solution": f"$\\boxed{{{a + b}}}$"} for a, b in sums
    ]  # fmt: skip
    put("gsm8k", home, asked[:6], "train")
    put("gsm8k", home, asked[6:], "test")
    put("math", home, boxed[:6])
    put("math500", home, [{**row, "level": 3} for row in boxed[6:]])
    put("countdown34", home, [{"target": a + b - 1, "nums": [a, b, 1]} for a, b in sums])


def on_cpu(recipe):
    return replace(recipe, parallel=replace(recipe.parallel, gpus=0))


@pytest.mark.parametrize("name", RECIPES)
def test_two_steps_of_r1_zero(here, name):
    copies(here / "data" / "hub")
    recipe = replace(PRESETS[name], model="tiny")
    if name.startswith("countdown"):  # the local copy has too few rows for 512 held-out ones
        recipe = replace(recipe, task="hub:countdown34:train[:8]", test="hub:countdown34:train[8:]")
    task, config = recipe.open_task(), replace(on_cpu(recipe.rl), **TWO_STEPS)
    run = grpo(recipe.model, task, config, name)
    rows = [row for row in run.metrics if row["kind"] == "train"]
    assert rows[-1]["step"] == config.steps == run.summary["steps"] == 2
    assert (run.model / "model.safetensors").is_file()
    tested = {problem.id for problem in task.test}
    drawn = {problem.id for problem in task.draw(0, 0, config.questions)}
    assert drawn <= {problem.id for problem in task.problems} and not drawn & tested
    assert {row["id"] for row in run.samples} <= drawn | tested


# Traces in the Hub's schemas, in words that the small world's tokenizer knows.
SMALL_TRACES = {
    "openr1_math": [
        {"problem": "make 13 from 9,5,1", "answer": "9+5-1", "correctness_math_verify": [False, True],
         "generations": ["<think>\n9+5=14:13 no\n</think>\n\n9+5",
                         "<think>\n9+5=14-1=13:13 ok\n</think>\n\n9+5-1"]},
    ],
    "openthoughts": [
        {"problem": "make 13 from 9,5,1", "deepseek_reasoning": "9+5=14-1=13:13 ok\n",
         "deepseek_solution": "9+5-1", "ground_truth_solution": "9+5-1"},
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", SFT_RECIPES)
def test_two_steps_of_distillation(here, name):
    source, config = SFT_RECIPES[name]["data"], SFT_RECIPES[name]["config"]
    put(source, here / "data" / "hub", SMALL_TRACES[source])
    data = hub.save_traces(source, opened=config.template == "r1")
    (row,) = load_from_disk(str(data))
    assert row["completion"] == "9+5=14-1=13:13 ok\n</think>\n\n9+5-1"  # the template gives the tag
    assert hub.save_traces(source, opened=True) == data
    # Two epochs of one document each; the last rate is the cosine's, after a warm-up of one step.
    config = replace(on_cpu(config), warmup_steps=1, microbatch_tokens=1024)
    run = sft("tiny", data, config, "distilled")
    assert (run.summary["steps"], run.summary["examples"]) == (2, 1)
    first, second = (row["loss"] for row in run.metrics)
    assert second < first, "the same document a second time"


def test_the_command_takes_traces_of_the_hub_and_a_recipe_by_name(here, capsys):
    put("openr1_math", here / "data" / "hub")
    recipe = "sft tiny openr1_math:train[:1] --preset openr1-0.5b --steps 2 --parallel.gpus 0".split()
    assert cli.main(recipe) == 2 and "does not know" in capsys.readouterr().err
    assert (here / "data" / "hub" / "openr1_math-train-1-opened").is_dir()
    assert cli.main(["sft", "--preset", "openr1-9b"]) == 2
    assert "openthoughts-1.5b" in capsys.readouterr().err


def test_the_recipes_name_what_exists():
    for name in RECIPES:
        recipe = PRESETS[name]
        recipe.rl.check(1)
        assert recipe.template in TEMPLATES and recipe.model.startswith("Qwen/Qwen2.5-")
        for source in (recipe.task, recipe.test):
            assert source.split(":")[0] == "hub" and source.split(":")[1] in hub.SETS
        assert recipe.task != recipe.test
    for recipe in SFT_RECIPES.values():
        assert recipe["data"] in hub.SETS
        assert recipe["config"].final_share == 0.1 and recipe["config"].epochs in (2, 3)
