"""Cold start: rewriting to one language, and the stage from samples to a fine-tuned model."""

import json
import shutil
from dataclasses import replace

import pytest
from datasets import load_from_disk
from hypothesis import given
from hypothesis import strategies as st

from r1lab.errors import InputError
from r1lab.evaluation.measure import measure
from r1lab.models.policy import load_model
from r1lab.world.bases import UNKNOWN
from tests.small_run import tiny_model
from r1lab.rewards import language, parse
from r1lab.sampling import TorchSampler
from r1lab.stages.samples import FILTERS, draw_chunk, harvest, read_harvest
from r1lab.stages.sft_stages import ColdStart
from r1lab.task import Problem
from r1lab.world import held_out
from r1lab.world.corpus import readable
from r1lab.world.words import SAYINGS, translate
from r1lab.world.puzzles import parse_attempts
from r1lab.training.distributed import World
from r1lab.training.processes import StopRequest
from r1lab.training.sft import SFTConfig

pytestmark = pytest.mark.usefixtures("alone")
SMALL = ColdStart(processes=1, sft=SFTConfig(steps=2)).with_sampling(
    mixture={"signs/1": 1.0, "signs/2": 1.0}, chunks=2, questions=8, max_tokens=64
)
PROBLEM = Problem("a", "signs", 2, "zh", "用9,5,1得13", "9+5-1", meta={"numbers": [9, 5, 1], "target": 13})


@pytest.fixture(scope="module")
def base():
    model, tokenizer = load_model("data/base")
    return TorchSampler(model, tokenizer), tokenizer


said = st.tuples(st.sampled_from(SAYINGS), st.sampled_from(["en", "zh", "fr"]))


@given(words=st.lists(said, min_size=1, max_size=8), lang=st.sampled_from(["en", "zh", "fr"]))
def test_translated_thinking_is_of_one_language_and_says_the_same(words, lang):
    text = "".join(f" 9+5=14:13 {saying[spoken]}" for saying, spoken in words)
    translated = translate(text, lang)
    assert language([""], [translated], lang=[lang]) == [1.0]
    assert translate(translated, lang) == translated
    meant = [(one.moves, one.verdict) for one in parse_attempts(text)]
    assert [(one.moves, one.verdict) for one in parse_attempts(translated)] == meant
    assert [saying[lang] for saying, _ in words] == translated.replace("9+5=14:13", "").split()


def test_parts_of_longer_words_are_left_alone():
    assert translate("nonsense 9不但 button", "en") == "nonsense 9 no but button"


@pytest.mark.parametrize("completion", [
    "<think> 9+5=14-1=13:13 ok </think> <answer> 9+5-1 </answer>",
    "<think> 9+5=14-1=13:13 ok </think> 9+5-1",
    "9+5=14-1=13:13 oui <answer> 9+5-1 </answer>",
    "<think> 9+5=14-1=13:13 对 <answer> 9+5-1=13 </answer>",
])  # fmt: skip
def test_whatever_the_tags_the_readable_form_is_the_same(completion):
    expected = "<think> 9+5=14-1=13:13 对 </think> <answer> 9+5-1=13 </answer>"
    assert readable(PROBLEM, completion) == expected
    assert measure([PROBLEM], [expected])[0]["strict"]


@pytest.mark.parametrize(
    "completion",
    ["9+5=14-1=13:13 ok 9+5-1", "<think> </think> <answer> 9+5-1 </answer>", "<think> 9 </think>",
     "<think> 9 </think> <answer> 1 </answer> <answer> 2 </answer>"],
)  # fmt: skip
def test_what_cannot_be_told_apart_is_not_readable(completion):
    assert parse(completion).halves is None


def test_an_answer_with_the_token_for_no_word_is_kept_by_no_filter():
    text = "<think> 8-3=5:5 ok </think> <answer> 8-3 </answer>"
    for found, kept in ((text, True), (text.replace("<answer> ", f"<answer> {UNKNOWN} "), False)):
        row = {"completion": found, "format": True}
        assert FILTERS["readable"](row) == FILTERS["format"](row) == kept


