"""mmengine's ``Runner`` around a :class:`~mlcil.engine.run.Run`: logger, hooks, data-parallel wrapper, clean end."""

from __future__ import annotations

import datetime
import os
import shutil
import signal
import time
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.device import get_device
from mmengine.dist import is_main_process
from mmengine.hooks import Hook
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel
from mmengine.runner import Runner
from mmengine.visualization import BaseVisBackend, Visualizer
from torch import nn

from mlcil.engine.frozen_maps import keep_frozen_maps
from mlcil.engine.loop import loop_of
from mlcil.engine.progress import SessionLogProcessor, SessionTimerHook
from mlcil.engine.run import Run
from mlcil.errors import StoppedError, UserError
from mlcil.files import write_text
from mlcil.system.provenance import versions, visual_backends
from mlcil.system.signals import StopSignals

#: what lets a tracker begin without an account or a server
OFFLINE = {
    "WandbVisBackend": "set WANDB_MODE=offline to keep the run on this machine, or log in with `wandb login`",
    "MLflowVisBackend": (
        "set MLFLOW_ALLOW_FILE_STORE=true for a store of files, or name another with "
        "'tracking_uri': 'sqlite:///mlflow.db'"
    ),
}


class IncrementalRunner(Runner):  # type: ignore[misc]
    """mmengine's runner with our file names; nothing of class-incremental learning.

    Args:
        run: what is trained.
        signals: what asks the run to stop.
        hooks: of ours, beside mmengine's and the user's.
        log_goes_on: append to ``log.txt``.

    Attributes:
        run_settings: the run.
    """

    model: nn.Module
    _log_dir: str
    _train_loop: Any

    def __init__(self, run: Run, signals: StopSignals, hooks: Sequence[Hook] = (), log_goes_on: bool = False) -> None:
        self.run_settings, self.signals, self.log_goes_on = run, signals, log_goes_on
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        super().__init__(
            model=run.method,
            work_dir=str(run.run_dir),
            train_dataloader={},
            train_cfg={"by_epoch": True},
            optim_wrapper=dict(vars(run.optimiser)),
            default_hooks={
                "logger": {"type": "LoggerHook", "interval": run.settings.log_interval},
                "timer": SessionTimerHook(),
                "sampler_seed": None,  # the loop says where an epoch begins
                "checkpoint": None,
            },
            custom_hooks=[*hooks, *run.hooks],
            launcher=run.settings.launcher,
            env_cfg={"dist_cfg": {"backend": backend}},
            log_processor=SessionLogProcessor(window_size=20),
            log_level=run.settings.log_level,
            visualizer={"type": "Visualizer", "vis_backends": visual_backends(run.trackers)},
            randomness={"seed": run.settings.seed, "deterministic": run.settings.deterministic},
            experiment_name=f"{run.name}_{time.time_ns()}",  # mmengine keeps loggers by name: one a run
            cfg=run.config,
        )
        self.cfg.work_dir = str(run.run_dir)  # where MLflow's backend looks for files to keep

    # -- mmengine's construction, with our file names ---------------------------------------------------

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """As mmengine, and processes without a GPU talk through gloo; the log's folder is not named after the clock."""
        if self._launcher != "none" and not torch.cuda.is_available() and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(minutes=30))
        super().setup_env(env_cfg)
        self._timestamp = "log"  # mmengine makes a folder of that name, in every process

    def set_randomness(self, seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False) -> None:
        """As mmengine, but draws go on behind those of the first weights instead of repeating them."""
        state = torch.get_rng_state()
        super().set_randomness(seed, diff_rank_seed, deterministic)
        torch.set_rng_state(state)

    def build_logger(self, log_level: str | int = "INFO", log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """``logs/<run>/log/log.txt``; other processes append ``rank<k>``."""
        self._log_dir = str(self.run_settings.run_dir)
        file = self.run_settings.run_dir / "log" / "log.txt"
        mode = "a" if self.log_goes_on else "w"
        logger = MMLogger.get_instance(
            name=self._experiment_name, log_file=str(file), log_level=log_level, file_mode=mode, logger_name="mlcil"
        )
        logger.addFilter(lambda record: not str(record.msg).startswith("Exp name:"))
        return logger

    def build_visualizer(self, visualizer: Any = None) -> Visualizer:
        """As mmengine; its trackers begin here, before a session has cost time.

        Raises:
            UserError: one of them cannot: no key, no network, a store that it does not take.
        """
        built = super().build_visualizer(visualizer)
        for kind, backend in built._vis_backends.items() if is_main_process() else ():
            begin_tracker(kind, backend)
        return built

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Versions in one line; the whole config is in ``config.py``."""
        del env_cfg
        self.logger.info(" ".join(f"{key} {value}" for key, value in versions().items()))

    def get_hooks_info(self) -> str:
        """The hooks by name, on one line."""
        return ", ".join(type(hook).__name__ for hook in self.hooks)

    def dump_config(self) -> None:
        """``logs/<run>/config.py``: the resolved config, which can be trained from."""
        if is_main_process():
            write_text(self.run_settings.run_dir / "config.py", str(self.cfg.pretty_text))

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """To the device; data-parallel wrapping waits for the session's parameters (:meth:`wrap`)."""
        return model.to(get_device())

    def wrap(self) -> None:
        """Data-parallel wrapper around the method as it is now, so that new parameters are synchronised too."""
        method = self.model = self.run_settings.method
        if self.distributed:
            device = next(method.parameters()).device
            devices = [device.index] if device.type == "cuda" else None
            self.model = MMDistributedDataParallel(module=method, device_ids=devices)

    # -- a run --------------------------------------------------------------------------------------------

    def train(self) -> nn.Module:
        """Walk through all sessions; ends the communication between processes behind it.

        Raises:
            StoppedError: a signal asked the run to stop.
        """
        run, loop = self.run_settings, loop_of(self)
        self.call_hook("before_run")
        if run.settings.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if run.settings.compile:
            self.compile_backbone()
        try:
            with self.signals:
                loop.data.open(range(loop.position.session, run.last_session + 1))
                keep_frozen_maps(run, loop.data)
                return loop.run()
        except StoppedError as stop:
            sentence = str(stop) or (
                f"stopped by {signal.Signals(stop.number).name} in session {loop.position.session}, between training "
                "steps; go on from the last saved state with the same command and --resume"
            )
            self.logger.info(sentence)
            raise StoppedError(stop.number, sentence) from None
        finally:
            self.call_hook("after_run")
            self.model = run.method
            leave_group(run)

    def compile_backbone(self) -> None:
        """``torch.compile`` for the part that does not grow, so that later sessions compile nothing anew.

        Teacher and folded copies stay as they are.

        Raises:
            UserError: a CPU without a C++ compiler.
        """
        compilers = (os.environ.get("CXX"), "g++", "c++", "clang++")
        on_cpu = next(self.model.parameters()).device.type == "cpu"
        if on_cpu and not any(shutil.which(name) for name in compilers if name):
            raise UserError("compile=True needs a C++ compiler such as g++ on the PATH; install one or leave it False")
        self.run_settings.method.network.backbone.compile(dynamic=False)  # a graph for every batch size


def leave_group(run: Run) -> None:
    """End the communication between the processes that the run's launcher has started, if it is still open."""
    if run.settings.launcher != "none" and torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def begin_tracker(kind: str, backend: BaseVisBackend) -> None:
    """Begin a run of the tracker. Raises as :meth:`IncrementalRunner.build_visualizer`."""
    try:
        assert backend.experiment is not None
    except Exception as error:  # each tracker has exceptions of its own
        reason = " ".join(str(error).split())[:600].rstrip(".") or type(error).__name__
        raise UserError(f"{kind} cannot begin ({reason}); {OFFLINE.get(kind, 'correct its settings')}") from error
