"""What r1lab saves opens in transformers, without r1lab, and answers alike."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from r1lab.world.bases import build_tokenizer
from r1lab.sources.templates import apply_template
from r1lab.task import load_problems
from r1lab.models.policy import Policy
from r1lab.training.checkpoint import save_checkpoint
from r1lab.training.distributed import World
from tests.elsewhere import by_r1lab, by_transformers

DATA = Path(__file__).resolve().parents[1] / "data"
# Of different lengths, so that r1lab's batch has padding and its rows end at different times.
PROBLEMS = load_problems(DATA / "test_signs.jsonl")[::40]
PROMPTS = [apply_template("small", problem.prompt) for problem in PROBLEMS]


@pytest.mark.parametrize("stage", ["base", "zero"])
def test_a_shipped_checkpoint_answers_alike_in_transformers(stage):
    """With the tokenizer's class that the model card names: see the next test."""
    told = by_transformers(DATA / stage, PROMPTS, 96, PreTrainedTokenizerFast)
    assert by_r1lab(DATA / stage, PROMPTS, 96) == told
    ends = [answer[-1] == build_tokenizer().eos_token_id for answer in told]
    assert len(set(map(len, told))) > 1 and any(ends)


def test_auto_tokenizer_would_read_a_small_qwen2_with_qwen2s_own_tokenizer():
    """The one thing to know about these folders; the model card says it."""
    wrong, right = (kind.from_pretrained(DATA / "base") for kind in (AutoTokenizer, PreTrainedTokenizerFast))
    assert right(PROMPTS[0]).input_ids == build_tokenizer()(PROMPTS[0]).input_ids
    assert wrong(PROMPTS[0]).input_ids != right(PROMPTS[0]).input_ids
    assert "PreTrainedTokenizerFast" in (DATA / "base" / "README.md").read_text(encoding="utf-8")


def test_a_checkpoint_of_a_llama_opens_with_the_auto_classes(tmp_path):
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=None, initializer_range=0.3,
    ))  # fmt: skip
    folder = save_checkpoint(World(), tmp_path, 1, Policy(model), tokenizer, {})
    assert by_r1lab(folder, PROMPTS, 24) == by_transformers(folder, PROMPTS, 24)


@pytest.mark.parametrize("lesson", ["00_start_here", "03_r1_zero"])
def test_a_lesson_runs_in_whatever_folder_it_stands(lesson, tmp_path):
    """Its first cells, which find the data, in an empty folder."""
    notebook = json.loads((DATA.parent / f"notebooks/{lesson}.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    environment = {**os.environ, "R1LAB_STATIC": "1", "PYTHONPATH": str(DATA.parent)}
    command = [sys.executable, "-c", "\n".join(cells[:3])]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
