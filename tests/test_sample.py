"""`r1lab sample`: the answers to a question with the rewards and advantages of training."""

import random
import re
from types import SimpleNamespace

import pytest
import torch

from r1lab import api
from r1lab.cli import main
from r1lab.models.policy import load_tokenizer
from r1lab.objective import group_advantages
from r1lab.world import sample_problem
from r1lab.world.small_world import SmallWorld


def test_programs_are_run_and_every_part_weighs_what_it_weighs_in_training(monkeypatch, capsys):
    """A right program and a wrong one in the format, and a right one without thinking."""
    problem = sample_problem(random.Random(3), "programs", 1, "en", for_test=True)
    texts = [
        f"<think> ok </think> <answer> {problem.solution} </answer>",
        "<think> ok </think> <answer> def f(x): return 0 </answer>",
        f"<answer> {problem.solution} </answer>",
    ]
    drawn = SimpleNamespace(finish=["stop"] * 3, texts=lambda tokenizer: texts)
    sampler = SimpleNamespace(generate=lambda prompts, params: drawn)
    opened = (sampler, load_tokenizer("data/base"), 0)
    monkeypatch.setattr(api, "open_model", lambda *options: opened)
    asked = "--family programs --level 1 --group-size 3 --seed 3".split()
    assert main(["sample", "data/base", *asked]) == 0
    found = re.findall(r"advantage (\S+)  accuracy (\S+)  format (\S+)", capsys.readouterr().out)
    parts = [(1.0, 1.0), (1.0, 0.0), (0.0, 1.0)]  # accuracy and format, the best first
    assert [(float(right), float(form)) for _, right, form in found] == parts
    world = SmallWorld()
    totals = [world.accuracy_weight * a + world.format_weight * f for a, f in parts]
    expected = group_advantages(torch.tensor([totals]))[0].tolist()
    assert [float(one) for one, *_ in found] == pytest.approx(expected, abs=0.006)
