"""The lab on a real language model, SmolLM2-135M-Instruct: `make test-real`.

When all of them have passed, what they measured is written to data/benchmarks/real.json.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from r1lab.errors import InputError
from r1lab.files import read_rows
from r1lab.models.policy import Policy, load_model
from r1lab.models.places import smollm2_file
from r1lab.rewards import correct, parse
from r1lab.sampling import SamplingParams, TorchSampler
from r1lab.stages.rl_stages import PRESETS
from r1lab.sources.templates import apply_template
from r1lab.task import load_problems, save_problems
from r1lab.run import Run
from r1lab.training.batching import pad_rows
from r1lab.training.checkpoint import checkpoint_path, save_checkpoint
from r1lab.training.distributed import World
from r1lab.machine import commit, machine
from tests.elsewhere import by_r1lab, by_transformers

pytestmark = pytest.mark.real
PRESET = PRESETS["smollm2"]
TEST_SET = Path(PRESET.world.test)
RECORD = Path(__file__).parents[1] / "data" / "benchmarks" / "real.json"
# A run of two steps that takes seconds: the same code, the same model, little to do.
TINY = ("--questions 2 --group-size 4 --caps 0 12 --checkpoint-every 1 --eval-every 9").split()


@pytest.fixture(scope="module")
def real():
    try:
        smollm2_file()
    except InputError as missing:
        pytest.skip(str(missing))
    model, tokenizer = load_model("smollm2")
    return Policy(model), tokenizer, TorchSampler(model, tokenizer)


@pytest.fixture(scope="session")
def measured(request):
    """What the tests measured, for the record; it is written when those of other files passed too."""
    numbers = {}
    yield numbers
    if request.session.testsfailed == 0 and len(numbers) == 5:  # all that measures ran
        head = {"date": time.strftime("%Y-%m-%d"), "commit": commit(), "machine": machine()}
        RECORD.parent.mkdir(exist_ok=True)
        told = {"command": "make test-real", **head, **numbers}
        RECORD.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


@pytest.fixture
def folder():
    """Removed at once: a checkpoint with its optimizer holds 2 GB."""
    with tempfile.TemporaryDirectory() as name:
        yield Path(name)


def ask(tokenizer, problems):
    texts = [apply_template(PRESET.world.template, problem.prompt, tokenizer) for problem in problems]
    return [tokenizer(text).input_ids for text in texts]


def zero(folder: Path, name: str, *options: str) -> subprocess.Popen:
    """`r1lab zero --preset smollm2` for two rollouts, tested on two problems, on two cores.

    In small micro-batches: with the preset's, two processes need more than 8 GB of memory."""
    save_problems(load_problems(TEST_SET)[:2], folder / "test.jsonl")
    command = [sys.executable, "-m", "r1lab", "zero", "--preset", "smollm2", "--name", name]
    shared = "--rollouts 2 --processes 2 --final-samples 2 --test test.jsonl"
    small = "--microbatch-tokens 512"
    return subprocess.Popen(
        [*command, *f"{shared} {small}".split(), *options], cwd=folder, start_new_session=True
    )


def last_weights(run: Path) -> dict[str, torch.Tensor]:
    checkpoint = Run(run).checkpoints[-1]
    return {
        f"{file}/{name}": value
        for file in ("model", "reference")
        for name, value in load_file(checkpoint / f"{file}.safetensors").items()
    }


@pytest.mark.parametrize("options", [{}, {"temperature": 0.6, "top_p": 0.8, "top_k": 20}])
def test_what_is_sampled_is_what_is_scored(real, measured, options):
    policy, tokenizer, sampler = real
    params = SamplingParams(n=4, max_tokens=64, seed=1, **options)
    drawn = sampler.generate(ask(tokenizer, load_problems(TEST_SET)[:4]), params)
    ids, mask = pad_rows(drawn.prompt_ids, drawn.completion_ids, tokenizer.pad_token_id)
    with torch.no_grad():
        scored = policy(ids, mask, params.temperature).logp
    largest = max(
        (row[: len(sampled)] - sampled).abs().max().item()
        for row, sampled in zip(scored, drawn.scorer_logps, strict=True)
    )
    print(f"\nlargest difference of a log-probability at {options or 'temperature 1'}: {largest:.1e}")
    assert largest <= 1e-3
    measured[f"largest_difference_at_temperature_{params.temperature}"] = largest


