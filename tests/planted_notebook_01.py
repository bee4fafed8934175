"""Solutions of notebook 01's exercises: right ones in several styles, wrong ones as learners and
published code write them. Each wrong one is wrong in one way, which its key says."""

import math
import statistics

import torch
from tests.planted_edits import edits

RIGHT, WRONG = {}, {}


def population_std(rewards):
    return rewards.std(1, keepdim=True, unbiased=False)


def centered(rewards):
    return rewards - rewards.mean(1, keepdim=True)


def advantages_of(rewards):
    return centered(rewards) / (population_std(rewards) + 1e-6)


# ---- group_advantages(rewards) -------------------------------------------------------------------


def advantages_in_a_loop(rewards):
    rows = []
    for group in rewards.tolist():
        mean, spread = statistics.fmean(group), statistics.pstdev(group)
        rows.append([(reward - mean) / (spread + 1e-6) for reward in group])
    return torch.tensor(rows, dtype=rewards.dtype)


def advantages_by_projection(rewards):
    size = rewards.shape[1]
    center = torch.eye(size, dtype=rewards.dtype) - 1 / size
    differences = torch.einsum("qi,ij->qj", rewards, center)
    spread = torch.einsum("qi,qi->q", differences, differences).div(size).sqrt()
    return torch.where(spread[:, None] > 1e-5, differences / (spread[:, None] + 1e-6), 0.0)


RIGHT["group_advantages"] = {
    "population std, in one line": advantages_of,
    "sample std (ddof 1)": lambda r: (r - r.mean(-1, True)) / (r.std(-1, keepdim=True) + 1e-6),
    "a loop over Python numbers": advantages_in_a_loop,
    "einsum with the centring matrix": advantages_by_projection,
}
WRONG["group_advantages"] = {
    "std over the whole batch": lambda r: centered(r) / (r.std() + 1e-6),
    "mean over the whole batch": lambda r: (r - r.mean()) / (population_std(r) + 1e-6),
    "groups read along the wrong dimension": lambda r: (r - r.mean(0)) / (r.std(0) + 1e-6),
    "no epsilon: equal rewards give NaN": lambda r: centered(r) / population_std(r),
    "divided by the variance": lambda r: centered(r) / (population_std(r) ** 2 + 1e-6),
    "never divided by the std": centered,
    "mean not subtracted": lambda r: r / (population_std(r) + 1e-6),
    "returned flat, one row for all groups": lambda r: advantages_of(r).flatten(),
    "centres its input in place": lambda r: r.sub_(r.mean(1, keepdim=True)) / (population_std(r) + 1e-6),
    "divided by the mean instead of the std": lambda r: centered(r) / (r.mean(1, keepdim=True) + 1e-6),
}

# ---- clipped_objective(ratio, advantages, clip_low, clip_high) -----------------------------------


def objective_by_minimum(r, A, low, high):
    return torch.minimum(r * A, r.clamp(1 - low, 1 + high) * A)


def objective_by_sign(ratio, advantages, clip_low, clip_high):
    gain = ratio.clamp(max=1 + clip_high) * advantages
    loss = ratio.clamp(min=1 - clip_low) * advantages
    return torch.where(advantages > 0, gain, loss)


def objective_in_a_loop(r, A, low, high):
    rows = []
    for ratios, advantage in zip(r, A[:, 0]):
        tokens = [min(x * advantage, x.clamp(1 - low, 1 + high) * advantage) for x in ratios]
        rows.append(torch.stack(tokens))
    return torch.stack(rows)


RIGHT["clipped_objective"] = {
    "the minimum of two products": objective_by_minimum,
    "one side clipped, by the advantage's sign": objective_by_sign,
    "a loop over tokens": objective_in_a_loop,
}
WRONG["clipped_objective"] = {
    "maximum for negative advantages": lambda r, A, low, high: r.clamp(max=1 + high) * A,
    "never clipped": lambda r, A, low, high: r * A,
    "clip_low on both sides": lambda r, A, low, high: objective_by_minimum(r, A, low, low),
    "the two bounds exchanged": lambda r, A, low, high: objective_by_minimum(r, A, high, low),
    "clipped from above only": lambda r, A, low, high: objective_by_minimum(r, A, math.inf, high),
    "the sign of a loss": lambda *args: -objective_by_minimum(*args),
    "already averaged to one number": lambda *args: objective_by_minimum(*args).mean(),
} | edits(objective_by_minimum, {
    "clipped without the minimum": ("torch.minimum(r * A, ", "("),
    "log-ratio clipped to [-low, high]": ("r.clamp(1 - low, 1 + high)", "r.log().clamp(-low, high).exp()"),
    "right values, but the gradient passes through the clip": (
        "r.clamp(1 - low, 1 + high)", "(r + (r.clamp(1 - low, 1 + high) - r).detach())"),
    "dual clip: bounded below by 3 A": (
        "return ", "return torch.where(A < 0, 3 * A, -math.inf).maximum(", "A)", "A))"),
})  # fmt: skip

# ---- kl_penalty(logps, ref_logps) ----------------------------------------------------------------


