"""Two real steps of a run, watched from outside and measured against the plainest way to do them.

The log-probs and gradients to compare with come from the model's own logits and from autograd:
slow, short, and independent of the sampler, the scorer and the loss that are examined.
"""

import copy
from collections.abc import Iterator
from dataclasses import replace
from math import nan
from operator import gt
from statistics import fmean
from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.utils import parameters_to_vector

from r1lab.errors import InputError
from r1lab.objective import group_advantages, groups_that_differ, loss_normalizer
from r1lab.rewards import RewardSet, validate
from r1lab.sampling import SamplingParams, end_ids
from r1lab.sources.templates import prompt_of
from r1lab.task import columns_of, gold_answer
from r1lab.training.config import GRPOConfig
from r1lab.training.loop import Learner
from r1lab.training.rollout import Experience

NEVER = 10**9


class Findings(SimpleNamespace):
    """What was measured: shares from 0 to 1, log-probs in nats per token, NaN for "not measured".

    prompt_wanted, prompt_seen: the first prompt as the template makes it, as the model reads it.
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


class Trial:
    """A learner, and what it does in two steps. Each is a rollout and one update on it.

    before: copies of the model, made before each rollout.
    experiences, updates: of the two rollouts.
    gradients: as the optimizer finds them, flat.
    """

    def __init__(self, learner: Learner):
        self.learner, self.model = learner, learner.policy.model
        self.before, self.experiences, self.updates, self.gradients = [], [], [], []
        learner.optimizer.register_step_pre_hook(
            lambda *_: self.gradients.append(flat_gradient(self.model))
        )
        for _ in range(2):
            self.before.append(copy.deepcopy(self.model).requires_grad_(True))
            learner.train(self._note)

    def _note(self, rollout, experience, updates):
        self.experiences.append(experience)
        self.updates += updates
        return True  # ends the training for now

    def all(self, name: str) -> list:
        """A field of the experiences, both in one list."""
        return [value for one in self.experiences for value in getattr(one, name)]


def trial_config(config: GRPOConfig) -> GRPOConfig:
    """Cut the run to two on-policy steps.

    A learning rate above 0 becomes at least 1e-4: what two steps change must show.
    """
    return replace(
        config, rollouts=2, questions=min(4, config.questions), minibatches=1, warmup_steps=1,
        group_size=min(8, config.group_size), caps=config.caps[:1],
        learning_rate=config.learning_rate and max(1e-4, config.learning_rate),
        reference_every=NEVER, skipped_limit=NEVER, precision="float32",
    )  # fmt: skip


def examine(learner: Learner) -> Findings:
    """Train two steps and measure. The learner is used up.

    Args:
        learner: with the settings of `trial_config`.
    """
    trial, found = Trial(learner), {}
    for measure in (prompts, gold, grades, endings, logprobs, steps, gradient, probes):
        found |= measure(trial)
    return Findings(**found)


def prompts(trial):
    learner, experience = trial.learner, trial.experiences[0]
    wanted = prompt_of(learner.task, experience.problems[0], learner.tokenizer)
    ids = {"wanted": learner.tokenizer(wanted).input_ids, "seen": experience.prompt_ids[0]}
    return {f"prompt_{name}": learner.tokenizer.decode(text) for name, text in ids.items()}


def gold(trial):
    """Check that the rewards and the task's check tell a gold answer from the word 'nonsense'."""
    task, refused, passes, earned = trial.learner.task, "", "", []
    rewards = RewardSet(task.rewards)
    asked = trial.experiences[0].problems[:: trial.learner.config.group_size]
    solved = [replace(problem, solution=gold_answer(problem)) for problem in asked]
    problems = [problem for problem in solved if problem.solution]
    try:
        validate(rewards, problems, task.check)
    except InputError as error:
        refused = str(error)
    for answers in ([p.solution for p in problems], ["nonsense"] * len(problems)):
        texts = [f"<think> </think> <answer> {answer} </answer>" for answer in answers]
        _, parts = rewards([p.prompt for p in problems], texts, **columns_of(problems))
        earned.append([sum(filter(None, scores)) for scores in parts.values()])
    if problems and not any(map(gt, *earned)):
        passes = "gold and nonsense earn the same from every reward"
    elif task.check and any(map(task.check, texts, problems)):
        passes = "the task's check takes nonsense for right"
    return {"gold_refused": refused, "nonsense_passes": passes}


