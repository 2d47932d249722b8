"""From a checked config to a finished run."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import set_random_seed

from mlcil.datasets.scenario import Scenario
from mlcil.engine import checkpoint
from mlcil.engine.allocator import keep_freed_memory
from mlcil.engine.config import as_dict
from mlcil.engine.optim import resolve_precision
from mlcil.engine.runner import IncrementalRunner
from mlcil.errors import UserError
from mlcil.files import check_writable
from mlcil.interop.pretrained import load_pretrained, resolve_source
from mlcil.memory import Memory, build_memory
from mlcil.methods.base import Method
from mlcil.models.network import IncrementalNetwork
from mlcil.registry import DATASETS, METHODS

DEMO_HINT = "`sh train_mlcil_coco.sh --demo` runs without it"
#: what the disk says when a file cannot be written
DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST
}  # fmt: skip


@dataclass(frozen=True)
class Start:
    """What a run starts from, all of it checked; nothing is written yet."""

    scenario: Scenario
    method: Method  # with pretrained weights, when the config names some
    memory: Memory | None
    weights: dict[str, Any] | None  # provenance of the pretrained weights
    resume: dict[str, Any] | None  # the rolling state of the run to go on with


def build_scenario(cfg: Config) -> Scenario:
    """The scenario of a config; data are read here."""
    options = as_dict(cfg.scenario)
    arguments = options.pop("dataset")
    try:
        dataset = DATASETS.get(arguments.pop("type"))(**arguments)
    except TypeError as error:
        raise UserError(f"scenario.dataset: {error}") from error
    if cfg.memory is not None:
        options["replay_labels"] = cfg.memory.get("labels", "oracle")
    return Scenario(dataset=dataset, **options)


def build_method(cfg: Config) -> Method:
    """The method of a config around a fresh network."""
    try:
        network = IncrementalNetwork(**as_dict(cfg.network))
        arguments = as_dict(cfg.method)
        return METHODS.get(arguments.pop("type"))(network=network, **arguments)  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise UserError(f"network or method of the config: {error}") from error


def check_outputs(method: Method, scenario: Scenario) -> None:
    """A head whose outputs are all there from the beginning must have one for every class.

    Raises:
        UserError: it has fewer.
    """
    outputs, classes = getattr(method.network.head, "num_classes", None), scenario.sessions[-1].high
    if outputs is not None and outputs < classes:
        raise UserError(
            f"network.head.num_classes is {outputs}, but the scenario has {classes} classes; set "
            f"network.head.num_classes={len(scenario.classes)}"
        )


def load_weights(cfg: Config, method: Method, scenario: Scenario) -> dict[str, Any] | None:
    """Put the config's pretrained weights into the backbone.

    Returns:
        Their provenance, or ``None`` when the backbone starts from random values.

    Raises:
        UserError: the file is missing (says what runs without it), damaged, of another backbone, or leaking.
    """
    if cfg.pretrained is None:
        return None
    path, _ = resolve_source(cfg.pretrained)
    if not path.exists():
        raise UserError(
            f"pretrained weights are missing: expected the file {path} (docs/data.md says where to get it); {DEMO_HINT}"
        )
    return load_pretrained(
        method.network.backbone,  # type: ignore[arg-type]
        cfg.pretrained,
        scenario.classes,
        allow_leaky_weights=cfg.allow_leaky_weights,
    )


def check_run(cfg: Config, resume: bool = False, overwrite: bool = False) -> Start:
    """Everything that can be wrong with names, data, network and weights, before anything is written.

    Raises:
        UserError: missing or unusable data or weights; a run of that name exists and neither ``resume`` nor
            ``overwrite`` is given; nothing to resume; or the folders of the run cannot be written.
    """
    run_dir, checkpoint_dir = Path(cfg.log_root) / cfg.name, Path(cfg.checkpoint_root) / cfg.name
    older = [path for path in (run_dir / "config.py", checkpoint_dir / "session_0.pth") if path.exists()]
    if older and not (resume or overwrite):
        raise UserError(
            f"{older[0].parent} holds a run of that name already; go on with it by --resume, choose another --name, "
            "or replace it by --overwrite"
        )
    check_writable(run_dir, "log_root")
    check_writable(checkpoint_dir, "checkpoint_root")
    resolve_precision(cfg.precision, get_device())
    state = checkpoint.load_resume_state(checkpoint_dir / "resume.pth") if resume else None
    scenario = build_scenario(cfg)
    scenario.train.check_files()
    scenario.test.check_files()
    if not torch.cuda.is_available():
        keep_freed_memory()
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    memory = build_memory(as_dict(cfg.memory)) if cfg.memory is not None else None
    set_random_seed(cfg.seed, deterministic=cfg.deterministic)  # before the first initial weight is drawn
    method = build_method(cfg)
    check_outputs(method, scenario)
    if state is None:
        return Start(scenario, method, memory, load_weights(cfg, method, scenario), None)
    if state["protocol_hash"] != scenario.hash:
        raise UserError(
            f"{checkpoint_dir / 'resume.pth'} belongs to protocol {state['protocol_hash']}, but this config and data "
            f"give {scenario.hash}; resume with the config in {run_dir / 'config.py'} and the same data, or start "
            "another --name"
        )
    if state["network"] != checkpoint.plain(method.network.spec):
        raise UserError(
            f"{checkpoint_dir / 'resume.pth'} holds another network ({state['network']}) than the config; resume with "
            f"the config in {run_dir / 'config.py'}, or start another --name"
        )
    return Start(scenario, method, memory, state["weights"], state)


def build_runner(cfg: Config, resume: bool = False, overwrite: bool = False) -> IncrementalRunner:
    """Scenario, method, memory and runner; nothing is trained yet. Raises as :func:`check_run`."""
    start = check_run(cfg, resume, overwrite)
    if overwrite:
        for old in (Path(cfg.checkpoint_root) / cfg.name).glob("*.pth"):
            old.unlink(missing_ok=True)  # another process of the run may be faster
    return IncrementalRunner(cfg, start.scenario, start.method, start.memory, start.weights, start.resume)


def train(cfg: Config, resume: bool = False, overwrite: bool = False) -> list[dict[str, Any]]:
    """Run all sessions; returns the sessions' results.

    Raises:
        UserError: as :func:`check_run`, an image that cannot be read, or a disk that takes no more.
    """
    try:
        runner = build_runner(cfg, resume, overwrite)
        runner.train()
    except OSError as error:
        if error.errno not in DISK_ERRORS:
            raise
        run_dir = Path(cfg.log_root) / cfg.name
        raise UserError(
            f"{error.filename or run_dir} could not be written ({error.strerror}); make room or give the folder "
            "write permission, then go on with --resume"
        ) from error
    return runner.results
