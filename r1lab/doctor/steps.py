"""What two steps did to log-probs and weights, and what can be wrong with them.

The log-probs and gradients to compare with come from the model's own logits and from autograd:
slow, short, and independent of the sampler, the scorer and the loss that are examined. `RULES` says of
each illness, by its name in `findings.toml`, when the facts show it.
"""

from math import inf

import torch
from jaxtyping import Float
from torch import Tensor

from r1lab.doctor.trial import (
    EXACT, LEAST_RATE, Facts, Trial, endings, flat, gold, grades, logps_of, prompts, reading,
)  # fmt: skip
from r1lab.models.lora import own_parameters
from r1lab.objective import loss_normalizer
from r1lab.training.config import GRPOConfig
from r1lab.training.loop import Learner

GAP = 1e-3  # nats per token that two ways to compute a log-prob may be apart
LEAST_LEAP = 4e-4  # nats per token in one step: a hundredth of what the small world's runs take


def examine(learner: Learner, asked: GRPOConfig) -> Facts:
    """Train two steps and measure. The learner is used up.

    Args:
        learner: with the settings of `trial_config`.
        asked: the settings of the run that is tried.
    """
    trial = Trial(learner, asked)
    facts = {"asked": asked}
    for measure in (prompts, reading, gold, grades, endings, logprobs, steps, gradients, probes):
        facts |= measure(trial)
    return Facts(**facts)


@torch.no_grad()
def logprobs(trial):
    """Compare log-probs of sampler, scorer and reference with those from the logits.

    scored: tokens inside the loss mask for each one sampled.
    scorer_gap, scorer_highest: mean |scorer - logits|; the scorer's largest log-prob.
    sampler_gap, stale_gap, cold_gap: mean |sampler - logits|, the larger of the two rollouts; of
        the second against the weights before the first step; of the first at temperature 1.
    sampler_low: smallest (sampler - logits) of the first rollout.
    reference_gap: mean |reference policy - weights before the first step|.
    leap, reach: mean |change of log-prob| by the larger of the two steps, at the run's learning rate; at
        most, by all of its steps.
    """
    learner = trial.learner
    asked = trial.asked
    first, second = trial.experiences
    start, halfway, end = trial.models

    def under(model, one, temperature=asked.temperature):
        parts = logps_of(model, one, temperature)
        return torch.cat([logps[inside] for *_, inside, logps in parts])

    def read(policy):  # as the loss reads them
        by_row = learner.scored(policy, second)
        return torch.cat([by_row[row].cpu() for row in sorted(by_row)])

    sampled = [torch.cat(one.old_logps) for one in trial.experiences]
    stale = under(start, second)
    right = [under(start, first), under(halfway, second)]
    after = [under(halfway, first), under(end, second)]
    scored = read(learner.policy)
    leap = max(map(_gap, after, right)) * min(1.0, asked.learning_rate / LEAST_RATE)
    facts = {
        "scored": len(scored) / len(stale), "sampler_gap": max(map(_gap, sampled, right)),
        "sampler_low": float((sampled[0] - right[0]).min()), "stale_gap": _gap(sampled[1], stale),
        "leap": leap, "reach": leap * asked.steps,
    }  # fmt: skip
    if asked.temperature != 1:
        facts["cold_gap"] = _gap(sampled[0], under(start, first, 1.0))
    if facts["scored"] != 1:
        return facts
    if reference := learner.modules.get("reference"):
        facts["reference_gap"] = _gap(read(reference), stale)
    return facts | {"scorer_gap": _gap(scored, after[1]), "scorer_highest": float(scored.max())}


def _gap(one, other):
    return float((one - other).abs().mean())


def steps(trial):
    """See what the updates did.

    skipped, rate, gradient: updates left out; learning rate; the larger gradient norm.
    moved, unmoved: share of weight tensors that changed; the first that did not.
    taken: the first step as a multiple of AdamW's, which is the learning rate for each weight.
    shrunk: the share of it that only shrinks the weights.
    """
    start = own_parameters(trial.models[0])
    end = own_parameters(trial.models[2])
    still = [name for name, old in start.items() if torch.equal(old, end[name])]
    facts = {
        "skipped": sum(update["skipped"] for update in trial.updates),
        "rate": trial.updates[-1]["lr"],
        "gradient": max(update["grad_norm"] for update in trial.updates),
        "moved": 1 - len(still) / len(start), "unmoved": (still or [""])[0],
    }  # fmt: skip
    if trial.gradients:
        weights = flat(trial.models[0])
        step = flat(trial.models[1]) - weights
        adam = -facts["rate"] * trial.gradients[0].sign()
        (facts["taken"], decay), _ = explained(step, [adam, weights])
        facts["shrunk"] = abs(decay) * float(weights.norm() / step.norm())
    return facts