def test_the_stage_stores_right_readable_examples_and_teaches_the_base(tmp_path):
    run = SMALL.run("dev1", tmp_path)
    provenance = json.loads((run.folder / "data" / "provenance.json").read_text())
    taken = sum(one["taken"] for one in provenance["filters"])
    assert provenance["sampled"] == 64 == taken + provenance["kept"]
    assert provenance["source_run"] == "data/zero" and "commit" in provenance
    samples = {row["id"]: row for row in read_harvest(run.folder / "samples")[0]}
    rows = load_from_disk(run.folder / "data")
    assert len(rows) == provenance["examples"] > 8
    for row in rows:
        source = samples[row["id"]]
        problem = Problem(**{name: source[name] for name in Problem.__dataclass_fields__})
        assert not held_out(problem)
        problem = replace(problem, lang=row["lang"], prompt=row["prompt"])
        assert measure([problem], [row["completion"]])[0]["strict"]
        assert parse(row["completion"]).well_formed and "=" in row["completion"].split("<answer>")[1]
        assert language([""], [row["completion"]], lang=[row["lang"]]) == [1.0]
    summary = run.summary
    assert summary["steps"] == 2 and summary["data"]["kept"] == provenance["kept"]
    assert load_model(summary["checkpoint"])


def test_a_stopped_stage_keeps_its_chunks_and_draws_what_the_unbroken_one_draws(tmp_path, base):
    stop = StopRequest()
    stop.set()
    settings = (SMALL.sampling, SMALL.sampling.task())
    assert not harvest(World(), stop, *settings, tmp_path / "cut", *base)
    first = (tmp_path / "cut" / "chunk-0000.json").stat().st_mtime_ns
    assert harvest(World(), StopRequest(), *settings, tmp_path / "cut", *base)
    assert (tmp_path / "cut" / "chunk-0000.json").stat().st_mtime_ns == first
    assert harvest(World(), StopRequest(), *settings, tmp_path / "whole", *base)
    assert read_harvest(tmp_path / "cut")[0] == read_harvest(tmp_path / "whole")[0]


class Apart(World):
    """A process that sees its own share alone."""

    def gather(self, value) -> list:
        return [value]


def test_processes_share_the_questions_and_draw_the_same(base):
    settings = (SMALL.sampling, SMALL.sampling.task(), 0)
    whole = draw_chunk(World(), *settings, *base)
    shares = [draw_chunk(Apart(rank, 2), *settings, *base) for rank in range(2)]
    assert all(shares)
    assert sorted(map(repr, whole)) == sorted(repr(row) for share in shares for row in share)


def test_a_missing_predecessor_is_named_and_nothing_is_made(tmp_path):
    config = replace(SMALL, source=str(tmp_path / "zero"))
    (tmp_path / "zero").mkdir()
    (tmp_path / "zero" / "config.json").write_text("{}")
    (tmp_path / "zero" / "checkpoints").mkdir()
    with pytest.raises(InputError, match="dev1 needs the model in .*zero, and there is none"):
        config.run("dev1", tmp_path)
    assert not (tmp_path / "dev1").exists()


def test_when_no_sample_is_left_the_filters_that_took_them_are_named(tmp_path):
    config = replace(SMALL, source=tiny_model(tmp_path / "noise"))
    config = config.with_sampling(chunks=1, questions=2, max_tokens=8)
    with pytest.raises(InputError, match="none of 8 samples is left.*not truncated 8, readable 0"):
        config.run("dev1", tmp_path)
    assert len(list((tmp_path / "dev1" / "samples").iterdir())) == 1


def test_and_what_the_error_says_to_do_helps(tmp_path):
    none, some = (SMALL.with_sampling(chunks=1, questions=16, max_tokens=most) for most in (2, 96))
    with pytest.raises(InputError, match=f"delete the folder {tmp_path}/dev1, .* same command"):
        none.run("dev1", tmp_path)
    with pytest.raises(InputError, match="other settings"):
        some.run("dev1", tmp_path)
    shutil.rmtree(tmp_path / "dev1")
    assert some.run("dev1", tmp_path).checkpoints
