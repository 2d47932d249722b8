"""Optimiser groups, schedules, mixed precision and the sharpness-aware step, in mmengine's terms."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.dist import all_reduce
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS, PARAM_SCHEDULERS
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR

from mlcil.errors import UserError

PRECISIONS = ("auto", "fp32", "bf16", "fp16")


def decay_groups(
    model: nn.Module,
    weight_decay: float,
    lr: float | None = None,
    backbone_lr_mult: float = 1.0,
    decay_all: bool = False,
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
        decay_all: everything decays (official behaviour of the single-label papers).
    """
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        inside = backbone_lr_mult != 1 and "backbone." in name
        if parameter.requires_grad and not (inside and backbone_lr_mult == 0):
            plain = not decay_all and (parameter.ndim == 1 or name.endswith(".bias"))
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
        paramwise_cfg: ``backbone_lr_mult`` and ``decay_all``, see :func:`decay_groups`.
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

    passes = 1  # forward and backward passes over a batch; the last one's losses are logged

    def __init__(self, precision: str = "auto", device: str = "cpu", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.device = torch.device(device)
        self.dtype = resolve_precision(precision, self.device)
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=self.dtype == torch.float16)
        self.guarded = False  # whether a loss that is no number changes nothing

    def refuses(self, loss: Tensor) -> bool:
        """Whether the loss of any process is no number; looked at only when :attr:`guarded`."""
        if not self.guarded:
            return False
        bad = (~torch.isfinite(loss.detach()).all()).to(torch.int64)
        all_reduce(bad, "max")
        return bool(bad)

    def update_params(
        self,
        loss: Tensor,
        step_kwargs: dict[str, Any] | None = None,
        zero_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """As mmengine; a loss that :meth:`refuses` is left out."""
        if not self.refuses(loss):
            super().update_params(loss, step_kwargs, zero_kwargs)

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


@OPTIM_WRAPPERS.register_module()
class SharpnessAwareOptimWrapper(AutocastOptimWrapper):
    """Adaptive sharpness-aware minimisation (Kwon et al., "ASAM", ICML 2021; DAFormer's released form).

    A batch is passed twice. The first gradient g moves the weights up by :func:`sharpness_offsets`, the second
    gradient, taken there, is the one that the optimiser gets, back at the old weights. The engine uses it from
    the second session on; the first session and balanced fine-tuning take plain steps.

    Args:
        rho: radius; 3 in DAFormer's release.
        kwargs: see :class:`AutocastOptimWrapper`.

    Raises:
        UserError: fp16, whose scaled gradients this step does not know, accumulated gradients, or a radius that is
            no number above 0.
    """

    passes = 2

    def __init__(self, rho: float = 3.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.dtype == torch.float16:
            raise UserError("the sharpness-aware step does not work in fp16; use precision 'bf16' or 'fp32'")
        check_sharpness(rho, self._accumulative_counts)
        self.rho = rho
        self._weights: list[tuple[nn.Parameter, Tensor]] = []  # where the first pass was, between the two

    def update_params(
        self,
        loss: Tensor,
        step_kwargs: dict[str, Any] | None = None,
        zero_kwargs: dict[str, Any] | None = None,
    ) -> None:
        """Alternately: move up from the loss of the first pass, or back and step with that of the second."""
        if self.refuses(loss):
            with torch.no_grad():
                for parameter, weight in self._weights:
                    parameter.copy_(weight)
            self._weights = []
            return
        self.backward(loss)
        if not self._weights:
            parameters = [p for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None]
            self._weights = [(p, p.detach().clone()) for p in parameters]
            with torch.no_grad():
                for parameter, offset in zip(parameters, sharpness_offsets(parameters, self.rho), strict=True):
                    parameter.add_(offset)
        else:
            with torch.no_grad():
                for parameter, weight in self._weights:
                    parameter.copy_(weight)
            self._weights = []
            self.step(**(step_kwargs or {}))
        self.zero_grad(**(zero_kwargs or {}))


def check_sharpness(rho: object, accumulative_counts: int) -> None:
    """Refuse a radius that is no number above 0, and accumulated gradients, which the two passes do not know.

    Raises:
        UserError: says which of the two.
    """
    if accumulative_counts != 1:
        raise UserError("the sharpness-aware step takes one batch; remove optim_wrapper.accumulative_counts")
    if isinstance(rho, bool) or not isinstance(rho, (int, float)) or rho <= 0:
        raise UserError(f"optim_wrapper.rho is {rho!r}; expected a number above 0, such as 3.0")


#: wrappers that a config may name
OWN_WRAPPERS = ("AutocastOptimWrapper", "SharpnessAwareOptimWrapper")


def sharpness_offsets(parameters: Iterable[nn.Parameter], rho: float) -> list[Tensor]:
    """``w^2 g rho / (n + 1e-12)`` for every parameter, with n the L2 norm of ``|w| g`` over all of them.

    Args:
        parameters: parameters with gradients.
        rho: radius.
    """
    weights_and_gradients = [(p.detach(), p.grad.detach()) for p in parameters if p.grad is not None]
    norm = torch.stack([(w.abs() * g).norm() for w, g in weights_and_gradients]).norm()
    return [w.square() * g * (rho / (norm + 1e-12)) for w, g in weights_and_gradients]


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


@PARAM_SCHEDULERS.register_module()
class WarmupCosine(LRScheduler):
    """Linear warm-up and cosine over the epochs, as DKT's and DAFormer's releases use timm's.

    The learning rate is constant within an epoch. The schedule lags by one epoch, so the first two run at
    ``warmup_lr``, and the warm-up does not shorten the cosine: with k the epoch less one (at least 0),

        k < warmup:  warmup_lr + k (peak - warmup_lr) / warmup
        else         min_lr + (peak - min_lr) (1 + cos(pi k / epochs)) / 2

    Args:
        optimizer: an mmengine ``OptimWrapper`` or a torch optimiser; its ``lr`` is the peak.
        epochs: epochs of the session.
        epoch_length: iterations of an epoch (of no consequence here).
        warmup_epochs: length of the warm-up.
        warmup_lr: where it begins.
        min_lr: where the cosine would end.
    """

    by_epoch = True

    def __init__(
        self,
        optimizer: Any,
        epochs: int,
        epoch_length: int,
        warmup_epochs: int = 5,
        warmup_lr: float = 1e-6,
        min_lr: float = 1e-5,
    ) -> None:
        self.epochs, self.warmup_epochs, self.warmup_lr, self.min_lr = epochs, warmup_epochs, warmup_lr, min_lr
        super().__init__(getattr(optimizer, "optimizer", optimizer))

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Learning rate of each group in the current epoch."""
        k = max(self.last_epoch - 1, 0)
        peaks = [float(peak) for peak in self.base_lrs]
        if k < self.warmup_epochs:
            return [self.warmup_lr + k * (peak - self.warmup_lr) / self.warmup_epochs for peak in peaks]
        share = (1 + math.cos(math.pi * k / self.epochs)) / 2
        return [self.min_lr + (peak - self.min_lr) * share for peak in peaks]

    def state_dict(self) -> dict[str, Any]:
        """The epoch; everything else follows from the config."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}


@PARAM_SCHEDULERS.register_module()
class Steps(LRScheduler):
    """Steps by epochs, and on request a constant rate at the end (schedules of ABD's system and of R-DFCIL).

    Args:
        optimizer: an mmengine ``OptimWrapper`` or a torch optimiser; its ``lr`` is the first rate.
        epochs, epoch_length: of the session (of no consequence here).
        milestones: epochs from which on the rate has one factor ``gamma`` more.
        gamma: the factor.
        constant_from, constant: from that epoch on the rate is ``constant`` (R-DFCIL's refinement).

    Raises:
        ValueError: only one of ``constant_from`` and ``constant`` is given.
    """

    by_epoch = True

    def __init__(
        self,
        optimizer: Any,
        epochs: int,
        epoch_length: int,
        milestones: Sequence[int] = (),
        gamma: float = 0.1,
        constant_from: int | None = None,
        constant: float | None = None,
    ) -> None:
        if (constant_from is None) != (constant is None):
            raise ValueError("a constant rate at the end needs both constant_from=EPOCH and constant=RATE")
        self.milestones, self.gamma = sorted(milestones), gamma
        self.constant_from, self.constant = constant_from, constant
        super().__init__(getattr(optimizer, "optimizer", optimizer))

    def get_lr(self) -> list[float]:  # type: ignore[override]
        """Learning rate of each group in the current epoch."""
        epoch = self.last_epoch
        if self.constant_from is not None and self.constant is not None and epoch >= self.constant_from:
            return [self.constant for _ in self.base_lrs]
        factor = self.gamma ** sum(epoch >= milestone for milestone in self.milestones)
        return [float(first) * factor for first in self.base_lrs]

    def state_dict(self) -> dict[str, Any]:
        """The epoch; everything else follows from the config."""
        return {"last_epoch": self.last_epoch, "_step_count": self._step_count}


#: schedules that are built per session with its epochs and their length
SESSION_SCHEDULERS: dict[str, Any] = {"OneCycle": OneCycle, "Steps": Steps, "WarmupCosine": WarmupCosine}
