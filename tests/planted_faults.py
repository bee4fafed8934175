"""Runs made ill on purpose, for the doctor: `python -m tests.planted_faults` prints the table.

Each fault is a patch to a working run, written from the thread that is named beside it, before the
rule that finds it. A thread that is a sentence tells of a mistake without one.
"""

import copy
import json
import math
import pkgutil
import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from unittest.mock import patch

import torch
from transformers import LlamaConfig, LlamaForCausalLM

import r1lab.objective
from r1lab.doctor import course, judge, steps
from r1lab.doctor.trial import trial_config
from r1lab.objective import LossConfig
from r1lab.models.policy import Policy, load_model
from r1lab.rewards import RewardSet, accuracy, format, parse, text_of
from r1lab.sampling import Rollouts
from r1lab.training.config import GRPOConfig
from r1lab.training.distributed import World
from r1lab.training.loop import Learner
from r1lab.world.small_world import SmallWorld

END, RESERVED = 1, 5  # token ids: the small world's end token, one that nobody uses
WORLD = SmallWorld({"signs/1": 1.0, "signs/2": 1.0, "signs/3": 1.0}, {"en": 1.0})
SMALL = GRPOConfig.preset(
    "cpu", questions=2, group_size=4, minibatches=1, caps=((0, 32),), microbatch_tokens=512,
    learning_rate=3e-4,
)  # fmt: skip


def letters(prompts: list, completions: list, **columns: object) -> list[float]:
    """A reward that differs between any two texts, whatever a model writes."""
    return [(1 + len(text_of(text)) % 7) / 7 for text in completions]


@cache
def _base():
    return load_model("data/base")


@cache
def _llama():
    """Another architecture, random weights, the small world's tokenizer; it knows how to end.

    One channel of the residual stream is the same for all tokens. The head's row of the end token
    reads it, so that one token in fifteen or so is the end.
    """
    torch.manual_seed(0)
    _, tokenizer = _base()
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2,
            num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=512,
            initializer_range=0.2, tie_word_embeddings=False, pad_token_id=0, bos_token_id=None,
            eos_token_id=END,
        )
    )  # fmt: skip
    with torch.no_grad():
        model.model.embed_tokens.weight[:, 0] = 2.0
        known = model.model(torch.arange(len(tokenizer))[None]).last_hidden_state[0, :, 0].mean()
        model.lm_head.weight[END] *= 0.1
        model.lm_head.weight[END, 0] = 4.5 / known
    return model, tokenizer


@dataclass
class Patient:
    """A run that is about to be examined."""

    learner: Learner
    rewards: dict
    asked: GRPOConfig

    def named(self) -> list[str]:
        """The diagnoses of its first two steps, in order."""
        self.learner.task = replace(self.learner.task, rewards=self.rewards)
        return named(judge(steps.RULES, steps.examine(self.learner, self.asked)))


def named(report: list) -> list[str]:
    return [one.name for one in report]


def patient(model: str, config: GRPOConfig = SMALL) -> Patient:
    """A healthy run, of the model "base" or "llama"."""
    weights, tokenizer = {"base": _base, "llama": _llama}[model]()
    parts = {"accuracy": (accuracy, 1.0), "format": (format, 0.1)}
    if model == "llama":
        parts = {"accuracy": (accuracy, 1.0), "letters": (letters, 0.5)}
    policy = Policy(copy.deepcopy(weights))
    return Patient(Learner(trial_config(config), WORLD.task(), policy, tokenizer, World()), parts, config)


@dataclass(frozen=True)
class Fault:
    """How a run is made ill, where that happened, and which diagnosis must come first."""

    plant: Callable  # of a patient, or of a run's rows
    thread: str
    expected: str
    settings: dict
    name: str


FAULTS: list[Fault] = []


def fault(expected: str, thread: str, faults: list[Fault] = FAULTS, **settings: object) -> Callable:
    """Register a function that plants the fault; it may return the patch that holds meanwhile."""

    def register(plant: Callable) -> Callable:
        faults.append(Fault(plant, thread, expected, settings, plant.__name__.replace("_", " ")))
        return plant

    return register


def named_in_steps(one: Fault, model: str) -> list[str]:
    """The diagnoses of a run of `model` with the fault in it, in order."""
    ill = patient(model, replace(SMALL, **one.settings))
    with one.plant(ill) or nullcontext():
        return ill.named()


