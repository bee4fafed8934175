"""Variants of the kinds of faults that people report: tables of (expected, what is planted, how).

Written before the rules that find them. `how` changes a `Patient`, or its rows, and may return the
patch that holds meanwhile; a dict is settings.
"""

import copy
from dataclasses import replace
from unittest.mock import patch

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

import r1lab.training.rollout as rollout
from r1lab.objective import LossConfig
from r1lab.rewards import RewardSet, accuracy, format
from r1lab.training.loop import Learner
from tests.planted_faults import Fault, _over_time, letters

GRADE, TEXT, DESCEND = RewardSet.__call__, rollout.completion_text, Learner.descend


# -- what the grader reads is not what was sampled


def reads(change):
    """`change(texts, prompts, columns)` gives the texts, or changes the columns in place."""

    def graded(self, prompts, texts, **columns):
        columns = dict(columns)
        texts = change(list(texts), prompts, columns) or texts
        return GRADE(self, prompts, texts, **columns)

    return lambda ill: patch.object(RewardSet, "__call__", graded)


def pays(change):
    """`change(scores)` in the place of each reward's scores, and of the totals."""

    def graded(self, prompts, texts, **columns):
        totals, parts = GRADE(self, prompts, texts, **columns)
        return change(totals), {name: change(scores) for name, scores in parts.items()}

    return lambda ill: patch.object(RewardSet, "__call__", graded)


def golds(change):
    def reorder(texts, prompts, columns):
        for name in ("solution", "meta"):
            columns[name] = change(columns[name])

    return reads(reorder)


def decodes(change):
    """`change(ids, finish, tokenizer)` in the place of `completion_text`."""
    return lambda ill: patch.object(rollout, "completion_text", change)


def lags(ill):
    """The grader gets the texts of the rollout before."""
    seen = []

    def late(texts, prompts, columns):
        seen.append(texts)
        return seen[-2] if len(seen) > 1 and len(seen[-2]) == len(texts) else None

    return reads(late)(ill)


def shuffles_inside(ill):
    """The reward itself sorts its gold answers."""

    def shuffled(prompts, completions, solution, meta, **columns):
        return accuracy(prompts, completions, solution[::-1], meta=meta[::-1], **columns)

    ill.rewards = {"accuracy": (shuffled, 1.0), "letters": (letters, 0.5)}


def reorders_inside(change):
    """The reward itself gives its scores in another order."""

    def plant(ill):
        def reordered(prompts, completions, solution, **columns):
            return change(accuracy(prompts, completions, solution=solution, **columns))

        ill.rewards = {"accuracy": (reordered, 1.0), "letters": (letters, 0.5)}

    return plant


def turned(values):
    return values[1:] + values[:1]


READING = [
    ("prompt left in the completion", "full sequences are decoded", reads(
        lambda texts, prompts, _: [p + t for p, t in zip(prompts, texts)])),
    ("prompt left in the completion", "chat text without its role names", reads(
        lambda texts, prompts, _: [p.removeprefix("User: ") + "\n" + t for p, t in zip(prompts, texts)])),
    ("special tokens left in the completion", "end token left in", decodes(
        lambda ids, finish, tokenizer: tokenizer.decode(ids))),
    ("special tokens left in the completion", "padding left in", decodes(
        lambda ids, finish, tokenizer: TEXT(ids, finish, tokenizer) + "<|pad|><|pad|>")),
    ("completion changed before grading", "lower case, no tags", decodes(
        lambda *given: TEXT(*given).replace("<think>", "").upper() + ".")),
    ("completion changed before grading", "cut after ten characters", decodes(
        lambda *given: TEXT(*given)[:10])),
    ("completion changed before grading", "thinking cut off", decodes(
        lambda *given: TEXT(*given)[3:])),
    ("completion changed before grading", "last token dropped twice", decodes(
        lambda ids, finish, tokenizer: TEXT(ids[:-1], finish, tokenizer))),
    ("completions of another rollout", "texts of the rollout before", lags),
    ("gold answers of other rows", "gold reversed", golds(lambda column: column[::-1])),
    ("gold answers of other rows", "columns as ABAB, not AABB", golds(
        lambda column: column[::4] * 4 if len(column) == 8 else column)),
    ("gold answers of other rows", "gold of the first question everywhere", golds(
        lambda column: [column[0]] * len(column))),
    ("gold answers of other rows", "gold shifted by a group", golds(lambda c: c[4:] + c[:4])),
    ("gold answers of other rows", "texts reversed, gold in place", reads(
        lambda texts, prompts, _: texts[::-1])),
    ("gold answers of other rows", "shuffled in the reward itself", shuffles_inside),
    ("rewards of other completions", "rewards reversed", pays(lambda scores: scores[::-1])),
    ("rewards of other completions", "rewards shifted by one", pays(turned)),
    ("rewards of other completions", "reversed in the reward itself", reorders_inside(lambda s: s[::-1])),
    ("rewards of other completions", "sorted in the reward itself", reorders_inside(sorted)),
    ("rewards of other completions", "rewards sorted", pays(
        lambda scores: sorted(scores, key=lambda score: score or 0))),
    ("rewards of other completions", "texts shifted within all groups", reads(
        lambda texts, *_: sum((turned(texts[i : i + 4]) for i in range(0, len(texts), 4)), []))),
]  # fmt: skip


