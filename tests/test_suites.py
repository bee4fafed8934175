"""The paper's benchmarks by its protocol, resumable, on local data and a sampler that is scripted."""

import json
import shlex
import shutil
from pathlib import Path
from types import SimpleNamespace

import datasets
import pytest
import torch
from transformers import AutoModelForCausalLM

from r1lab import cli
from r1lab.errors import InputError
from r1lab.evaluation import suites
from r1lab.evaluation.suites import SuiteConfig, long_tail, paper_rows, run_suite
from r1lab.models import policy
from r1lab.models.policy import load_model
from r1lab.sampling import Rollouts, Sampler
from r1lab.sources.templates import apply_template
from r1lab.sources import hub
from tests.hub_rows import put

ROOT = Path(__file__).resolve().parents[1]
LONG = 1 << 20
PROGRAMS = {
    "Write a Python program": "n = input()\nprint(sum(map(int, input().split())))",
    "Complete this class": "class Solution:\n    def total(self, x: List[int], n: int):\n        return sum(x) * n",
}


class Letters:
    """A tokenizer of one token a letter."""

    eos_token_id, bos_token, chat_template = 0, None, "there is one"

    def __call__(self, text):
        return SimpleNamespace(input_ids=[ord(letter) for letter in text])

    def decode(self, ids):
        return "".join(map(chr, ids))

    def apply_chat_template(self, messages, **_):
        return "".join(f"[{message['role']}]{message['content']}" for message in messages) + "[me]"


class Scripted(Sampler):
    """Answers right with every sample but each third; notes what it was asked for."""

    def __init__(self, solutions, stop_after=LONG):
        self.solutions, self.calls, self.stop_after = solutions, [], stop_after

    def generate(self, prompt_ids, params, stream_ids=None):
        if len(self.calls) == self.stop_after:
            raise KeyboardInterrupt
        self.calls.append((params, list(stream_ids)))
        answers = []
        for prompt, stream in zip(prompt_ids, stream_ids, strict=True):
            solution = next(s for q, s in self.solutions.items() if q in Letters().decode(prompt))
            for sample in range(params.n):
                wrong = (stream + sample) % 3 == 2
                text = "so </think> " + ("I give up" if wrong else solution)
                answers.append(text.ljust(200) + chr(0))
        return Rollouts(
            [list(prompt) for prompt in prompt_ids for _ in range(params.n)], [Letters()(text).input_ids for text in answers],
            [torch.zeros(len(text)) for text in answers], [torch.zeros(len(text)) for text in answers],
            ["stop"] * len(answers), 0,
        )  # fmt: skip


def scripted(**options):
    answers = {
        problem.prompt: f"\\boxed{{{problem.solution}}}"
        for name in ("aime24", "aime25", "math500", "gpqa") for problem in hub.load_source(name)
    }  # fmt: skip
    answers |= {part: f"```python\n{text}\n```" for part, text in PROGRAMS.items()}
    return Scripted(answers, **options)


@pytest.fixture
def local(tmp_path, monkeypatch):
    """Six sets of the Hub as local files."""
    monkeypatch.setattr(hub, "LOCAL", tmp_path / "hub")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    for name in ("aime24", "aime25", "math500", "gpqa", "livecodebench", "gsm8k"):
        put(name, tmp_path / "hub")
    put("aime25", tmp_path / "hub", [
        {"problem": f"Find ${n}+{n}$.", "answer": str(2 * n), "id": str(n)} for n in range(5)
    ])  # fmt: skip
    return tmp_path


def run(sampler, folder, context=LONG, **options):
    """The results; where there is no sampler, no model may be opened."""

    def open_model(path):
        assert sampler, "nothing was missing, so no model is needed"
        return sampler, Letters(), context

    return run_suite(SuiteConfig("a-model", **options), open_model, folder)