def k3(logps, ref_logps):
    return (ref_logps - logps).exp() - (ref_logps - logps) - 1


def k3_over_k2(logps, ref_logps):
    """The value of k3 over the gradient of k2, which is the KL's own on-policy."""
    k2 = (ref_logps - logps) ** 2 / 2
    return k2 + (k3(logps, ref_logps) - k2).detach()


RIGHT["kl_penalty"] = {
    "the formula": k3,
    "value of k3, gradient of k2": k3_over_k2,
    "expm1, exact for small differences": lambda p, q: torch.expm1(q - p) + p - q,
    "a quotient of probabilities": lambda p, q: q.exp() / p.exp() - (q.exp() / p.exp()).log() - 1,
}
WRONG["kl_penalty"] = {
    "k1, whose expected gradient as a loss is 0": lambda p, q: p - q,
    "value of k3, gradient of k1 (ratio detached)": lambda p, q: (q - p).exp().detach() - (q - p) - 1,
    "value of k3, no gradient": lambda p, q: k3(p.detach(), q),
    "k2, half the squared log-ratio": lambda p, q: 0.5 * (p - q) ** 2,
    "policy and reference exchanged": lambda p, q: k3(q, p),
    "sign reversed: pays for divergence": lambda p, q: -k3(p, q),
    "absolute log-ratio": lambda p, q: (p - q).abs(),
    "the log-ratio not subtracted": lambda p, q: (q - p).exp() - 1,
    "the final -1 forgotten": lambda p, q: k3(p, q) + 1,
    "clamped at 10": lambda p, q: k3(p, q).clamp(max=10),
    "averaged over the completion": lambda p, q: k3(p, q).mean(1),
}

# ---- token_mean(per_token, mask) -----------------------------------------------------------------


def kept(per_token, mask):
    return torch.where(mask.bool(), per_token, torch.zeros_like(per_token))


def token_mean_in_a_loop(per_token, mask):
    tokens = [x for row, keep in zip(per_token, mask) for x, k in zip(row, keep) if k]
    return sum(tokens) / len(tokens)


RIGHT["token_mean"] = {
    "the kept tokens' mean": lambda x, mask: x[mask.bool()].mean(),
    "where, then sum over count": lambda x, mask: kept(x, mask).sum() / mask.sum(),
    "einsum over cleaned tokens": lambda x, m: torch.einsum("bt,bt->", kept(x, m), m.to(x.dtype)) / m.sum(),
    "a loop": token_mean_in_a_loop,
}
WRONG["token_mean"] = {
    "mean of the completions' means": lambda x, mask: (kept(x, mask).sum(1) / mask.sum(1)).mean(),
    "padding counts in the denominator": lambda x, mask: kept(x, mask).mean(),
    "multiplied by the mask: a masked NaN leaks": lambda x, mask: (x * mask).sum() / mask.sum(),
    "NaN removed, a masked infinity leaks": lambda x, m: (torch.where(x.isnan(), 0, x) * m).sum() / m.sum(),
    "divided by the number of completions": lambda x, mask: kept(x, mask).sum() / len(mask),
    "mask shifted by one token": lambda x, mask: x[:, :-1][mask[:, 1:].bool()].mean(),
    "first token of each completion left out": lambda x, mask: x[:, 1:][mask[:, 1:].bool()].mean(),
    "tokens that happen to be 0 are taken for padding": lambda x, m: kept(x, m).sum() / (m * (x != 0)).sum(),
    "mask inverted": lambda x, mask: x[~mask.bool()].mean(),
    "sum, never divided": lambda x, mask: kept(x, mask).sum(),
    "one number per completion": lambda x, mask: kept(x, mask).sum(1) / mask.sum(1),
    "divided by the longest completion's length": lambda x, m: kept(x, m).sum() / (len(m) * m.sum(1).max()),
}

# ---- grpo_loss(logps, old_logps, ref_logps, rewards, mask, beta) ---------------------------------


def clipped(ratio, advantages):
    return torch.minimum(ratio * advantages, ratio.clamp(0.8, 1.2) * advantages)


def grpo(logps, old_logps, ref_logps, rewards, mask, beta):
    column = advantages_of(rewards).detach().reshape(-1, 1)
    ratio = (logps - old_logps).exp()
    per_token = clipped(ratio, column) - beta * k3(logps, ref_logps)
    return -kept(per_token, mask).sum() / mask.sum()


def grpo_of_kept_tokens(logps, old_logps, ref_logps, rewards, mask, beta):
    with torch.no_grad():
        advantages = (rewards - rewards.mean(-1, True)) / (rewards.std(-1, keepdim=True) + 1e-6)
        per_token = advantages.flatten().repeat_interleave(logps.shape[1]).view_as(logps)[mask]
    new, old, ref = logps[mask], old_logps[mask], ref_logps[mask]
    policy = -clipped(torch.exp(new - old), per_token)
    return (policy + beta * k3(new, ref)).mean()