# -- steps of the wrong size


def optimizer(**group):
    """Other settings in the optimizer's only group."""
    return lambda ill: ill.learner.optimizer.param_groups[0].update(group)


def steps_twice(ill):
    step = ill.learner.optimizer.step
    ill.learner.optimizer.step = lambda: (step(), step())


def learns_twice(ill):
    """Each batch twice, as with a loop over epochs that nobody asked for."""
    right, last = Learner.add_loss, {}

    def descend(self, name):
        norm = DESCEND(self, name)
        right(self, *last["given"])
        DESCEND(self, name)
        return norm

    def add(self, *given):
        last["given"] = given
        return right(self, *given)

    return patch.multiple(Learner, descend=descend, add_loss=add)


def keeps_gradients(ill):
    ill.learner.optimizer.zero_grad = lambda *_, **__: None


def shrinks(ill, by=0.02):
    """Weight decay by hand, after the step."""

    def decay(*_):
        with torch.no_grad():
            for weight in ill.learner.policy.parameters():
                weight.mul_(1 - by)

    ill.learner.optimizer.register_step_post_hook(decay)


def pulls_in_gradient(ill):
    """L2 in the gradient, as Adam's weight_decay does it."""

    def pull(*_):
        for weight in ill.learner.policy.parameters():
            weight.grad.add_(weight, alpha=1.0)

    ill.learner.optimizer.register_step_pre_hook(pull)
    hooks = ill.learner.optimizer._optimizer_step_pre_hooks
    hooks.move_to_end(next(reversed(hooks)), last=False)


def clips_to(limit):
    right = "r1lab.training.loop.clip_gradients"

    def clip(module, _):
        return torch.nn.utils.clip_grad_norm_(module.parameters(), limit)

    return lambda ill: patch(right, clip)


def learns_from_the_batch_before(ill):
    right, first = Learner.add_loss, []

    def add(self, experience, rows):
        first.append(experience)
        return right(self, first[0], rows)

    return patch.object(Learner, "add_loss", add)


SIZES = [
    ("learning rate too high", "rate of SGD", {"learning_rate": 0.1}),
    ("learning rate too high", "rate of a small network", {"learning_rate": 0.01}),
    ("learning rate too high", "30 times too high", {"learning_rate": 6e-3}),
    ("learning rate too low", "rate of 1e-7", {"learning_rate": 1e-7}),
    ("learning rate too low", "rate of a large model", {"learning_rate": 1e-6}),
    ("learning rate too low", "rate of 1e-10", {"learning_rate": 1e-10}),
    ("optimizer barely steps", "eps of 1", optimizer(eps=1.0)),
    ("optimizer barely steps", "eps of 0.01", optimizer(eps=0.01)),
    ("optimizer steps twice", "step called twice", steps_twice),
    ("optimizer steps twice", "each batch learned twice", learns_twice),
    ("gradients kept", "zero_grad forgotten", keeps_gradients),
    ("gradient of another batch", "the first batch again", learns_from_the_batch_before),
    ("gradient clipped to nothing", "max_grad_norm 1e-10", {"max_grad_norm": 1e-10}),
    ("gradient clipped to nothing", "clipped to 0 in the loop", clips_to(0.0)),
    ("gradient clipped to nothing", "clipped to 1e-8", clips_to(1e-8)),
    ("weight decay dominates", "weight_decay 100", optimizer(weight_decay=100.0)),
    ("weight decay dominates", "weight_decay 30", optimizer(weight_decay=30.0)),
    ("weight decay dominates", "weights shrunk by hand", shrinks),
    ("weight decay dominates", "L2 in the gradient", pulls_in_gradient),
]  # fmt: skip


# -- settings that cannot teach


