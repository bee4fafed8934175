"""Sampling from any Hugging Face causal LM with plain torch: the same code on a CPU and a GPU.

A group's prompt is read once and its cache copied to the n rows of the group. From then on each
step feeds one token per unfinished row; a row that ends gives its place to the last row.
"""

from collections.abc import Sequence
from inspect import signature

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TopKLogitsWarper, TopPLogitsWarper
from transformers.cache_utils import Cache

from r1lab.errors import InputError
from r1lab.sampling.api import Sampler, SamplingParams
from r1lab.sampling.cache import InPlaceLayer, decoding, drop_rows

BLOCK = 256  # uniform numbers are drawn for so many tokens at a time


def draw_uniforms(seed: int, stream_ids: Sequence[int], n: int, block: int) -> Float[Tensor, "rows 256"]:
    """Uniform numbers in [0, 1) for tokens 256*block to 256*block+255 of n samples per stream.

    Philox is a counter-based generator (Salmon et al. 2011): (seed, stream) is its key and `block`
    a word of its counter, so each number is a pure function of (seed, stream, sample, token).
    """
    blocks = []
    for stream in stream_ids:
        philox = np.random.Philox(key=np.array([seed, stream], np.uint64), counter=[0, 0, block, 0])
        blocks.append(np.random.Generator(philox).random((n, BLOCK), dtype=np.float32))
    return torch.from_numpy(np.concatenate(blocks))


def choose(
    logits: Float[Tensor, "rows vocab"], params: SamplingParams, uniform: Float[Tensor, " rows"]
) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Draw a token per row by inverse CDF; return tokens, log-probs and log-masses kept.

    Only the top_k likeliest tokens can be drawn, and of these the smallest set of mass top_p: ties with
    the k-th token stay, and so does the token that carries the mass past `top_p`. `uniform` has 24 bits,
    so probabilities below 6e-8 count as 0.
    """
    logps = (logits.float() / (params.temperature or 1.0)).log_softmax(-1)
    if params.temperature == 0:
        log_kept, tokens = logps.max(-1)
        return tokens, torch.zeros_like(log_kept), log_kept
    filtered = logps
    if params.top_k > 0:
        filtered = TopKLogitsWarper(params.top_k)(None, filtered)
    if params.top_p < 1:
        filtered = TopPLogitsWarper(params.top_p)(None, filtered)
    cdf = filtered.exp().cumsum(-1)
    mass = cdf[:, -1:]
    # `right`: the first entry above the target, never a token of probability 0. The clamp is for
    # NaN alone, which `generate` reports.
    tokens = torch.searchsorted(cdf, uniform[:, None] * mass, right=True).clamp_(max=cdf.shape[-1] - 1)
    log_kept = torch.zeros_like(mass) if filtered is logps else mass.log()
    return tokens[:, 0], (logps.gather(1, tokens) - log_kept)[:, 0], log_kept[:, 0]


class TorchSampler(Sampler):
    """The `Sampler` for a Hugging Face causal LM that lives in this process.

    Prompts are answered in batches of at most `max_rows` completions (one group at least), which
    bounds the memory of the cache and changes no completion. The tensors of `Rollouts` are on the
    CPU. Raises InputError for a model that has no end token, or whose memory of the past is no
    key-value cache (Mamba and its kin).
    """

    def __init__(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, max_rows: int = 256
    ):
        super().__init__(model, tokenizer)
        self.max_rows = max_rows
        needed = {"attention_mask", "position_ids", "past_key_values", "logits_to_keep"}
        layers = set(getattr(model.config, "layer_types", None) or ())
        unknown = layers - {"full_attention", "sliding_attention", "chunked_attention"}
        if lacking := unknown | needed - set(signature(model.forward).parameters):
            raise InputError(
                f"{type(model).__name__} cannot be sampled with a key-value cache "
                f"({', '.join(sorted(lacking))}): use a decoder with ordinary attention"
            )

    def _sample(self, prompts, params, streams, on_done=lambda place, ids, finish: None):
        finish, size = ["length"] * params.n * len(prompts), max(1, self.max_rows // params.n)
        ids, logprobs, log_kept = [[] for _ in finish], [[] for _ in finish], [[] for _ in finish]
        with decoding(self.model):
            for start in range(0, len(prompts), size):
                batch = slice(start, start + size)
                for step in self._decode(prompts[batch], params, streams[batch]):
                    for row, token, logprob, log_mass, stop in step:
                        place = start * params.n + row
                        ids[place].append(token)
                        logprobs[place].append(logprob)
                        log_kept[place].append(log_mass)
                        if stop:
                            finish[place] = "stop"
                        if stop or len(ids[place]) == params.max_tokens:
                            on_done(place, ids[place], finish[place])
        return ids, list(map(torch.tensor, logprobs)), list(map(torch.tensor, log_kept)), finish

    @torch.no_grad()
    def _replace_weights(self, new):
        for name, value in new.items():
            self.model.get_parameter(name).copy_(value)  # costs nothing where it is the same

    @torch.inference_mode()
    def _decode(self, prompts, params, streams):
        """Sample one batch: yields at each step, for every unfinished row, (its number, the token, its
        log-prob, the log of the mass kept, does it end the row?)."""
        device, longest = self.model.device, max(map(len, prompts))
        pads = torch.tensor([longest - len(prompt) for prompt in prompts], device=device)
        padded = [self.end_ids[:1] * (longest - len(prompt)) + prompt for prompt in prompts]
        cache = Cache(layer_class_to_replicate=InPlaceLayer)
        logits = self._forward(torch.tensor(padded, device=device), pads, cache)
        cache.batch_repeat_interleave(params.n)
        logits, pads = (x.repeat_interleave(params.n, 0) for x in (logits, pads))

        rows, end_ids = torch.arange(len(pads), device=device), torch.tensor(self.end_ids, device=device)
        for step in range(params.max_tokens):
            if step:
                logits = self._forward(tokens[:, None], pads, cache)
            if step % BLOCK == 0:
                uniforms = draw_uniforms(params.seed, streams, params.n, step // BLOCK).to(device)
            tokens, *logs = choose(logits, params, uniforms[rows, step % BLOCK])
            ended = torch.isin(tokens, end_ids)
            yield zip(*(column.tolist() for column in (rows, tokens, *logs, ended)))
            live = len(rows) - int(ended.sum())
            if live == 0:
                return
            if live < len(rows):
                order = drop_rows(cache, ended, live)
                rows, tokens, pads = rows[order], tokens[order], pads[order]

    def _forward(
        self, tokens: Int[Tensor, "rows new"], pads: Int[Tensor, " rows"], cache
    ) -> Float[Tensor, "rows vocab"]:
        """Feed new tokens of rows that begin with `pads` padded slots; logits after the last."""
        new = tokens.shape[1]
        slots = torch.arange(cache.get_seq_length() + new, device=tokens.device)
        return self.model(
            input_ids=tokens,
            attention_mask=slots >= pads[:, None],
            position_ids=(slots[-new:] - pads[:, None]).clamp_(min=0),
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