def grades(trial):
    config, totals = trial.learner.config, torch.stack(trial.all("totals"))
    sums = torch.zeros(totals.numel())
    for name, (_, weight) in RewardSet(trial.learner.task.rewards).rewards.items():
        scores = [score or 0.0 for one in trial.experiences for score in one.rewards[name]]
        sums += weight * torch.tensor(scores)
    advantages = torch.stack(trial.all("advantages"))
    right = group_advantages(totals, divide_by_std=config.divide_by_std)
    texts = trial.all("completions")
    return {
        "off_weighted_sum": largest(totals.flatten() - sums),
        "rewards_vary": groups_that_differ(totals).float().mean().item(),
        "reward_mean": totals.nanmean().item(),
        "off_group": largest(advantages - right),
        "advantage_sign": float((advantages * right).sum()),
        "distinct": max(len(set(group)) for group in zip(*[iter(texts)] * config.group_size)),
    }


def endings(trial):
    learner, config = trial.learner, trial.learner.config
    ends, ids = set(end_ids(trial.model, learner.tokenizer)), trial.all("completion_ids")
    ended = [row for row, how in zip(ids, trial.all("finish")) if how == "stop"]
    cap, later = config.cap(0), bool(ended)
    if not ended:
        limit = getattr(trial.model.config, "max_position_embeddings", None) or NEVER
        asked = trial.experiences[0].prompt_ids[:: config.group_size]
        longest = min(8 * cap, limit - max(map(len, asked)))
        params = SamplingParams(n=4, temperature=config.temperature, max_tokens=longest)
        later = "stop" in learner.sampler.generate(asked, params).finish
    return {
        "ended": len(ended) / len(ids), "ends_later": later, "cap": cap,
        "ran_past_end": fmean(not ends.isdisjoint(row[:-1]) for row in ids),
        "end_kept": fmean(not ends.isdisjoint(row[-1:]) for row in ended) if ended else nan,
    }  # fmt: skip


@torch.no_grad()
def logprobs(trial):
    learner, (first, second) = trial.learner, trial.experiences
    temperature = learner.config.temperature

    def own(model, experience, temperature=temperature):
        return torch.cat([row.cpu() for row in read(model, experience, temperature)])

    def trimmed(rows):  # to the tokens that were sampled
        return torch.cat([rows[i][: len(ids)].cpu() for i, ids in enumerate(second.completion_ids)])

    sampled = [torch.cat(one.old_logps) for one in trial.experiences]
    right, stale = list(map(own, trial.before, trial.experiences)), own(trial.before[0], second)
    inside, reference = learner.scored(learner.policy, second), learner.reference_logps(second)
    scored, reference_gap = trimmed(inside), gap(trimmed(reference), stale) if reference else nan
    exact = next(learner.policy.parameters()).dtype == torch.float32
    return {
        "scored": sum(map(len, inside.values())) / max(1, len(scored)),
        "scorer_gap": gap(scored, own(trial.model, second)), "scorer_highest": float(scored.max()),
        "sampler_gap": max(map(gap, sampled, right)), "stale_gap": gap(sampled[1], stale),
        "cold_gap": gap(sampled[0], own(trial.before[0], first, 1.0)),
        "sampler_low": float((sampled[0] - right[0]).min()), "reference_gap": reference_gap,
        "tolerance": 1e-3 if exact else 0.05, "temperature": temperature,
    }  # fmt: skip


def steps(trial):
    after = list(trial.model.named_parameters())
    pairs = zip(after, trial.before[0].parameters())
    still = [name for (name, new), old in pairs if torch.equal(new, old)]
    return {
        "skipped": sum(update["skipped"] for update in trial.updates),
        "rate": trial.updates[-1]["lr"],
        "gradient": max(update["grad_norm"] for update in trial.updates),
        "moved": 1 - len(still) / len(after), "unmoved": (still or [""])[0],
    }  # fmt: skip


