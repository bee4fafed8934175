"""A key-value cache that grows in place, and the attention of one query over it.

Why not `transformers.DynamicCache`: it copies the whole cache at every token (`torch.cat`), and its
SDPA path copies it once more to repeat the key-value heads of grouped-query attention.
"""

from contextlib import contextmanager

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.cache_utils import DynamicLayer
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

ATTENTION = "r1lab_decode"


class InPlaceLayer(DynamicLayer):
    """One layer's cache: `keys` and `values`, `[rows, heads, length, dim]`, are views of stores
    that have room for the tokens to come."""

    def update(self, key_states, value_states, *args, **kwargs):
        """Append new tokens; return the keys and values of all tokens so far."""
        if not self.is_initialized:
            return super().update(key_states, value_states)
        rows, _, tokens, _ = key_states.shape
        start = self.keys.shape[-2]
        end = start + tokens
        if not hasattr(self, "key_store") or end > self.key_store.shape[-2]:
            # Little room keeps rows close together in memory, which reads faster than it saves
            # copies. Keys lie transposed: the product with the query then reads them in order.
            room = max(32, start // 4)
            self.key_store = F.pad(self.keys.mT, (0, room)).mT
            self.value_store = F.pad(self.values, (0, 0, 0, room))
        self.key_store[:rows, :, start:end] = key_states
        self.value_store[:rows, :, start:end] = value_states
        self.keys = self.key_store[:rows, :, :end]
        self.values = self.value_store[:rows, :, :end]
        return self.keys, self.values


def drop_rows(cache, ended: Bool[Tensor, " rows"], live) -> Int[Tensor, " live"]:
    """Shrink the cache to its `live` unfinished rows; return which row each place now holds.

    The last unfinished rows move into the places of finished ones. Only what moves is copied, so a
    row may be dropped at the very step that finished it.
    """
    holes = ended[:live].nonzero()[:, 0]
    movers = live + (~ended[live:]).nonzero()[:, 0]
    for layer in cache.layers:
        layer.keys[holes] = layer.keys[movers]
        layer.values[holes] = layer.values[movers]
        layer.keys, layer.values = layer.keys[:live], layer.values[:live]
    order = torch.arange(live, device=ended.device)
    order[holes] = movers
    return order


def _attend(
    module,
    query: Float[Tensor, "rows heads queries dim"],
    key: Float[Tensor, "rows kv_heads length dim"],
    value: Float[Tensor, "rows kv_heads length dim"],
    attention_mask,
    scaling=None, **kwargs
) -> tuple[Float[Tensor, "rows queries heads dim"], None]:
    """Softmax attention; one query per row is computed without repeating the key-value heads.

    The heads that share a key-value head become the rows of one small matrix product.
    """
    rows, heads, queries, dim = query.shape
    if queries > 1:
        return sdpa_attention_forward(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    grouped = query.view(rows, key.shape[1], -1, dim) * (scaling or dim**-0.5)
    scores = grouped @ key.mT
    if attention_mask is not None:
        scores = scores.masked_fill_(~attention_mask, -torch.inf)
    at_least_float32 = torch.promote_types(scores.dtype, torch.float32)
    weights = scores.softmax(-1, dtype=at_least_float32).to(value.dtype)
    return (weights @ value).view(rows, 1, heads, -1), None


AttentionInterface.register(ATTENTION, _attend)
AttentionMaskInterface.register(ATTENTION, sdpa_mask)


@contextmanager
def decoding(model):
    """Within: the model is in eval mode, and decodes with `_attend` where it used SDPA."""
    attention, training = model.config._attn_implementation, model.training
    model.eval()
    if attention == "sdpa":
        model.set_attn_implementation(ATTENTION)
    try:
        yield
    finally:
        model.set_attn_implementation(attention)
        model.train(training)