def gradients(trial):
    """Explain both gradients; of the second, the names begin with "second_"."""
    return dissected(trial, 0) | {f"second_{name}": value for name, value in dissected(trial, 1).items()}


def dissected(trial, number):
    """Explain a gradient as a sum of what may be in it.

    rest, end: it holds the true ones of the tokens before the end, and of end tokens, so many times.
    kept: and the one before it.
    decay: the share of it that only shrinks the weights.
    unexplained: the share that none of these explains.
    clip_left: the share that clipping left.
    """
    norm = trial.updates[number]["grad_norm"]
    if number >= len(trial.gradients) or not 0 < norm < inf:
        return {"decay": 0.0}
    used = trial.gradients[number]
    weights = flat(trial.models[0])
    before = trial.gradients[0] if number else torch.zeros_like(used)
    left = float(used.norm()) / norm
    parts = [*true_gradients(trial, number), weights, before]
    (rest, end, decay, carried), unexplained = explained(used / left, parts)
    return {
        "rest": rest, "end": end, "kept": carried, "decay": abs(decay) * float(weights.norm()) / norm,
        "unexplained": unexplained, "clip_left": left,
    }  # fmt: skip


def true_gradients(trial: Trial, number: int) -> list[Float[Tensor, " weights"]]:
    """Those of minus the objective of a rollout, advantage times log-prob: of the tokens before the end,
    and of end tokens."""
    config = trial.config
    model = trial.models[number]
    one = trial.experiences[number]
    gradients = []
    lengths = list(map(len, one.completion_ids))
    ends = torch.tensor([*trial.ends])
    worth = -one.advantages.flatten() / loss_normalizer(config.loss.aggregation, lengths, config.cap(0))
    if config.loss.aggregation == "sequence":
        worth = worth / torch.tensor(lengths).clamp(min=1)
    for of_end in (False, True):
        model.zero_grad()
        for rows, ids, inside, logps in logps_of(model, one, config.temperature):
            picked = inside & (torch.isin(ids, ends) == of_end)
            (worth[rows, None] * logps * picked).sum().backward()
        gradients.append(flat(model, gradient=True))
    return gradients


def explained(target: Tensor, parts: list[Tensor]) -> tuple[list[float], float]:
    """Solve target = sum of weight times part, in least squares.

    Returns the weights, NaN for a part that is 0, and the share of the target that is left."""
    units = torch.stack(parts)
    norms = units.norm(dim=1)
    units /= norms.clamp(min=1e-30)[:, None]
    weights = torch.linalg.pinv(units @ units.T, hermitian=True) @ (units @ target)
    left = float((target - weights @ units).norm() / target.norm())
    return (weights / norms).tolist(), left


def probes(trial):
    """Ask the loss about two rows of a token, whose log-probs under the policy are all 0.

    Is a policy that left its reference pulled back to it? Does a token whose ratio is beyond the
    clip, on the side of its advantage, still move?

    kl_pull: cosine of the KL term's gradient with the way back to the reference.
    clip_leak: gradient where all tokens are beyond the clip, over that where none is.
    """
    rule = trial.config.loss
    mask = torch.ones(2, 1, dtype=torch.bool)

    def pushed(advantages, ratios, leads):
        """The gradient, given each row's advantage, its ratio, and its reference's log-probs."""
        logps = torch.zeros(2, 1, requires_grad=True)
        old = -ratios.log()[:, None]
        reference = leads[:, None]
        loss, _ = trial.learner.loss(logps, old, reference, advantages, mask, rule)
        return torch.autograd.grad(loss, logps)[0]

    # Where nothing is ever clipped from below, both rows are too likely.
    even = torch.zeros(2)
    side = torch.tensor([1.0, -1.0 if rule.clip_low < 1 else 1.0])
    ratios = torch.where(side > 0, 1.5 + rule.clip_high, 0.8 * (1 - rule.clip_low))
    beyond, within = (pushed(sign * side, ratios, even).norm() for sign in (1, -1))
    facts = {"clip_leak": float(beyond / (within + 1e-12))}
    if rule.beta > 0:
        leads = torch.tensor([0.01, -0.01])
        pulled = pushed(even, even + 1, leads)[:, 0]
        facts["kl_pull"] = float(torch.cosine_similarity(pulled, -leads, dim=0))
    return facts


