"""Sampling with vLLM inside this process, where it sleeps while the policy trains.

What is reproducible: every completion has a generator of its own, seeded by (seed, stream, number
in the group), so that the same calls on the same machine give the same completions. Not promised:
the same ones in another batch (the last bits of a logit depend on the batch, and now and then a
token does), on other devices or versions of vLLM, or as `TorchSampler`, which draws other random
numbers from the same distribution. Importing this module does not import vLLM.
"""

import os
import tempfile
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib import import_module
from typing import Literal

import numpy as np
import torch
import torch.distributed as dist
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from r1lab.errors import InputError
from r1lab.sampling.api import Sampler

VERSION = "0.32.0"  # of vLLM: the parts of it used below are no stable interface
# The part of a GPU's memory that must be free when vLLM starts. It would ask for 0.92, even where
# the size of its cache is given, and refuse to start beside a model.
FREE_AT_START = 0.01


@dataclass(frozen=True)
class VLLMConfig:
    """How vLLM runs.

    Attributes:
        dtype: of weights and arithmetic; "auto" is the run's precision.
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


class VLLMSampler(Sampler):
    """The `Sampler` that runs vLLM in this process, on its device, with the weights of `model`.

    vLLM starts from the model's configuration alone and gets its weights handed over in memory, so
    that every answer comes from weights that were handed over. On a GPU it sleeps between calls:
    its weights wait in the host's memory and its cache is dropped. Each of several processes has a
    vLLM of its own, and all of them must load new weights together: sharded ones are put together
    one by one.

    It does not report `log_kept`: where top-p or top-k is on that is NaN, and reading
    `Rollouts.scorer_logps`, as training does, raises InputError. `weights_seconds` is what the last
    new weights took, `context` the longest sequence that model and cache have room for.

    Raises InputError where vLLM is missing, has another version, does not start, fails, or does not
    hold the new weights after `load_weights`.
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase,
        config: VLLMConfig = VLLMConfig(),
    ):  # fmt: skip
        super().__init__(model, tokenizer)
        self.sleeps = torch.cuda.is_available()
        self.vllm = import_vllm()
        self.llm = self._start(config)
        self.context = self.llm.collective_rpc("r1lab_context")[0]
        self._replace_weights(dict(model.named_parameters()))

    def _start(self, config):
        """Start vLLM with random weights; undo what it does to torch in this process."""
        several = dist.is_initialized() and dist.get_world_size() > 1
        model_config = self.model.config
        model_config.architectures = model_config.architectures or [type(self.model).__name__]
        set_num_threads, threads = torch.set_num_threads, torch.get_num_threads()
        remedy = (
            "where it ran out of memory, lower vllm.kv_cache_gb or vllm.max_rows; where its cache "
            "is too small, raise vllm.kv_cache_gb"
        )
        try:
            with (
                explained("did not start", remedy),
                tempfile.TemporaryDirectory() as folder,
                torch.random.fork_rng(),
            ):
                model_config.save_pretrained(folder)  # config.json alone
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
                    worker_extension_cls="r1lab.sampling.vllm_sampler.WeightUpdate",
                    distributed_executor_backend="external_launcher" if several else "uni",
                )
        finally:
            torch.set_num_threads = set_num_threads  # on a CPU, vLLM disables it
            torch.set_num_threads(threads)
        # Dropped, this vLLM would take down the process groups in which the policy trains and the
        # next vLLM samples.
        llm.llm_engine.engine_core._finalizer.detach()
        return llm

    def _sample(self, prompts, params, streams):
        longest = max(map(len, prompts), default=0) + params.max_tokens
        if longest > self.context:
            raise InputError(
                f"the longest prompt and max_tokens={params.max_tokens} take {longest} tokens, and "
                f"vLLM has room for {self.context}: raise vllm.kv_cache_gb, or lower max_tokens."
            )
        greedy = params.temperature == 0
        n = 1 if greedy else params.n  # the only number that vLLM allows there
        asked = [{"prompt_token_ids": prompt} for prompt in prompts]
        shared = asdict(params) | {
            "n": n,
            "stop_token_ids": self.end_ids,
            "ignore_eos": True,  # the list above holds it
            "logprobs": 0,  # of the sampled token alone
            "detokenize": False,
        }
        requests = [
            self.vllm.SamplingParams(**shared | {"seed": _seed(params.seed, stream)}) for stream in streams
        ]
        self._wake()
        with explained("failed while it sampled", "where memory ran out, lower vllm.max_rows"):
            outputs = self.llm.generate(asked, requests, use_tqdm=False)
        if self.sleeps:
            self.llm.sleep(level=1)
        answers = [answer for output in outputs for answer in output.outputs * (params.n // n)]
        logprobs = [_logprobs(answer) for answer in answers]
        log_kept = [torch.zeros_like(row) for row in logprobs]
        if greedy:  # vLLM then reports log-probs at temperature 1
            logprobs, log_kept = log_kept, logprobs
        elif params.top_k > 0 or params.top_p < 1:
            log_kept = [row.fill_(torch.nan) for row in log_kept]
        ids = [list(answer.token_ids) for answer in answers]
        return ids, logprobs, log_kept, [answer.finish_reason for answer in answers]

    def _replace_weights(self, new):
        started = time.monotonic()
        self._wake()
        weights = (
            (name, value.full_tensor() if hasattr(value, "full_tensor") else value)
            for name, value in new.items()
        )
        [(compared, differ)] = self.llm.collective_rpc("r1lab_update", kwargs={"weights": weights})
        # Its cached keys and values are those of the old weights.
        if differ or not compared or not self.llm.reset_prefix_cache():
            raise InputError(
                f"vLLM did not take over the weights: of {compared} tensors compared, {len(differ)} are not "
                f"as handed over {differ[:3]}, or it is still sampling; choose the torch sampler."
            )
        self.weights_seconds = time.monotonic() - started

    def _wake(self):
        if self.sleeps and self.llm.llm_engine.is_sleeping():
            self.llm.wake_up()


@contextmanager
def explained(what, remedy):
    """Turn an error of vLLM's into one sentence: each of its parts fails in its own way."""
    try:
        yield
    except Exception as error:
        why = f"{type(error).__name__}: " + " ".join(str(error).split())[:300]
        raise InputError(f"vLLM {what} ({why}); {remedy}; or choose the torch sampler.") from error


def import_vllm():
    """Import vLLM of the supported version by name, and here alone: r1lab works without it."""
    defaults = {"VLLM_NO_USAGE_STATS": "1", "VLLM_LOGGING_LEVEL": "ERROR"}
    os.environ.update({**defaults, **os.environ, "VLLM_ENABLE_V1_MULTIPROCESSING": "0"})
    remedy = f"install {VERSION} (on a GPU: pip install -e '.[gpu]'; on a CPU: see make test-vllm)"
    with explained("cannot be used here", remedy):  # a build for another device fails in many ways
        vllm = import_module("vllm")
        vllm.LLM, vllm.SamplingParams  # noqa: B018 - vllm imports these when they are asked for
        if vllm.__version__.split("+")[0] != VERSION:
            raise ImportError(f"r1lab does not support its version {vllm.__version__}")
    return vllm


def _seed(seed, stream):
    """Key a prompt's generator by (seed, stream); vLLM adds the sample's number in the group."""
    keyed = np.random.SeedSequence([seed, stream]).generate_state(1, np.uint64)
    return int(keyed[0] >> np.uint64(2))


def _logprobs(answer):
    """The log-probs of a completion's tokens, a `CompletionOutput` of vLLM."""
    pairs = zip(answer.token_ids, answer.logprobs)
    return torch.tensor([at[token].logprob for token, at in pairs], dtype=torch.float32)


class WeightUpdate:
    """Mixed into vLLM's worker class by `worker_extension_cls`; `self` is a vLLM worker."""

    def r1lab_update(self, weights):
        """Replace all weights, and compare what vLLM then holds with what it was handed.

        Returns:
            How many tensors were compared, by `checksum`, and the names of those that differ. Only
            whole ones are: not the linear layers that vLLM packs for a CPU, nor shares of a tensor.
        """
        model = self.get_model()
        dtypes = {name: held.dtype for name, held in model.named_parameters()}
        sizes, sums = Counter(), Counter()

        def noted():
            for name, value in weights:
                value = value.detach().to(self.device)
                fused = fused_name(name, getattr(model, "packed_modules_mapping", {}))
                if fused in dtypes:
                    sizes[fused] += value.numel()
                    sums[fused] += checksum(value.to(dtypes[fused]))
                yield name, value

        self.reload_weights(weights_iterator=noted())
        # On a CPU, vLLM packs the output head for its matrix product and leaves a head that is
        # tied to the embedding as it was before. On a GPU nothing is packed: a call without effect.
        head = getattr(model, "lm_head", None)
        embedding = getattr(getattr(model, "model", None), "embed_tokens", None)
        tied = None not in (head, embedding) and head.weight is embedding.weight
        if tied and head is not embedding:
            head.quant_method.process_weights_after_loading(head)
        held = {name: h for name, h in model.named_parameters() if 0 < sizes[name] <= h.numel()}
        return len(held), [name for name in held if checksum(held[name]) != sums[name]]

    def r1lab_context(self):
        """The longest sequence, in tokens, that model and cache have room for."""
        return self.model_config.max_model_len


def fused_name(name, fused):
    """Find the parameter of vLLM that holds this one of Hugging Face's: q, k and v are one there."""
    for whole, parts in fused.items():
        for part in parts:
            name = name.replace(f".{part}.", f".{whole}.")
    return name


def checksum(values):
    """Sum all values' bits, read as whole numbers: exact, in any order and any division.

    Zeros, with which vLLM fills up a vocabulary, add nothing.
    """
    bits = values.detach().flatten().view(torch.int16 if values.element_size() == 2 else torch.int32)
    return sum(part.sum().item() for part in bits.split(2**24))
