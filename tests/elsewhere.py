"""Greedy answers of a checkpoint, by transformers alone and by r1lab: they should be the same."""

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1lab.models.policy import Policy, load_model
from r1lab.sampling import SamplingParams, TorchSampler


def by_transformers(folder: Path, prompts: Sequence[str], tokens: int) -> list[list[int]]:
    """One question after another, by `generate`: nothing of r1lab, no batch, no padding."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    answers = []
    for prompt in prompts:
        asked = tokenizer(prompt, return_tensors="pt")
        said = model.generate(**asked, do_sample=False, max_new_tokens=tokens)
        answers.append(said[0, asked.input_ids.shape[1] :].tolist())
    return answers


def by_r1lab(folder: Path, prompts: Sequence[str], tokens: int) -> list[list[int]]:
    """All questions at once."""
    model, tokenizer = load_model(folder)
    Policy(model)  # as `r1lab eval` does
    params = SamplingParams(n=1, temperature=0.0, max_tokens=tokens)
    asked = [tokenizer(prompt).input_ids for prompt in prompts]
    return [list(ids) for ids in TorchSampler(model, tokenizer).generate(asked, params).completion_ids]