def _around(path: str, change: Callable):
    """`change(right, ...)` in the place of the function at this path."""
    return patch(path, partial(change, pkgutil.resolve_name(path)))


# -- prompts and rewards


@fault("template not applied", "jsboige/CoursIA#11304, greyhaven-ai/autocontext#1070")
def prompts_are_strings_and_get_no_template(ill):
    """TRL applied a chat template to lists of messages alone; a string went to the model bare."""
    return patch("r1lab.training.rollout.prompt_of", lambda task, problem, tok: problem.prompt)


@fault("grader refuses gold answers", "aburkov/theLMbook#23, huggingface/open-r1#255")
def extraction_breaks_with_a_library_and_every_reward_is_0(ill):
    return patch("r1lab.rewards.rules.parse", lambda *texts: replace(parse(*texts), answer=None))


@fault("grader accepts nonsense", "huggingface/Math-Verify#60, modelscope/ms-swift#3130")
def what_cannot_be_parsed_equals_what_cannot_be_parsed(ill):
    """Both sides parse to 0 (or to nothing), and 0 == 0."""
    ill.rewards = {"accuracy": (lambda completions, **_: [1.0] * len(completions), 1.0)}


@fault("reward weights ignored", "huggingface/trl#5352 (PR 5353)")
def total_is_the_plain_sum_of_the_rewards(ill):
    weighted = RewardSet.__call__

    def unweighted(self, prompts, completions, **columns):
        _, parts = weighted(self, prompts, completions, **columns)
        return [sum(scores) for scores in zip(*parts.values(), strict=True)], parts

    return patch.object(RewardSet, "__call__", unweighted)


@fault("advantages not of the group", "XU-YIJIE/grpo-flat#2, THUDM/slime#1414")
def advantages_are_normalised_over_the_whole_batch(ill):
    def over_the_batch(rewards, **_):
        return (rewards - rewards.mean()) / (rewards.std() + 1e-4)

    return patch("r1lab.training.loop.group_advantages", over_the_batch)


@fault("advantages upside down", "huggingface/trl#5026 (a negative mean flips the sign)")
def advantages_are_divided_by_a_negative_mean(ill):
    path = "r1lab.training.loop.group_advantages"
    return _around(path, lambda right, *given, **more: -right(*given, **more))


@fault("reward never varies", "jsboige/CoursIA#10603, huggingface/trl#2884")
def questions_are_too_hard_for_the_model(ill):
    ill.learner.task = SmallWorld({"gym_gsm/1": 1.0}, {"en": 1.0}).task()
    ill.rewards = {"accuracy": (accuracy, 1.0)}


# -- sampling


@fault("sampler runs past the end token", "Jiayi-Pan/TinyZero#66", caps=((0, 24),))
def sampler_ignores_the_end_token(ill):
    ill.learner.sampler.end_ids = [RESERVED]


@fault("end token never sampled", "apple/ml-ssd#12, jsboige/CoursIA#13596", caps=((0, 16),))
def model_gives_its_end_token_no_probability(ill):
    def without_end(head, inputs, logits):
        return logits.index_fill(-1, torch.tensor([END]), -1e9)

    ill.learner.policy.model.get_output_embeddings().register_forward_hook(without_end)


@fault("completions truncated", "huggingface/trl#5697, greyhaven-ai/autocontext#1067",
       caps=((0, 4),))  # fmt: skip
def cap_is_too_short_for_an_answer(ill):
    """By its settings alone."""


@fault("copies in the group", "verl-project/verl#848, vllm-project/vllm#16449")
def every_sample_of_a_group_has_the_same_seed(ill):
    def same(right, seed, stream_ids, n, block):
        return right(seed, stream_ids, 1, block).repeat_interleave(n, 0)

    return _around("r1lab.sampling.torch_sampler.draw_uniforms", same)


@fault("sampler keeps old weights", "huggingface/trl#5312")
def engine_reloads_its_first_weights_when_it_wakes_up(ill):
    sampler = ill.learner.sampler
    sampler.model = copy.deepcopy(sampler.model)
    sampler.load_weights = lambda named_parameters: None


def _answer_otherwise(ill, change: Callable[[Rollouts], None], **params) -> None:
    """Make the sampler sample with other parameters, and change its lists in place."""
    generate = ill.learner.sampler.generate

    def otherwise(prompt_ids, asked, stream_ids=None):
        drawn = generate(prompt_ids, replace(asked, **params), stream_ids)
        change(drawn)
        return drawn

    ill.learner.sampler.generate = otherwise


