"""Sampling with vLLM inside this process, where it sleeps while the policy trains.

What is reproducible: every completion has a generator of its own, seeded by (seed, stream, number
in the group), so that the same calls on the same machine give the same completions. Not promised:
the same ones in another batch (the last bits of a logit depend on the batch, and now and then a
token does), on other devices or versions of vLLM, or as `TorchSampler`, which draws other random
numbers from the same distribution. Importing this module does not import vLLM.
"""

import copy
import os
import tempfile
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1lab.errors import InputError
from r1lab.sampling.api import Rollouts, SamplingParams
from r1lab.sampling.checks import check_prompts, check_weights, end_ids

VERSION = "0.32.0"  # of vLLM: the parts of it used below are no stable interface
# The part of a GPU's memory that must be free when vLLM starts. It would ask for 0.92, even where
# the size of its cache is given, and refuse to start beside a model.
FREE_AT_START = 0.01


@dataclass(frozen=True)
class VLLMConfig:
    """How vLLM runs.

    Attributes:
        dtype: of weights and arithmetic; "auto" is the policy's own, or a sharded run's precision.
        kv_cache_gb: memory for the key-value cache, in GiB, besides the weights.
        max_rows: completions worked on at a time.
        drift_limit: a run ends where vLLM's log-probs are farther from the policy's on average, in
            nats per token. Usual are 1e-6 in float32 and 0.01 in bfloat16. It bounds arithmetic:
            that vLLM holds the new weights is checked by their bits, after every update.
    """

    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    kv_cache_gb: float = 0.5
    max_rows: int = 256
    drift_limit: float = 0.05


class VLLMSampler:
    """The `Sampler` that runs vLLM in this process, on its device, with the weights of `model`.

    vLLM starts from the model's configuration alone and gets its weights handed over in memory, so
    that every answer comes from weights that were handed over. On a GPU it sleeps between calls:
    its weights wait in the host's memory and its cache is dropped. Each of several processes has a
    vLLM of its own.

    It does not report `log_kept`: where top-p or top-k is on that is NaN, and reading
    `Rollouts.scorer_logps`, as training does, raises InputError. `weights_seconds` is what the last
    new weights took, `context` the longest sequence that model and cache have room for.

    The constructor raises InputError where vLLM is missing, has another version or does not start.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        config: VLLMConfig = VLLMConfig(),
    ) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.end_ids = end_ids(model, tokenizer)
        self.weights_version = 0
        self.sleeps = torch.cuda.is_available()
        self.vllm = import_vllm()
        self.llm = self._start(config)
        self.context = self.llm.collective_rpc("r1lab_context")[0]
        self._hand_over(dict(model.named_parameters()))

    def _start(self, config: VLLMConfig):
        """Start vLLM with random weights; undo what it does to torch in this process."""
        several = dist.is_initialized() and dist.get_world_size() > 1
        own = copy.deepcopy(self.model.config)
        own.architectures = own.architectures or [type(self.model).__name__]
        set_num_threads, threads = torch.set_num_threads, torch.get_num_threads()
        try:
            with tempfile.TemporaryDirectory() as folder, torch.random.fork_rng():
                own.save_pretrained(folder)  # config.json alone
                llm = self.vllm.LLM(
                    model=folder,
                    load_format="dummy",
                    dtype=str(self.model.dtype)[6:] if config.dtype == "auto" else config.dtype,
                    kv_cache_memory_bytes=int(config.kv_cache_gb * 2**30),
                    gpu_memory_utilization=FREE_AT_START,
                    max_num_seqs=config.max_rows,
                    max_model_len=-1,  # what the model can read and the cache can hold
                    enforce_eager=not self.sleeps,
                    enable_sleep_mode=self.sleeps,
                    skip_tokenizer_init=True,
                    logprobs_mode="processed_logprobs",  # after temperature, top-k and top-p
                    generation_config="vllm",
                    disable_log_stats=True,
                    worker_extension_cls="r1lab.sampling.vllm_worker.WeightUpdate",
                    distributed_executor_backend="external_launcher" if several else "uni",
                )
        except Exception as error:
            raise InputError(
                f"vLLM did not start ({_reason(error)}); where it ran out of memory, lower "
                "vllm.kv_cache_gb or vllm.max_rows; where its cache is too small, raise "
                "vllm.kv_cache_gb; or choose the torch sampler."
            ) from error
        finally:
            torch.set_num_threads = set_num_threads  # on a CPU, vLLM disables it
            torch.set_num_threads(threads)
        # Dropped, this vLLM would take down the process groups in which the policy trains and the
        # next vLLM samples.
        llm.llm_engine.engine_core._finalizer.detach()
        return llm

    def generate(
        self,
        prompt_ids: Sequence[Sequence[int]],
        params: SamplingParams,
        stream_ids: Sequence[int] | None = None,
    ) -> Rollouts:
        """Sample `params.n` completions of each prompt; see `Sampler.generate`.

        Raises InputError as `TorchSampler.generate` does, and where vLLM fails.
        """
        prompts, streams = check_prompts(self.model, prompt_ids, params, stream_ids)
        longest = max(map(len, prompts), default=0) + params.max_tokens
        if longest > self.context:
            raise InputError(
                f"the longest prompt and max_tokens={params.max_tokens} take {longest} tokens, and "
                f"vLLM has room for {self.context}: raise vllm.kv_cache_gb, or lower max_tokens."
            )
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        requests = [self.vllm.SamplingParams(**self._request(params, s)) for s in streams]
        self._wake()
        try:
            outputs = self.llm.generate(asked, requests, use_tqdm=False)
        except Exception as error:
            raise InputError(
                f"vLLM failed while it sampled ({_reason(error)}); where memory ran out, lower "
                "vllm.max_rows, or choose the torch sampler."
            ) from error
        if self.sleeps:
            self.llm.sleep(level=1)
        rollouts = Rollouts([], [], [], [], [], self.weights_version)
        for prompt, output in zip(prompts, outputs, strict=True):
            for answer in output.outputs * (params.n if params.temperature == 0 else 1):
                _append(rollouts, prompt, answer, params)
        return rollouts

    def _request(self, params: SamplingParams, stream: int) -> dict:
        """Make vLLM's parameters for one prompt; it seeds sample j of the group by `seed` + j.

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
            "stop_token_ids": self.end_ids,
            "ignore_eos": True,  # the list above holds it
            "logprobs": 0,  # of the sampled token alone
            "detokenize": False,
        }

    def load_weights(self, named_parameters: Iterable[tuple[str, Tensor]]) -> None:
        """Put the given weights in place of vLLM's; sharded ones are put together one by one.

        Every process of a run must call this. Raises InputError where vLLM does not hold the new
        weights afterwards, and, changing nothing, as `TorchSampler.load_weights` does.
        """
        self._hand_over(check_weights(self.model, named_parameters))
        self.weights_version += 1

    def _hand_over(self, new: dict[str, Tensor]) -> None:
        started = time.monotonic()
        self._wake()
        weights = ((name, _whole(value)) for name, value in new.items())
        [(compared, differ)] = self.llm.collective_rpc("r1lab_update", kwargs={"weights": weights})
        if differ or not compared:
            raise InputError(
                f"vLLM did not take over the weights: of {compared} tensors compared, "
                f"{len(differ)} are not as handed over {differ[:3]}; choose the torch sampler."
            )
        if not self.llm.reset_prefix_cache():  # its keys and values are those of the old weights
            raise InputError("vLLM is still sampling: load weights between two calls of generate.")
        self.weights_seconds = time.monotonic() - started

    def _wake(self) -> None:
        if self.sleeps and self.llm.llm_engine.is_sleeping():
            self.llm.wake_up()


