"""r1lab eval and lm-eval on the same GSM8K-format file and the same real model: `make test-lm-eval`.

Same weights, same prompts, greedy: the texts must be equal, and so must the verdicts on answers as
short as these. On longer ones they can differ, see `DIFFERENT`: lm-eval takes the last number of
the text and compares it letter by letter; r1lab takes the answer that is marked, or else what the
last line ends in, and compares values. When all has passed, data/benchmarks/lm_eval.json tells it.
"""

import json
import os
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml

from r1lab.errors import InputError
from r1lab.evaluation.measure import evaluate
from r1lab.models.policy import load_model
from r1lab.models.places import smollm2_file
from r1lab.rewards import correct
from r1lab.sampling import TorchSampler
from r1lab.sources import hub
from r1lab.machine import commit, machine
from tests.hub_rows import put

pytestmark = pytest.mark.real
ABSENT = (
    "lm-eval is not installed: it needs python-dateutil below 3, which constraints.txt does not have; "
    "make test-lm-eval lays an environment of its own over .venv"
)
RECORD = Path(__file__).parents[1] / "data" / "benchmarks" / "lm_eval.json"
TOKENS = 24
PAIRS = [(2, 3), (7, 8), (10, 5), (6, 6), (9, 4), (1, 8), (20, 30), (15, 7)]
ROWS = [
    {"question": f"What is {a} plus {b}? Say only the number.", "answer": f"{a}+{b}={a + b}\n#### {a + b}"}
    for a, b in PAIRS
]  # fmt: skip
# answer, gold, right for lm-eval, right for r1lab, why. Written for this test; no model's.
DIFFERENT = [
    ("\\boxed{18}, which is 3 more than 15.", "18", False, True,
     "r1lab takes what is in the box; lm-eval the last number, 15"),
    ("<answer>18</answer> in 2 steps", "18", False, True,
     "r1lab takes what is marked as the answer; lm-eval the last number, 2"),
    ("She makes $18.00.", "18", False, True,
     "r1lab compares values; lm-eval letters, and 18.00 is not written 18"),
    ("18\n\nLet me check this again.", "18", True, False,
     "r1lab looks in the last line, where no number is; lm-eval in the whole text"),
    ("18-", "18", True, False,
     "r1lab wants the answer written out cleanly; lm-eval leaves out what is no number"),
]  # fmt: skip
# lm-eval's own GSM8K (version 3), without examples and on our file.
TASK = """
task: own_gsm8k
dataset_path: json
dataset_kwargs: {{data_files: {{test: {path}}}}}
test_split: test
output_type: generate_until
doc_to_text: "Question: {{{{question}}}}\\nAnswer:"
doc_to_target: "{{{{answer.split('####')[-1].strip()}}}}"
generation_kwargs: {{until: ["Question:"], do_sample: false, max_gen_toks: {tokens}}}
filter_list:
  - name: flexible-extract
    filter:
      - {{function: regex, group_select: -1, regex_pattern: "(-?[$0-9.,]{{2,}})|(-?[0-9]+)"}}
      - {{function: take_first}}
metric_list:
  - metric: exact_match
    ignore_case: true
    ignore_punctuation: false
    regexes_to_ignore: [",", "\\\\$", "(?s).*#### ", "\\\\.$"]
"""


@pytest.fixture(scope="module")
def lm_eval():
    return pytest.importorskip("lm_eval", reason=ABSENT)


@pytest.fixture(scope="module")
def real(lm_eval):
    try:
        smollm2_file()
    except InputError as missing:
        pytest.skip(str(missing))
    return load_model("smollm2")


def test_where_the_verdicts_differ_and_why(lm_eval):
    """By the filter and the metric of lm-eval's own gsm8k.yaml, as they are installed."""
    from lm_eval.api.metrics import exact_match_fn
    from lm_eval.filters.extraction import RegexFilter

    settings = Path(lm_eval.__file__).parent / "tasks" / "gsm8k" / "gsm8k.yaml"
    task = yaml.safe_load(settings.read_text(encoding="utf-8"))
    (flexible,) = [each for each in task["filter_list"] if each["name"] == "flexible-extract"]
    options = {name: value for name, value in flexible["filter"][0].items() if name != "function"}
    metric = {name: value for name, value in task["metric_list"][0].items()
              if name.startswith(("ignore", "regexes"))}  # fmt: skip
    for text, gold, theirs, ours, why in DIFFERENT:
        ((found,),) = RegexFilter(**options).apply([[text]], [{}])
        matched = exact_match_fn(predictions=[found], references=[gold], **metric)["exact_match"]
        assert (bool(matched), correct(text, gold, "gsm8k", {}, lenient=True)) == (theirs, ours), why


def test_lm_eval_agrees(real, tmp_path, monkeypatch):
    model, tokenizer = real
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    monkeypatch.setattr(hub, "LOCAL", tmp_path / "hub")
    path = put("gsm8k", tmp_path / "hub", ROWS, "test")
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "own.yaml").write_text(TASK.format(path=path, tokens=TOKENS))
    command = [
        sys.executable, "-m", "lm_eval", "--model", "hf", "--tasks", "own_gsm8k", "--device", "cpu",
        "--model_args", f"pretrained={tmp_path / 'model'},dtype=float32", "--batch_size", "1",
        "--include_path", str(tmp_path / "tasks"), "--output_path", str(tmp_path / "out"), "--log_samples",
    ]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, cwd=tmp_path)
    (logged,) = (tmp_path / "out").rglob("samples_own_gsm8k_*.jsonl")
    theirs = sorted(map(json.loads, logged.read_text().splitlines()), key=lambda row: row["doc_id"])

    ours = evaluate(
        TorchSampler(model, tokenizer), tokenizer, hub.load_source("gsm8k"), k=1, temperature=0.0,
        max_tokens=TOKENS, template=lambda problem: f"Question: {problem.prompt}\nAnswer:",
    )  # fmt: skip
    answers = []
    for row, completions, right in zip(theirs, ours.completions, ours["correct"][:, 0], strict=True):
        (said,) = row["resps"][0]
        texts = {"lm_eval": said.strip(), "r1lab": completions[0].partition("Question:")[0].strip()}
        verdicts = {"lm_eval": bool(row["exact_match"]), "r1lab": bool(right)}
        print(f"\n{texts}\n{verdicts}")
        answers.append({"question": row["doc"]["question"], "text": texts, "right": verdicts})
    agree = {
        key: sum(answer[key]["lm_eval"] == answer[key]["r1lab"] for answer in answers)
        for key in ("text", "right")
    }
    assert agree == {"text": len(ROWS), "right": len(ROWS)}
    assert 0 < sum(answer["right"]["r1lab"] for answer in answers) < len(ROWS), "they tell apart"
    _record({"n": len(ROWS), "same_text": agree["text"], "same_verdict": agree["right"], "answers": answers})


def _record(measured: dict) -> None:
    names = ("answer", "gold", "right for lm-eval", "right for r1lab", "why")
    told = {
        "command": "make test-lm-eval", "commit": commit(), "date": time.strftime("%Y-%m-%d"),
        "machine": machine(), "lm_eval": version("lm_eval"), "model": "smollm2", **measured,
        "differing": [dict(zip(names, row, strict=True)) for row in DIFFERENT],
    }  # fmt: skip
    RECORD.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
