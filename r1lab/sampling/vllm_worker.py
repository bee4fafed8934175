"""What r1lab adds to vLLM's workers: new weights in place, proved, and word of how they sample."""

from collections import Counter

import torch
from torch import Tensor


class WeightUpdate:
    """Mixed into vLLM's worker class by `worker_extension_cls`; `self` is a vLLM worker."""

    def r1lab_update(self, weights=None, path: str | None = None) -> list:
        """Replace all weights, and compare what vLLM then holds with what it was handed.

        Args:
            weights: (name, tensor) pairs in Hugging Face's names.
            path: or a safetensors file that holds them: tensors do not survive the way to a server.

        Returns:
            How many tensors were compared, by `checksum`, and the names of those that differ. Only
            whole ones are: not the linear layers that vLLM packs for a CPU, nor shares of a tensor.
        """
        if path is not None:
            from safetensors.torch import load_file

            weights = load_file(path).items()
        model = self.get_model()
        dtypes = {name: held.dtype for name, held in model.named_parameters()}
        sizes, sums = Counter(), Counter()

        def noted():
            for name, value in weights:
                value = value.detach().to(self.device)
                own = fused_name(name, getattr(model, "packed_modules_mapping", {}))
                if own in dtypes:
                    sizes[own] += value.numel()
                    sums[own] += checksum(value.to(dtypes[own]))
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
        return [len(held), [name for name in held if checksum(held[name]) != sums[name]]]

    def r1lab_about(self) -> list:
        """Of which distribution this worker reports log-probs, and the longest sequence for which
        model and cache have room, in tokens."""
        return [self.model_config.logprobs_mode, self.model_config.max_model_len]


def fused_name(name: str, fused: dict[str, list[str]]) -> str:
    """The parameter of vLLM that holds this one of Hugging Face's: q, k and v are one there."""
    for whole, parts in fused.items():
        for part in parts:
            name = name.replace(f".{part}.", f".{whole}.")
    return name


def checksum(values: Tensor) -> int:
    """The sum of all values' bits, read as whole numbers: exact, in any order and any division.

    Zeros, with which vLLM fills up a vocabulary, add nothing.
    """
    bits = values.detach().flatten().view(getattr(torch, f"int{8 * values.element_size()}"))
    return sum(part.sum().item() for part in bits.split(2**24))
