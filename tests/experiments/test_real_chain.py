"""The chain's recipe for real models: each stage for two steps on a shipped model; its English."""

import json
import random
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import load_from_disk

from r1lab.errors import InputError
from r1lab.files import read_rows
from r1lab.models.policy import load_model
from r1lab.models.places import smollm2_file
from r1lab.rewards import correct, language, parse
from r1lab.stages.sft_stages import model_folder
from r1lab.stages.pipeline import STAGES
from tests.experiments.real_chain import (
    RECIPES,
    WRITTEN,
    RealChain,
    RealColdStart,
    RealStage,
    in_words,
    main,
    plain_english,
    two_steps,
)
from r1lab.sources.templates import apply_template
from r1lab.task import load_problems, save_problems

SAMPLED = ("cold_start", "rejection", "distill")
REPLIES = (("make 13 from 9,5,1", "9+5-1"), ("make 4 from 3,1", "3+1"))


def of_the_small_world(config):
    """The same settings for a model that knows the small world's words alone, and no English."""
    asked = {"mixture": {"signs/1": 1.0}, "template": "small"}
    stages = {}
    for name in SAMPLED:
        stage = getattr(config, name)
        stages[name] = replace(
            stage, sampling=replace(stage.sampling, **asked),
            sft=replace(stage.sft, template="small"), written=stage.written and REPLIES,
        )  # fmt: skip
    for name in ("zero", "reasoning", "scenarios", "student_rl"):
        stages[name] = getattr(config, name).with_world(**asked)
    return replace(config, base="data/tiny", student="data/tiny", processes=1, **stages)


def without_a_gpu(config):
    """All that the settings for a GPU do (sharding, bfloat16, recomputing), and none asked for."""
    def anywhere(stage):
        return replace(stage, parallel=replace(stage.parallel, gpus=0))

    rl = {name: getattr(config, name) for name in ("zero", "reasoning", "scenarios", "student_rl")}
    rl = {name: replace(stage, rl=anywhere(stage.rl)) for name, stage in rl.items()}
    sampled = {name: getattr(config, name) for name in SAMPLED}
    sampled = {name: replace(stage, sft=anywhere(stage.sft)) for name, stage in sampled.items()}
    return replace(config, **rl, **sampled)


@pytest.fixture(scope="module", params=sorted(RECIPES))
def chain(request, tmp_path_factory):
    """The whole recipe in this process: first up to Dev1, then from there on."""
    folder = tmp_path_factory.mktemp("real")
    file = str(folder / "test.jsonl")
    save_problems(load_problems("data/test_signs.jsonl")[:2], file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RANK", "0")  # as torchrun would, with one process
        patch.setenv("WORLD_SIZE", "1")
        config = without_a_gpu(of_the_small_world(two_steps(RECIPES[request.param], file)))
        chain = RealChain(config, "real", folder, tests=(file,))
        chain.run("zero", "dev1")
        first = weights(chain)
        chain.run()
        assert {path: time for path, time in weights(chain).items() if path in first} == first
        yield chain


def weights(chain) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in chain.folder.rglob("*.safetensors")}


def settings(chain, stage: str) -> dict:
    return json.loads((chain.folder / stage / "config.json").read_text())


def test_every_stage_takes_two_steps_and_is_measured(chain):
    told = json.loads((chain.folder / "summary.json").read_text())
    assert list(told) == ["base", "student", *STAGES]
    for stage in STAGES:
        rows = read_rows(chain.folder / stage / "metrics.jsonl")
        rows = [row for row in rows if row["kind"] == "train"]
        assert rows[-1]["step"] == told[stage]["steps"] == 2
        assert told[stage]["benchmarks"]["test"]["n"] == 2


def test_every_stage_starts_where_the_paper_says(chain):
    model = {stage: str(model_folder(str(chain.folder / stage), stage)) for stage in STAGES}
    assert settings(chain, "dev2")["model"] == model["dev1"]
    assert settings(chain, "r1")["model"] == model["dev3"]
    assert settings(chain, "student_rl")["model"] == "data/tiny"
    for stage, source in {"dev1": "zero", "dev3": "dev2", "student_sft": "r1"}.items():
        assert settings(chain, stage)["source"] == model[source]
        assert settings(chain, stage)["base"] == "data/tiny"
    assert settings(chain, "r1")["task"]["settings"]["reward_models"] == ""
    assert settings(chain, "r1")["temperature"] == 0.7


