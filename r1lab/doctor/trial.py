"""A trial: two real steps of a run, watched from outside, and what becomes of its answers in them.

A fact is a number or a text that a function here, or in `steps.py`, measures; its docstring says of each
fact what it is. Shares go from 0 to 1, log-probs are in nats per token.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from math import log, nan
from statistics import fmean, median
from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from r1lab.errors import InputError
from r1lab.models.lora import own_parameters
from r1lab.models.policy import refuse_unknown_words
from r1lab.objective import group_advantages, groups_that_differ
from r1lab.rewards import RewardSet, validate
from r1lab.rewards.combine import judges_answers
from r1lab.sampling import SamplingParams, end_ids
from r1lab.sources.templates import prompt_of
from r1lab.task import columns_of, gold_answer
from r1lab.training.batching import pad_rows
from r1lab.training.config import GRPOConfig
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience

NEVER, EXACT = 10**9, 1e-4
LEAST_RATE = 1e-4  # what two steps change must show
LOGITS = 1024  # tokens whose logits are held at once
RECEIPT = "receipt"  # the reward that a trial adds


class Facts(SimpleNamespace):
    """What was measured. Any other fact is NaN, so that no comparison with it is true."""

    def __getattr__(self, name):
        return nan


class Trial:
    """A learner, and what it does in two steps. Each is a rollout and one update on it.

    Attributes:
        asked: the settings of the run that is tried; the learner has those of `trial_config`.
        models: copies of the policy's model, made before each rollout; and the model after both.
        experiences, updates: of the two rollouts.
        gradients: as the optimizer finds them, flat.
        given: by the score that the trial's own reward gave for it, a text and the gold answer beside it.
        said: by kind, a sentence about what is wrong with the answers and their scores.
    """

    def __init__(self, learner: Learner, asked: GRPOConfig):
        self.learner, self.asked, self.task = learner, asked, learner.task
        self.config = learner.config
        self.tokenizer = learner.tokenizer
        self.models, self.experiences, self.updates, self.gradients = [], [], [], []
        self.given = {}
        self.said = {}
        model = learner.policy.model
        self.ends = set(end_ids(model, self.tokenizer))
        learner.task = replace(self.task, rewards={**self.task.rewards, RECEIPT: (self._receipt, 0.0)})
        learner.optimizer.register_step_pre_hook(lambda *_: self.gradients.append(flat(model, True)))
        for _ in range(2):
            self.models.append(copy.deepcopy(model))
            learner.train(self._note)
        self.models.append(model)

    def _receipt(self, prompts, completions, solution, meta, **columns):
        """A reward of weight 0. Its scores tell later which text and gold answer they were given for."""
        given = list(zip(completions, map(repr, zip(solution, meta))))
        scores = [float(hash(pair)) for pair in given]
        self.given |= zip(scores, given)
        return scores

    def _note(self, rollout, experience, updates):
        self.experiences.append(experience)
        self.updates += updates
        return True  # ends the training for now

    def all(self, name: str) -> list:
        """A field of the experiences, both in one list."""
        return [value for one in self.experiences for value in getattr(one, name)]

    def scores(self, name: str) -> list[float]:
        """What a reward gave, 0 where it could not tell, in one list."""
        return [score or 0.0 for one in self.experiences for score in one.rewards[name]]

    def text(self, ids: list[int]) -> str:
        """Decode a completion, without end tokens."""
        return self.tokenizer.decode([token for token in ids if token not in self.ends])


def trial_config(config: GRPOConfig) -> GRPOConfig:
    """Cut the run to two on-policy steps. A learning rate above 0 becomes at least `LEAST_RATE`."""
    return replace(
        config, rollouts=2, questions=min(4, config.questions), minibatches=1, warmup_steps=1,
        group_size=min(8, config.group_size), caps=config.caps[:1],
        learning_rate=config.learning_rate and max(LEAST_RATE, config.learning_rate),
        reference_every=NEVER, skipped_limit=NEVER, precision="float32",
    )  # fmt: skip


@torch.no_grad()
def prompts(trial):
    """Compare the prompts with what the template makes of questions, and with what the model knows.

    prompt_wanted, prompt_seen: the first one as the template makes it, as the model reads it.
    prompts: how many different ones a rollout has, the more of both.
    unknown: why the tokenizer cannot write the prompts; empty if it can.
    surprise: how much less likely their tokens are to the model than tokens drawn blindly.
    estranged: how much less likely they are than the tokens of the answers.
    """
    experience, tokenizer = trial.experiences[0], trial.tokenizer
    wanted = [prompt_of(trial.task, problem, tokenizer) for problem in experience.problems]
    read = logps_of(trial.models[0], experience)
    known = torch.cat([logps[inside.cumsum(1) == 0] for *_, inside, logps in read]).mean().item()
    return {
        "prompt_wanted": tokenizer.decode(tokenizer(wanted[0]).input_ids),
        "prompt_seen": tokenizer.decode(experience.prompt_ids[0]),
        "prompts": max(len(set(map(tuple, one.prompt_ids))) for one in trial.experiences),
        "unknown": _refusal(refuse_unknown_words, wanted, tokenizer, "the model"),
        "surprise": -known - log(len(tokenizer)),
        "estranged": torch.cat(experience.old_logps).mean().item() - known,
    }


def _refusal(function, *given):
    """Say why a function raises InputError; empty if it does not."""
    try:
        function(*given)
    except InputError as error:
        return str(error)
    return ""


def reading(trial):
    """Compare the text and gold answer that each completion was scored for with its own.

    said: "prompt", "special", "rollout" or "changed" of a text that no completion of the rollout has;
        "gold" of one beside another question's gold answer; "scores" of one that is another row's.
    """
    special = {*trial.tokenizer.all_special_tokens, *map(trial.tokenizer.decode, trial.ends)}
    sampled = set(map(trial.text, trial.all("completion_ids"))) - {""}
    for one in trial.experiences:
        texts = list(map(trial.text, one.completion_ids))
        pairs = [(text, repr((p.solution, p.meta))) for text, p in zip(texts, one.problems)]
        for row, score in enumerate(one.rewards[RECEIPT]):
            text, gold = trial.given.get(score, pairs[row - 1])  # a score of nobody is another row's
            if (text, gold) == pairs[row]:
                continue
            signs = {
                "scores": (text, gold) in pairs,
                "gold": text in texts,
                "rollout": text in sampled,
                "prompt": any(problem.prompt in text for problem in one.problems),
                "special": any(token in text and token not in texts[row] for token in special),
                "changed": True,
            }
            kind = max(signs, key=signs.get)  # the first that is true
            trial.said.setdefault(
                kind, f"{texts[row][-60:]!r} was scored as {text[-60:]!r}, beside the gold answer {gold[:60]}"
            )
    return {"said": trial.said}


def gold(trial):
    """Grade gold answers and the word 'nonsense' once more: all together, and each alone.

    said: "refused": which reward, or the check, refuses which gold answer; "nonsense": why it is as good
        as gold; "gold" or "scores": which reward reads golds, or gives scores, of other rows.
    truth: what a right answer earns more than a wrong one.
    side: the most that a reward which does not look at the answer can add, and its name.
    gold_tokens: of the gold answer in the right format, the median.
    """
    rewards, check, said = RewardSet(trial.task.rewards), trial.task.check, trial.said
    asked = trial.experiences[0].problems[:: trial.config.group_size]
    solved = [replace(problem, solution=gold_answer(problem)) for problem in asked]
    problems = [problem for problem in solved if problem.solution]
    if not problems:
        return {"gold_tokens": nan}
    rows = [
        (problem, f"<think> </think> <answer> {answer} </answer>")
        for problem in problems
        for answer in (problem.solution, "nonsense")
    ]

    def grade(rows):
        problems, texts = zip(*rows)
        prompts = [problem.prompt for problem in problems]
        return rewards(prompts, list(texts), **columns_of(problems))[1]

    together, alone = grade(rows), [grade([row]) for row in rows]
    truth, side, tells, news = 0.0, (0.0, ""), False, not said
    for name, (reward, weight) in rewards.rewards.items():
        scores = [score or 0.0 for score in together[name]]  # of gold, nonsense, gold, nonsense, ...
        gain = fmean(scores[::2]) - fmean(scores[1::2])
        tells = tells or gain > 0
        judges = judges_answers(reward, columns_of(problems))
        if judges and gain > 0:
            truth += weight * gain
        elif not hasattr(reward, "blind"):
            paid = [0.0, *scores, *trial.scores(name)]
            side = max(side, (weight * (max(paid) - min(paid)), name))
        accepted, single = list(map(bool, scores)), [bool(each[name][0]) for each in alone]
        if judges and news and accepted != single:
            kind = "gold" if sum(accepted) != sum(single) else "scores"
            said[kind] = f"the reward {name!r} accepts other answers in a batch than one at a time"
    if refused := _refusal(validate, rewards, problems, check):
        said["refused"] = refused
    elif not tells:
        said["nonsense"] = "gold and nonsense earn the same from every reward"
    elif check and any(check(text, problem) for problem, text in rows[1::2]):
        said["nonsense"] = "the task's check accepts nonsense"
    tokens = median(len(trial.tokenizer(text).input_ids) for _, text in rows[::2])
    return {"truth": truth, "side": side, "gold_tokens": tokens}


def grades(trial):
    """Check totals against scores, and advantages against totals.

    off_weighted_sum: largest |total - weighted sum of the scores|; said: "scores", where the totals are
        right and in another order.
    rewards_vary, values: share of groups with two different totals; how many totals there are.
    off_group: largest |advantage - (total - group's mean) / group's std|.
    advantage_sign: advantage times (total - group's mean), summed.
    distinct: different completions of a question, the mean.
    """
    totals = torch.stack(trial.all("totals"))
    advantages = torch.stack(trial.all("advantages"))
    right = group_advantages(totals, divide_by_std=trial.config.divide_by_std)
    sums = torch.zeros(totals.numel())
    for name, (_, weight) in RewardSet(trial.task.rewards).rewards.items():
        sums += weight * torch.tensor(trial.scores(name))
    off = _largest(totals.flatten() - sums)
    if _largest(totals.flatten().sort().values - sums.sort().values) < EXACT < off:
        trial.said["scores"] = f"totals are those of other rows, by up to {off:.2f}"
    different = set(zip(map(tuple, trial.all("prompt_ids")), trial.all("completions")))
    return {
        "off_weighted_sum": off, "values": len(totals.unique()),
        "rewards_vary": groups_that_differ(totals).float().mean().item(),
        "off_group": _largest(advantages - right), "advantage_sign": float((advantages * right).sum()),
        "distinct": len(different) / len(totals),
    }  # fmt: skip


def endings(trial):
    """See how completions end.

    ended, cap: share that ended within cap tokens. ends_later: does any with eight times the cap?
    ran_past_end, end_kept: shares with an end token before their last one; as the last, where they ended.
    """
    config = trial.config
    ids = trial.all("completion_ids")
    ended = [row for row, how in zip(ids, trial.all("finish")) if how == "stop"]
    facts = {
        "ended": len(ended) / len(ids), "cap": config.cap(0),
        "ran_past_end": fmean(not trial.ends.isdisjoint(row[:-1]) for row in ids),
    }  # fmt: skip
    if ended:
        facts["end_kept"] = fmean(not trial.ends.isdisjoint(row[-1:]) for row in ended)
        return facts | {"ends_later": True}
    asked = trial.experiences[0].prompt_ids[:: config.group_size]
    limit = getattr(trial.models[0].config, "max_position_embeddings", None) or NEVER
    longest = min(8 * facts["cap"], limit - max(map(len, asked)))
    params = SamplingParams(n=4, temperature=config.temperature, max_tokens=longest)
    return facts | {"ends_later": "stop" in trial.learner.sampler.generate(asked, params).finish}


def logps_of(model, one: Experience, temperature: float = 1.0) -> Iterator[tuple]:
    """Read prompts and completions, a few rows at a time, and yield of each time, from the model's own logits:

    which rows; ids of their tokens after the first, whether each is completion, and its log-prob, all
    [rows, column], padded on the right.
    """
    size = max(1, LOGITS // max(one.lengths))
    for at in range(0, len(one.lengths), size):
        rows = slice(at, at + size)
        ids, inside = pad_rows(one.prompt_ids[rows], one.completion_ids[rows], 0)  # no token looks right
        logits = model(input_ids=ids.to(model.device), use_cache=False).logits[:, :-1].cpu().float()
        logps = (logits / temperature).log_softmax(-1).gather(2, ids[:, 1:, None])[..., 0]
        yield rows, ids[:, 1:], inside[:, 1:], logps


def flat(model, gradient: bool = False) -> Float[Tensor, " weights"]:
    """What a run of this model trains, or its gradient (0 where there is none), as one vector on the CPU."""
    values = own_parameters(model).values()
    if gradient:
        values = [torch.zeros_like(p) if p.grad is None else p.grad for p in values]
    return parameters_to_vector(values).detach().float().cpu()


def _largest(values):
    return values.nan_to_num().abs().max().item()