@fault("log probs at another temperature", "huggingface/trl#4159", temperature=0.6)
def engine_reports_raw_log_probs(ill):
    def raw(right, logits, params, uniform):
        tokens, _, log_kept = right(logits, params, uniform)
        return tokens, logits.log_softmax(-1).gather(1, tokens[:, None])[:, 0], log_kept

    return _around("r1lab.sampling.torch_sampler.choose", raw)


@fault("log probs of a truncated distribution", "huggingface/trl#6789 (PR 7269)")
def engine_samples_with_top_p_and_reports_renormalised_log_probs(ill):
    def forget_the_mass(drawn):
        drawn.log_kept[:] = [0 * kept for kept in drawn.log_kept]

    _answer_otherwise(ill, forget_the_mass, top_p=0.8)


@fault("sampler and scorer disagree", "huggingface/trl#3098, PrimeIntellect-ai/prime-rl#600")
def completions_come_back_in_the_order_of_other_prompts(ill):
    def interleave(drawn):
        order = [i for first in range(2) for i in range(first, len(drawn.finish), 2)]
        for rows in (drawn.completion_ids, drawn.logprobs, drawn.log_kept, drawn.finish):
            rows[:] = [rows[i] for i in order]

    _answer_otherwise(ill, interleave)


@fault("end token cut off", "unslothai/unsloth-zoo#832 (review), rasbt/reasoning-from-scratch#185")
def sampler_returns_completions_without_their_end_token(ill):
    def cut(drawn):
        ended = [finish == "stop" for finish in drawn.finish]
        for rows in (drawn.completion_ids, drawn.logprobs, drawn.log_kept):
            rows[:] = [row[: len(row) - end] for row, end in zip(rows, ended, strict=True)]

    _answer_otherwise(ill, cut)


# -- scoring


SCORER = "r1lab.models.policy.linear_logprob"


@fault("scorer log probs above 0", "verl-project/verl#2656")
def fused_kernel_returns_log_probs_of_up_to_plus_123(ill):
    def unnormalised(right, *args, **options):
        out = right(*args, **options, return_lse=True)
        return out._replace(logp=out.logp + out.lse)

    return _around(SCORER, unnormalised)


@fault("scorer disagrees with the logits", "huggingface/trl#3681")
def logits_are_sliced_one_position_off(ill):
    def shifted(right, hidden, *rest, **more):
        return right(hidden.roll(1, 1), *rest, **more)

    return _around(SCORER, shifted)


@fault("scorer disagrees with the logits", "huggingface/trl#3029", temperature=0.6)
def scorer_forgets_the_temperature(ill):
    return _around(SCORER, lambda right, *args, **more: right(*args, **more | {"temperature": 1.0}))


@fault("mask does not fit the tokens", "bingreeky/MemGen#33")
def mask_takes_in_what_follows_the_end(ill):
    right = Learner.batches

    def everything(self, *asked):
        for rows, ids, completion, mask in right(self, *asked):
            yield rows, ids, completion, torch.ones_like(mask)

    return patch.object(Learner, "batches", everything)


@fault("reference policy is wrong", "hiyouga/ChatGLM-Efficient-Tuning#380; r1lab itself before 2c4bc82")
def reference_policy_has_the_weights_of_the_policy(ill):
    ill.learner.modules["reference"] = ill.learner.policy


# -- loss and optimizer


def _patch_loss(ill: Patient, change: Callable):
    """`change(right, logps, old_logps, ref_logps, advantages, mask, config, **options)`."""
    return patch.object(ill.learner, "loss", partial(change, r1lab.objective.policy_loss))


def _scale_loss(ill: Patient, scale: float):
    def scaled(right, *args, **options):
        loss, metrics = right(*args, **options)
        return loss * scale, metrics

    return _patch_loss(ill, scaled)


def _patch_mask(ill: Patient, change: Callable):
    """`change(mask)` in the place of the loss's mask."""

    def changed(right, logps, old_logps, ref_logps, advantages, mask, *rest, **options):
        return right(logps, old_logps, ref_logps, advantages, change(mask), *rest, **options)

    return _patch_loss(ill, changed)


@fault("gradient is 0", "Goekdeniz-Guelmez/mlx-lm-lora#55 (PR 49)")
def importance_ratio_is_the_constant_1(ill):
    return _patch_loss(ill, lambda right, logps, old, *rest, **more: right(logps, logps, *rest, **more))