# The order counts: an illness may be the reason for those after it.
RULES = {
    "template not applied": lambda f: f.prompt_seen != f.prompt_wanted,
    "same question in all rows": lambda f: f.prompts == 1 < f.asked.questions and not f.unknown,
    "tokenizer of another model": lambda f: (
        # untrained, a model would find its own answers as unlikely
        f.surprise > 0.5 and f.estranged > 4.5 and f.asked.temperature == 1 and not f.unknown
    ),
    "sampler runs past the end token": lambda f: f.ran_past_end > 0,
    "end token cut off": lambda f: f.end_kept < 1,
    "prompt left in the completion": lambda f: "prompt" in f.said,
    "special tokens left in the completion": lambda f: "special" in f.said,
    "completions of another rollout": lambda f: "rollout" in f.said,
    "completion changed before grading": lambda f: "changed" in f.said,
    "gold answers of other rows": lambda f: "gold" in f.said,
    "rewards of other completions": lambda f: "scores" in f.said,
    "grader refuses gold answers": lambda f: "refused" in f.said,
    "grader accepts nonsense": lambda f: "nonsense" in f.said,
    "side reward outweighs accuracy": lambda f: 0 < 1.01 * f.truth < f.side[0],
    "temperature far from 1": lambda f: not 0.2 < f.asked.temperature < 3,
    "completions truncated": lambda f: f.cap < f.gold_tokens or (f.ended < 0.5 and f.ends_later),
    "end token never sampled": lambda f: f.ended == 0,
    "copies in the group": lambda f: f.distinct <= 1,
    "scorer log probs above 0": lambda f: f.scorer_highest > GAP,
    "scorer disagrees with the logits": lambda f: f.scorer_gap > GAP,
    "sampler keeps old weights": lambda f: f.stale_gap < GAP < f.sampler_gap,
    "log probs at another temperature": lambda f: f.cold_gap < GAP < f.sampler_gap,
    "log probs of a truncated distribution": lambda f: f.sampler_gap > GAP and f.sampler_low > -GAP,
    "sampler and scorer disagree": lambda f: f.sampler_gap > GAP,
    "mask does not fit the tokens": lambda f: f.scored != 1,
    "reward weights ignored": lambda f: f.off_weighted_sum > EXACT,
    "advantages upside down": lambda f: f.advantage_sign < 0,
    "advantages not of the group": lambda f: f.off_group > 1e-3,
    "group too small": lambda f: f.values < 3 and f.asked.group_size < 4,
    "reward never varies": lambda f: f.rewards_vary == 0,
    "tokenizer does not know the words": lambda f: f.unknown != "",
    "reference refreshed at every step": lambda f: (
        f.asked.loss.beta > 0 and f.asked.reference_every <= f.asked.minibatches < f.asked.steps
    ),
    "reference policy is wrong": lambda f: f.reference_gap > GAP,
    "update is not a number": lambda f: f.skipped > 0 or f.gradient != f.gradient,
    "learning rate is 0": lambda f: f.rate == 0,
    "warm up outlasts the run": lambda f: f.asked.warmup_steps > f.asked.steps,
    "clip range too narrow": lambda f: f.asked.loss.clip_high < 0.01,
    "gradient is 0": lambda f: f.rewards_vary > 0 and f.gradient < 1e-9,
    "gradient clipped to nothing": lambda f: f.clip_left < 1e-3 and not f.taken > 0.5,
    "optimizer holds other weights": lambda f: f.moved == 0,
    "frozen weights": lambda f: f.moved < 1,
    "weight decay dominates": lambda f: f.decay > 0.3 or f.shrunk > 0.3,
    "optimizer steps twice": lambda f: f.taken > 1.5,
    "step goes the wrong way": lambda f: f.rest < -0.1,
    "gradient of something else": lambda f: f.unexplained > 0.1,
    "end token outside the loss": lambda f: f.end < 0.5 * f.rest,
    "wrong normaliser": lambda f: abs(f.rest - 1) > 0.1,
    "kl term outweighs the reward": lambda f: f.asked.loss.beta > 0.5,
    "gradient of another batch": lambda f: f.second_rest < 0.5,
    "gradients kept": lambda f: f.second_kept > 0.3,
    "optimizer barely steps": lambda f: f.taken < 0.2,
    "learning rate too high": lambda f: f.leap > 0.5,
    "learning rate too low": lambda f: 0 < f.leap < LEAST_LEAP and f.reach < 0.3,
    "kl term does not pull back": lambda f: f.kl_pull < 0.9,
    "clip does not hold": lambda f: f.clip_leak > 0.05,
}