def test_its_real_answers_are_graded_as_a_person_would(real, measured):
    """Where the last thing in a text is a whole number, that number decides, and nothing else."""
    _, tokenizer, sampler = real
    problems = [problem for problem in load_problems(TEST_SET) if problem.level == 1][:12]
    params = SamplingParams(n=8, temperature=0.6, top_p=0.95, max_tokens=PRESET.rl.cap(0), seed=1)
    drawn = sampler.generate(ask(tokenizer, problems), params)
    verdicts, texts = [], drawn.texts(tokenizer)
    for row, text in enumerate(texts):
        problem = problems[row // params.n]
        answer = parse(text).lenient_answer
        if re.fullmatch(r"-?\d+", answer):
            right = int(answer) == int(problem.solution)
            told = f"<think> {re.sub(r'</?[a-z]+>', '', text)} </think> <answer> {answer} </answer>"
            asked = {"question": problem.prompt}
            gold = (problem.solution, problem.family, problem.meta)
            assert correct(text, *gold, lenient=True, **asked) is right, text
            assert correct(told, *gold, **asked) is right, told
            verdicts.append(right)
    print(f"\n{sum(verdicts)} of {len(verdicts)} plain answers right, {len(texts)} asked for")
    assert len(verdicts) >= len(texts) / 4 and 0 < sum(verdicts) < len(verdicts)
    counts = {"right": sum(verdicts), "plain": len(verdicts), "asked": len(texts)}
    measured["graded_answers"] = counts


def test_a_checkpoint_opens_in_transformers_and_answers_alike(real, folder):
    policy, tokenizer, _ = real
    saved = save_checkpoint(World(), folder, 1, policy, tokenizer, {})
    problems = load_problems(TEST_SET)[:64:16]
    prompts = [apply_template(PRESET.world.template, problem.prompt, tokenizer) for problem in problems]
    assert by_r1lab(saved, prompts, 32) == by_transformers(saved, prompts, 32)


def test_two_real_steps_on_two_cores(real, measured, folder):
    assert zero(folder, "real").wait() == 0
    run = folder / "runs" / "real"
    rows = [row for row in read_rows(run / "metrics.jsonl") if row["kind"] == "train"]
    for row in rows:
        print(f"\nstep {row['step']}: {row['seconds']:.0f} s, {row['tokens_mean']:.0f} tokens, ", end="")
        print(f"reward {row['reward']:.2f}, gradient {row['grad_norm']:.2f}", end="")
    assert [row["step"] for row in rows] == [PRESET.rl.minibatches, 2 * PRESET.rl.minibatches]
    assert all(row["grad_norm"] > 0 and row["skipped"] == 0 for row in rows)
    trained, tokenizer = load_model(checkpoint_path(run, 2 * PRESET.rl.minibatches))
    before = dict(real[0].model.named_parameters())
    moved = [(value - before[name]).abs().max().item() for name, value in trained.named_parameters()]
    assert 0 < max(moved) < 1e-3
    text = "<think> 12 + 3 isn't 35 </think>"
    assert tokenizer(text).input_ids == real[1](text).input_ids
    assert tokenizer.chat_template == real[1].chat_template
    shown = ("step", "seconds", "tokens_mean", "reward", "grad_norm")
    measured["two_rollouts"] = [{name: row[name] for name in shown} for row in rows]


def test_a_killed_run_resumes_to_the_same_weights(real, measured, folder):
    assert zero(folder, "unbroken", *TINY).wait() == 0
    unbroken, run = folder / "runs" / "unbroken", folder / "runs" / "killed"
    process = zero(folder, "killed", *TINY)
    while not Run(run).checkpoints and process.poll() is None:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    left = Run(run).checkpoints[-1]
    assert left != checkpoint_path(run, 4), "it was killed too late"
    assert zero(folder, "killed", *TINY, "--resume").wait() == 0
    expected, got = last_weights(unbroken), last_weights(run)
    assert expected.keys() == got.keys()
    assert all(torch.equal(expected[name], got[name]) for name in expected)
    measured["equal_tensors_after_a_kill"] = len(expected)
