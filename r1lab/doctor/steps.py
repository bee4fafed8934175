"""What can be wrong with two steps: each function gets the `Findings` of `trial.py` and returns the
numbers that say so, or None.

The docstring's first paragraph is the cause, its second the fix. The order counts: an illness may
be the reason for those after it.
"""

import inspect


def template_not_applied(f):
    """The model does not read the prompt that the template makes, so it does not know its part.

    Apply the template once, before the tokenizer; pass messages, not a string, to a trainer.
    """
    if f.prompt_seen != f.prompt_wanted:
        return f"the model read {f.prompt_seen!r} instead of {f.prompt_wanted!r}"


def grader_refuses_gold_answers(f):
    """A right answer in the right format earns nothing: gold is unreadable or wrongly compared.

    Feed the gold answers to the reward until all of them pass; check library versions.
    """
    if f.gold_refused != "":
        return f.gold_refused


def grader_accepts_nonsense(f):
    """No reward scores the gold answer above the word 'nonsense': what cannot be read passes.

    Return 0 where an answer cannot be parsed; never compare two empty results.
    """
    if f.gold_refused == "":
        return f.nonsense_passes


def sampler_runs_past_the_end_token(f):
    """The sampler does not know the model's end token: text after it is graded and trained on.

    Give it every end token of the tokenizer and of generation_config; no ignore_eos.
    """
    if f.ran_past_end > 0:
        return f"{f.ran_past_end:.0%} of completions hold an end token before their last token"


def end_token_never_sampled(f):
    """The model never writes its end token, not even with eight times the room.

    Use the end token that the model was trained with, and its template; else fine-tune first.
    """
    if f.ended == 0 and not f.ends_later:
        return f"0 % of completions ended within {f.cap} tokens"


def completions_truncated(f):
    """Most completions hit the cap before they reach an answer, so they earn nothing.

    Raise the cap (--caps) until most completions end by themselves.
    """
    if f.ended < 0.5 and (f.ended > 0 or f.ends_later):
        return f"only {f.ended:.0%} of completions ended within {f.cap} tokens"


def copies_in_the_group(f):
    """All samples of a group are the same text: one random stream for all, or temperature 0.

    Give each sample its own seed and sample at a temperature near 1.
    """
    if f.distinct == 1:
        return "1 completion in each group, again and again"


def scorer_log_probs_above_0(f):
    """The scorer returns numbers that are no log-probabilities: its kernel is wrong.

    Compute log-probs from the logits, or fix the fused kernel, before training on.
    """
    if f.scorer_highest > f.tolerance:
        return f"the largest log-prob is {f.scorer_highest:+.2f}; it can be at most 0"


def scorer_disagrees_with_the_logits(f):
    """The scorer's log-probs are not those of the sampled tokens: shifted, masked or scaled.

    Score token t with the logits of position t-1, at the sampling temperature.
    """
    if f.scored == 1 and f.scorer_gap > f.tolerance:
        return f"{f.scorer_gap:.3f} nats per token from the model's own logits"


def sampler_keeps_old_weights(f):
    """After an update the sampler still answers with the weights of before.

    Load the weights into the sampler before each rollout, after it has woken up.
    """
    if f.stale_gap < f.tolerance < f.sampler_gap:
        return f"{f.sampler_gap:.3f} nats per token from new weights, {f.stale_gap:.6f} from old"


def log_probs_at_another_temperature(f):
    """The sampler reports log-probs at temperature 1, not at the one it samples with.

    Ask for processed log-probs (after temperature), or divide the logits by it first.
    """
    if f.temperature != 1 and f.cold_gap < f.tolerance < f.sampler_gap:
        return f"{f.sampler_gap:.3f} nats per token off at temperature {f.temperature}, 0 at 1"


def log_probs_of_a_truncated_distribution(f):
    """The sampler's log-probs are all too high: top-p, top-k or min-p cut the rest away.

    Train with top_p=1 and top_k=0, or add the log of the mass that was kept.
    """
    if f.sampler_gap > f.tolerance and f.sampler_low > -f.tolerance:
        return f"{f.sampler_gap:.3f} nats per token above the model's own, never below"


def sampler_and_scorer_disagree(f):
    """What is sampled is not what is scored: other weights, number format, rows or tokens.

    Compare both on one prompt; keep ids as sampled and rows in the order of their prompts.
    """
    if f.sampler_gap > f.tolerance:
        return f"{f.sampler_gap:.3f} nats per token from the model's own logits"


def end_token_cut_off(f):
    """The sampler drops the end token, so stopping is never rewarded, and is unlearned.

    Keep the end token as the last id of a completion that ended.
    """
    if f.end_kept < 1:
        return f"only {f.end_kept:.0%} of the completions that ended still hold it"


def mask_does_not_fit_the_tokens(f):
    """The loss mask takes in padding or prompt, or leaves sampled tokens out.

    Mask from a completion's first token to its end token, that one included.
    """
    if f.scored != 1:
        return f"{f.scored:.2f} tokens scored for each one sampled"


