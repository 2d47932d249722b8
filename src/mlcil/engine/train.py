"""From a checked config to a finished run."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner import set_random_seed

from mlcil.datasets.scenario import Scenario
from mlcil.engine import checkpoint
from mlcil.engine.config import as_dict
from mlcil.engine.loop import worker_killed
from mlcil.engine.optim import resolve_precision
from mlcil.engine.resume import conditions, differences, expected_processes, expected_rank
from mlcil.engine.runner import IncrementalRunner
from mlcil.errors import UserError
from mlcil.files import check_writable, remove_leftovers
from mlcil.interop.pretrained import load_pretrained, resolve_source
from mlcil.memory import Memory, build_memory
from mlcil.methods.base import Method
from mlcil.models.network import IncrementalNetwork
from mlcil.registry import DATASETS, METHODS
from mlcil.system.allocator import keep_freed_memory
from mlcil.system.lock import RunLock

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
    notes: tuple[str, ...] = ()  # first lines for the log


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


def check_free(cfg: Config, resume: bool = False, overwrite: bool = False) -> None:
    """Whether the folders of the run may be written.

    Raises:
        UserError: a run of that name exists and neither ``resume`` nor ``overwrite`` is given, or they cannot be
            written.
    """
    run_dir, checkpoint_dir = _folders(cfg)
    older = [path for path in (run_dir / "config.py", checkpoint_dir / "session_0.pth") if path.exists()]
    if older and not (resume or overwrite):
        raise UserError(
            f"{older[0].parent} holds a run of that name already; go on with it by --resume, choose another --name, "
            "or replace it by --overwrite"
        )
    check_writable(run_dir, "log_root")
    check_writable(checkpoint_dir, "checkpoint_root")


def check_run(cfg: Config, resume: bool = False, overwrite: bool = False, accept_changes: bool = False) -> Start:
    """Everything that can be wrong with names, data, network and weights, before anything is written.

    Raises:
        UserError: missing or unusable data or weights; a run of that name exists and neither ``resume`` nor
            ``overwrite`` is given; nothing to resume, or not under the same conditions (``accept_changes`` takes
            them); or the folders of the run cannot be written.
    """
    check_free(cfg, resume, overwrite)
    run_dir, checkpoint_dir = _folders(cfg)
    resolve_precision(cfg.precision, get_device())
    state, notes = None, list[str]()
    if resume and ((checkpoint_dir / "resume.pth").exists() or not run_was_begun(cfg)):
        state = checkpoint.load_resume_state(checkpoint_dir / "resume.pth")
    elif resume:
        notes.append(f"nothing was saved in {checkpoint_dir} yet; the run starts at its beginning")
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
        return Start(scenario, method, memory, load_weights(cfg, method, scenario), None, tuple(notes))
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
    changes = differences(state["conditions"], conditions(cfg))
    if changes and not accept_changes:
        raise UserError(
            f"{checkpoint_dir / 'resume.pth'} was written under other conditions: {'; '.join(changes[:8])}"
            f"{f' and {len(changes) - 8} more' if len(changes) > 8 else ''}. The numbers would not be those of one "
            f"run, so go back to them (the run's config is {run_dir / 'config.py'}), or take the changes with "
            "--accept-changes"
        )
    notes += [f"resumed under other conditions: {change}" for change in changes]
    if not state["inside"] and state["session"] == 0:
        load_weights(cfg, method, scenario)
    return Start(scenario, method, memory, state["weights"], state, tuple(notes))


def is_begun(cfg: Config) -> bool:
    """Whether there is a run of that name to go on with."""
    return (_folders(cfg)[1] / "resume.pth").exists() or run_was_begun(cfg)


def run_was_begun(cfg: Config) -> bool:
    """Whether a process has written into the run's folder and was stopped before it could save anything."""
    run_dir, checkpoint_dir = _folders(cfg)
    return run_dir.exists() and not any(checkpoint_dir.glob("session_*.pth"))


def _folders(cfg: Config) -> tuple[Path, Path]:
    return Path(cfg.log_root) / cfg.name, Path(cfg.checkpoint_root) / cfg.name


