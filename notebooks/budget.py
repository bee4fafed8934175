"""Budget forcing: we decide how long a model thinks (s1, arXiv 2501.19393).

Where it would end its thinking too early, it writes "Wait" and goes on. Where it thinks too long, its
thinking is closed, and it answers. Lesson 09 asks what such tokens buy beside a vote and a judge.
"""

from dataclasses import replace

import torch

from r1lab.errors import InputError
from r1lab.sampling import SamplingParams, TorchSampler

OTHER_SEED = 2**32  # so far from the thinking's seed is that of the answers


def think_between(
    least: int, most: int, sampler: TorchSampler, prompt_ids: list[list[int]], params: SamplingParams,
    wait: str = "Wait", ends: tuple[str, ...] = ("</think>",),
) -> list[list[int]]:  # fmt: skip
    """Sample completions that think for `least` to `most` tokens, then answer in `params.max_tokens`.

    Before `least` the probability of `ends` and of the text's end is added to that of `wait`: the same as
    drawing a token and replacing each end. The first of `ends` then closes the thinking, which the
    prompts must open. Raises InputError where a word is not one token of the model.
    """
    coded = [sampler.tokenizer(text, add_special_tokens=False).input_ids for text in (wait, *ends)]
    if max(map(len, coded)) > 1:
        raise InputError(f"each of {(wait, *ends)} must be one token, and the model spells them {coded}.")
    [word], [close], *_ = coded
    own_ends, stops, read = sampler.end_ids, [*sum(coded[1:], []), *sampler.end_ids], 0

    def go_on(model, _, given, output):
        nonlocal read
        written, heat = given["past_key_values"].get_seq_length(), params.temperature or 1e-6
        read = written if written == given["input_ids"].shape[1] else read  # these are the prompts
        if written - read < least:
            logits = output.logits[:, -1]
            logits[:, word] = heat * (logits[:, [word, *stops]].float() / heat).logsumexp(-1)
            logits[:, stops] = -torch.inf

    hook, sampler.end_ids = sampler.model.register_forward_hook(go_on, with_kwargs=True), stops
    try:
        thought = sampler.generate(prompt_ids, replace(params, max_tokens=most))
    finally:
        hook.remove()
        sampler.end_ids = own_ends
    ended = zip(thought.completion_ids, thought.finish)
    closed = [[*(ids[:-1] if finish == "stop" else ids), close] for ids, finish in ended]
    read_first = [prompt + ids for prompt, ids in zip(thought.prompt_ids, closed)]
    answer = sampler.generate(read_first, replace(params, n=1, seed=params.seed + OTHER_SEED))
    return [ids + rest for ids, rest in zip(closed, answer.completion_ids)]
