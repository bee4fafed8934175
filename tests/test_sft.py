"""Fine-tuning on a data set: what a step reads, resuming, processes, and data that do not fit."""

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset
from hypothesis import given
from hypothesis import strategies as st

from r1lab.errors import InputError
from r1lab.files import read_rows
from r1lab.models.policy import load_model
from r1lab.world.bases import build_model
from r1lab.world.tokenizer import build_tokenizer
from r1lab.training.checkpoint import list_checkpoints
from r1lab.training.distributed import StopRequest
from r1lab.training.sft import SFTConfig, fine_tune, make_batches, run_sft

CONFIG = SFTConfig(
    epochs=2, tokens_per_step=64, learning_rate=3e-3, checkpoint_every=2, processes=1
)
ROWS = [
    {"prompt": f"make {a + b} from {a},{b}", "completion": f"<think> {a}+{b}={a + b} </think>"}
    for a in range(2, 5)
    for b in range(2, 5)
]


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    """As torchrun starts a single process: no worker has to be spawned."""
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "1")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tokenizer = build_tokenizer()
    torch.manual_seed(0)
    build_model("tiny", len(tokenizer), 0, 1).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def saved(folder: Path, rows: list[dict]) -> Path:
    Dataset.from_list(rows).save_to_disk(folder)
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return dict(load_model(list_checkpoints(run)[-1])[0].named_parameters())


def summary_of(run: Path) -> dict:
    return json.loads((run / "summary.json").read_text())


@given(
    lengths=st.lists(st.integers(1, 64), min_size=1, max_size=30), epochs=st.integers(1, 3)
)
def test_every_epoch_reads_every_row_once_in_steps_of_bounded_size(lengths, epochs):
    batches = make_batches(replace(CONFIG, epochs=epochs), lengths)
    assert all(0 < sum(lengths[row] for row in batch) <= 64 for batch in batches)
    read = [row for batch in batches for row in batch]
    for epoch in range(epochs):
        part = read[epoch * len(lengths) : (epoch + 1) * len(lengths)]
        assert sorted(part) == list(range(len(lengths)))
    assert make_batches(replace(CONFIG, epochs=epochs, steps=1), lengths) == batches[:1]


def test_fine_tuning_learns_and_says_what_it_did(model, tmp_path):
    data = saved(tmp_path / "data", ROWS)
    run = run_sft(replace(CONFIG, epochs=10), model, data, tmp_path / "run")
    rows, summary = read_rows(run / "metrics.jsonl"), summary_of(run)
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert rows[-1]["lr"] < 0.2 * max(row["lr"] for row in rows)
    tokenizer = load_model(model)[1]
    per_epoch = sum(
        len(tokenizer(f"User: {row['prompt']} Assistant:{row['completion']}").input_ids) + 1
        for row in ROWS
    )
    assert summary["tokens"] == 10 * per_epoch
    parameters = load_model(model)[0].num_parameters()
    assert summary["flops"] == 6 * parameters * summary["tokens"]
    assert summary["steps"] == len(rows) and summary["examples"] == len(ROWS)
    assert 0 < summary["train_seconds"] <= summary["wall_seconds"] + 0.1
    assert load_model(summary["checkpoint"])


def test_a_stopped_run_goes_on_to_the_same_weights(model, tmp_path):
    data = saved(tmp_path / "data", ROWS)
    whole = run_sft(CONFIG, model, data, tmp_path / "whole")
    stop, cut = StopRequest(), tmp_path / "cut"
    cut.mkdir()
    stop.set()
    assert fine_tune(CONFIG, model, data, cut, {}, stop, time.monotonic()) == 130
    assert not (cut / "summary.json").exists() and len(read_rows(cut / "metrics.jsonl")) == 1
    assert fine_tune(CONFIG, model, data, cut, {}, StopRequest(), time.monotonic()) == 0
    assert all(torch.equal(weights(whole)[name], value) for name, value in weights(cut).items())
    (cut / "summary.json").unlink()  # as a kill after the last step leaves it
    assert fine_tune(CONFIG, model, data, cut, {}, StopRequest(), time.monotonic()) == 0
    assert summary_of(cut)["tokens"] == summary_of(whole)["tokens"]
    steps = [row["step"] for row in read_rows(cut / "metrics.jsonl")]
    assert steps == list(range(1, summary_of(whole)["steps"] + 1))


def test_two_processes_learn_what_one_learns(model, tmp_path, monkeypatch):
    data = saved(tmp_path / "data", ROWS)
    one = run_sft(CONFIG, model, data, tmp_path / "one")
    monkeypatch.delenv("RANK")
    two = run_sft(replace(CONFIG, processes=2), model, data, tmp_path / "two")
    assert summary_of(one)["tokens"] == summary_of(two)["tokens"]
    ours, theirs = weights(one), weights(two)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


def test_the_same_settings_find_a_finished_run_and_others_are_refused(model, tmp_path):
    data = saved(tmp_path / "data", ROWS)
    run = run_sft(replace(CONFIG, steps=1), model, data, tmp_path / "run")
    before = (run / "summary.json").stat().st_mtime_ns
    assert run_sft(replace(CONFIG, steps=1), model, data, run, resume=True) == run
    assert (run / "summary.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="is finished"):
        run_sft(replace(CONFIG, steps=1), model, data, run)
    with pytest.raises(InputError, match="other settings .*epochs"):
        run_sft(replace(CONFIG, steps=1, epochs=5), model, data, run, resume=True)


def test_rows_that_are_too_long_are_left_out_and_counted(model, tmp_path):
    long = {"prompt": "make 4 from 2,2", "completion": "2+2=4 " * 200}
    data = saved(tmp_path / "data", [*ROWS, long])
    summary = summary_of(run_sft(replace(CONFIG, steps=1), model, data, tmp_path / "run"))
    assert (summary["examples"], summary["overlong"]) == (len(ROWS), 1)
    with pytest.raises(InputError, match="each row is longer than the model's 512 positions"):
        run_sft(CONFIG, model, saved(tmp_path / "long", [long]), tmp_path / "other")


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([{"prompt": "make 4 from 2,2"}], "column completion is missing"),
        ([{"text": "2+2"}], "column completion and prompt is missing"),
        ([*ROWS, {"prompt": "What is love?", "completion": "unknowable"}], "1 of 10 rows hold"),
    ],
)
def test_data_that_do_not_fit_are_refused_before_anything_is_made(model, tmp_path, rows, words):
    with pytest.raises(InputError, match=words):
        run_sft(CONFIG, model, saved(tmp_path / "data", rows), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_empty_and_missing_data_are_refused(model, tmp_path):
    empty = {"nothing": Dataset.from_dict({"prompt": [], "completion": []})}
    empty["filtered"] = Dataset.from_list(ROWS).select(range(0))
    for name, rows in empty.items():
        rows.save_to_disk(tmp_path / name)
        with pytest.raises(InputError, match="holds no rows"):
            run_sft(CONFIG, model, tmp_path / name, tmp_path / "run")
    with pytest.raises(InputError, match="no data set can be read"):
        run_sft(CONFIG, model, tmp_path / "nowhere", tmp_path / "run")
