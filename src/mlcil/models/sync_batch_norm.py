"""Batch norms whose statistics are those of every process's batch, so that W processes of B images are as one of W B.

    m = sum_p sum_i x_pi / n        v = sum_p sum_i (x_pi - m)^2 / n        n = sum_p n_p

over images and positions i of the processes p. The gradient runs through both sums, so that the mean of the processes'
gradients is the gradient of the whole batch. :class:`torch.nn.SyncBatchNorm` does the same on GPUs for the layers that
are turned into it; here every call of ``batch_norm`` in training counts, of any layer, on any device, and the network
stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce
from torch import Tensor
from torch.overrides import TorchFunctionMode


class SumOverProcesses(torch.autograd.Function):
    """The sum over the processes of tensors of one shape; each process's loss sends its gradient to all of them."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor) -> Tensor:
        total = tensor.clone(memory_format=torch.contiguous_format)
        all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return SumOverProcesses.apply(gradient)  # type: ignore[no-any-return, no-untyped-call]


class SynchronisedBatchNorm(TorchFunctionMode):
    """A context in which batch norms that train use the batches of all processes.

    Every process must come to the same layers in the same order, as data-parallel training demands anyway.

    Attributes:
        active: in how many such contexts this process is; layers with rules of their own ask for it.
    """

    active = 0

    def __enter__(self) -> SynchronisedBatchNorm:
        SynchronisedBatchNorm.active += 1
        return super().__enter__()  # type: ignore[no-any-return, no-untyped-call]

    def __exit__(self, *error: Any) -> None:
        SynchronisedBatchNorm.active -= 1
        super().__exit__(*error)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        return (batch_norm if func is F.batch_norm else func)(*args, **(kwargs or {}))


def batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    """:func:`torch.nn.functional.batch_norm`, in training with the statistics of all processes.

    Args:
        x: (B, C, ...); B may differ between processes. Statistics are float32 at least.
        running_mean: (C,); moves by ``momentum`` towards the mean of all processes.
        running_var: (C,); the same with the unbiased variance.
        weight: (C,).
        bias: (C,).
        training: else the running statistics are used, in this process alone.
        momentum: of the running statistics.
        eps: beside the variance.

    Returns:
        Like ``x``, in its dtype.
    """
    if not training:
        return F.batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    wide = x if x.dtype == torch.float64 else x.float()
    dims = [dim for dim in range(x.ndim) if dim != 1]
    shape = [1, -1] + [1] * (x.ndim - 2)
    count = torch.tensor([x.numel() / x.shape[1]], dtype=wide.dtype, device=x.device)
    sums = SumOverProcesses.apply(torch.cat([wide.sum(dims), count]))  # type: ignore[no-untyped-call]
    number = sums[-1].detach()
    mean_C = sums[:-1] / number
    centred = wide - mean_C.view(shape)
    variance_C = SumOverProcesses.apply(centred.square().sum(dims)) / number  # type: ignore[no-untyped-call]
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            unbiased_C = variance_C * number / (number - 1).clamp(min=1)
            running_mean.lerp_(mean_C.to(running_mean.dtype), momentum)
            running_var.lerp_(unbiased_C.to(running_var.dtype), momentum)
    scale_C = torch.rsqrt(variance_C + eps)
    if weight is not None:
        scale_C = scale_C * weight
    y = centred * scale_C.view(shape)
    return (y if bias is None else y + bias.view(shape)).to(x.dtype)
