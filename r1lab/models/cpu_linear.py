"""Linear layers through oneDNN on AMD processors.

PyTorch multiplies float32 matrices on a CPU with MKL, which on AMD processors leaves AVX-512
unused: 95 GFLOP/s where oneDNN, in the same PyTorch, reaches 230 (one core of an EPYC,
8192x128 by 128x256). A training step of the small world becomes a quarter shorter.
"""

from functools import lru_cache
from pathlib import Path

import torch
from torch import Tensor, nn


@lru_cache
def prefers_onednn() -> bool:
    """True on an AMD processor with AVX-512, where oneDNN's float32 product is the faster one."""
    info = Path("/proc/cpuinfo")
    return (
        info.exists()
        and "AuthenticAMD" in info.read_text()
        and torch.backends.cpu.get_cpu_capability() == "AVX512"
    )


class _OneDNNLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx, grad: Tensor):
        x, weight = ctx.saved_tensors
        rows, x_rows = grad.reshape(-1, grad.shape[-1]), x.reshape(-1, x.shape[-1])
        needs_x, needs_weight, needs_bias = ctx.needs_input_grad
        return (
            _product(grad.contiguous(), weight.t().contiguous()) if needs_x else None,
            _product(rows.t(), x_rows.t()) if needs_weight else None,
            rows.sum(0) if needs_bias else None,
        )


def _product(x, weight, bias=None):
    """x @ weight.T + bias, by the operator that torch.compile uses for a linear layer."""
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class OneDNNLinear(nn.Linear):
    """nn.Linear whose float32 product on a CPU is oneDNN's."""

    def forward(self, x: Tensor) -> Tensor:
        single = self.weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        if x.device.type != "cpu" or not single or x.numel() == 0:
            return super().forward(x)
        return _OneDNNLinear.apply(x, self.weight, self.bias)


def speed_up_linear_layers(model: nn.Module):
    """Route the model's linear layers through oneDNN where that is faster; same results to 1e-6.

    The layers change their class, and not their `forward`: a function set on a module would go
    along with `copy.deepcopy` and compute with the weights of the original.
    """
    if not prefers_onednn():
        return
    for module in model.modules():
        if type(module) is nn.Linear and module.weight.dtype == torch.float32:
            module.__class__ = OneDNNLinear