def build_runner(
    cfg: Config, resume: bool = False, overwrite: bool = False, accept_changes: bool = False
) -> IncrementalRunner:
    """Scenario, method, memory and runner; nothing is trained yet. Raises as :func:`check_run`."""
    start = check_run(cfg, resume, overwrite, accept_changes)
    if overwrite:
        for old in _folders(cfg)[1].glob("*.pth"):
            old.unlink(missing_ok=True)  # another process of the run may be faster
    return IncrementalRunner(
        cfg, start.scenario, start.method, start.memory, start.weights, start.resume, resume, start.notes
    )


def train(
    cfg: Config, resume: bool = False, overwrite: bool = False, accept_changes: bool = False
) -> list[dict[str, Any]]:
    """Run all sessions; returns the sessions' results.

    Args:
        cfg: the checked config.
        resume: go on where the run of that name was saved last.
        overwrite: replace a run of that name.
        accept_changes: resume also under other conditions (config, versions, number of processes).

    Raises:
        UserError: as :func:`check_run`, another process runs under that name, an image that cannot be read, a disk
            that takes no more, or not enough memory.
        StoppedError: a signal asked the run to stop; its state is saved.
    """
    check_free(cfg, resume, overwrite)
    with ExitStack() as stack:
        notes: list[str] = []
        if expected_rank(cfg) == 0:
            if resume and not run_was_begun(cfg) and not (_folders(cfg)[1] / "resume.pth").exists():
                checkpoint.load_resume_state(_folders(cfg)[1] / "resume.pth")  # says that there is nothing
            for folder in sorted(set(_folders(cfg))):
                lock = stack.enter_context(RunLock(folder))
                notes += [lock.stale] if lock.stale else []
            for folder in _folders(cfg):
                remove_leftovers(folder)
            check_free(cfg, resume, overwrite)  # again, since another run may have ended between the two
        try:
            runner = build_runner(cfg, resume, overwrite, accept_changes)
            runner.notes += notes
            runner.train()
        except (OSError, RuntimeError, MemoryError, ValueError) as error:
            sentence = explain(error, cfg)
            if sentence is None:
                raise
            raise UserError(sentence) from error
    return runner.results


def explain(error: BaseException, cfg: Config) -> str | None:
    """The sentence for an error of the machine, or ``None`` for one of ours."""
    if isinstance(error, UserError):
        return None
    text = " ".join(str(error).split())
    if isinstance(error, OSError):
        if error.errno not in DISK_ERRORS:
            return None
        return (
            f"{error.filename or _folders(cfg)[0]} could not be written ({error.strerror}); make room or give the "
            "folder write permission, then go on with --resume"
        )
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return out_of_memory(cfg, text)
    if "Expected more than 1 value per channel" in text:
        return (
            f"a batch of one image has no statistics for a batch norm of 1x1 maps (batches of "
            f"{cfg.train_dataloader['batch_size']} leave one over); set train_dataloader.drop_last=True or another "
            "batch_size, then go on with --resume --accept-changes"
        )
    if "DataLoader worker" in text:
        return worker_killed(text)
    if expected_processes(cfg) > 1 and any(word in text for word in LOST):
        return f"another process of the run has ended, its own error comes first ({text[:200]})"
    return None


#: what the communication between processes says when one of them is gone
LOST = ("Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe", "NCCL")


def out_of_memory(cfg: Config, text: str) -> str:
    """What to lower, and by how much."""
    batch = int(cfg.train_dataloader["batch_size"])
    half = max(batch // 2, 1)
    wrapper = cfg.optim_wrapper
    steps = 2 * int(wrapper.get("accumulative_counts", 1))
    where = "GPU" if "CUDA" in text else "machine"
    first = (
        f"halve train_dataloader.batch_size from {batch} to {half} and set optim_wrapper.accumulative_counts={steps}, "
        "which keeps the images of an update"
        if batch > 1
        else f"lower network.image_size from {cfg.network.image_size}"
    )
    workers = max(int(cfg.train_dataloader["num_workers"]), int(cfg.test_dataloader["num_workers"]))
    rest = [f"test_dataloader.batch_size (now {cfg.test_dataloader['batch_size']}), when it happened in an evaluation"]
    if where == "GPU":
        rest.insert(0, f"precision='bf16' (now {cfg.precision!r})")
    elif workers:
        rest.insert(0, f"num_workers of both loaders (now up to {workers}) to {workers // 2}")
    return (
        f"the {where} has not enough memory ({text[:160]}); {first}, then lower or set {', or '.join(rest)}, and go on "
        "with --resume --accept-changes"
    )
