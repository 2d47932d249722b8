"""Optimiser groups, the one-cycle schedule and mixed precision, in mmengine's terms."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS, PARAM_SCHEDULERS
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR

from mlcil.errors import UserError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def decay_groups(
    model: nn.Module, weight_decay: float, lr: float | None = None, backbone_lr_mult: float = 1.0
) -> list[dict[str, Any]]:
    """Trainable parameters in two groups: without decay (1-D or ``*.bias``) and with.

    Tokens and the positional embedding decay, norm weights and biases do not; frozen parameters are in
    neither group (KRT official behaviour).

    Args:
        model: a method, or a network.
        weight_decay: of the second group.
        lr: peak learning rate; needed with ``backbone_lr_mult``.
        backbone_lr_mult: when it is not 1, the backbone's parameters form two more groups that learn at
            ``lr * backbone_lr_mult`` (0 freezes them).
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        inside = backbone_lr_mult != 1 and "backbone." in name
        if parameter.requires_grad and not (inside and backbone_lr_mult == 0):
            plain = parameter.ndim == 1 or name.endswith(".bias")
            groups.setdefault((inside, not plain), []).append(parameter)
    made = []
    for (inside, decays), parameters in sorted(groups.items(), key=lambda item: item[0]):
        group: dict[str, Any] = {"params": parameters, "weight_decay": weight_decay if decays else 0.0}
        if inside:
            assert lr is not None
            group["lr"] = lr * backbone_lr_mult
        made.append(group)
    return made


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class DecayGroupsConstructor:
    """mmengine optim-wrapper constructor that uses :func:`decay_groups`.

    Args:
        optim_wrapper_cfg: ``optimizer`` and the wrapper's options.
        paramwise_cfg: ``backbone_lr_mult``, see :func:`decay_groups`.
    """

    def __init__(self, optim_wrapper_cfg: dict[str, Any], paramwise_cfg: dict[str, Any] | None = None) -> None:
        self.wrapper_cfg = dict(optim_wrapper_cfg)
        self.optimizer_cfg = dict(self.wrapper_cfg.pop("optimizer"))
        self.groups_cfg = dict(paramwise_cfg or {})

    def __call__(self, model: nn.Module) -> OptimWrapper:
        decay = self.optimizer_cfg.pop("weight_decay", 0.0)
        groups = decay_groups(model, decay, self.optimizer_cfg.get("lr"), **self.groups_cfg)
        optimizer = OPTIMIZERS.build({**self.optimizer_cfg, "params": groups})
        return OPTIM_WRAPPERS.build({"type": "AutocastOptimWrapper", **self.wrapper_cfg, "optimizer": optimizer})


def resolve_precision(precision: str, device: torch.device | str) -> torch.dtype:
    """The dtype matrix products run in.

    ``auto`` is bf16 where the hardware multiplies it natively, fp16 on older GPUs, and fp32 elsewhere.

    Raises:
        UserError: an unknown name, or fp16 on the CPU.
    """
    kind = torch.device(device).type
    if precision not in PRECISIONS:
        raise UserError(f"precision {precision!r} is unknown; use one of {', '.join(PRECISIONS)}")
    if precision == "fp16" and kind == "cpu":
        raise UserError("precision 'fp16' does not train on the CPU; use 'bf16', 'fp32' or 'auto'")
    if precision == "auto":
        if kind == "cuda":
            precision = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        else:
            native = bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
            precision = "bf16" if native else "fp32"
    return {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[precision]


@OPTIM_WRAPPERS.register_module()
class AutocastOptimWrapper(OptimWrapper):
    """``OptimWrapper`` with autocast on any device, and a loss scaler when the dtype is fp16.

    mmengine's own AMP wrapper refuses to run on the CPU; this one makes the mixed-precision path testable
    everywhere. The schedule is stepped also when the scaler skips a step, as in the official code.
    """

    def __init__(self, precision: str = "auto", device: str = "cpu", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.device = torch.device(device)
        self.dtype = resolve_precision(precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Autocast around the forward pass."""
        with super().optim_context(model), autocast(self.device, self.dtype):
            yield

    def backward(self, loss: Tensor, **kwargs: Any) -> None:
        """Backward of the (scaled) loss."""
        self.scaler.scale(loss).backward(**kwargs)  # type: ignore[no-untyped-call]
        self._inner_count += 1

    def step(self, **kwargs: Any) -> None:
        """Clip if asked for, step and update the scale."""
        if self.clip_grad_kwargs:
            self.scaler.unscale_(self.optimizer)
            self._clip_grad()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()

    def state_dict(self) -> dict[str, Any]:
        """Optimiser state and the scaler's."""
        return {"optimizer": self.optimizer.state_dict(), "scaler": self.scaler.state_dict()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.optimizer.load_state_dict(state_dict["optimizer"])
        self.scaler.load_state_dict(state_dict["scaler"])


def autocast(device: torch.device | str, dtype: torch.dtype) -> torch.autocast:
    """Autocast to ``dtype`` on that device; nothing happens for float32."""
    return torch.autocast(torch.device(device).type, dtype=dtype, enabled=dtype != torch.float32)


@PARAM_SCHEDULERS.register_module()
class OneCycle(OneCycleLR):
    """The one-cycle schedule of KRT, stepped every iteration.

    Learning rate max/25 -> max -> max/250000 by cosine, and Adam's beta1 0.95 -> 0.85 -> 0.95 (so it is
    never 0.9), with the peak at iteration ``pct_start * T - 1``.

    Args:
        optimizer: an mmengine ``OptimWrapper`` or a torch optimiser; its ``lr`` is the peak.
        epochs: epochs of the session.
        epoch_length: iterations of an epoch.
        pct_start: share of the iterations before the peak.
    """

    by_epoch = False

    def __init__(self, optimizer: Any, epochs: int, epoch_length: int, pct_start: float = 0.2) -> None:
        optimizer = getattr(optimizer, "optimizer", optimizer)
        total = epochs * epoch_length
        if pct_start * total == 1:  # a rise of no length divides by zero in torch
            pct_start += 1e-9
        peaks = [group["lr"] for group in optimizer.param_groups]
        super().__init__(optimizer, max_lr=peaks, total_steps=total, pct_start=pct_start)

    def step(self, epoch: int | None = None) -> None:
        """Next iteration; the step after the last iteration changes nothing."""
        if self.last_epoch + 1 < self.total_steps:
            super().step()

    def state_dict(self) -> dict[str, Any]:
        """The iteration; everything else follows from the config."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}
