"""mmengine's ``Runner`` with a scenario, a memory, and the files of a run."""

from __future__ import annotations

import contextlib
import datetime
import functools
import inspect
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.dist import broadcast_object_list, get_rank, is_main_process
from mmengine.logging import MMLogger
from mmengine.model import MMDistributedDataParallel, is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from mlcil.datasets.cache import CacheOptions, with_cache
from mlcil.datasets.loading import find_unreadable
from mlcil.datasets.scenario import Scenario
from mlcil.datasets.transforms import TrainTransform
from mlcil.engine import checkpoint, hooks, mixing, resume, run_files  # noqa: F401  (registers the hooks)
from mlcil.engine.config import folds
from mlcil.engine.evaluation import metric_options
from mlcil.engine.frozen_maps import keep_frozen_maps
from mlcil.engine.optim import SESSION_SCHEDULERS, resolve_precision
from mlcil.engine.resume import SaveSchedule, conditions
from mlcil.errors import StoppedError, UserError
from mlcil.evaluation.metrics import METRICS
from mlcil.files import write_text
from mlcil.memory import Memory
from mlcil.methods.base import Method
from mlcil.models.inplace_abn import abn_in_use
from mlcil.reporting import log_lines, tables
from mlcil.system.provenance import versions, visual_backends
from mlcil.system.signals import StopSignals


