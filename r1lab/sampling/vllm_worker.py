"""What r1lab adds to vLLM's worker: new weights in place, and the proof that they are there."""

from collections import Counter
from collections.abc import Iterable

from torch import Tensor, int16, int32


class WeightUpdate:
    """Mixed into vLLM's worker class by `worker_extension_cls`; `self` is a vLLM worker."""

    def r1lab_update(self, weights: Iterable[tuple[str, Tensor]]) -> tuple[int, list[str]]:
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
        return len(held), [name for name in held if checksum(held[name]) != sums[name]]

    def r1lab_context(self) -> int:
        """The longest sequence, in tokens, that model and cache have room for."""
        return self.model_config.max_model_len


def fused_name(name: str, fused: dict[str, list[str]]) -> str:
    """Find the parameter of vLLM that holds this one of Hugging Face's: q, k and v are one there."""
    for whole, parts in fused.items():
        for part in parts:
            name = name.replace(f".{part}.", f".{whole}.")
    return name


def checksum(values: Tensor) -> int:
    """Sum all values' bits, read as whole numbers: exact, in any order and any division.

    Zeros, with which vLLM fills up a vocabulary, add nothing.
    """
    bits = values.detach().flatten().view(int16 if values.element_size() == 2 else int32)
    return sum(part.sum().item() for part in bits.split(2**24))