def grpo_in_a_loop(logps, old_logps, ref_logps, rewards, mask, beta):
    total, count = 0.0, 0
    for i, (question, answer) in enumerate(torch.cartesian_prod(*map(torch.arange, rewards.shape))):
        group = rewards[question].detach()
        advantage = (group[answer] - group.mean()) / (group.std(unbiased=False) + 1e-6)
        for t in mask[i].nonzero().flatten():
            ratio = (logps[i, t] - old_logps[i, t]).exp()
            gain = min(ratio * advantage, ratio.clamp(0.8, 1.2) * advantage)
            total = total + gain - beta * k3(logps[i, t], ref_logps[i, t])
            count += 1
    return -total / count


RIGHT["grpo_loss"] = {
    "line by line": grpo, "on the kept tokens only, sample std": grpo_of_kept_tokens,
    "a loop over completions and tokens": grpo_in_a_loop,
}  # fmt: skip
WRONG["grpo_loss"] = edits(grpo, {
    "the objective, not its negative": ("return -", "return "),
    "advantages not detached": (".detach()", ""),
    "std over the batch": ("advantages_of(rewards)", "(centered(rewards) / (rewards.std() + 1e-6))"),
    "completions matched to questions in the wrong order": ("_of(rewards)", "_of(rewards).T"),
    "maximum for negative advantages": ("clipped(ratio, column)", "ratio.clamp(max=1.2) * column"),
    "never clipped": ("clipped(ratio, column)", "ratio * column"),
    "KL term added to the objective": ("- beta", "+ beta"),
    "k1 differentiated as the KL term": ("k3(logps, ref_logps)", "(logps - ref_logps)"),
    "beta ignored": (" - beta * k3(logps, ref_logps)", ""),
    "mean over completions, not tokens": ("sum() / mask.sum()", "sum(1).div(mask.sum(1)).mean()"),
    "padding counts in the mean": ("kept(per_token, mask).sum() / mask.sum()", "per_token.mean()"),
    "ratio to itself: old log-probs unused": ("- old_logps", "- logps.detach()"),
    "ratio's gradient cancelled": ("(logps - old_logps)", "(logps - old_logps).detach()"),
    "a number without gradient": ("sum() / mask.sum()", "sum().item() / mask.sum().item()"),
})  # fmt: skip

# ---- gae(rewards, values, lam, gamma=1.0) --------------------------------------------------------


def gae_backward(rewards, values, lam, gamma=1.0):
    steps, running, T = [], torch.zeros_like(rewards[:, 0]), rewards.shape[1]
    for t in reversed(range(T)):
        after = values[:, t + 1] if t + 1 < T else 0.0
        running = rewards[:, t] + gamma * after - values[:, t] + gamma * lam * running
        steps.append(running)
    advantages = torch.stack(steps[::-1], dim=1)
    return advantages


def following(values):
    return torch.cat([values[:, 1:], torch.zeros_like(values[:, :1])], dim=1)


def discounted(errors, decay):
    """Sum over s >= t of decay^(s - t) errors_s, as one einsum."""
    time = torch.arange(errors.shape[1])
    weights = torch.triu(float(decay) ** (time[None, :] - time[:, None]).clamp(min=0))
    return torch.einsum("ts,bs->bt", weights.to(errors.dtype), errors)


def td_errors(rewards, values, gamma):
    return rewards + gamma * following(values) - values


def gae_in_lists(rewards, values, lam, gamma=1.0):
    rows = []
    for r, v in zip(rewards.tolist(), values.tolist()):
        v, T = v + [0.0], len(r)
        delta = [r[t] + gamma * v[t + 1] - v[t] for t in range(T)]
        decay = [(gamma * lam) ** s for s in range(T)]
        rows.append([sum(d * e for d, e in zip(decay, delta[t:])) for t in range(T)])
    return torch.tensor(rows, dtype=rewards.dtype)


RIGHT["gae"] = {
    "backward through time": gae_backward,
    "einsum with the matrix of discounts": lambda r, V, lam, g=1.0: discounted(td_errors(r, V, g), g * lam),
    "double loop over Python numbers": gae_in_lists,
}
WRONG["gae"] = {
    "uses the next step's reward": lambda r, V, lam, gamma=1.0: gae_backward(following(r), V, lam, gamma),
    "one-step errors only": lambda r, V, lam, gamma=1.0: td_errors(r, V, gamma),
    "gamma ignored": lambda r, V, lam, gamma=1.0: gae_backward(r, V, lam),
} | edits(gae_backward, {
    "bootstraps past the end with the last value": ("else 0.0", "else values[:, -1]"),
    "the value after the end is the first one (roll)": ("else 0.0", "else values[:, 0]"),
    "sums over the past, not the future": ("reversed(range(T))", "range(T)", "steps[::-1]", "steps"),
    "lambda forgotten": ("gamma * lam *", "gamma *"),
    "gamma missing in the sum over steps": ("gamma * lam *", "lam *"),
    "value not subtracted from the TD error": ("- values[:, t]", ""),
    "returns, the value not subtracted": ("return advantages", "return advantages + values"),
    "whitened over the batch": (
        "return advantages", "return (advantages - advantages.mean()) / (advantages.std() + 1e-8)"),
    "last step missing": ("return advantages", "return advantages[:, :-1]"),
})  # fmt: skip