def asks(change):
    """`change(problems)` in the place of what is drawn."""

    def plant(ill):
        draw = ill.learner.task.draw
        task = replace(ill.learner.task, problems=lambda *given: change(draw(*given)))
        ill.learner.task = task

    return plant


def pays_for(name, function, weight):
    def plant(ill):
        ill.rewards = {"accuracy": (accuracy, 0.1), name: (function, weight)}

    return plant


def templates(template):
    def plant(ill):
        ill.learner.task = replace(ill.learner.task, template=template)

    return plant


def longest(prompts, completions, **columns):
    return [len(text) / 10 for text in completions]


def binary(ill):
    ill.rewards = {"accuracy": (accuracy, 1.0)}


KL = LossConfig(beta=0.05)
SETTINGS = [
    ("reference refreshed at every step", "reference_every 1", {"reference_every": 1, "loss": KL}),
    ("reference refreshed at every step", "reference_every 1, beta 0.001", {"reference_every": 1}),
    ("side reward outweighs accuracy", "format ten times accuracy", pays_for("format", format, 1.0)),
    ("side reward outweighs accuracy", "paid for length", pays_for("length", longest, 1.0)),
    ("side reward outweighs accuracy", "paid for letters", pays_for("letters", letters, 5.0)),
    ("same question in all rows", "the first problem everywhere", asks(
        lambda problems: [problems[0]] * len(problems))),
    ("same question in all rows", "a template without the question", templates(
        lambda problem: "User: make 4 from 8,4 Assistant:")),
    ("temperature far from 1", "nearly greedy", {"temperature": 0.01}),
    ("temperature far from 1", "temperature of an evaluation", {"temperature": 0.1}),
    ("temperature far from 1", "percent in place of a share", {"temperature": 10.0}),
    ("kl term outweighs the reward", "beta 1", {"loss": LossConfig(beta=1.0)}),
    ("kl term outweighs the reward", "beta 10", {"loss": LossConfig(beta=10.0)}),
    ("completions truncated", "a cap of 6", {"caps": ((0, 6),)}),
    ("completions truncated", "a cap of 2", {"caps": ((0, 2),)}),
    ("group too small", "pairs, right or wrong", binary, {"group_size": 2}),
    ("group too small", "threes, right or wrong", binary, {"group_size": 3}),
    ("warm up outlasts the run", "10,000 warm-up steps", {"warmup_steps": 10_000}),
    ("clip range too narrow", "clip of 0", {"loss": LossConfig(clip_low=0.0, clip_high=0.0)}),
    ("clip range too narrow", "clip of 1e-6", {"loss": LossConfig(clip_low=1e-6, clip_high=1e-6)}),
]  # fmt: skip


# -- a tokenizer of another model


def tokenizer(change):
    """The tokenizer's vocabulary, changed by `change(words)`; ids stay below the model's."""

    def plant(ill):
        words = ill.learner.tokenizer.get_vocab()
        other = copy.deepcopy(ill.learner.tokenizer)
        state = Tokenizer.from_str(other.backend_tokenizer.to_str())
        names = change(sorted(words, key=words.get))
        model = models.WordLevel({name: i for i, name in enumerate(names)}, unk_token="<|unknown|>")
        state.model = model
        other._tokenizer = state
        ill.learner.tokenizer = ill.learner.sampler.tokenizer = other

    return plant


SPECIAL = 6  # ids below are special tokens


def rest(change):
    return lambda names: names[:SPECIAL] + change(names[SPECIAL:])


