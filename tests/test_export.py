"""A run's model for others: the exported folder, its card, its upload, and metrics for trackers."""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi
from transformers import AutoModelForCausalLM, AutoTokenizer

from r1lab import api
from r1lab.cli import main
from r1lab.errors import InputError
from r1lab.models.lora import LoRA
from r1lab.models.policy import load_model
from r1lab.report import export as exporting
from r1lab.training.config import GRPOConfig
from tests.small_run import Job, coin_task, tiny_model
from tests.test_resume import CONFIG

IDS = torch.arange(5, 29)[None]
FAKE = """
import json
from pathlib import Path
def init(**options):
    note("init", options)
    return Opened()
def note(*what):
    with open(Path(__file__).with_suffix(".jsonl"), "a") as file:
        file.write(json.dumps(what) + "\\n")
class Opened:
    def log(self, row, step):
        note("log", row, step)
    def finish(self):
        note("finish")
"""


@pytest.fixture(scope="module", params=["adapter", "all weights"])
def run(request, tmp_path_factory) -> api.Run:
    folder = tmp_path_factory.mktemp("model")
    lora = LoRA(2) if request.param == "adapter" else None
    config = replace(CONFIG, rollouts=2, eval_every=1, lora=lora)
    job = Job(tiny_model(folder), coin_task(folder), config)
    job.work(job.start(folder / "run"))
    return api.Run(folder / "run", job.task)


def test_an_exported_folder_opens_in_transformers_and_its_card_says_what_was_done(run, tmp_path):
    folder = run.export(tmp_path / "new" / "folder")
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    trained, own = load_model(run.model)
    assert (model(IDS).logits - trained(IDS).logits).abs().max() < 1e-5
    assert tokenizer("make 7 from 3,4").input_ids == own("make 7 from 3,4").input_ids
    assert not list(folder.glob("adapter*")) and not list(folder.glob("trainer*"))
    text, summary = (folder / "README.md").read_text(), run.summary
    before, after = (f"{100 * summary[part]['pass_at_1']:.1f}" for part in ("base", "final"))
    assert f"| Pass@1 | {before}" in text and after in text and "to 100.0" not in text.split("Rewards")[0]
    for words in ("small world", "accuracy, format", "## Licence", '"learning_rate": 0.001', "step 4", "(GRPO)"):
        assert words in text
    assert ("adapter of rank 2, merged here" in text) == (run.config["lora"] is not None)


def test_the_best_checkpoint_is_exported_when_asked(run, tmp_path):
    copied = api.Run(shutil.copytree(run.folder, tmp_path / "run"))
    rows = [json.loads(line) for line in (copied.folder / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        if row["kind"] == "eval":
            row["pass_at_1"] = 0.9 if row["step"] == 2 else 0.1
    (copied.folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = (copied.export(tmp_path / "best", best=True) / "README.md").read_text()
    assert "checkpoint after step 2" in text and "90.0" in text
    best, _ = load_model(copied.folder / "checkpoints" / "step-000002")
    assert torch.equal(load_model(tmp_path / "best")[0](IDS).logits, best(IDS).logits)


@pytest.mark.parametrize("what", ["a file in it", "a file"])
def test_a_folder_that_is_not_empty_is_left_alone(run, tmp_path, what):
    folder = tmp_path / "folder"
    place = folder / "mine.txt" if what == "a file in it" else folder
    place.parent.mkdir(exist_ok=True)
    place.write_text("mine")
    with pytest.raises(InputError, match="is not an empty folder; export to another one"):
        run.export(folder)
    assert place.read_text() == "mine"


def test_push_uploads_the_export_or_says_what_is_missing(run, monkeypatch):
    uploaded = {}

    def create_repo(self, repo_id, **options):
        uploaded["options"] = options
        return f"https://huggingface.co/{repo_id}"

    def upload_folder(self, repo_id, folder_path):
        uploaded[repo_id] = {path.name for path in Path(folder_path).iterdir()}

    monkeypatch.setattr(exporting, "get_token", lambda: None)
    with pytest.raises(InputError, match="`hf auth login`, or set HF_TOKEN"):
        run.push("me/model")
    monkeypatch.setattr(exporting, "get_token", lambda: "hf_...")
    with pytest.raises(InputError, match="the Hub did not take too/many/parts .*give it as user/name"):
        run.push("too/many/parts")
    monkeypatch.setattr(HfApi, "create_repo", create_repo)
    monkeypatch.setattr(HfApi, "upload_folder", upload_folder)
    assert run.push("me/model") == "https://huggingface.co/me/model"
    assert uploaded["options"] == {"private": True, "exist_ok": True}
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= uploaded["me/model"]


@pytest.mark.parametrize("name", ["trackio", "wandb"])
def test_metrics_go_to_a_tracker_that_is_asked_for(name, tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(InputError, match=f"track is {name!r}, .* not installed: pip install {name}"):
        GRPOConfig(track=name).check(1)
    (tmp_path / f"{name}.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    for track in ("", name):
        job = Job(tiny_model(tmp_path / "m"), coin_task(tmp_path), replace(CONFIG, rollouts=1, track=track))
        own = job.start(tmp_path / f"run{track}")
        job.work(own)
        if not track:
            assert name not in sys.modules and not (tmp_path / f"{name}.jsonl").exists()
    first, *logged, last = map(json.loads, (tmp_path / f"{name}.jsonl").read_text().splitlines())
    assert first[1]["project"] == "r1lab" and first[1]["name"] == own.name and last == ["finish"]
    assert ("id" in first[1]) == (name == "wandb") and first[1]["config"]["track"] == name
    for _, row, step in logged:
        kind = next(iter(row)).split("/")[0]
        stored = next(one for one in own.metrics if (one["kind"], one["step"]) == (kind, step))
        assert row[f"{kind}/pass_at_1"] == stored["pass_at_1"]
    assert [step for _, _, step in logged] == [0, 2, 2]
    monkeypatch.delitem(sys.modules, name)


def test_a_question_of_ones_own_is_asked_in_words_that_the_model_knows(capsys):
    asked = ["sample", "data/tiny", "--group-size", "2", "--max-tokens", "4"]
    assert main([*asked, "--prompt", "make 7 from 3,4"]) == 0
    shown = capsys.readouterr().out
    assert "make 7 from 3,4" in shown and "not checkable" in shown and shown.count("advantage") == 2
    assert main([*asked, "--prompt", "What is the capital of Peru?"]) == 2
    assert "words that data/tiny does not know (What" in capsys.readouterr().err
