"""Two real steps of a run, watched from outside and measured against the plainest way to do them.

The log-probs and gradients to compare with come from the model's own logits and from autograd:
slow, short, and independent of the sampler, the scorer and the loss that are examined.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from math import inf, log, nan
from statistics import fmean
from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor

from r1lab.errors import InputError
from r1lab.objective import group_advantages, groups_that_differ, loss_normalizer
from r1lab.rewards import RewardSet, validate
from r1lab.sampling import SamplingParams
from r1lab.sampling.checks import end_ids
from r1lab.sources.templates import prompt_of
from r1lab.task import Problem, columns_of
from r1lab.training.config import GRPOConfig
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience

NEVER = 10**9


class Findings(SimpleNamespace):
    """What was measured: shares from 0 to 1, log-probs in nats per token, NaN for "not measured".

    prompt_wanted, prompt_seen: as the template makes it, as the model reads it; of the first prompt
        where they differ, else empty.
    gold_refused: which reward, or the check, refuses which gold answer; empty if none does.
    nonsense_passes: why nonsense is as good as gold: to all rewards, or to the check; else empty.
    off_weighted_sum: largest |total - weighted sum of the parts|.
    rewards_vary, reward_mean: share of groups with two different rewards; mean total.
    off_group: largest |advantage - (reward - group's mean) / group's std|.
    advantage_sign: advantage times (reward - group's mean), summed.
    distinct: most different completions in any group.
    ended, ends_later, cap: share of completions that ended within cap tokens; whether any does
        when the cap is eight times as high.
    ran_past_end, end_kept: share of completions with an end token before their last token; of
        those that ended, share whose last token is an end token.
    scored: tokens inside the loss mask for each one sampled.
    scorer_gap, scorer_highest: mean |scorer - logits|; the scorer's largest log-prob.
    sampler_gap, stale_gap, cold_gap: mean |sampler - logits|, the larger of the two rollouts; of
        the second against the weights before the first step; of the first at temperature 1.
    sampler_low: smallest (sampler - logits) of the first rollout.
    tolerance, temperature: of gaps, for this kind of number; of sampling.
    reference_gap: mean |reference policy - weights before the first step|.
    skipped, rate, gradient: updates left out; learning rate; the larger gradient norm.
    moved, unmoved: share of weight tensors that changed; the first that did not.
    part_of_rest, part_of_end, unexplained: the first gradient as multiples of the true ones of the
        tokens before the end and of end tokens; the share that neither explains.
    kl_pull: cosine of the KL term's gradient with the way back to the reference.
    clip_leak: gradient where all tokens are beyond the clip, over that where none is.
    """


@dataclass
class Trial:
    """A learner, and what it did."""

    learner: Learner
    before: list = field(default_factory=list)  # copies of the model, made before each rollout
    experiences: list[Experience] = field(default_factory=list)
    updates: list[dict] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)  # flat: the first one, and the latest

    def all(self, name: str) -> list:
        """A field of the experiences, both in one list."""
        return [value for one in self.experiences for value in getattr(one, name)]


def trial_config(config: GRPOConfig) -> GRPOConfig:
    """Cut the run to two on-policy steps. Raises InputError as a run does.

    A learning rate above 0 becomes at least 1e-4: what two steps change must show.
    """
    config = replace(
        config, rollouts=2, questions=min(4, config.questions), minibatches=1, warmup_steps=1,
        group_size=min(8, config.group_size), advantage="group", caps=config.caps[:1],
        learning_rate=config.learning_rate and max(1e-4, config.learning_rate),
        reference_every=NEVER, skipped_limit=NEVER,
    )  # fmt: skip
    config.check(1)
    return config


def examine(learner: Learner) -> Findings:
    """Train two steps and measure. The learner is used up: probes go on to change its weights.

    Args:
        learner: with the settings of `trial_config`.
    """
    trial, model, task = Trial(learner), learner.policy.model, learner.task

    def ask(seed: int, rollout: int, count: int) -> list[Problem]:
        if len(trial.before) == rollout:  # the loop may look at the questions more than once
            trial.before.append(copy.deepcopy(model).requires_grad_(True))
        return task.draw(seed, rollout, count)

    def note(rollout: int, experience: Experience, updates: list[dict]) -> bool:
        trial.experiences.append(experience)
        trial.updates += updates
        return False

    def look(*_) -> None:  # as the optimizer finds them
        trial.gradients[1:] = [flat_gradient(model)]

    learner.optimizer.register_step_pre_hook(look)
    learner.task = replace(task, problems=ask)
    learner.train(note)
    found = {}
    for measure in (prompts, gold, grades, endings, logprobs, steps, gradient, probes):
        found |= measure(trial)
    return Findings(**found)


def prompts(trial: Trial) -> dict:
    learner, experience = trial.learner, trial.experiences[0]
    read = experience.prompt_ids[:: learner.config.group_size]
    for problem, ids in zip(experience.problems, read, strict=True):
        wanted = prompt_of(learner.task, problem, learner.tokenizer)
        if ids != learner.tokenizer(wanted).input_ids:
            return {"prompt_wanted": wanted, "prompt_seen": learner.tokenizer.decode(ids)}
    return {"prompt_wanted": "", "prompt_seen": ""}


def gold(trial: Trial) -> dict:
    """Do the task's rewards and its check tell a gold answer from the word 'nonsense'?"""
    task = trial.learner.task
    rewards = RewardSet(task.rewards)
    problems = [problem for problem in trial.experiences[0].problems if problem.solution]
    questions, refused, earned = [p.prompt for p in problems], "", []
    try:
        validate(rewards, problems, task.check)
    except InputError as error:
        refused = str(error)
    for answers in ([p.solution for p in problems], ["nonsense"] * len(problems)):
        texts = [f"<think> </think> <answer> {answer} </answer>" for answer in answers]
        _, parts = rewards(questions, texts, **columns_of(problems))
        earned.append([sum(filter(None, scores)) for scores in parts.values()])
    passes = ""
    if problems and not any(right > wrong for right, wrong in zip(*earned, strict=True)):
        passes = "gold and nonsense earn the same from every reward"
    elif task.check and any(map(task.check, texts, problems)):
        passes = "the task's check takes nonsense for right"
    return {"gold_refused": refused, "nonsense_passes": passes}


def grades(trial: Trial) -> dict:
    config, totals = trial.learner.config, torch.stack(trial.all("totals"))
    sums = torch.zeros(totals.numel())
    for name, (_, weight) in RewardSet(trial.learner.task.rewards).rewards.items():
        scores = [score or 0.0 for one in trial.experiences for score in one.rewards[name]]
        sums += weight * torch.tensor(scores)
    advantages = torch.stack(trial.all("advantages"))
    right = group_advantages(totals, divide_by_std=config.divide_by_std)
    texts, size = trial.all("completions"), config.group_size
    return {
        "off_weighted_sum": largest(totals.flatten() - sums),
        "rewards_vary": groups_that_differ(totals).float().mean().item(),
        "reward_mean": totals.nanmean().item(),
        "off_group": largest(advantages - right),
        "advantage_sign": float((advantages * right).sum()),
        "distinct": max(len(set(texts[i : i + size])) for i in range(0, len(texts), size)),
    }


def endings(trial: Trial) -> dict:
    learner, config = trial.learner, trial.learner.config
    ends, ids = set(end_ids(learner.policy.model, learner.tokenizer)), trial.all("completion_ids")
    ended = [row for row, how in zip(ids, trial.all("finish"), strict=True) if how == "stop"]
    cap, later = config.cap(0), bool(ended)
    if not ended:
        limit = getattr(learner.policy.model.config, "max_position_embeddings", None) or NEVER
        asked = trial.experiences[0].prompt_ids[:: config.group_size]
        longest = min(8 * cap, limit - max(map(len, asked)))
        params = SamplingParams(n=4, temperature=config.temperature, max_tokens=longest)
        later = "stop" in learner.sampler.generate(asked, params).finish
    return {
        "ended": len(ended) / len(ids), "ends_later": later, "cap": cap,
        "ran_past_end": fmean(not ends.isdisjoint(row[:-1]) for row in ids),
        "end_kept": fmean(not ends.isdisjoint(row[-1:]) for row in ended) if ended else nan,
    }  # fmt: skip


def logprobs(trial: Trial) -> dict:
    learner, (first, second) = trial.learner, trial.experiences
    temperature, counts = learner.config.temperature, [len(row) for row in second.completion_ids]
    sampled = [torch.cat(one.old_logps) for one in trial.experiences]
    own = [read(*pair, temperature) for pair in zip(trial.before, trial.experiences, strict=True)]
    stale = read(trial.before[0], second, temperature)
    batch = learner._batch(second, {}, list(range(len(counts))))
    with torch.no_grad():
        out = learner.policy(batch.ids, batch.completion, temperature).logp.cpu()
    scored = torch.cat([line[:count] for line, count in zip(out, counts, strict=True)])
    reference = [row.cpu() for _, row in sorted(learner.reference_logps(second).items())]
    exact = next(learner.policy.parameters()).dtype == torch.float32
    return {
        "scored": int(batch.mask.sum()) / max(1, sum(counts)),
        "scorer_gap": gap(scored, read(learner.policy.model, second, temperature)),
        "scorer_highest": float(out.max()),
        "sampler_gap": max(map(gap, sampled, own)), "stale_gap": gap(sampled[1], stale),
        "cold_gap": gap(sampled[0], read(trial.before[0], first, 1.0)),
        "sampler_low": float((sampled[0] - own[0]).min()),
        "tolerance": 1e-3 if exact else 0.05, "temperature": temperature,
        "reference_gap": gap(torch.cat(reference), stale) if reference else nan,
    }  # fmt: skip


def steps(trial: Trial) -> dict:
    after = list(trial.learner.policy.model.named_parameters())
    pairs = zip(after, trial.before[0].parameters(), strict=True)
    still = [name for (name, new), old in pairs if torch.equal(new, old)]
    return {
        "skipped": sum(update["skipped"] for update in trial.updates),
        "rate": trial.updates[-1]["lr"],
        "gradient": max(update["grad_norm"] for update in trial.updates),
        "moved": 1 - len(still) / len(after), "unmoved": (still or [""])[0],
    }  # fmt: skip


def gradient(trial: Trial) -> dict:
    """Solve: gradient = a x (that of tokens before the end) + b x (that of end tokens) + rest."""
    learner, model = trial.learner, trial.before[0]
    ends = torch.tensor(end_ids(learner.policy.model, learner.tokenizer))
    true = partial(true_gradient, learner, model, trial.experiences[0])
    rest, end = true(lambda ids: ~torch.isin(ids, ends)), true(lambda ids: torch.isin(ids, ends))
    parts = torch.stack([rest, end])
    norm, weights, unexplained = trial.updates[0]["grad_norm"], [nan, nan], nan
    parts = parts[parts.norm(dim=1) > 0]
    if len(parts) and trial.gradients and norm > 0:
        used = trial.gradients[0] * (norm / trial.gradients[0].norm())  # as before clipping
        fitted = torch.linalg.solve(parts @ parts.T, parts @ used)
        unexplained = float((used - fitted @ parts).norm() / norm)
        weights = fitted.tolist() + weights
    return {"part_of_rest": weights[0], "part_of_end": weights[1], "unexplained": unexplained}


def probes(trial: Trial) -> dict:
    """Two questions to the loss. Is a policy that left its reference pulled back to it? Does a
    token whose ratio is beyond the clip, on the side of its advantage, still move?"""
    rule, count = trial.learner.config.loss, len(trial.experiences[1].completion_ids)
    if not trial.gradients:
        return {"kl_pull": nan, "clip_leak": nan}
    even, up = torch.zeros(count), torch.arange(count) % 2 == 0
    low = 0.8 * (1 - rule.clip_low)
    if low <= 0:  # nothing is ever clipped from below
        up, low = torch.ones_like(up), 1.0
    side, ratios = torch.where(up, 1.0, -1.0), torch.where(up, 1.5 + rule.clip_high, low)
    beyond, within = (probe(trial, sign * side, ratios, even).norm() for sign in (1, -1))
    pull = nan
    if rule.beta > 0:
        leads = torch.where(torch.arange(count) % 2 == 0, 0.01, -0.01)
        twin = copy.deepcopy(trial.learner.policy.model).requires_grad_(True)
        experience = trial.experiences[1]
        wanted = replace(experience, advantages=leads.view_as(experience.advantages))
        back = true_gradient(trial.learner, twin, wanted, torch.ones_like)
        pulled = probe(trial, even, even + 1, leads)
        pull = float(torch.cosine_similarity(pulled, back, dim=0))
    return {"kl_pull": pull, "clip_leak": float(beyond / (within + 1e-12))}


def probe(trial: Trial, advantages: Tensor, ratios: Tensor, leads: Tensor) -> Tensor:
    """The gradient that an update finds when each row has this advantage, ratio and lead.

    Args:
        ratios: of the policy to the policy that sampled.
        leads: of the reference's log-probs over the policy's.
    """
    learner, experience = trial.learner, trial.experiences[1]
    counts = [len(row) for row in experience.completion_ids]
    own = read(learner.policy.model, experience, learner.config.temperature).split(counts)
    asked = replace(
        experience, advantages=advantages.view_as(experience.advantages),
        old_logps=[row - log(ratio) for row, ratio in zip(own, ratios.tolist(), strict=True)],
    )  # fmt: skip
    reference = {number: row + float(leads[number]) for number, row in enumerate(own)}
    learner.update(asked, reference, list(range(len(counts))))
    return trial.gradients[-1]


def read_row(model, experience: Experience, row: int, temperature: float) -> Float[Tensor, " _"]:
    """Log-probs of a completion's tokens, from the model's logits."""
    prompt, completion = experience.prompt_ids[row], experience.completion_ids[row]
    ids = torch.tensor([prompt + completion], device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
    chosen = ids[0, len(prompt) :, None]
    return (logits / temperature).log_softmax(-1).gather(1, chosen)[:, 0]


@torch.no_grad()
def read(model, experience: Experience, temperature: float) -> Float[Tensor, " tokens"]:
    """Log-probs of all completion tokens, row after row."""
    rows = range(len(experience.completion_ids))
    return torch.cat([read_row(model, experience, row, temperature).cpu() for row in rows])


def true_gradient(
    learner: Learner, model, experience: Experience, picked: Callable[[Tensor], Tensor]
) -> Float[Tensor, " weights"]:
    """Compute the gradient of minus the on-policy objective over some tokens.

    Args:
        picked: says of a completion's ids which tokens count.
    """
    config, lengths = learner.config, [len(row) for row in experience.completion_ids]
    worth = experience.advantages.flatten()
    worth = worth * -1 / loss_normalizer(config.loss.aggregation, lengths, config.cap(0))
    if config.loss.aggregation == "sequence":
        worth = worth / torch.tensor(lengths).clamp(min=1)
    model.zero_grad()
    for row, ids in enumerate(experience.completion_ids):
        logps = read_row(model, experience, row, config.temperature)
        (worth[row] * logps[picked(torch.tensor(ids, dtype=torch.long)).bool()]).sum().backward()
    return flat_gradient(model)


def flat_gradient(model) -> Float[Tensor, " weights"]:
    """One vector on the CPU; a weight without gradient has 0."""
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([each.flatten().float().cpu() for each in found])


def gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().mean()) if len(one) == len(other) > 0 else inf


def largest(values: Tensor) -> float:
    return values.nan_to_num(0.0).abs().max().item()
