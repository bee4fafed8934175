"""Two real steps of a run, watched from outside and measured against the plainest way to do them.

The log-probs and gradients to compare with come from the model's own logits and from autograd:
slow, short, and independent of the sampler, the scorer and the loss that are examined.
"""

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, replace
from math import inf, log, nan
from types import SimpleNamespace

import torch
from jaxtyping import Float
from torch import Tensor

from r1lab.errors import InputError
from r1lab.objective import group_advantages, groups_that_differ, loss_normalizer
from r1lab.rewards import RewardSet, validate
from r1lab.sampling import SamplingParams, TorchSampler
from r1lab.sources.templates import prompt_of
from r1lab.task import Problem
from r1lab.training.batching import pad_rows
from r1lab.training.config import GRPOConfig
from r1lab.training.rollout import Experience
from r1lab.training.loop import Learner

ROWS = 8  # whose logits are held at once
NEVER = 10**9


class Findings(SimpleNamespace):
    """What was measured: shares from 0 to 1, log-probs in nats per token, NaN for "not measured".

    prompt_wanted, prompt_seen: as the template makes it, as the model reads it; where they differ,
        the first that does.
    gold_refused: which reward refuses which gold answer; empty if none does.
    tells_right_from_wrong: some reward scores gold above nonsense.
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
class Watched:
    """A learner, and what it did."""

    learner: Learner
    before: list = field(default_factory=list)  # copies of the model, made before each rollout
    experiences: list[Experience] = field(default_factory=list)
    updates: list[dict] = field(default_factory=list)
    gradients: list[Tensor] = field(default_factory=list)  # flat: the first one, and the latest


def trial_config(config: GRPOConfig) -> GRPOConfig:
    """The run, cut to two on-policy steps. Raises InputError as a run does.

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
    seen, model, task = Watched(learner), learner.policy.model, learner.task
    rewards = RewardSet.of(task.rewards)

    def ask(seed: int, rollout: int, count: int) -> list[Problem]:
        if len(seen.before) == rollout:  # the loop may look at the questions more than once
            seen.before.append(copy.deepcopy(model).requires_grad_(True))
        return task.draw(seed, rollout, count)

    def note(rollout: int, experience: Experience, updates: list[dict]) -> bool:
        seen.experiences.append(experience)
        seen.updates += updates
        return False

    def look(*_) -> None:  # as the optimizer finds them
        seen.gradients[1:] = [_flat([p.grad for p in model.parameters()], model)]

    learner.optimizer.register_step_pre_hook(look)
    learner.task = replace(task, problems=ask)
    learner.train(note)
    return Findings(
        **_prompts(seen), **_grades(seen, rewards), **_endings(seen), **_logprobs(seen),
        **_steps(seen), **_gradient(seen), **_probes(seen),
    )  # fmt: skip


def _prompts(seen: Watched) -> dict:
    learner, experience = seen.learner, seen.experiences[0]
    pairs = []
    for number, problem in enumerate(experience.problems):
        ids = experience.prompt_ids[number * learner.config.group_size]
        wanted = prompt_of(learner.task, problem, learner.tokenizer)
        right = ids == learner.tokenizer(wanted).input_ids
        pairs.append((wanted, wanted if right else learner.tokenizer.decode(ids)))
    worst = max(pairs, key=lambda pair: pair[0] != pair[1])
    return {"prompt_wanted": worst[0], "prompt_seen": worst[1]}


def _grades(seen: Watched, rewards: RewardSet) -> dict:
    problems, size = seen.experiences[0].problems, seen.learner.config.group_size
    refused = ""
    try:
        validate(rewards, problems)
    except InputError as error:
        refused = str(error)
    gold, nonsense = (_scores(rewards, problems, answer) for answer in (None, "nonsense"))
    totals = torch.cat([one.totals for one in seen.experiences])
    sums = torch.zeros(totals.numel())
    for name, (_, weight) in rewards.rewards.items():
        scores = [score or 0.0 for one in seen.experiences for score in one.rewards[name]]
        sums += weight * torch.tensor(scores)
    advantages = torch.cat([one.advantages for one in seen.experiences])
    right = group_advantages(totals, divide_by_std=seen.learner.config.divide_by_std)
    texts = [text for one in seen.experiences for text in one.completions]
    return {
        "gold_refused": refused,
        "tells_right_from_wrong": any(sum(gold[name]) > sum(nonsense[name]) for name in gold),
        "off_weighted_sum": _largest(totals.flatten() - sums),
        "rewards_vary": groups_that_differ(totals).float().mean().item(),
        "reward_mean": totals.nanmean().item(),
        "off_group": _largest(advantages - right),
        "advantage_sign": float((advantages * right).sum()),
        "distinct": max(len(set(texts[i : i + size])) for i in range(0, len(texts), size)),
    }  # fmt: skip


