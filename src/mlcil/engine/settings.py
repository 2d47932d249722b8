"""The sections of a config that no class takes as they are, and its plain values, with their ranges."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le

Positive = Annotated[int, Ge(1)]
NotNegative = Annotated[int, Ge(0)]
BatchSize = Annotated[int, Ge(1), Le(2**16)]
Workers = Annotated[int, Ge(0), Le(1024)]
Precision = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Plain:
    """What stands in a config outside of its sections, with the defaults.

    Attributes:
        name: of the run; default: from the config's words or path.
        pretrained: weight file, ``package:efficientnet-lite0``, or ``None`` for random initial weights.
        allow_leaky_weights: load weights that were trained on the evaluated classes.
        engine: of frozen features: ``torch``, ``onnxruntime``, or ``auto``, the latter on a CPU where it is installed.
        precision: of training.
        channels_last: memory layout of convolutions; same numbers up to rounding.
        fold_batch_norm: inside convolutions where nothing trains; not with ``deterministic``.
        sync_batch_norm: statistics of training are those of all processes' batches, not of each process's own.
        deterministic: the same bits from the same seed.
        threads: CPU threads of the arithmetic; ``None`` leaves PyTorch's choice.
        seed: of everything that is drawn.
        empty_classes: a class without test positives counts as AP 0 (official) or is left out: ``skip``.
        local_accuracy: images that count where predictions are among a session's classes; ``official`` is ABD's.
        on_bad_image: an image that cannot be read stops the run, or is left out and counted: ``skip``.
        log_root, checkpoint_root: folders of runs.
        log_level: of the log file.
        log_interval: steps between two loss lines.
        full_paths: results.json names folders in full, not from the current or the home folder on.
        launcher: ``pytorch`` under torchrun, ``slurm``, or ``none``.
        compile: the backbone through ``torch.compile``: other rounding, and minutes before the first step.
    """

    name: str | None = None
    pretrained: str | None = None
    allow_leaky_weights: bool = False
    engine: Literal["auto", "torch", "onnxruntime"] = "auto"
    precision: Precision = "auto"
    channels_last: bool = True
    fold_batch_norm: bool = True
    sync_batch_norm: bool = False
    deterministic: bool = False
    threads: Annotated[int, Ge(1), Le(4096)] | None = None
    seed: Annotated[int, Ge(0), Le(2**32 - 1)] = 3407
    empty_classes: Literal["zero", "skip"] = "zero"
    local_accuracy: Literal["all", "official"] = "all"
    on_bad_image: Literal["raise", "skip"] = "raise"
    log_root: str = "logs"
    checkpoint_root: str = "saved_models"
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_interval: Positive = 50
    full_paths: bool = False
    launcher: Literal["none", "pytorch", "slurm"] = "none"
    compile: bool = False


@dataclass(frozen=True)
class TrainSettings:
    """Section ``train_cfg``: how long a session trains, and how carefully.

    Attributes:
        max_epochs: epochs of a session.
        base_lr: peak learning rate of session 0; later sessions use the optimiser's ``lr``.
        base_epochs: epochs of session 0 when they differ from ``max_epochs``.
        val_interval: 0 evaluates at the end of a session only; n also every n epochs (official: 1).
        stop_after_session: end the run behind this session index (a shortened run), ``None`` for all.
        save_interval: iterations between two saved states, and the end of every epoch; 0 is the end of every epoch
            alone; ``None`` chooses it so that saving takes less than 2% of the time.
        skip_not_finite: how many steps whose loss is no number are left out, with a warning, before the run stops;
            0 stops at the first.
        repeated_augmentation: views of an image in a batch; 1 is ordinary shuffling.
    """

    max_epochs: Annotated[int, Ge(1), Le(10**6)] = 20
    base_lr: Annotated[float, Gt(0)] | None = None
    base_epochs: Positive | None = None
    val_interval: NotNegative = 0
    stop_after_session: NotNegative | None = None
    save_interval: NotNegative | None = None
    skip_not_finite: NotNegative = 0
    repeated_augmentation: Annotated[int, Ge(1), Le(1000)] = 1

    def epochs(self, session: int) -> int:
        """Epochs of a session."""
        return self.base_epochs if session == 0 and self.base_epochs else self.max_epochs


@dataclass(frozen=True)
class TrainLoader:
    """Section ``train_dataloader``; ``batch_size`` is that of a process."""

    batch_size: BatchSize = 64
    num_workers: Workers = 8
    drop_last: bool = False


@dataclass(frozen=True)
class TestLoader:
    """Section ``test_dataloader``, also of other passes without a gradient."""

    batch_size: BatchSize = 64
    num_workers: Workers = 8
    precision: Precision = "fp32"


@dataclass(frozen=True)
class Optimiser:
    """Section ``optim_wrapper``.

    Attributes:
        optimizer: a class of :mod:`torch.optim` by ``type`` and its arguments.
        type: of the wrapper; a method that wants another step asks for it in its phases.
        accumulative_counts: batches of an update.
        clip_grad: see :class:`ClipNorm` and, with the type ``value``, :class:`ClipValue`.
        constructor: of the parameter groups.
        paramwise_cfg: arguments of :func:`mlcil.engine.optim.decay_groups`.
    """

    optimizer: dict[str, Any]
    type: Literal["AutocastOptimWrapper"] = "AutocastOptimWrapper"
    accumulative_counts: Annotated[int, Ge(1), Le(10**6)] = 1
    clip_grad: dict[str, Any] | None = None
    constructor: str = "DecayGroupsConstructor"
    paramwise_cfg: dict[str, Any] | None = None


@dataclass(frozen=True)
class ClipNorm:
    """Section ``optim_wrapper.clip_grad``, arguments of :func:`torch.nn.utils.clip_grad_norm_`.

    Attributes:
        max_norm: gradients of all parameters together become no longer than that.
        norm_type: p of the norm.
        foreach: one kernel for all parameters; ``None`` where it is faster.
    """

    max_norm: Annotated[float, Gt(0)]
    norm_type: Annotated[float, Gt(0)] = 2.0
    foreach: bool | None = None


@dataclass(frozen=True)
class ClipValue:
    """Section ``optim_wrapper.clip_grad`` of type ``value``, arguments of :func:`torch.nn.utils.clip_grad_value_`.

    Attributes:
        clip_value: every element of a gradient becomes no larger than that.
        foreach: as for :class:`ClipNorm`.
    """

    clip_value: Annotated[float, Gt(0)]
    foreach: bool | None = None


@dataclass(frozen=True)
class BatchSizes:
    """Section ``auto_scale_lr``: how many images an update should see.

    Attributes:
        base_batch_size: images of an update that the learning rates are meant for; they are scaled in proportion to
            the images that it has. ``None`` leaves them as they are.
        published_batch_size: the log says when an update has another number of images than that.
    """

    base_batch_size: Positive | None = None
    published_batch_size: Positive | None = None
