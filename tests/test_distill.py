"""Distillation and its accounts: what it costs, and RL on the student for no less."""

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from r1lab.models.policy import load_model
from r1lab.objective import LossConfig
from r1lab.stages.rl_stages import RLStage
from r1lab.stages.sft_stages import FEWEST_TOKENS, Distill, student_rl_stage
from r1lab.sources.templates import apply_template
from r1lab.training.config import GRPOConfig
from r1lab.training.sft import SFTConfig


def account(flops: int, mixture: dict | None = None) -> dict:
    settings = {"mixture": mixture or {"signs/2": 1.0}, "lang_weights": {"en": 1.0}}
    return {"flops": flops, "data": {"settings": {"sampling": settings}}}


def test_a_token_costs_six_operations_a_weight_to_learn_and_two_to_read():
    plain = GRPOConfig(loss=LossConfig(beta=0.0))
    assert plain.flops(10, 3) == 6 * 30 + 2 * 30 and GRPOConfig().flops(10, 3) == 300
    assert replace(plain, sampler="vllm").flops(10, 3) == 300, "the policy itself reads them, too"


@settings(max_examples=20)  # each loads the student
@given(flops=st.integers(10**9, 10**13), tokens=st.integers(FEWEST_TOKENS, 400))
def test_rl_spends_what_distilling_took_before_its_rollouts_end(flops, tokens):
    config = student_rl_stage(account(flops), "data/tiny", RLStage()).rl
    rollout = config.flops(29_600, config.questions * config.group_size * tokens)
    assert config.flops_limit == flops <= config.rollouts * rollout


def test_no_question_is_so_short_that_the_compute_could_outlast_the_rollouts():
    stage = student_rl_stage(account(10**11, Distill().sampling.mixture), "data/tiny", RLStage())
    asked = stage.world.task().draw(0, 0, stage.rl.questions)
    prompts = load_model("data/tiny")[1]([apply_template("small", p.prompt) for p in asked])
    lengths = [len(ids) for ids in prompts.input_ids]
    shortest_answer = 5  # both tags of an answer, what is in it, the end, and one token of thinking
    assert sum(lengths) / len(lengths) + shortest_answer >= FEWEST_TOKENS


def test_rl_on_the_student_asks_what_the_samples_were_asked():
    stage = student_rl_stage(account(10**11, {"logic/1": 2.0}), "data/tiny", RLStage())
    assert stage.world.mixture == {"logic/1": 2.0} and stage.world.lang_weights == {"en": 1.0}
    stage.rl.check(processes=2)


def test_a_student_of_another_size_learns_from_the_samples(tmp_path, alone):
    stage = Distill(source="data/zero", sft=SFTConfig(steps=2), processes=1).with_sampling(
        mixture={"signs/1": 1.0}, chunks=1, questions=8, max_tokens=48
    )
    summary = stage.run("student_sft", tmp_path).summary
    student, teacher = (load_model(f"data/{name}")[0].num_parameters() for name in ("small", "zero"))
    assert load_model(summary["checkpoint"])[0].num_parameters() == student
    assert summary["flops"] == 6 * student * summary["tokens"]
    assert summary["sampling_flops"] == 2 * teacher * summary["data"]["tokens"]
    stage = student_rl_stage(summary, "data/tiny", RLStage())
    assert stage.world.mixture == {"signs/1": 1.0}