class IncrementalRunner(Runner):
    """One run: walks ``method`` through ``scenario`` and writes ``logs/<run>/`` and ``saved_models/<run>/``.

    Args:
        cfg: the checked config (:mod:`mlcil.engine.config`).
        scenario: what the sessions hold.
        method: what learns; on the CPU, without outputs.
        memory: kept images, or ``None``.
        weights: provenance of the pretrained weights that the method holds, or ``None``.
        resume: content of the run's ``resume.pth`` to go on from, or ``None`` for a fresh run.
        again: the log goes on, also where nothing was saved yet.
        notes: first lines for the log.
    """

    model: nn.Module
    _log_dir: str
    _train_loop: Any

    def __init__(
        self,
        cfg: Config,
        scenario: Scenario,
        method: Method,
        memory: Memory | None = None,
        weights: dict[str, Any] | None = None,
        resume: dict[str, Any] | None = None,
        again: bool = False,
        notes: Sequence[str] = (),
    ) -> None:
        self.scenario, self.memory = scenario, memory
        self.metrics = METRICS[scenario.task]
        self.name: str = cfg.name
        self.run_dir = Path(cfg.log_root) / cfg.name
        self.checkpoint_dir = Path(cfg.checkpoint_root) / cfg.name
        self.precision: str = cfg.precision
        self.image_size: int = cfg.network.image_size
        self.train_transform = dict(cfg.train_transform)
        self.test_options = {k: v for k, v in dict(cfg.test_dataloader).items() if k != "precision"}
        self.metric_options = metric_options(cfg)
        self.fold = method.fold_teacher = folds(cfg)
        self.label_cardinality = scenario.label_cardinality
        self.unreadable: dict[str, dict[int, str]] = {}  # sentences by split and row
        scaling = cfg.auto_scale_lr or {}
        self.base_batch_size: int | None = scaling.get("base_batch_size")
        self.published_batch_size: int | None = scaling.get("published_batch_size")
        self.results: list[dict[str, Any]] = []
        self.started = datetime.datetime.now().astimezone()
        self.weights = weights
        self.resuming = again or resume is not None
        self.notes = list(notes)
        self.saving = SaveSchedule(cfg.train_cfg.get("save_interval"))
        self.signals = StopSignals()
        self.conditions = conditions(cfg)
        self.not_finite = 0  # steps so far whose loss was no number
        self.has_state, self._resumed = resume is not None, resume
        self._optim_cfg, self._scheduler_cfg = dict(cfg.optim_wrapper), list(cfg.param_scheduler)
        self._optim_cfg.setdefault("constructor", "DecayGroupsConstructor")
        super().__init__(
            model=method,
            work_dir=str(self.run_dir),
            train_dataloader=dict(cfg.train_dataloader),
            train_cfg={"type": "IncrementalTrainLoop", **cfg.train_cfg},
            optim_wrapper=self._optim_cfg,
            default_hooks={"logger": {"type": "LoggerHook", "interval": cfg.log_interval}, "checkpoint": None},
            custom_hooks=[*({"type": name} for name in ("ProgressHook",)), *cfg.get("custom_hooks", [])],
            launcher=cfg.launcher,
            env_cfg=cfg.get("env_cfg", {"dist_cfg": {"backend": "nccl" if torch.cuda.is_available() else "gloo"}}),
            log_processor={"window_size": 20},
            log_level=cfg.log_level,
            visualizer={"type": "Visualizer", "vis_backends": visual_backends()},
            randomness={"seed": cfg.seed, "deterministic": cfg.deterministic},
            experiment_name=f"{cfg.name}_{time.time_ns()}",  # mmengine keeps loggers by name: one a run
            cfg=cfg,
        )
        self.test_dtype = resolve_precision(cfg.test_dataloader.get("precision", "fp32"), self.device)

    @functools.cached_property
    def config_text(self) -> str:
        """The resolved config; putting it into lines takes a while."""
        return str(self.cfg.pretty_text)

    # -- mmengine's construction, with our file names ---------------------------------------------------

    @property
    def method(self) -> Method:
        """The method, without a data-parallel wrapper."""
        return unwrapped(self.model)  # type: ignore[return-value]

    @property
    def device(self) -> torch.device:
        """Where the model lives."""
        return next(self.model.parameters()).device

    @property
    def images_per_step(self) -> int:
        """Images of one update of the weights, over all processes and accumulated batches."""
        return int(self.cfg.train_dataloader["batch_size"] * self.world_size * self.accumulated)

    @property
    def accumulated(self) -> int:
        """Batches of a process whose gradients make one update."""
        return int(self._optim_cfg.get("accumulative_counts", 1))

    def setup_env(self, env_cfg: dict[str, Any]) -> None:
        """As mmengine, and processes without a GPU talk through gloo."""
        if self._launcher != "none" and not torch.cuda.is_available() and not torch.distributed.is_initialized():
            torch.distributed.init_process_group("gloo", timeout=datetime.timedelta(minutes=30))
        super().setup_env(env_cfg)

    def set_randomness(self, seed: int | None, diff_rank_seed: bool = False, deterministic: bool = False) -> None:
        """As mmengine, but draws go on behind those of the first weights instead of repeating them."""
        state = torch.get_rng_state()
        super().set_randomness(seed, diff_rank_seed, deterministic)
        torch.set_rng_state(state)

    def build_logger(self, log_level: str | int = "INFO", log_file: str | None = None, **kwargs: Any) -> MMLogger:
        """``logs/<run>/log/log.txt``; other processes append ``rank<k>``."""
        with contextlib.suppress(OSError):
            os.rmdir(self._log_dir)  # mmengine's folder named after the clock
        self._log_dir = str(self.run_dir)
        file = self.run_dir / "log" / "log.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        mode = "a" if self.resuming else "w"
        logger = MMLogger.get_instance(
            name=self._experiment_name, log_file=str(file), log_level=log_level, file_mode=mode, logger_name="mlcil"
        )
        logger.addFilter(lambda record: not str(record.msg).startswith("Exp name:"))
        return logger

    def _log_env(self, env_cfg: dict[str, Any]) -> None:
        """Versions and settings in a few lines; the whole config is in ``config.py``."""
        del env_cfg
        self.logger.info(" ".join(f"{key} {value}" for key, value in versions().items()))

    def get_hooks_info(self) -> str:
        """The hooks by name, on one line."""
        return ", ".join(type(hook).__name__ for hook in self.hooks)

    def dump_config(self) -> None:
        """``logs/<run>/config.py``: the resolved config, which can be trained from."""
        if is_main_process():
            write_text(self.run_dir / "config.py", self.config_text)

    def wrap_model(self, model_wrapper_cfg: dict[str, Any] | None, model: nn.Module) -> nn.Module:
        """To the device; data-parallel wrapping waits for the session's parameters (:meth:`wrap`)."""
        return model.to(get_device())

    def wrap(self) -> None:
        """Data-parallel wrapper around the grown model, so that new parameters are synchronised too.

        Batch-norm statistics are those of the first process, PyTorch's default.
        """
        if self.distributed:
            devices = [self.device.index] if self.device.type == "cuda" else None
            self.model = MMDistributedDataParallel(module=self.model, device_ids=devices)

    def unwrap(self) -> None:
        """Back to the bare method."""
        self.model = self.method

    # -- a run --------------------------------------------------------------------------------------------

    def train(self) -> nn.Module:
        """Resume when asked for, then all sessions."""
        self._train_loop = self.build_train_loop(self._train_loop)
        self.call_hook("before_run")
        if self._resumed is not None:
            self.resume_run(self._resumed)
        if self.cfg.channels_last:
            self.model.to(memory_format=torch.channels_last)
        if self.cfg.compile:
            self.compile_backbone()
        self.log(log_lines.start(self.name, self.scenario, self.provenance(), type(self.method).__name__))
        parts = (int(self.cfg.train_dataloader["batch_size"]), self.world_size, self.accumulated)
        self.log(log_lines.batch(*parts, self.published_batch_size, self.base_batch_size))
        self.log(self.notes)
        try:
            with self.signals:
                self.keep_decoded_images()
                keep_frozen_maps(self)
                model = self.train_loop.run()
        except StoppedError as stop:
            sentence = str(stop) or (
                f"stopped by {signal.Signals(stop.number).name} in session {self.train_loop.session}, between training "
                "steps; go on from the last saved state with the same command and --resume"
            )
            self.logger.info(sentence)
            raise StoppedError(stop.number, sentence) from None
        finally:
            self.call_hook("after_run")
        return model

    def compile_backbone(self) -> None:
        """``torch.compile`` for the part that does not grow, so that later sessions compile nothing anew.

        Teacher and folded copies stay as they are.

        Raises:
            UserError: a CPU without a C++ compiler.
        """
        compilers = (os.environ.get("CXX"), "g++", "c++", "clang++")
        if self.device.type == "cpu" and not any(shutil.which(name) for name in compilers if name):
            raise UserError("compile=True needs a C++ compiler such as g++ on the PATH; install one or leave it False")
        self.method.network.backbone.compile(dynamic=False)  # a graph for every batch size

    def keep_decoded_images(self) -> None:
        """Let the scenario's tables look into the image cache; the first run decodes its images into it.

        A training transform that crops the whole image itself wants more than the cache keeps.
        """
        options = CacheOptions(**self.cfg.image_cache)
        scenario, tell = self.scenario, self.logger.info
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if not self.cfg.train_dataloader["num_workers"]:
            workers = 0
        if not TrainTransform(self.image_size, **self.train_transform).whole:
            scenario.train = with_cache(scenario.train, self.image_size, options, tell, workers)
        scenario.test = with_cache(scenario.test, self.image_size, options, tell, workers)
        if self.cfg.on_bad_image == "skip":
            if not self.unreadable:  # a resumed run leaves out what it left out before
                found: list[Any] = [{}, {}]
                if is_main_process():
                    found = [find_unreadable(table, workers) for table in (scenario.train, scenario.test)]
                broadcast_object_list(found)
                self.unreadable = dict(zip(("train", "test"), found, strict=True))
                self.log(log_lines.skipped(self.unreadable))
            scenario.leave_out(self.unreadable["train"], self.unreadable["test"])

    def build_session_optimizer(
        self, base_lr: float | None, epochs: int, epoch_length: int, sharp: bool = True, constant: bool = False
    ) -> None:
        """Fresh optimiser, schedule and scaler for the parameters that the session trains.

        Args:
            base_lr: learning rate instead of the optimiser's ``lr``.
            epochs, epoch_length: of the session.
            sharp: whether a sharpness-aware wrapper of the config is used; a plain one otherwise.
            constant: keep ``base_lr`` as it is, without schedule (balanced fine-tuning).
        """
        cfg = {**self._optim_cfg, "optimizer": dict(self._optim_cfg["optimizer"])}
        if base_lr is not None:
            cfg["optimizer"]["lr"] = base_lr
        if self.base_batch_size and not constant:
            cfg["optimizer"]["lr"] *= self.images_per_step / self.base_batch_size
        if cfg.get("type") == "SharpnessAwareOptimWrapper" and not sharp:
            cfg = {k: v for k, v in cfg.items() if k not in ("type", "rho")}
        if not self.deterministic and not {"fused", "foreach"} & set(cfg["optimizer"]):
            optimizer_class = getattr(torch.optim, cfg["optimizer"]["type"])
            if "fused" in inspect.signature(optimizer_class.__init__).parameters:
                cfg["optimizer"]["fused"] = True  # one kernel for all parameters, same rule
        cfg.update(precision=self.precision, device=self.device.type)
        self.optim_wrapper = self.build_optim_wrapper(cfg)
        self.param_schedulers = []
        for scheduler in [] if constant else self._scheduler_cfg:
            options = dict(scheduler)
            if options["type"] in SESSION_SCHEDULERS:  # knows its length from the session, not from the config
                schedule = SESSION_SCHEDULERS[options.pop("type")]
                self.param_schedulers.append(schedule(self.optim_wrapper, epochs, epoch_length, **options))
            else:
                self.param_schedulers += self.build_param_scheduler(options)
        self.optim_wrapper.initialize_count_status(self.model, 0, epochs * epoch_length)
        self.optim_wrapper.guarded = self.train_loop.skip_not_finite > 0

    def check_finite(self, outputs: dict[str, torch.Tensor], batch: dict[str, Any], index: int) -> None:
        """Look at the loss of a step; where it is no number, name the images and stop, or count it.

        Args:
            outputs: of the step.
            batch: the images.
            index: of the step in its epoch.

        Raises:
            UserError: the loss is not finite, and no more such batches may be skipped.
        """
        if torch.isfinite(outputs["loss"]).all():
            return
        loop, table = self.train_loop, self.scenario.train
        rows = [int(row) for row in batch["rows"]]
        ids = [table.ids[row] for row in rows]
        where = f"session {loop.session}, epoch {self.epoch + 1}, iteration {index + 1}"
        content = {
            "session": loop.session,
            "epoch": self.epoch + 1,
            "iteration": index + 1,
            "losses": {name: str(float(value.mean())) for name, value in outputs.items()},
            "images": ids,
            "files": [str(table.files[row]) for row in rows] if table.files else None,
        }
        file = self.run_dir / f"not_finite_rank{get_rank()}.json"
        write_text(file, json.dumps(content, indent=1) + "\n")
        self.not_finite += 1
        if self.not_finite <= loop.skip_not_finite:
            self.logger.warning(
                f"the loss is {outputs['loss'].item()} in {where}; the step is skipped "
                f"({self.not_finite} of at most {loop.skip_not_finite}), its images are in {file}"
            )
            return
        shown = f"{ids[:8]} and {len(ids) - 8} more" if len(ids) > 8 else f"{ids}"
        raise UserError(
            f"the loss is {outputs['loss'].item()} in {where}, on images {shown} (all in {file}); lower the learning "
            "rate, set precision='fp32', or let such steps be skipped by train_cfg.skip_not_finite=LIMIT, and go on "
            "from the last saved state with --resume --accept-changes"
        )

    # -- resume -------------------------------------------------------------------------------------------

    def save_resume_state(self, epoch: int, seconds: float, iteration: int = 0, inside: bool = True) -> None:
        """Everything that the run needs to go on from here; every process calls it, the first one writes.

        Args:
            epoch: finished epochs of the phase.
            seconds: time spent in the session so far.
            iteration: finished iterations of the running epoch.
            inside: whether the session has begun.
        """
        with self.saving.measured() if inside else contextlib.nullcontext():
            state = resume.capture(self, epoch, iteration, seconds, inside)
            if is_main_process():
                checkpoint.save(self.checkpoint_dir / "resume.pth", state)

    def resume_run(self, state: dict[str, Any]) -> None:
        """Bring method, memory, results and generators back to the saved point."""
        session = state["session"]
        network = self.method.network
        if session > 0:
            stage_file = self.checkpoint_dir / f"session_{session - 1}.pth"
            stage = checkpoint.load_stage(stage_file)
            for classes in stage["classes_per_session"]:
                network.grow(classes)
            network.load_state_dict(stage["state_dict"])
        self.results = state["results"]
        self.method.load_method_state(state["method"])
        if self.memory is not None and state["memory"] is not None:
            self.memory.load_state_dict(state["memory"])
        self.unreadable = state["unreadable"]
        self.not_finite = state["not_finite"]
        self.train_loop.session = session
        if not state["inside"]:
            resume.restore_draws(self, state)
        where = ("training", "fine-tuning")[state["phase"]]
        place = f"{where}, epoch {state['epoch']}, iteration {state['iteration']}" if state["inside"] else "beginning"
        self.logger.info(f"resumed: session {session}, {place}")

    def take_resumed_session(self, session: int) -> dict[str, Any] | None:
        """The state to continue inside this session, once."""
        state, self._resumed = self._resumed, None
        return state if state is not None and state["inside"] and state["session"] == session else None

    # -- files of a finished session ------------------------------------------------------------------------

    def finish_session(self, session: Any, result: dict[str, Any]) -> None:
        """Log the metrics, write the stage checkpoint, results.json and results.csv."""
        self.results.append(result)
        self.log_metrics(result, final=True)
        if is_main_process():
            run_files.save_scores(self, session.index)
            run_files.save_stage(self, session.index)
            run_files.write_results(self, "running")
            run_files.save_test_images(self)

    def provenance(self) -> dict[str, Any]:
        """Where the numbers come from."""
        return {
            "command": shlex.join(sys.argv),
            "started": self.started.isoformat(timespec="seconds"),
            "versions": versions(),
            "seed": self.seed,
            "deterministic": self.deterministic,
            "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "cpu",
            "processes": self.world_size,
            "precision": str(resolve_precision(self.precision, self.device)).removeprefix("torch."),
            "abn": abn_in_use(self.method),
            "weights": self.weights,
            "parameters": sum(p.numel() for p in self.method.parameters()),
        }

    def finish_run(self) -> None:
        """Final table in the log, curves, results.json with status ``done``."""
        complete = len(self.results) == len(self.scenario.sessions)
        if is_main_process() and self.results:
            run_files.write_results(self, "done" if complete else "stopped")
            from mlcil.reporting.plots import draw_run  # matplotlib: only at the end

            draw_run(self.run_dir, self.results, self.scenario.classes)
        self.logger.info(self.saving.line())
        self.logger.info("\n" + tables.session_table({self.name: self.results}))
        self.logger.info(f"results: {self.run_dir / 'results.json'}; checkpoints: {self.checkpoint_dir}")

    # -- log ------------------------------------------------------------------------------------------------

    def log(self, lines: list[str]) -> None:
        """Each line as a log record."""
        for line in lines:
            self.logger.info(line)

    def log_metrics(self, result: dict[str, Any], final: bool) -> None:
        """The lines that a KRT user greps for, and the scalars for TensorBoard."""
        if not final:
            self.log(log_lines.metrics(result, f"epoch {self.epoch}"))
            return
        self.log(log_lines.metrics(result, "session"))
        headline = self.metrics.headline
        average = self.metrics.summarise(self.results)[f"average_{headline}"]
        self.log([f"session average_{headline} = {log_lines.number(average)} over {len(self.results)} session(s)"])
        scalars = {f"{headline}/{split}": value for split, value in result[headline].items() if value is not None}
        if average is not None:
            scalars[f"{headline}/average"] = average
        self.visualizer.add_scalars(scalars, step=len(result[self.metrics.per_class]))


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """The method inside a data-parallel wrapper."""
    return model.module if is_model_wrapper(model) else model  # type: ignore[return-value]