def test_the_protocol_is_the_papers(local):
    sampler = scripted()
    results = run(sampler, local / "run")
    assert {name: result["k"] for name, result in results.items()} == {
        "aime24": 64, "aime25": 64, "math500": 16, "gpqa": 64, "livecodebench": 8,
    }  # fmt: skip
    for params, _ in sampler.calls:
        assert (params.temperature, params.top_p, params.max_tokens) == (0.6, 0.95, 32_768)
    for name, result in results.items():
        k = result["k"]
        shares = [sum((stream + j) % 3 != 2 for j in range(k)) / k for stream in range(result["n"])]
        assert result["pass_at_1"] == pytest.approx(100 * sum(shares) / len(shares), abs=0.01), name
        low, high = result["pass_at_1_ci95"]
        assert low <= result["pass_at_1"] <= high
    assert results["aime25"]["cons_at_64"] == 100 and "cons_at_16" not in results["math500"]
    assert results["livecodebench"]["paper"]["DeepSeek-R1"] == 65.9
    assert json.loads((local / "run" / "summary.json").read_text()) == results


def test_the_question_is_put_as_deepseek_advises():
    text = apply_template("r1", "What is 2?" + suites.TABLE["ask"]["boxed"], Letters())
    assert text.startswith("[user]What is 2?\nPlease reason step by step, and put your final answer")
    assert text.endswith("\\boxed{}.[me]<think>\n") and "system" not in text

    class Begins(Letters):
        bos_token, bos_token_id = "§", ord("§")

        def __call__(self, text):
            return super().__call__("§" + text)

        def apply_chat_template(self, messages, **_):
            return "§" + super().apply_chat_template(messages) + "<think>\n"

    for template in ("r1", "chat"):
        text = apply_template(template, "x", Begins())
        assert "§" not in text and text.count("<think>\n") == 1  # neither is there twice


def test_a_stopped_evaluation_goes_on_and_ends_the_same(local):
    whole = scripted()
    expected = run(whole, local / "whole", batch=2)
    stopped, rest = scripted(stop_after=3), scripted()
    with pytest.raises(KeyboardInterrupt):
        run(stopped, local / "run", batch=2)
    assert run(rest, local / "run", batch=2) == expected
    assert stopped.calls + rest.calls == whole.calls
    assert run(None, local / "run", batch=2) == expected


def test_the_batch_changes_nothing_that_is_asked(local):
    streams = []
    for batch in (1, 2, 8):
        sampler = scripted()
        run(sampler, local / str(batch), benchmarks=("aime25",), batch=batch)
        streams.append(sorted(stream for _, asked in sampler.calls for stream in asked))
    assert streams == [list(range(5))] * 3


def test_a_trial_is_small_and_other_settings_or_problems_are_refused(local):
    sampler = scripted()
    trial = run(sampler, local / "run", benchmarks=("aime25",), samples=2, problems=3)
    assert (trial["aime25"]["n"], trial["aime25"]["k"]) == (3, 2)
    with pytest.raises(InputError, match="other settings .samples"):
        run(sampler, local / "run", benchmarks=("aime25",), samples=4, problems=3)
    put("aime25", local / "hub", [{"problem": "Find $7$.", "answer": "7", "id": "0"}] * 3)
    with pytest.raises(InputError, match="other problems"):
        run(sampler, local / "run", benchmarks=("aime25",), samples=2, problems=3)
    added = run(scripted(), local / "run", benchmarks=("math500",), samples=2, problems=3)
    assert added["math500"]["n"] == 1


def test_answers_stay_within_what_the_model_reads(local):
    sampler = scripted()
    run(sampler, local / "run", benchmarks=("math500",), context=300)
    (params, _), *_ = sampler.calls
    assert 0 < params.max_tokens < 300
    with pytest.raises(InputError, match="a-model reads 20"):
        run(sampler, local / "short", benchmarks=("math500",), context=20)


@pytest.mark.parametrize(("options", "message"), [
    ({"suite": "r2"}, "no suite 'r2'"), ({"benchmarks": ("mmlu",)}, "no benchmark 'mmlu'"),
    ({}, "Idavidrein/gpqa cannot be had"),
])  # fmt: skip
def test_without_names_that_are_known_and_data_nothing_is_started(local, options, message):
    shutil.rmtree(local / "hub" / "gpqa")
    with pytest.raises(InputError, match=message):
        run(None, local / "run", **options)
    assert not (local / "run").exists()


