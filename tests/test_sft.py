"""Fine-tuning on a data set: what a step reads, resuming, processes, and data that do not fit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from hypothesis import given
from hypothesis import strategies as st

from r1lab.errors import InputError
from r1lab.models.policy import load_model, load_tokenizer
from r1lab.training.distributed import World
from r1lab.training.processes import StopRequest
from r1lab.run import Run
from r1lab.training.sft import SFTConfig, fine_tune, load_documents, make_batches, sft
from tests.small_run import tiny_model

CONFIG = SFTConfig(epochs=2, tokens_per_step=64, learning_rate=3e-3, checkpoint_every=2, processes=1)
pytestmark = pytest.mark.usefixtures("alone")
ROWS = [
    {"prompt": f"make {a + b} from {a},{b}", "completion": f"<think> {a}+{b}={a + b} </think>"}
    for a in range(2, 5)
    for b in range(2, 5)
]


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return tiny_model(tmp_path_factory.mktemp("model"))


def run_sft(config: SFTConfig, model: str, data: Path, folder: Path, resume: bool = False) -> Run:
    return sft(model, data, config, folder.name, runs=folder.parent, resume=resume)


def saved(folder: Path, rows: list[dict]) -> Path:
    Dataset.from_list(rows).save_to_disk(folder)
    return folder


def weights(run: Run) -> dict[str, torch.Tensor]:
    return dict(load_model(run.model)[0].named_parameters())


@given(lengths=st.lists(st.integers(1, 64), min_size=1, max_size=30), epochs=st.integers(1, 3))
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
    rows, summary = run.metrics, run.summary
    assert rows[-1]["loss"] < 0.7 * rows[0]["loss"]
    assert rows[-1]["lr"] < 0.2 * max(row["lr"] for row in rows)
    tokenizer = load_model(model)[1]
    per_epoch = sum(
        len(tokenizer(f"User: {row['prompt']} Assistant:{row['completion']}").input_ids) + 1 for row in ROWS
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
    cut = Run(tmp_path / "cut")
    cut.folder.mkdir()

    def work(stopping: bool = False) -> bool:
        stop = StopRequest()
        if stopping:
            stop.set()
        return fine_tune(World(), stop, cut, CONFIG, model, str(data))

    assert not work(stopping=True)
    assert not cut.finished and len(cut.metrics) == 1
    assert work()
    assert all(torch.equal(weights(whole)[name], value) for name, value in weights(cut).items())
    (cut.folder / "summary.json").unlink()  # as a kill after the last step leaves it
    assert work()
    assert cut.summary["tokens"] == whole.summary["tokens"]
    assert [row["step"] for row in cut.metrics] == list(range(1, whole.summary["steps"] + 1))


def test_two_processes_learn_what_one_learns(model, tmp_path, monkeypatch):
    data = saved(tmp_path / "data", ROWS)
    one = run_sft(CONFIG, model, data, tmp_path / "one")
    monkeypatch.delenv("RANK")
    two = run_sft(replace(CONFIG, processes=2), model, data, tmp_path / "two")
    assert one.summary["tokens"] == two.summary["tokens"]
    ours, theirs = weights(one), weights(two)
    assert all(torch.allclose(ours[name], theirs[name], atol=1e-4) for name in ours)


def test_the_same_settings_find_a_finished_run_and_others_are_refused(model, tmp_path):
    data = saved(tmp_path / "data", ROWS)
    run = run_sft(replace(CONFIG, steps=1), model, data, tmp_path / "run")
    before = (run.folder / "summary.json").stat().st_mtime_ns
    again = run_sft(replace(CONFIG, steps=1), model, data, run.folder, resume=True)
    assert (again.folder / "summary.json").stat().st_mtime_ns == before
    with pytest.raises(InputError, match="is finished"):
        run_sft(replace(CONFIG, steps=1), model, data, run.folder)
    with pytest.raises(InputError, match="other settings .*epochs"):
        run_sft(replace(CONFIG, steps=1, epochs=5), model, data, run.folder, resume=True)


def test_rows_that_are_too_long_are_left_out_and_counted(model, tmp_path):
    long = {"prompt": "make 4 from 2,2", "completion": "2+2=4 " * 200}
    data = saved(tmp_path / "data", [*ROWS, long])
    summary = run_sft(replace(CONFIG, steps=1), model, data, tmp_path / "run").summary
    assert (summary["examples"], summary["overlong"]) == (len(ROWS), 1)
    with pytest.raises(InputError, match="each row is longer than the model's 512 positions"):
        run_sft(CONFIG, model, saved(tmp_path / "long", [long]), tmp_path / "other")


def test_splits_conversations_and_lines_are_read_alike(model, tmp_path):
    user, assistant = ({"role": role} for role in ("user", "assistant"))
    asked = [[user | {"content": row["prompt"]}] for row in ROWS]
    said = [[assistant | {"content": row["completion"]}] for row in ROWS]
    pairs = [{"prompt": one, "completion": other} for one, other in zip(asked, said, strict=True)]
    whole = [{"messages": [*one, *other]} for one, other in zip(asked, said, strict=True)]
    DatasetDict(train=Dataset.from_list(ROWS)).save_to_disk(tmp_path / "splits")
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, ROWS)) + "\n\n")
    stored = [
        saved(tmp_path / "plain", ROWS),
        saved(tmp_path / "pairs", pairs),
        saved(tmp_path / "whole", whole),
    ]
    tokenizer = load_tokenizer(model)
    first, *others = (
        load_documents(data, tokenizer, "small")
        for data in (*stored, tmp_path / "splits", tmp_path / "rows.jsonl")
    )
    assert len(first) == len(ROWS) and all(other == first for other in others)
    DatasetDict(test=Dataset.from_list(ROWS)).save_to_disk(tmp_path / "untrained")
    with pytest.raises(InputError, match="with its split train where it has several"):
        load_documents(tmp_path / "untrained", tokenizer, "small")


@pytest.mark.parametrize(("rows", "words"), [
    ([{"prompt": "make 4 from 2,2"}], "row 1: cannot be read .*columns are prompt; .*a prompt and a completion"),
    ([{"text": "2+2"}], "row 1: cannot be read"),
    ([*ROWS, {"prompt": "What is love?", "completion": "unknowable"}], "the model that is to read .* does not know .What"),
    ([], "holds no rows"),
    (None, "no data set can be read"),
])  # fmt: skip
def test_data_that_do_not_fit_are_refused_before_anything_is_made(model, tmp_path, rows, words):
    if rows is not None:
        data = Dataset.from_list(rows) if rows else Dataset.from_list(ROWS).select([])
        data.save_to_disk(tmp_path / "data")
    with pytest.raises(InputError, match=words):
        run_sft(CONFIG, model, tmp_path / "data", tmp_path / "run")
    assert not (tmp_path / "run").exists()