@fault("gradient is 0", "Goekdeniz-Guelmez/mlx-lm-lora#68")
def log_probs_are_computed_outside_the_differentiated_closure(ill):
    right = Policy.forward

    def forward(self, *args):
        return right(copy.deepcopy(self).requires_grad_(True), *args)

    return patch.object(Policy, "forward", forward)


@fault("end token outside the loss", "rasbt/reasoning-from-scratch#185")
def end_token_is_missing_from_the_training_signal(ill):
    def without_end(mask):
        return mask & (torch.arange(mask.shape[1]) < mask.sum(1)[:, None] - 1)

    return _patch_mask(ill, without_end)


@fault("gradient of something else", "Goekdeniz-Guelmez/mlx-lm-lora#80")
def mask_is_shifted_by_one_in_the_loss(ill):
    def shifted(mask):
        """The first token out, what follows the end in."""
        return torch.nn.functional.pad(mask, (1, -1))

    return _patch_mask(ill, shifted)


@fault("wrong normaliser", "modelscope/ms-swift#10116, huggingface/trl#3021")
def loss_is_divided_by_the_accumulation_steps_once_more(ill):
    return _scale_loss(ill, 1 / 4)


@fault("step goes the wrong way", "The objective is minimised instead of maximised.")
def loss_is_plus_the_objective(ill):
    return _scale_loss(ill, -1)


@fault("update is not a number", "OpenRLHF/OpenRLHF#1120, verl-project/verl#747")
def loss_is_nan(ill):
    return _scale_loss(ill, math.nan)


@fault("clip does not hold", "rasbt/reasoning-from-scratch ch07 takes the maximum where A < 0")
def clip_is_upside_down_for_negative_advantages(ill):
    def maximum(ratio, advantages, clip_low, clip_high):
        own, clipped = ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages
        return torch.where(advantages < 0, torch.maximum(own, clipped), torch.minimum(own, clipped))

    return patch("r1lab.objective.clipped_objective", maximum)


@fault("kl term does not pull back",
       "natolambert/rlhf-book pays for divergence: its log-ratio is reversed",
       loss=LossConfig(beta=0.05))  # fmt: skip
def kl_term_has_the_wrong_sign(ill):
    right = r1lab.objective.k3
    return patch.dict(r1lab.objective.KL_ESTIMATORS, k3=lambda *logps: -right(*logps))


@fault("kl term does not pull back", "allenai/open-instruct#534, NVIDIA-NeMo/RL#2506",
       loss=LossConfig(beta=0.05, kl="k1"))  # fmt: skip
def k1_is_differentiated_as_a_loss(ill):
    """By its settings alone."""


@fault("learning rate is 0", "A schedule that ends, or never begins.", learning_rate=0.0)
def learning_rate_never_leaves_0(ill):
    """By its settings alone."""


@fault("optimizer holds other weights", "huggingface/trl#6701")
def optimizer_is_built_over_weights_that_are_not_trained(ill):
    other = copy.deepcopy(ill.learner.policy)
    ill.learner.optimizer = torch.optim.AdamW(other.parameters(), lr=1e-3)
    ill.learner.optimizers["optimizer"] = ill.learner.optimizer


@fault("frozen weights", "huggingface/trl#6701 (review: the adapter is frozen on loading)")
def a_layer_is_frozen_on_loading(ill):
    ill.learner.policy.model.get_decoder().layers[0].requires_grad_(False)


# -- the course of a run: rows of a stored run, changed


# Each is a function that makes a healthy run's rows those of an ill one.
COURSE_FAULTS: list[Fault] = []
course_fault = partial(fault, faults=COURSE_FAULTS)


def followed(rows: list[dict]) -> list:
    """What the curves of these rows show to be wrong."""
    return judge(course.CAUSES | course.EFFECTS, course.measure(rows))


def _over_time(rows: list[dict], kind: str, change: Callable[[dict, float], dict]) -> list[dict]:
    """Each row of a kind updated by `change(row, how far the run is, 0 to 1)`."""
    last = rows[-1]["step"]
    return [row | change(row, row["step"] / last) if row["kind"] == kind else row for row in rows]


@course_fault("updates skipped or not a number", "OpenRLHF/OpenRLHF#1120, verl-project/verl#721")
def loss_becomes_nan_in_the_middle(rows):
    return _over_time(rows, "train", lambda row, t: {"loss": math.nan} if t > 0.6 else {})