def test_the_long_tail_is_one_command():
    command = long_tail(SuiteConfig("my org/model"), Path("runs/eval"))
    assert command.startswith("lm_eval --model hf --model_args 'pretrained=my org/model,dtype=bfloat16'")
    parts = ("ifeval", "drop", "mmlu", "temperature=0.6,top_p=0.95,max_gen_toks=32768")
    assert all(part in command for part in parts)


def test_a_model_that_only_r1lab_can_name_is_saved_for_the_long_tail_first(local, monkeypatch):
    """smollm2 is not installed here; a shipped model stands in for it when the command is run."""
    first, then = long_tail(SuiteConfig("smollm2"), local / "run").split(" && ")
    python, flag, code = shlex.split(first)
    shipped = load_model(ROOT / "data" / "tiny")
    asked = []
    monkeypatch.setattr(policy, "load_model", lambda path: asked.append(path) or shipped)
    exec(code)  # ours, made above
    assert (python, flag, asked) == ("python", "-c", ["smollm2"])
    saved = str(local / "run" / "model")
    assert f"pretrained={saved},dtype=bfloat16" in then
    assert AutoModelForCausalLM.from_pretrained(saved).num_parameters() == shipped[0].num_parameters()


def test_the_papers_numbers():
    rows = paper_rows(ROOT / "data" / "paper_results.json")
    values = {}
    for row in rows:
        for version in row["versions"]:
            key = (row["model"], row["benchmark"], version)
            assert values.setdefault(key, row["value"]) == row["value"], key
    known = {
        ("DeepSeek-R1", "AIME 2024", "v2"): 79.8, ("DeepSeek-R1-Zero", "AIME 2024", "v1"): 71.0,
        ("DeepSeek-R1-Zero", "AIME 2024", "v2"): 77.9, ("o1-1217", "MATH-500", "v1"): 96.4,
        ("DeepSeek-R1-Distill-Qwen-1.5B", "AIME 2024", "v2"): 28.9,
        ("DeepSeek-R1-Dev1", "IF-Eval", "v2"): 71.7, ("Qwen2.5-32B-Zero", "AIME 2024", "v2"): 47.0,
        ("GPT-4o-0513", "Codeforces rating", "v2"): 759,
    }  # fmt: skip
    assert known.items() <= values.items()
    assert all(row["value"] is None or 0 < row["value"] < 2100 for row in rows)


def test_a_refusal_leaves_no_settings_that_the_remedy_would_meet(local):
    sampler = scripted()
    put("aime25", local / "hub", [{"question": "7?", "reply": "7"}])
    with pytest.raises(InputError, match="columns"):
        run(sampler, local / "run", benchmarks=("aime25",))
    put("aime25", local / "hub", [{"problem": "Find $0+0$.", "answer": "0", "id": "0"}])
    run(sampler, local / "run", benchmarks=("aime25",), problems=1)


def test_the_command_runs_on_a_shipped_model(local, monkeypatch, capsys):
    monkeypatch.chdir(local)
    shutil.copytree(ROOT / "data" / "tiny", local / "tiny")
    command = "eval --suite small --model tiny --samples 2 --problems 1 --max-tokens 4 --template small"
    assert cli.main(command.split()) == 0
    told = capsys.readouterr().out
    assert "GSM8K" in told and "A trial (samples 2, problems 1, max_tokens 4, template small)" in told and "lm_eval --model hf" in told
    assert "Neither here nor in lm-eval: Codeforces" in told
    summary = json.loads((local / "runs" / "eval-small-tiny" / "summary.json").read_text())
    assert summary["gsm8k"]["n"] == 1 and summary["gsm8k"]["k"] == 2
    assert cli.main(["eval", "--suite", "small"]) == 2
