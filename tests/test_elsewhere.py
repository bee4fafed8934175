"""What r1lab saves opens in transformers, without r1lab, and answers alike."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer

from r1lab.world.bases import build_model, build_tokenizer
from tests.small_run import tiny_model
from r1lab.sources.templates import apply_template
from r1lab.task import load_problems
from r1lab.models.policy import Policy, load_model, load_tokenizer, save_model
from r1lab.training.checkpoint import save_checkpoint
from r1lab.training.distributed import World
from tests.elsewhere import by_r1lab, by_transformers

DATA = Path(__file__).resolve().parents[1] / "data"
# Of different lengths, so that r1lab's batch has padding and its rows end at different times.
PROBLEMS = load_problems(DATA / "test_signs.jsonl")[::40]
PROMPTS = [apply_template("small", problem.prompt) for problem in PROBLEMS]


FOLDERS = sorted(path.parent.name for path in DATA.glob("*/model.safetensors"))
TEXTS = [*PROMPTS, "<think> 9+5=14-1=13:13 ok </think> <answer> 9+5-1 </answer><|end|>", "用 3, 4 得到 7"]


@pytest.mark.parametrize("stage", FOLDERS)
def test_a_shipped_folder_is_read_alike_by_transformers(stage):
    ours, theirs = load_tokenizer(DATA / stage), AutoTokenizer.from_pretrained(DATA / stage)
    for text in TEXTS:
        ids = ours(text).input_ids
        assert theirs(text).input_ids == ids == build_tokenizer()(text).input_ids
        assert theirs.decode(ids) == ours.decode(ids)
    asked = [{"role": "user", "content": PROBLEMS[0].prompt}]
    assert theirs.apply_chat_template(asked, tokenize=False) == PROMPTS[0]


@pytest.mark.parametrize("stage", ["base", "zero"])
def test_a_shipped_checkpoint_answers_alike_in_transformers(stage):
    theirs = by_transformers(DATA / stage, PROMPTS, 96)
    assert by_r1lab(DATA / stage, PROMPTS, 96) == theirs
    ends = [answer[-1] == build_tokenizer().eos_token_id for answer in theirs]
    assert len(set(map(len, theirs))) > 1 and any(ends)


@pytest.mark.parametrize("architecture", ["qwen2", "llama"])
def test_a_checkpoint_opens_with_the_auto_classes(architecture, tmp_path):
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    policy = Policy(build_model("tiny", len(tokenizer), architecture))
    folder = save_checkpoint(World(), tmp_path, 1, policy, tokenizer, {})
    assert by_r1lab(folder, PROMPTS, 24) == by_transformers(folder, PROMPTS, 24)


def test_a_folder_without_the_mark_is_read_rightly_and_saved_with_it(tmp_path):
    """As runs of earlier versions stored them."""
    tokenizer, old = build_tokenizer(), tmp_path / "old"
    tiny_model(old)
    save_model(*load_model(old), tmp_path / "new")
    for read in (load_tokenizer(old), AutoTokenizer.from_pretrained(tmp_path / "new")):
        assert read(PROMPTS[0]).input_ids == tokenizer(PROMPTS[0]).input_ids
    with pytest.raises(OSError, match="leave_out_trust_remote_code"):
        AutoTokenizer.from_pretrained(tmp_path / "new", trust_remote_code=True)


@pytest.mark.parametrize("lesson", ["00_start_here", "03_r1_zero"])
def test_a_lesson_runs_in_whatever_folder_it_stands(lesson, tmp_path):
    """Its first cells, which find the data, in an empty folder."""
    notebook = json.loads((DATA.parent / f"notebooks/{lesson}.ipynb").read_text(encoding="utf-8"))
    cells = ["".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "code"]
    environment = {**os.environ, "R1LAB_STATIC": "1", "PYTHONPATH": str(DATA.parent)}
    command = [sys.executable, "-c", "\n".join(cells[:3])]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