def _scores(rewards: RewardSet, problems: list[Problem], answer: str | None) -> dict[str, list]:
    """What one answer to each problem earns, by reward; the gold answers for None."""
    texts = [f"<think> </think> <answer> {answer or p.solution} </answer>" for p in problems]
    rows = [asdict(problem) for problem in problems]
    columns = {name: [row[name] for row in rows] for name in rows[0] if name != "prompt"}
    _, parts = rewards(prompts=[p.prompt for p in problems], completions=texts, **columns)
    return {name: [score or 0.0 for score in scores] for name, scores in parts.items()}


def _endings(seen: Watched) -> dict:
    learner, ends = seen.learner, _end_ids(seen.learner)
    ids = [row for one in seen.experiences for row in one.completion_ids]
    finish = [how for one in seen.experiences for how in one.finish]
    last = [row[-1:] for row, how in zip(ids, finish, strict=True) if how == "stop"]
    cap, later = learner.config.cap(0), bool(last)
    if not last:
        limit = getattr(learner.policy.model.config, "max_position_embeddings", None) or NEVER
        prompts = seen.experiences[0].prompt_ids[:: learner.config.group_size]
        longest = min(8 * cap, limit - max(map(len, prompts)))
        params = SamplingParams(n=4, temperature=learner.config.temperature, max_tokens=longest)
        later = "stop" in learner.sampler.generate(prompts, params).finish
    return {
        "ended": len(last) / len(ids), "ends_later": later, "cap": cap,
        "ran_past_end": sum(not ends.isdisjoint(row[:-1]) for row in ids) / len(ids),
        "end_kept": sum(not ends.isdisjoint(row) for row in last) / len(last) if last else nan,
    }  # fmt: skip


def _logprobs(seen: Watched) -> dict:
    learner, (first, second) = seen.learner, seen.experiences
    warmth, counts = learner.config.temperature, list(map(len, second.completion_ids))
    sampled = [torch.cat(one.old_logps) for one in seen.experiences]
    own = [_read(model, one, warmth) for model, one in zip(seen.before, seen.experiences)]
    stale = _read(seen.before[0], second, warmth)
    with torch.no_grad():
        out, inside = learner._score(learner.policy, second, list(range(len(counts))))
    scored = torch.cat([line[:count] for line, count in zip(out.logp.cpu(), counts, strict=True)])
    reference = [row.cpu() for _, row in sorted(learner.reference_logps(second).items())]
    exact = next(learner.policy.parameters()).dtype == torch.float32
    return {
        "scored": int(inside.sum()) / max(1, sum(counts)),
        "scorer_gap": _gap(scored, _read(learner.policy.model, second, warmth)),
        "scorer_highest": float(out.logp.max()),
        "sampler_gap": max(map(_gap, sampled, own)), "stale_gap": _gap(sampled[1], stale),
        "cold_gap": _gap(sampled[0], _read(seen.before[0], first, 1.0)),
        "sampler_low": float((sampled[0] - own[0]).min()),
        "tolerance": 1e-3 if exact else 0.05, "temperature": warmth,
        "reference_gap": _gap(torch.cat(reference), stale) if reference else nan,
    }  # fmt: skip


def _steps(seen: Watched) -> dict:
    after = list(seen.learner.policy.model.named_parameters())
    pairs = zip(after, seen.before[0].parameters(), strict=True)
    still = [name for (name, new), old in pairs if torch.equal(new, old)]
    return {
        "skipped": sum(update["skipped"] for update in seen.updates),
        "rate": seen.updates[-1]["lr"],
        "gradient": max(update["grad_norm"] for update in seen.updates),
        "moved": 1 - len(still) / len(after), "unmoved": (still or [""])[0],
    }  # fmt: skip


def _gradient(seen: Watched) -> dict:
    """Solve: gradient = a x (that of tokens before the end) + b x (that of end tokens) + rest."""
    parts = _true_gradient(seen.before[0], seen.experiences[0], seen.learner)
    norm, weights, unexplained = seen.updates[0]["grad_norm"], [nan, nan], nan
    parts = parts[parts.norm(dim=1) > 0]
    if len(parts) and seen.gradients and norm > 0:
        used = seen.gradients[0] * (norm / seen.gradients[0].norm())  # as before clipping
        fitted = torch.linalg.solve(parts @ parts.T, parts @ used)
        unexplained = float((used - fitted @ parts).norm() / norm)
        weights = fitted.tolist() + weights
    return {"part_of_rest": weights[0], "part_of_end": weights[1], "unexplained": unexplained}


