"""Optimiser groups, mixed precision and the sharpness-aware step, in mmengine's terms."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import torch
from annotated_types import Ge
from mmengine.dist import all_reduce, broadcast, get_world_size
from mmengine.optim import OptimWrapper, build_optim_wrapper
from mmengine.registry import OPTIM_WRAPPER_CONSTRUCTORS, OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, nn

from mlcil.engine.run import Run
from mlcil.errors import UserError
from mlcil.models.numerics import autocast, resolve_precision


def decay_groups(
    model: nn.Module,
    weight_decay: float,
    lr: float | None = None,
    backbone_lr_mult: Annotated[float, Ge(0)] = 1.0,
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
        self.refused = False  # whether the last one was such

    def refuses(self, loss: Tensor) -> bool:
        """Whether the loss of any process is no number; looked at only when :attr:`guarded`."""
        if self.guarded:
            bad = (~torch.isfinite(loss.detach()).all()).to(torch.int64)
            all_reduce(bad, "max")
            self.refused = bool(bad)
        return self.refused

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
    gradient, taken there, is the one that the optimiser gets, back at the old weights.

    Args:
        rho: radius; 3 in DAFormer's release.
        kwargs: see :class:`AutocastOptimWrapper`.

    Raises:
        UserError: fp16, whose scaled gradients this step does not know, or accumulated gradients.
    """

    passes = 2

    def __init__(self, rho: float = 3.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self.dtype == torch.float16:
            raise UserError("the sharpness-aware step does not work in fp16; use precision 'bf16' or 'fp32'")
        if self._accumulative_counts != 1:
            raise UserError("the sharpness-aware step takes one batch; remove optim_wrapper.accumulative_counts")
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


def sharpness_offsets(parameters: Iterable[nn.Parameter], rho: float) -> list[Tensor]:
    """``w^2 g rho / (n + 1e-12)`` for every parameter, with n the L2 norm of ``|w| g`` over all of them.

    Args:
        parameters: parameters with gradients.
        rho: radius.
    """
    weights_and_gradients = [(p.detach(), p.grad.detach()) for p in parameters if p.grad is not None]
    norm = torch.stack([(w.abs() * g).norm() for w, g in weights_and_gradients]).norm()
    return [w.square() * g * (rho / (norm + 1e-12)) for w, g in weights_and_gradients]


def build_optimiser(
    run: Run,
    model: nn.Module,
    steps: int,
    processes: int = 1,
    lr: float | None = None,
    constant: bool = False,
    rho: float | None = None,
) -> AutocastOptimWrapper:
    """Fresh optimiser and scaler for the parameters that train now.

    Args:
        run: its settings.
        model: the method, or its data-parallel wrapper.
        steps: iterations that it will see.
        processes: how many train together.
        lr: learning rate instead of the optimiser's ``lr``.
        constant: ``lr`` is taken as it is, also where the run scales its rates to the images of an update.
        rho: radius of the sharpness-aware step; ``None`` for a plain one.
    """
    options = {key: value for key, value in vars(run.optimiser).items() if value is not None}
    optimizer = options["optimizer"] = dict(options["optimizer"])
    if lr is not None:
        optimizer["lr"] = lr
    base = run.batch_sizes.base_batch_size if run.batch_sizes is not None else None
    if base is not None and not constant:
        optimizer["lr"] *= run.images_per_step(processes) / base
    if rho is not None:
        options.update(type="SharpnessAwareOptimWrapper", rho=rho)
    if not run.settings.deterministic and not {"fused", "foreach"} & set(optimizer):
        optimizer_class = getattr(torch.optim, optimizer["type"])
        if "fused" in inspect.signature(optimizer_class.__init__).parameters:
            optimizer["fused"] = True  # one kernel for all parameters, same rule
    options.update(precision=run.settings.precision, device=next(model.parameters()).device.type)
    wrapper: AutocastOptimWrapper = build_optim_wrapper(model, options)
    wrapper.initialize_count_status(model, 0, steps)
    wrapper.guarded = run.train.skip_not_finite > 0
    wrapper.zero_grad()  # a phase that skipped steps may have left half a gradient
    return wrapper


@torch.no_grad()
def share_buffers(model: nn.Module) -> None:
    """Give every process the first one's buffers: running statistics of batch norms are per process in training."""
    if get_world_size() > 1:
        for buffer in model.buffers():
            broadcast(buffer)