def gradient(trial):
    """Solve: gradient = a x (that of tokens before the end) + b x (that of end tokens) + rest.

    Both are of minus the on-policy objective, which is advantage times log-prob."""
    config, model, experience = trial.learner.config, trial.before[0], trial.experiences[0]
    ends = torch.tensor(end_ids(trial.model, trial.learner.tokenizer))
    lengths = [len(row) for row in experience.completion_ids]
    worth = experience.advantages.flatten()
    worth = worth * -1 / loss_normalizer(config.loss.aggregation, lengths, config.cap(0))
    if config.loss.aggregation == "sequence":
        worth = worth / torch.tensor(lengths).clamp(min=1)
    parts = []
    for of_end in (False, True):
        model.zero_grad()
        rows = read(model, experience, config.temperature)
        for weight, ids, logps in zip(worth, experience.completion_ids, rows):
            picked = torch.isin(torch.tensor(ids, dtype=torch.long), ends) == of_end
            (weight * logps[picked]).sum().backward()
        parts.append(flat_gradient(model))
    parts = torch.stack(parts)
    parts = parts[parts.norm(dim=1) > 0]
    norm, weights, unexplained = trial.updates[0]["grad_norm"], [nan, nan], nan
    if len(parts) and trial.gradients and norm > 0:
        used = trial.gradients[0] * (norm / trial.gradients[0].norm())  # as before clipping
        fitted = torch.linalg.solve(parts @ parts.T, parts @ used)
        unexplained = float((used - fitted @ parts).norm() / norm)
        weights = fitted.tolist() + weights
    return {"part_of_rest": weights[0], "part_of_end": weights[1], "unexplained": unexplained}


def probes(trial):
    """Ask the loss about two rows of four tokens, whose log-probs under the policy are all 0.

    Is a policy that left its reference pulled back to it? Does a token whose ratio is beyond the
    clip, on the side of its advantage, still move?"""
    rule, mask = trial.learner.config.loss, torch.ones(2, 4, dtype=torch.bool)

    def pushed(advantages, ratios, leads):
        """The gradient, given each row's advantage, its ratio, and its reference's log-probs."""
        logps = torch.zeros(2, 4, requires_grad=True)
        old, reference = -ratios.log()[:, None] * mask, leads[:, None] * mask
        loss, _ = trial.learner.loss(logps, old, reference, advantages, mask, rule)
        return torch.autograd.grad(loss, logps)[0]

    # Where nothing is ever clipped from below, both rows are too likely.
    even, up = torch.zeros(2), torch.tensor([True, rule.clip_low >= 1])
    side = torch.where(up, 1.0, -1.0)
    ratios = torch.where(up, 1.5 + rule.clip_high, 0.8 * (1 - rule.clip_low))
    beyond, within = (pushed(sign * side, ratios, even).norm() for sign in (1, -1))
    leads = torch.tensor([0.01, -0.01])
    pulled = pushed(even, even + 1, leads).sum(1)
    pull = float(torch.cosine_similarity(pulled, -leads, dim=0)) if rule.beta > 0 else nan
    return {"kl_pull": pull, "clip_leak": float(beyond / (within + 1e-12))}


def read(model, experience: Experience, temperature: float) -> Iterator[Float[Tensor, " tokens"]]:
    """Yield the log-probs of each completion's tokens, from the model's logits."""
    for prompt, completion in zip(experience.prompt_ids, experience.completion_ids):
        ids = torch.tensor([prompt + completion], device=model.device)
        logits = model(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 : -1].float()
        chosen = ids[0, len(prompt) :, None]
        yield (logits / temperature).log_softmax(-1).gather(1, chosen)[:, 0]


def flat_gradient(model) -> Float[Tensor, " weights"]:
    """Return one vector on the CPU; a weight without gradient has 0."""
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return parameters_to_vector(found).float().cpu()


def gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().mean())


def largest(values: Tensor) -> float:
    return values.nan_to_num(0.0).abs().max().item()
