"""Sampling with vLLM: inside this process, asleep while the policy trains, or from a server.

What is reproducible. Every completion has a generator of its own, seeded by (seed, stream, number
in the group): the same calls on the same machine, in process, give the same completions. Not
promised: the same ones in another batch, as a server makes up anew each time (the last bits of a
logit depend on the batch, and now and then a token does), on other devices or versions of vLLM, or
as `TorchSampler`, which draws other random numbers from the same distribution.
"""

import time
from collections.abc import Iterable, Sequence

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1lab.errors import InputError
from r1lab.sampling.api import Rollouts, SamplingParams
from r1lab.sampling.checks import check_prompts, check_weights, end_ids
from r1lab.sampling.torch_sampler import StopStrings
from r1lab.sampling.vllm_engines import Answer, Engine, LocalEngine, ServerEngine, VLLMConfig


class VLLMSampler:
    """The `Sampler` that vLLM stands behind; it begins with the weights of `model`.

    It cannot tell `log_kept`: where top-p or top-k is on that is NaN, and reading
    `Rollouts.scorer_logps`, as training does, raises InputError. Stop strings cut a completion
    after it was sampled. `weights_seconds` is what the last new weights took.

    The constructor raises InputError where vLLM is missing, has another version or does not start,
    and where the server does not answer.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: VLLMConfig = VLLMConfig(),
        engine: Engine | None = None,
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.end_ids = end_ids(model, tokenizer)
        self.weights_version = 0
        self.engine = engine or (ServerEngine if config.server else LocalEngine)(model, config)
        self._hand_over(dict(model.named_parameters()))

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        params: SamplingParams,
        stream_ids: Sequence[int] | None = None,
    ) -> Rollouts:
        """Sample `params.n` completions of each prompt; see `Sampler.generate`.

        Raises InputError as `TorchSampler.generate` does, and where vLLM fails.
        """
        prompts = [list(prompt) for prompt in prompt_ids]
        streams = list(range(len(prompts))) if stream_ids is None else list(stream_ids)
        check_prompts(self.model, prompts, params, streams)
        longest = max(map(len, prompts), default=0) + params.max_tokens
        if longest > self.engine.context:
            raise InputError(
                f"the longest prompt and max_tokens={params.max_tokens} take {longest} tokens, and "
                f"vLLM has room for {self.engine.context}: raise vllm.kv_cache_gb (of a server, its "
                "cache and --max-model-len), or lower max_tokens."
            )
        requests = [request(params, self.end_ids, stream) for stream in streams]
        rollouts = Rollouts([], [], [], [], [], self.weights_version)
        for prompt, answers in zip(prompts, self.engine.complete(prompts, requests), strict=True):
            for answer in answers * (params.n if params.temperature == 0 else 1):
                _collect(rollouts, prompt, _cut(answer, params.stop, self.tokenizer), params)
        return rollouts

    def load_weights(self, named_parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Put the given weights in place of vLLM's; sharded ones are put together one by one.

        Every process of a run must call this; a server is written to by the first alone, and the
        others wait. Raises InputError, and changes nothing, as `TorchSampler.load_weights` does.
        """
        self._hand_over(check_weights(self.model, named_parameters))
        self.weights_version += 1

    def _hand_over(self, new: dict[str, Tensor]) -> None:
        started = time.monotonic()
        whole = ((name, _unsharded(value)) for name, value in new.items())
        several = dist.is_initialized() and dist.get_world_size() > 1
        if self.engine.shared and several and dist.get_rank() > 0:
            for _ in whole:  # gathering the shards takes all processes
                continue
        else:
            self.engine.update(whole)
        if self.engine.shared and several:
            dist.barrier()
        self.weights_seconds = time.monotonic() - started


def _unsharded(value: Tensor) -> Tensor:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def request(params: SamplingParams, ends: list[int], stream: int) -> dict:
    """vLLM's sampling parameters for one prompt; its sample j is seeded by `seed` + j.

    Greedy decoding asks for one completion, the only number that vLLM allows there.
    """
    keyed = np.random.SeedSequence([params.seed, stream]).generate_state(1, np.uint64)
    return {
        "n": params.n if params.temperature else 1,
        "temperature": params.temperature,
        "top_p": params.top_p,
        "top_k": params.top_k,
        "max_tokens": params.max_tokens,
        "seed": int(keyed[0] >> np.uint64(2)),
        "stop_token_ids": ends,
        "ignore_eos": True,  # the list above holds it
        "logprobs": 0,  # of the sampled token alone
        "detokenize": False,
    }


def _cut(answer: Answer, stop: tuple[str, ...], tokenizer: PreTrainedTokenizerBase) -> Answer:
    """The answer up to the first token with which its text contains a stop string."""
    stops = StopStrings(tokenizer, stop, 1)
    row = torch.zeros(1, dtype=torch.long)
    for i, token in enumerate(answer.token_ids if stop else ()):
        if stops(row, torch.tensor([token])).any():
            return Answer(answer.token_ids[: i + 1], answer.logprobs[: i + 1], "stop")
    return answer


def _collect(rollouts: Rollouts, prompt: list[int], answer: Answer, params: SamplingParams) -> None:
    """Append one completion to `rollouts`."""
    if answer.finish not in ("stop", "length"):
        raise InputError(f"vLLM gave up a completion ({answer.finish}): read its log for the cause")
    if not all(logprob > -1000 for logprob in answer.logprobs):  # a server writes -9999 for NaN
        raise InputError("the model's logits are not finite: its weights are damaged")
    logprobs = torch.tensor(answer.logprobs, dtype=torch.float32)
    log_kept = torch.zeros_like(logprobs)
    if params.temperature == 0:  # vLLM then reports log-probs at temperature 1
        logprobs, log_kept = log_kept, logprobs
    elif params.top_k > 0 or params.top_p < 1:
        log_kept.fill_(torch.nan)
    rollouts.prompt_ids.append(prompt)
    rollouts.completion_ids.append(answer.token_ids)
    rollouts.logprobs.append(logprobs)
    rollouts.log_kept.append(log_kept)
    rollouts.finish.append(answer.finish)