def reward_weights_ignored(f):
    """The total is not the weighted sum of its parts, so another task is trained than meant.

    Multiply each reward by its weight before adding.
    """
    if f.off_weighted_sum > 1e-4:
        return f"off by up to {f.off_weighted_sum:.2f}"


def advantages_upside_down(f):
    """Better answers get lower advantages: training moves away from the reward.

    Subtract the group's mean from the reward, not the other way round.
    """
    if f.advantage_sign < 0:
        return f"advantage times (reward - group mean) sums to {f.advantage_sign:.1f}"


def advantages_not_of_the_group(f):
    """Advantages are not (reward - mean) / std of their own group: easy questions drown hard ones.

    Reshape the rewards to [questions, group] and take mean and std along the group.
    """
    if f.off_group > 1e-3:
        return f"off by up to {f.off_group:.2f}"


def reward_never_varies(f):
    """All answers to a question earn the same, so every advantage, and the gradient, is 0.

    Take questions that the model gets right now and then, larger groups, or a finer reward.
    """
    if f.rewards_vary == 0:
        return f"in no group did two rewards differ; their mean is {f.reward_mean:.2f}"


def reference_policy_is_wrong(f):
    """The reference's log-probs are not those of the policy at the start: it moved along with the
    policy, or is scored otherwise.

    Copy the model's tensors, freeze them, and score both with the same code and temperature.
    """
    if f.reference_gap > f.tolerance:
        return f"{f.reference_gap:.3f} nats per token from the weights of the start"


def update_is_not_a_number(f):
    """Loss or gradient is NaN or infinite, so the step was skipped.

    Look for the log of 0, empty masks and float16; lower the learning rate.
    """
    if f.skipped > 0 or f.gradient != f.gradient:
        return f"{f.skipped:.0f} of 2 steps skipped"


def learning_rate_is_0(f):
    """The optimizer multiplies every step by 0.

    Set --learning-rate, and let the schedule leave 0.
    """
    if f.rate == 0:
        return f"learning rate {f.rate} after warm-up"


def gradient_is_0(f):
    """Rewards differ, yet no gradient reaches the weights: the loss does not depend on them.

    Compute log-probs inside the graph; the ratio is exp(logp - old), with logp not detached.
    """
    if f.rewards_vary > 0 and f.gradient < 1e-9:
        return f"norm {f.gradient:.1e}; rewards vary in {f.rewards_vary:.0%} of the groups"


def optimizer_holds_other_weights(f):
    """There is a gradient and a learning rate, but no weight moved: the optimizer was built over
    other tensors.

    Build the optimizer after the model is in its final place, from its trainable weights.
    """
    if f.moved == 0 and f.rate > 0 and f.gradient > 0 and f.skipped == 0:
        return f"0 weights changed in two steps; gradient norm {f.gradient:.2f}"


def frozen_weights(f):
    """Some weights never change: they are frozen, or out of the optimizer's or graph's reach.

    Set requires_grad on all of them before the optimizer is built.
    """
    if 0 < f.moved < 1:
        return f"only {f.moved:.0%} of the weight tensors changed; {f.unmoved} did not"


def step_goes_the_wrong_way(f):
    """The gradient points against the reward: the loss has the wrong sign.

    The loss is minus the objective; the optimizer minimises.
    """
    if f.part_of_rest < -0.1:
        return f"the gradient is {f.part_of_rest:+.2f} times the true one"


def gradient_of_something_else(f):
    """The gradient is not advantage times log-prob: wrong tokens, rows or weights in the loss.

    Check mask and row order of the loss on two completions of different length.
    """
    if f.unexplained > 0.1:
        return f"{f.unexplained:.0%} of the gradient is unexplained"


def end_token_outside_the_loss(f):
    """The end token is not trained on, so the policy forgets how to stop.

    Let the loss mask reach to the end token, that one included.
    """
    if f.part_of_end < 0.5 * f.part_of_rest:
        return f"in the gradient {f.part_of_end:.2f} times, other tokens {f.part_of_rest:.2f} times"


def wrong_normaliser(f):
    """The gradient has the right direction and the wrong size: batches are averaged twice.

    Divide the sum by one count over all micro-batches and processes.
    """
    if abs(f.part_of_rest - 1) > 0.1:
        return f"the gradient is {f.part_of_rest:.2f} times the true one"


def kl_term_does_not_pull_back(f):
    """The KL term's gradient does not lead to the reference: its sign or estimator is wrong.

    Use k3 = exp(ref - logp) - (ref - logp) - 1, added to the loss with weight beta.
    """
    if f.kl_pull < 0.9:
        return f"cosine with the way back {f.kl_pull:+.2f}; it should be near 1"


def clip_does_not_hold(f):
    """Tokens beyond the clip still move: the clip is missing, or upside down for A < 0.

    Take the minimum of ratio x A and clipped ratio x A, whatever the sign of A.
    """
    if f.clip_leak > 0.05:
        return f"clipped tokens have {f.clip_leak:.2f} times the gradient of those within"


RULES = [each for each in list(globals().values()) if inspect.isfunction(each)]