@course_fault("resumed from elsewhere", "huggingface/trl#3179, huggingface/trl#3635")
def resumed_run_starts_again_at_step_1(rows):
    half = [row for row in rows if row["step"] <= rows[-1]["step"] // 2]
    return half + half


@course_fault("accuracy reward always 0", "aburkov/theLMbook#23")
def no_answer_is_ever_right(rows):
    return _over_time(rows, "train", lambda row, t: {"reward/accuracy": 0.0})


@course_fault("format exploit", "huggingface/open-r1#255")
def format_rises_while_accuracy_goes_to_0(rows):
    def change(row, t):
        low = row["pass_at_1"] * (1 - t) ** 4
        return {"pass_at_1": low, "pass_at_1_ci95": [0.9 * low, 1.1 * low], "format": 0.4 + 0.6 * t}

    return _over_time(rows, "eval", change)


@course_fault("length grows for nothing", "sail-sg/understand-r1-zero#25, huggingface/trl#3138")
def answers_grow_and_accuracy_does_not(rows):
    start = next(row for row in rows if row["kind"] == "eval")
    flat = {"pass_at_1": start["pass_at_1"], "pass_at_1_ci95": start["pass_at_1_ci95"]}
    return _over_time(rows, "eval", lambda row, t: flat | {"mean_tokens": 35 + 200 * t})


@course_fault("accuracy falls from its best", "PrimeIntellect-ai/verifiers#8")
def accuracy_goes_down_after_a_hundred_steps(rows):
    def change(row, t):
        return {"pass_at_1": 0.3, "pass_at_1_ci95": [0.27, 0.33]} if t > 0.6 else {}

    return _over_time(rows, "eval", change)


@course_fault("groups without a lesson", "jsboige/CoursIA#10603")
def groups_of_two_are_mostly_alike(rows):
    return _over_time(rows, "train", lambda row, t: {"zero_std_groups": 0.85})


@course_fault("entropy collapses", "wizard-III/Archer2.0#4")
def entropy_goes_to_0(rows):
    return _over_time(rows, "train", lambda row, t: {"entropy": 0.2 * math.exp(-6 * t)})


@course_fault("entropy explodes", "verl-project/verl#781")
def entropy_bonus_makes_noise_of_the_policy(rows):
    return _over_time(rows, "train", lambda row, t: {"entropy": 0.2 * math.exp(3 * t)})


@course_fault("kl runs away", "huggingface/open-r1#257")
def kl_becomes_extremely_large(rows):
    return _over_time(rows, "train", lambda row, t: {"kl": 0.001 * math.exp(9 * t)})


@course_fault("answers cut off", "modelscope/ms-swift#4950, hiyouga/EasyR1#40")
def clipped_ratio_stays_at_1(rows):
    return _over_time(rows, "train", lambda row, t: {"truncated": 0.2 + 0.8 * t})


def stored_rows(name: str = "zero") -> list[dict]:
    text = Path(f"data/runs/{name}/metrics.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def main() -> int:
    """Print a Markdown table: fault, thread, what the doctor says first. 1 if it is ever wrong."""
    from tests.planted_variants import COURSE_VARIANTS, STEP_VARIANTS, TOKENIZER_VARIANTS

    wrong, on_two, on_one = 0, [*FAULTS, *STEP_VARIANTS], TOKENIZER_VARIANTS
    curves = [*COURSE_FAULTS, *COURSE_VARIANTS]
    print("| planted fault | after | named first, on the base | on a random Llama |")
    print("|---|---|---|---|")
    for one in (*on_two, *on_one):
        models = ("base", "llama") if one in on_two else ("base",)
        first = [(named_in_steps(one, model) or ["nothing"])[0] for model in models]
        wrong += sum(name != one.expected for name in first)
        print(f"| {one.name} | {one.thread} | {' | '.join([*first, ''][:2])} |", flush=True)
    print("\n| planted in a stored run's curves | after | named first |\n|---|---|---|")
    for one in curves:
        first = ([ill.name for ill in followed(one.plant(stored_rows()))] or ["nothing"])[0]
        wrong += first != one.expected
        print(f"| {one.name} | {one.thread} | {first} |")
    count = f"{len(on_two)} faults on two models, {len(on_one)} on one, {len(curves)} in curves"
    print(f"\n{count}; {wrong} misnamed.")
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())
