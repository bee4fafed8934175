"""R1-Zero in one file takes the package's own first step, and is as short as it says."""

import ast
import copy
import importlib.util
import random
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

from r1lab.objective import LossConfig, group_advantages
from r1lab.models.policy import Policy
from r1lab.rewards import accuracy, format
from r1lab.task import Problem, Task
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience

FILE = Path(__file__).resolve().parents[1] / "notebooks" / "r1_zero_in_one_file.py"
QUESTIONS, GROUP = 3, 4


@pytest.fixture(scope="module")
def one_file():
    spec = importlib.util.spec_from_file_location("r1_zero_in_one_file", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.MAX_TOKENS = 40
    return module


@pytest.fixture(scope="module")
def sampled(one_file):
    """The base, its tokenizer, puzzles one a row, and a batch of answers with advantages.

    In double precision: Adam's first step has the size of the learning rate whatever the gradient,
    so that rounding alone would move a weight whose gradient is almost 0.
    """
    tokenizer = PreTrainedTokenizerFast.from_pretrained(one_file.BASE)
    model = AutoModelForCausalLM.from_pretrained(one_file.BASE, dtype=torch.float64)
    questions = one_file.draw_puzzles(random.Random(0), QUESTIONS, avoid=[])
    puzzles = [puzzle for puzzle in questions for _ in range(GROUP)]
    torch.manual_seed(0)
    batch = one_file.sample(model, tokenizer, puzzles)
    rewards = torch.tensor([[1.1, 0.1, 0.0, 0.0], [0.1, 0.1, 0.1, 1.1], [0.0, 0.1, 0.0, 0.1]])
    advantages = one_file.group_advantages(rewards)
    torch.testing.assert_close(advantages, group_advantages(rewards))
    return model, tokenizer, puzzles, batch._replace(advantages=advantages.flatten())


def as_experience(tokenizer, puzzles, batch) -> Experience:
    """The same answers as the package's loop holds them."""
    width = batch.mask.shape[1]
    lengths = batch.mask.sum(1).tolist()
    asked = [tokenizer(puzzle.prompt).input_ids for puzzle in puzzles]
    answers = [ids[-width:][:length].tolist() for ids, length in zip(batch.ids, lengths, strict=True)]
    return Experience(
        problems=[], prompts=[], prompt_ids=asked, completion_ids=answers, finish=["stop"] * len(puzzles),
        old_logps=[row[:length] for row, length in zip(batch.old_logps, lengths, strict=True)],
        completions=[], rewards={}, totals=torch.zeros(QUESTIONS, GROUP),
        advantages=batch.advantages.view(QUESTIONS, GROUP),
    )  # fmt: skip


def test_its_first_update_is_the_packages_own(one_file, sampled):
    base, tokenizer, puzzles, batch = sampled
    ours, theirs = copy.deepcopy(base), copy.deepcopy(base)
    settings = {"lr": 1e-4, "betas": (0.9, 0.95), "weight_decay": 0.0}
    config = GRPOConfig(
        questions=QUESTIONS, group_size=GROUP, minibatches=1, warmup_steps=0,
        learning_rate=settings["lr"], caps=((0, one_file.MAX_TOKENS),),
        loss=LossConfig(one_file.CLIP_LOW, one_file.CLIP_HIGH, beta=0.0, aggregation="token"),
    )  # fmt: skip
    problems = [Problem("a", "signs", 3, "en", "make 2 from 1,1", "1+1")]
    task = Task("signs", problems, problems, {"format": format}, template="small")
    learner = Learner(config, task, Policy(theirs), tokenizer, World())
    rows = list(range(len(puzzles)))
    sums = learner.add_loss(as_experience(tokenizer, puzzles, batch), rows)
    metrics = learner.follow_gradient(sums)
    loss = one_file.update(ours, torch.optim.AdamW(ours.parameters(), **settings), batch)
    assert loss == pytest.approx(metrics["loss"], abs=1e-6)
    pairs = list(zip(ours.parameters(), theirs.parameters(), strict=True))
    assert max((one - other).abs().max().item() for one, other in pairs) < 1e-6
    moved = zip(ours.parameters(), base.parameters(), strict=True)
    assert max((one - other).abs().max().item() for one, other in moved) > 0.9e-4


def test_what_is_sampled_is_what_is_scored(one_file, sampled):
    model, _, _, batch = sampled
    with torch.no_grad():
        scored = one_file.score(model, batch)
    torch.testing.assert_close(scored[batch.mask], batch.old_logps[batch.mask], atol=1e-5, rtol=0)


RIGHT, WRONG = "<answer> 9+5-1 </answer>", "<answer> 9-5-1 </answer>"


@pytest.mark.parametrize("text", [
    f"<think> 9+5=14-1=13:13 ok </think> {RIGHT}", f"<think> no </think> {WRONG}", RIGHT, "", "9+5-1",
    f"<think> no </think> {RIGHT} {WRONG}", f"so <think> no </think> {RIGHT}", f"<think> {RIGHT}",
    f"<think> a </think> b {RIGHT}",
])  # fmt: skip
def test_its_rewards_are_the_packages_rules(one_file, text):
    puzzle = one_file.Puzzle("User: make 13 from 9,5,1 Assistant:", "9+5-1")
    columns = {"solution": ["9+5-1"], "family": ["signs"], "lang": ["en"],
               "meta": [{"numbers": [9, 5, 1], "target": 13}]}  # fmt: skip
    asked = {"prompts": [puzzle.prompt], "completions": [text], **columns}
    assert one_file.is_right(text, puzzle) == accuracy(**asked)[0]
    assert one_file.is_tidy(text) == format(**asked)[0]


def test_puzzles_have_one_solution_and_are_not_those_held_out(one_file):
    rng = random.Random(1)
    held_out = one_file.draw_puzzles(rng, 50, avoid=[])
    asked = one_file.draw_puzzles(rng, 200, avoid=held_out)
    assert not set(asked) & set(held_out)
    for puzzle in asked:
        target, numbers = puzzle.prompt.split()[2], puzzle.prompt.split()[4]
        assert eval(puzzle.solution) == int(target)  # of our own making
        assert puzzle.solution.replace("+", ",").replace("-", ",") == numbers


def test_it_is_short_and_reads_in_the_order_of_the_algorithm():
    source = FILE.read_text(encoding="utf-8")
    assert source.count("\n") <= 200
    words = [source.index(word) for word in ("sample", "reward", "advantage", "loss", "gradient")]
    assert words == sorted(words)
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module] if isinstance(node, ast.ImportFrom) else [a.name for a in node.names]
            assert {name.split(".")[0] for name in names} <= {"torch", "transformers", *sys.stdlib_module_names}