def import_vllm():
    """Import vLLM of the supported version by name, and here alone: r1lab works without it."""
    defaults = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    os.environ.update({**defaults, **os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    try:
        vllm = import_module("vllm")
        vllm.LLM, vllm.SamplingParams  # noqa: B018 - vllm imports these when they are asked for
        if vllm.__version__.split("+")[0] != VERSION:
            raise ImportError(f"r1lab does not support its version {vllm.__version__}")
    except Exception as error:  # a build for another device fails in a dozen ways
        raise InputError(
            f"vLLM cannot be used here ({error}): install {VERSION} (on a GPU: pip install -e "
            "'.[gpu]'; on a CPU: see make test-vllm), or choose the torch sampler."
        ) from error
    return vllm


def _reason(error: Exception) -> str:
    """Say in one line what vLLM raised: each of its parts fails in its own way."""
    return f"{type(error).__name__}: " + " ".join(str(error).split())[:300]


def _whole(value: Tensor) -> Tensor:
    return value.full_tensor() if hasattr(value, "full_tensor") else value


def _append(rollouts: Rollouts, prompt: list[int], answer, params: SamplingParams) -> None:
    """Append one completion, a `CompletionOutput` of vLLM, to `rollouts`."""
    if answer.finish_reason not in ("stop", "length"):
        raise InputError(
            f"vLLM gave up a completion ({answer.finish_reason}): read its log for the cause"
        )
    ids = list(answer.token_ids)
    at_tokens = [at[token].logprob for token, at in zip(ids, answer.logprobs, strict=True)]
    logprobs = torch.tensor(at_tokens, dtype=torch.float32)
    if not logprobs.isfinite().all():
        raise InputError("the model's logits are not finite: its weights are damaged")
    log_kept = torch.zeros_like(logprobs)
    if params.temperature == 0:  # vLLM then reports log-probs at temperature 1
        logprobs, log_kept = log_kept, logprobs
    elif params.top_k > 0 or params.top_p < 1:
        log_kept.fill_(torch.nan)
    rollouts.prompt_ids.append(prompt)
    rollouts.completion_ids.append(ids)
    rollouts.logprobs.append(logprobs)
    rollouts.log_kept.append(log_kept)
    rollouts.finish.append(answer.finish_reason)