def test_written_examples_stand_beside_the_samples_of_dev3_and_not_of_dev1(chain):
    families = {
        stage: list(load_from_disk(str(chain.folder / stage / "data"))["family"])
        for stage in ("dev1", "dev3")
    }
    assert "written" not in families["dev1"]
    assert families["dev3"].count("written") == RealStage().times * len(REPLIES)


def test_a_finished_chain_is_left_as_it_is(chain):
    before = weights(chain)
    chain.run()
    assert weights(chain) == before


def test_a_stage_without_the_one_before_is_told_by_name(chain, tmp_path):
    with pytest.raises(InputError, match="before dev3 comes dev2, which .* was not started"):
        replace(chain, runs=tmp_path).run("dev3", "dev3")
    with pytest.raises(InputError, match="choose one of zero, dev1"):
        chain.run("dev7")


def test_an_unknown_recipe_and_the_small_world_s_controls_are_bad_input(chain):
    with pytest.raises(InputError, match="smollm2 or qwen2.5-1.5b"):
        main("smollm9")
    with pytest.raises(InputError, match="r1lab r1"):
        chain.controls()


def test_sums_are_told_in_plain_english_words_and_stay_right():
    for problem in load_problems("data/test_gym_sums.jsonl"):
        text = in_words(problem, f"<think> so </think> <answer> {problem.solution} </answer>")
        assert f"which makes {problem.solution}. </think>" in text
        assert parse(text).well_formed and correct(text, problem.solution, problem.family)
        assert plain_english(text) and language([""], [text], lang=["en"]) == [1.0]
        assert in_words(problem, "no tags, 3") == "no tags, 3"


def test_other_questions_keep_their_thinking_and_foreign_words_are_dropped():
    problem = load_problems("data/test_gym_gsm.jsonl")[0]
    own, foreign, code = (
        f"<think> {thought} </think> <answer> 75 </answer>"
        for thought in ("half of 150 is 75", "la moitié de cette somme, donc la réponse",
                        "half of 150 is ```75```")
    )  # fmt: skip
    samples = [(problem, text) for text in (own, foreign, code)]
    assert RealColdStart().examples(samples, random.Random(0)) == [(problem, own)]


def test_the_recipes_settings_fit_together():
    assert all(parse(f"<think>  </think> <answer> {reply} </answer>").well_formed for _, reply in WRITTEN)
    for config in RECIPES.values():
        template = config.zero.world.template
        for stage in (config.zero, config.reasoning, config.scenarios, config.student_rl):
            stage.rl.check(1)
            assert stage.world.template == template and set(stage.world.lang_weights) == {"en"}
        for stage in (getattr(config, name) for name in SAMPLED):
            assert stage.sampling.template == stage.sft.template == template


@pytest.mark.real
def test_two_steps_of_each_stage_on_a_real_model():
    """On two cores; what it stores is removed at once, for a checkpoint of RL holds 2 GB."""
    try:
        smollm2_file()
    except InputError as missing:
        pytest.skip(str(missing))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        file = str(folder / "test.jsonl")
        save_problems(load_problems("data/test_gym_sums.jsonl")[:2], file)
        config = replace(two_steps(RECIPES["smollm2"], file), processes=2)
        chain = RealChain(config, "real", folder, tests=(file,))
        for stage in STAGES:
            chain.run(stage, stage)
            trained, tokenizer = load_model(model_folder(str(chain.folder / stage), stage))
            asked = apply_template("chat_example", "State the sum: 3 + 5 =", tokenizer)
            assert "<|im_start|>user\nState the sum" in asked and trained.num_parameters() > 1e8
            for path in chain.folder.glob(f"{stage}/checkpoints/*/trainer.pt"):
                path.unlink()  # the optimizer's; no later stage reads it
        told = json.loads((chain.folder / "summary.json").read_text())
        assert [told[stage]["steps"] for stage in STAGES] == [2] * len(STAGES)
