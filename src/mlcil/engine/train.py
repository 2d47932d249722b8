"""A run from a checked config to its end: locks, sentences for what can go wrong on the way."""

from __future__ import annotations

import errno
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import torch
from mmengine.config import Config

from mlcil.engine.build import build_runner, check_run, folder_of, is_first
from mlcil.engine.conditions import expected_processes
from mlcil.engine.hooks import ResultsHook
from mlcil.engine.loop import worker_killed
from mlcil.engine.run import Run
from mlcil.engine.runner import leave_group
from mlcil.errors import UserError
from mlcil.system.lock import RunLock

#: what the disk says when a file cannot be written
DISK_ERRORS = {
    errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EEXIST
}  # fmt: skip


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
        UserError: as :func:`~mlcil.engine.build.check_run`, another process runs under that name, an image that
            cannot be read, a disk that takes no more, or not enough memory.
        StoppedError: a signal asked the run to stop; its state is saved.
    """
    folder, first = folder_of(cfg), is_first(cfg)
    folder.check_free(resume, overwrite)
    run = None
    with ExitStack() as stack:
        notes: list[str] = []
        if first:
            if resume:
                folder.load_resume()  # says that there is nothing, before a folder is made
            for path in sorted({folder.run_dir, folder.checkpoint_dir}):
                lock = stack.enter_context(RunLock(path))
                notes += [lock.stale] if lock.stale else []
            folder.remove_leftovers()
            folder.check_free(resume, overwrite)  # again, since another run may have ended between the two
        try:
            start = check_run(cfg, resume, overwrite, accept_changes)
            run = replace(start.run, notes=(*start.run.notes, *notes))
            stack.callback(leave_group, run)  # also where the run ends before its first session
            runner = build_runner(replace(start, run=run))
            results = next(hook for hook in runner.hooks if isinstance(hook, ResultsHook))
            if first and start.state is None:
                results.write("running")  # first, so that no older run looks finished beside the traces of this one
                folder.remove_results()
            runner.train()
        except (OSError, RuntimeError, MemoryError, ValueError) as error:
            sentence = None if isinstance(error, UserError) else explain(error, run, str(folder.run_dir))
            if sentence is None:
                raise
            raise UserError(sentence) from error
    return results.results


def explain(error: BaseException, run: Run | None, folder: str) -> str | None:
    """The sentence for an error of the machine, or ``None`` for one of ours.

    Args:
        error: what was raised.
        run: the run, when it came to that.
        folder: its name in a message.
    """
    text = " ".join(str(error).split())
    if isinstance(error, OSError):
        if error.errno == errno.ENOENT and str(error.filename).startswith(folder):
            return f"{error.filename} was removed while the run wrote there; go on with --resume, which makes it again"
        if error.errno not in DISK_ERRORS:
            return None
        return (
            f"{error.filename or folder} could not be written ({error.strerror}); make room or give the "
            "folder write permission, then go on with --resume"
        )
    if run is None:
        return None
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in text:
        return out_of_memory(run, text)
    if "Expected more than 1 value per channel" in text:
        return (
            f"a batch of one image has no statistics for a batch norm of 1x1 maps (batches of "
            f"{run.train_loader.batch_size} leave one over); set train_dataloader.drop_last=True or another "
            "batch_size, then go on with --resume --accept-changes"
        )
    if "DataLoader worker" in text:
        return worker_killed(text)
    if expected_processes(run.settings.launcher) > 1 and any(word in text for word in LOST):
        return f"another process of the run has ended, its own error comes first ({text[:200]})"
    return None


#: what the communication between processes says when one of them is gone
LOST = ("Connection closed by peer", "Connection reset by peer", "Connection refused", "Broken pipe", "NCCL")


def out_of_memory(run: Run, text: str) -> str:
    """What to lower, and by how much."""
    batch = run.train_loader.batch_size
    half, steps = max(batch // 2, 1), 2 * run.optimiser.accumulative_counts
    where = "GPU" if "CUDA" in text else "machine"
    first = (
        f"halve train_dataloader.batch_size from {batch} to {half} and set optim_wrapper.accumulative_counts={steps}, "
        "which keeps the images of an update"
        if batch > 1
        else f"lower network.image_size from {run.image_size}"
    )
    workers = max(run.train_loader.num_workers, run.test_loader.num_workers)
    rest = [f"test_dataloader.batch_size (now {run.test_loader.batch_size}), when it happened in an evaluation"]
    if where == "GPU":
        rest.insert(0, f"precision='bf16' (now {run.settings.precision!r})")
    elif workers:
        rest.insert(0, f"num_workers of both loaders (now up to {workers}) to {workers // 2}")
    return (
        f"the {where} has not enough memory ({text[:160]}); {first}, then lower or set {', or '.join(rest)}, and go on "
        "with --resume --accept-changes"
    )