def characters(ill):
    """A tokenizer of characters, with the special tokens in the same places."""
    words = sorted(ill.learner.tokenizer.get_vocab().items(), key=lambda pair: pair[1])
    names = [name for name, _ in words[:SPECIAL]] + [chr(i) for i in range(32, 127)]
    known = {name: i for i, name in enumerate(names)}
    made = Tokenizer(models.WordLevel(known, unk_token="<|unknown|>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    ill.learner.tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=made, eos_token="<|end|>", pad_token="<|pad|>", unk_token="<|unknown|>"
    )


TOKENIZERS = [
    ("tokenizer of another model", "words in alphabetical order", tokenizer(rest(sorted))),
    ("tokenizer of another model", "words backwards", tokenizer(rest(lambda names: names[::-1]))),
    ("tokenizer of another model", "words one place on", tokenizer(rest(turned))),
    ("tokenizer of another model", "words 100 places on", tokenizer(
        rest(lambda names: names[100:] + names[:100]))),
    ("tokenizer of another model", "one token more at the start", tokenizer(
        lambda names: names[:SPECIAL] + ["<extra>"] + names[SPECIAL:-1])),
    ("tokenizer of another model", "every second word in the place of the next", tokenizer(
        rest(lambda names: [name for pair in zip(names[1::2], names[::2]) for name in pair]))),
    ("tokenizer of another model", "a tokenizer of characters", characters),
    ("tokenizer does not know the words", "no commas", tokenizer(
        lambda names: [f"<{i}>" if name == "," else name for i, name in enumerate(names)])),
    ("tokenizer does not know the words", "no digits", tokenizer(
        lambda names: [f"<{i}>" if name.isdigit() else name for i, name in enumerate(names)])),
    ("reward never varies", "its words in capitals", tokenizer(
        rest(lambda names: [name.upper() for name in names]))),
]  # fmt: skip


# -- courses


def train(**columns):
    """Columns of training rows: a number, or a function of how far the run is, 0 to 1."""

    def change(rows):
        def values(row, t):
            return {name: value(t) if callable(value) else value for name, value in columns.items()}

        return _over_time(rows, "train", values)

    return change


def held_out(value, width=0.03):
    def change(rows):
        def values(row, t):
            at = value(t)
            return {"pass_at_1": at, "pass_at_1_ci95": [at - width, at + width]}

        return _over_time(rows, "eval", values)

    return change


def both(*changes):
    def change(rows):
        for one in changes:
            rows = one(rows)
        return rows

    return change


def still(level):
    return both(held_out(lambda t: level), train(**{"reward": 0.3, "reward/accuracy": level}))


def same_length(rows):
    return _over_time(rows, "eval", lambda row, t: {"mean_tokens": 35})


FLAT = "nothing moves"
UP = "training reward rises and held out accuracy does not"
COURSES = [
    (FLAT, "everything stays at 0.25", both(still(0.25), train(kl=1e-7))),
    (FLAT, "a hard task", still(0.04)),
    (FLAT, "a little up, within the error", both(
        still(0.2), held_out(lambda t: 0.2 + 0.03 * t))),
    (FLAT, "a little down, within the error", both(still(0.3), held_out(lambda t: 0.3 - 0.03 * t))),
    (FLAT, "a coin for a reward", both(still(0.2), train(reward=lambda t: 0.5 + 0.01 * t))),
    (FLAT, "gradients of nearly nothing", both(still(0.25), train(kl=0.0, grad_norm=1e-3))),
    (UP, "memorised questions", both(held_out(lambda t: 0.25), train(
        **{"reward": lambda t: 0.2 + 0.7 * t, "reward/accuracy": lambda t: 0.2 + 0.7 * t}))),
    (UP, "a grader that is fooled", both(held_out(lambda t: 0.4), train(reward=lambda t: 0.3 + 0.5 * t))),
    (UP, "the format alone", both(held_out(lambda t: 0.1), train(
        **{"reward": lambda t: 0.2 + 0.8 * t, "reward/accuracy": 0.1}))),
    ("clip fraction off the scale", "half of the tokens clipped", train(clip_fraction=0.5)),
    ("clip fraction off the scale", "more and more are clipped", train(clip_fraction=lambda t: 0.4 * t)),
    ("gradient norm off the scale", "norm of 1,000", train(grad_norm=1e3)),
    ("gradient norm off the scale", "norm grows a hundredfold", train(
        grad_norm=lambda t: 0.2 * 100**t)),
    ("gradient norm off the scale", "norm of 1e-9", train(grad_norm=1e-9)),
    ("too early to tell", "one evaluation", lambda rows: [
        row for row in rows if row["kind"] == "train" or row["step"] == 0]),
    ("too early to tell", "no evaluation", lambda rows: [row for row in rows if row["kind"] == "train"]),
]  # fmt: skip


def faults(rows: list[tuple], thread: str) -> list[Fault]:
    made = []
    for expected, name, how, *more in rows:
        settings = how if isinstance(how, dict) else dict(*more)
        plant = (lambda ill: None) if isinstance(how, dict) else how
        made.append(Fault(plant, thread, expected, settings, name))
    return made


STEP_VARIANTS = [
    *faults(READING, "The grader reads something else than was sampled."),
    *faults(SIZES, "A step has the wrong size."),
    *faults(SETTINGS, "Settings that cannot teach."),
]
TOKENIZER_VARIANTS = faults(TOKENIZERS, "A tokenizer of another model.")
COURSE_VARIANTS = [
    replace(one, plant=both(one.plant, same_length)) if one.expected == FLAT else one
    for one in faults(COURSES, "The curves say so.")
]