def _probes(seen: Watched) -> dict:
    """Two questions to the loss. Is a policy that left its reference pulled back to it? Does a
    token whose ratio is beyond the clip, on the side of its advantage, still move?"""
    learner, experience, rule = seen.learner, seen.experiences[1], seen.learner.config.loss
    counts = list(map(len, experience.completion_ids))
    ones, up = torch.ones_like(experience.advantages), torch.arange(len(counts)) % 2 == 0
    low = 0.8 * (1 - rule.clip_low)
    if low <= 0:  # nothing is ever clipped from below
        up, low = torch.ones_like(up), 1.0
    ratios = torch.where(up, 1.5 + rule.clip_high, low).tolist()

    def answer(advantages: Tensor, ratios: list[float], leads: list[float]) -> Tensor:
        own = _read(learner.policy.model, experience, learner.config.temperature).split(counts)
        asked = replace(
            experience, advantages=advantages.view_as(ones),
            old_logps=[row - log(ratio) for row, ratio in zip(own, ratios, strict=True)],
        )  # fmt: skip
        leading = {number: row + leads[number] for number, row in enumerate(own)}
        learner.update(asked, leading, list(range(len(counts))))
        return seen.gradients[-1]

    pull, leak = nan, nan
    if seen.gradients:
        side, even = torch.where(up, 1.0, -1.0), [0.0] * len(counts)
        beyond, within = (answer(sign * side, ratios, even).norm() for sign in (1, -1))
        leak = float(beyond / (within + 1e-12))
        if rule.beta > 0:
            leads = torch.tensor([0.01, -0.01]).repeat(len(counts))[: len(counts)]
            twin = copy.deepcopy(learner.policy.model).requires_grad_(True)
            wanted = replace(experience, advantages=leads.view_as(ones))
            back = _true_gradient(twin, wanted, learner).sum(0)
            pulled = answer(0.0 * ones, [1.0] * len(counts), leads.tolist())
            pull = float(torch.cosine_similarity(pulled, back, dim=0))
    return {"kl_pull": pull, "clip_leak": leak}


def _logits(model, experience: Experience) -> Iterator[list[tuple[int, Tensor]]]:
    """(row, logits [tokens, vocab] that its completion was chosen by), a few rows at a time."""
    prompts, completions = experience.prompt_ids, experience.completion_ids
    for start in range(0, len(prompts), ROWS):
        rows = range(start, min(start + ROWS, len(prompts)))
        ids, _ = pad_rows([prompts[row] for row in rows], [completions[row] for row in rows], 0)
        logits = model(input_ids=ids.to(model.device), use_cache=False).logits.float()
        yield [
            (row, line[len(prompts[row]) - 1 :][: len(completions[row])])
            for row, line in zip(rows, logits, strict=True)
        ]


def _chosen(logits: Tensor, ids: list[int], temperature: float) -> Float[Tensor, " tokens"]:
    picked = torch.tensor(ids, dtype=torch.long, device=logits.device)[:, None]
    return (logits / temperature).log_softmax(-1).gather(1, picked)[:, 0]


@torch.no_grad()
def _read(model, experience: Experience, temperature: float) -> Float[Tensor, " tokens"]:
    """Log-probs of all completion tokens, row after row."""
    ids = experience.completion_ids
    rows = (pair for some in _logits(model, experience) for pair in some)
    return torch.cat([_chosen(logits, ids[row], temperature).cpu() for row, logits in rows])


def _true_gradient(
    model, experience: Experience, learner: Learner
) -> Float[Tensor, "2 weights"]:
    """Of minus the on-policy objective: that of tokens before the end, that of end tokens."""
    config, ids = learner.config, experience.completion_ids
    lengths, ends = list(map(len, ids)), torch.tensor(sorted(_end_ids(learner)))
    scale = -1 / loss_normalizer(config.loss.aggregation, lengths, config.cap(0))
    worth = scale * experience.advantages.flatten()
    if config.loss.aggregation == "sequence":
        worth = worth / torch.tensor(lengths).clamp(min=1)
    weights, parts = list(model.parameters()), 0
    for some in _logits(model, experience):
        split: list[list[Tensor]] = [[], []]
        for row, logits in some:
            each = worth[row] * _chosen(logits, ids[row], config.temperature)
            is_end = torch.isin(torch.tensor(ids[row]), ends).to(each.device)
            split[0].append(each[~is_end])
            split[1].append(each[is_end])
        losses = [torch.cat(own).sum() for own in split]
        found = [torch.autograd.grad(loss, weights, retain_graph=True) for loss in losses]
        parts = parts + torch.stack([_flat(own, model) for own in found])
    return parts


def _flat(gradients, model) -> Float[Tensor, " weights"]:
    """One vector on the CPU; a weight without gradient has 0."""
    pairs = zip(gradients, model.parameters(), strict=True)
    found = [torch.zeros_like(p) if own is None else own.detach() for own, p in pairs]
    return torch.cat([own.flatten().float().cpu() for own in found])


def _end_ids(learner: Learner) -> set[int]:
    return set(TorchSampler(learner.policy.model, learner.tokenizer).end_ids)


def _gap(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().mean()) if len(one) == len(other) > 0 else inf


def _largest(values: Tensor) -> float:
    return values.nan_to_num(0.0).abs().max().item()
