"""From a checked config to the parts of a run. Nothing else reads a config."""

from __future__ import annotations

import contextlib
import copy
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.device import get_device
from mmengine.dist import get_world_size
from mmengine.runner import set_random_seed

from mlcil.datasets.cache import CacheOptions
from mlcil.datasets.feature_store import FeatureStoreOptions
from mlcil.datasets.scenario import Scenario
from mlcil.datasets.transforms import TrainTransform
from mlcil.engine.checkpoint import ResumeState, StageCheckpoint, plain
from mlcil.engine.conditions import conditions, differences, expected_rank
from mlcil.engine.config import apply_override
from mlcil.engine.data import Data
from mlcil.engine.evaluate import Evaluator
from mlcil.engine.hooks import FiniteLossHook, PseudoLabelAuditHook, ResultsHook, StateHook
from mlcil.engine.loop import SessionLoop
from mlcil.engine.progress import ProgressHook
from mlcil.engine.resume import MethodPart, Part, Restorer
from mlcil.engine.run import Run
from mlcil.engine.run_folder import RunFolder
from mlcil.engine.runner import IncrementalRunner
from mlcil.engine.settings import BatchSizes, Optimiser, Plain, TestLoader, TrainLoader, TrainSettings
from mlcil.errors import DEMO_HINT, UserError
from mlcil.interop.downloads import DOWNLOADS, TRESNET, command_for, download, of_dataset
from mlcil.interop.pretrained import how_to_get, load_pretrained, resolve_source
from mlcil.memory import build_memory
from mlcil.methods.base import Method
from mlcil.models.inplace_abn import abn_in_use
from mlcil.models.network import IncrementalNetwork
from mlcil.models.numerics import resolve_precision
from mlcil.registry import DATASETS, METHODS
from mlcil.reporting import log_lines
from mlcil.schema import check
from mlcil.system.allocator import keep_freed_memory
from mlcil.system.provenance import versions
from mlcil.system.signals import StopSignals


def folder_of(cfg: Config) -> RunFolder:
    """The folders of a config's run."""
    return RunFolder(Path(cfg.log_root) / cfg.name, Path(cfg.checkpoint_root) / cfg.name)


def is_first(cfg: Config) -> bool:
    """Whether this is the process that writes, before the processes know each other."""
    return expected_rank(cfg.launcher) == 0


def download_missing(cfg: Config) -> list[str]:
    """Fetch the data set and the weights of a config where they are missing; returns lines of what was done.

    Raises:
        UserError: as :func:`~mlcil.interop.downloads.download`.
    """
    dataset, lines = as_dict(cfg.scenario)["dataset"], []
    name = of_dataset(dataset["type"])
    if name is not None and "name" not in dataset:  # data of one's own in the same format have one
        lines += download(name, Path(dataset["root"]) if dataset.get("root") else None)
    usual = DOWNLOADS[TRESNET]
    if cfg.pretrained is not None and Path(cfg.pretrained) == Path(usual.root) / usual.parts[0].remote.name:
        lines += download(TRESNET)
    return lines


#: data sets that :func:`read_ahead` has read
_ahead: dict[str, Any] = {}


def dataset_of(arguments: Mapping[str, Any]) -> Any:
    """The data set of a config's ``scenario.dataset``.

    Raises:
        UserError: it does not take these arguments.
    """
    kind, options = DATASETS.get(arguments["type"]), {k: v for k, v in arguments.items() if k != "type"}
    known = _ahead.get(repr(arguments))
    try:
        return known if type(known) is kind else kind(**options)
    except TypeError as error:
        raise UserError(f"scenario.dataset: {error}") from error


def read_ahead(arguments: Mapping[str, Any]) -> None:
    """Read the labels of a data set for all runs that this process or its forks build; once.

    Nothing is raised where they cannot be read: the run itself says so.
    """
    key = repr(arguments)
    if key not in _ahead:
        _ahead[key] = None
        with contextlib.suppress(Exception):
            dataset = dataset_of(arguments)
            dataset.train(), dataset.test()
            _ahead[key] = dataset


def build_scenario(cfg: Config) -> Scenario:
    """The scenario of a config; data are read here."""
    options = as_dict(cfg.scenario)
    dataset = dataset_of(options.pop("dataset"))
    if cfg.memory is not None:
        options["replay_labels"] = cfg.memory.get("labels", "oracle")
    return Scenario(dataset=dataset, **options)


def build_method(cfg: Config, **network_options: Any) -> Method:
    """The method of a config around a fresh network, parts of whose description may be given."""
    try:
        network = IncrementalNetwork(**{**as_dict(cfg.network), **network_options})
        arguments = as_dict(cfg.method)
        return METHODS.get(arguments.pop("type"))(network=network, **arguments)  # type: ignore[no-any-return]
    except (TypeError, ValueError, RuntimeError, MemoryError) as error:
        raise UserError(f"network or method of the config: {' '.join(str(error).split())[:300]}") from error


def restore_method(
    cfg: Config, stage: StageCheckpoint, path: Path, overrides: Sequence[str] = ()
) -> tuple[Method, dict[str, Any]]:
    """The method of a config around the network of a stage checkpoint, as its last session left both.

    Args:
        cfg: the config.
        stage: the checkpoint. The arguments of its own method come before the config's.
        path: of the checkpoint, for messages.
        overrides: of the command, which come before both.

    Returns:
        The method, and its arguments besides the network.

    Raises:
        UserError: the method wants another head, or network, arguments or state do not fit.
    """
    arguments = as_dict(cfg.method)
    kind, wanted, found = arguments.pop("type"), cfg.network.head.type, stage.network["head"].get("type")
    if found != wanted:
        raise UserError(
            f"{kind} works with the head {wanted!r}, but {path} has {found!r}; leave --method out, or choose a method "
            "with that head"
        )
    same = METHODS.get(kind).__name__ == stage.method
    settings = {"method": {**arguments, **(copy.deepcopy(stage.method_options) if same else {})}}
    for word in overrides:
        if word.partition("=")[0].split(".")[0] == "method":
            apply_override(settings, word)
    arguments = settings["method"]
    arguments.pop("type", None)
    check(METHODS.get(kind), arguments, f"{path}: method", "network")
    try:
        network = stage.build(path)
        method = METHODS.get(kind)(network=network, **arguments)
        if same:
            method.load_method_state(stage.method_state)
    except UserError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path}: its method {stage.method} cannot go on ({reason}); choose another --method, or train it again "
            "with this version"
        ) from error
    return method, arguments


def method_options(cfg: Config) -> dict[str, Any]:
    """Arguments of a config's method besides the network."""
    return {key: value for key, value in as_dict(cfg.method).items() if key != "type"}


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
    name = method.network.spec["backbone"]["name"]
    path, _ = resolve_source(cfg.pretrained, name)
    if not path.exists():
        raise UserError(
            f"pretrained weights are missing: {how_to_get(cfg.pretrained, path, name)}{command_for(path)}; {DEMO_HINT}"
        )
    return load_pretrained(
        method.network.backbone,  # type: ignore[arg-type]
        cfg.pretrained,
        scenario.classes,
        allow_leaky_weights=cfg.allow_leaky_weights,
        name=name,
    )


def build_run(cfg: Config, method: Method | None = None, files: bool = True, scenario: Scenario | None = None) -> Run:
    """Everything that a run is made of: labels are read, the network is built, nothing is written.

    Args:
        cfg: a checked config.
        method: what is evaluated instead of the config's method, without memory (``mlcil test``); with a scenario it
            is what learns.
        files: look whether the images are there.
        scenario: instead of the config's.

    Raises:
        UserError: what can be wrong with names, data and network.
    """
    resolve_precision(cfg.precision, get_device())
    evaluated = method is not None and scenario is None
    scenario = build_scenario(cfg) if scenario is None else scenario
    if files and not evaluated:
        scenario.train.check_files()
    if files:
        scenario.test.check_files()
    if not torch.cuda.is_available():
        keep_freed_memory()
    if cfg.threads is not None:
        torch.set_num_threads(cfg.threads)
    memory = build_memory(as_dict(cfg.memory)) if cfg.memory is not None and not evaluated else None
    if method is None:
        set_random_seed(cfg.seed, deterministic=cfg.deterministic)  # before the first initial weight is drawn
        method = build_method(cfg)
        check_outputs(method, scenario)
    settings = Plain(**{part.name: cfg[part.name] for part in fields(Plain)})
    folder = folder_of(cfg)
    size = method.network.spec["image_size"]
    run = Run(
        name=cfg.name,
        run_dir=folder.run_dir,
        checkpoint_dir=folder.checkpoint_dir,
        scenario=scenario,
        method=method,
        memory=memory,
        memory_options=as_dict(cfg.memory) if cfg.memory is not None else None,
        settings=settings,
        train=TrainSettings(**as_dict(cfg.train_cfg)),
        optimiser=Optimiser(**as_dict(cfg.optim_wrapper)),
        schedules=[as_dict(schedule) for schedule in cfg.param_scheduler],
        batch_sizes=BatchSizes(**as_dict(cfg.auto_scale_lr)) if cfg.auto_scale_lr else None,
        train_loader=TrainLoader(**as_dict(cfg.train_dataloader)),
        test_loader=TestLoader(**as_dict(cfg.test_dataloader)),
        transform=TrainTransform(size, **as_dict(cfg.train_transform)),
        image_size=size,
        cache=CacheOptions(**as_dict(cfg.image_cache)),
        features=FeatureStoreOptions(**as_dict(cfg.feature_store)),
        hooks=[as_dict(hook) for hook in cfg.custom_hooks],
        trackers=as_dict(cfg.visualizer)["vis_backends"],
        conditions=conditions(cfg.to_dict(), scenario, settings.launcher, cfg.plugins) if files else {},
        config=cfg,
        method_options=method_options(cfg),
    )
    method.fold_teacher = run.fold
    return run


@dataclass(frozen=True)
class Start:
    """What a run starts from, all of it checked; nothing is written yet.

    Attributes:
        run: the run.
        folder: where it writes.
        state: to go on from, or ``None`` for a fresh run.
        log_goes_on: whether the log of that name is appended to.
    """

    run: Run
    folder: RunFolder
    state: ResumeState | None = None
    log_goes_on: bool = False


def check_run(cfg: Config, resume: bool = False, overwrite: bool = False, accept_changes: bool = False) -> Start:
    """Everything that can be wrong with names, data, network and weights, before anything is written.

    Raises:
        UserError: missing or unusable data or weights; a run of that name exists and neither ``resume`` nor
            ``overwrite`` is given; nothing to resume, or not under the same conditions (``accept_changes`` takes
            them); or the folders of the run cannot be written.
    """
    folder = folder_of(cfg)
    folder.check_free(resume, overwrite)
    notes: list[str] = []
    state = folder.load_resume() if resume else None
    if resume and state is None:
        notes.append(f"nothing was saved in {folder.checkpoint_dir} yet; the run starts at its beginning")
    run = build_run(cfg)
    run.scenario.refuse_empty_sessions(range(state.session if state is not None else 0, run.last_session + 1))
    if state is None:
        weights = load_weights(cfg, run.method, run.scenario)
    else:
        notes += check_state(run, folder, state, accept_changes)
        weights = state.weights
        if not state.inside and state.session == 0:
            load_weights(cfg, run.method, run.scenario)
    return Start(replace(run, weights=weights, notes=tuple(notes)), folder, state, resume)


def check_state(run: Run, folder: RunFolder, state: ResumeState, accept_changes: bool) -> list[str]:
    """Whether a saved state belongs to the run.

    Returns:
        Lines for the log on conditions that changed.

    Raises:
        UserError: it does not, or conditions changed and ``accept_changes`` is not set.
    """
    file, config = folder.resume_file, folder.run_dir / "config.py"
    if state.protocol_hash != run.scenario.hash:
        raise UserError(
            f"{file} belongs to protocol {state.protocol_hash}, but this config and data give {run.scenario.hash}; "
            f"resume with the config in {config} and the same data, or start another --name"
        )
    if state.network != plain(run.method.network.spec):
        raise UserError(
            f"{file} holds another network ({state.network}) than the config; resume with the config in {config}, or "
            "start another --name"
        )
    changes = differences(state.conditions, run.conditions)
    if changes and not accept_changes:
        raise UserError(
            f"{file} was written under other conditions: {'; '.join(changes[:8])}"
            f"{f' and {len(changes) - 8} more' if len(changes) > 8 else ''}. The numbers would not be those of one "
            f"run, so go back to them (the run's config is {config}), or take the changes with --accept-changes"
        )
    return [f"resumed under other conditions: {change}" for change in changes]


def build_runner(start: Start) -> IncrementalRunner:
    """Put the parts of a run together; logging begins, nothing is trained yet."""
    run, folder = start.run, start.folder
    signals, data = StopSignals(), Data(run)
    audit, finite = PseudoLabelAuditHook(run), FiniteLossHook(run, folder)
    began = datetime.now().astimezone()
    facts: dict[str, Any] = {}
    results = ResultsHook(run, folder, audit, facts)
    parts: dict[str, Part] = {"method": MethodPart(run.method), "audit": audit, "finite": finite, "results": results}
    parts["unreadable"] = data
    if run.memory is not None:
        parts["memory"] = run.memory
    state = StateHook(run, folder, parts, signals)
    runner = IncrementalRunner(run, signals, [finite, results, audit, ProgressHook(run), state], start.log_goes_on)
    facts.update(provenance(run, began))
    restorer = Restorer(run, start.state, folder) if start.state is not None else None
    loop = SessionLoop(runner, run, data, Evaluator(run, data), signals, restorer)
    parts["progress"] = loop.progress
    runner._train_loop = loop
    processes = get_world_size()
    sizes = run.batch_sizes
    published, base = (sizes.published_batch_size, sizes.base_batch_size) if sizes is not None else (None, None)
    update = (run.train_loader.batch_size, processes, run.optimiser.accumulative_counts, published, base)
    for line in (
        *log_lines.start(run.name, run.scenario, facts, type(run.method).__name__),
        *log_lines.batch(*update),
        *run.notes,
    ):
        runner.logger.info(line)
    loop.restore(parts)
    return runner


def provenance(run: Run, began: datetime) -> dict[str, Any]:
    """Where a run's numbers come from."""
    device, program = next(run.method.parameters()).device, Path(sys.argv[0]).name
    return {
        "command": shlex.join(["mlcil" if program in ("mlcil", "__main__.py") else sys.argv[0], *sys.argv[1:]]),
        "started": began.isoformat(timespec="seconds"),
        "versions": versions(),
        "seed": run.settings.seed,
        "deterministic": run.settings.deterministic,
        "device": torch.cuda.get_device_name() if device.type == "cuda" else "cpu",
        "processes": get_world_size(),
        "precision": str(resolve_precision(run.settings.precision, device)).removeprefix("torch."),
        "abn": abn_in_use(run.method),
        "weights": run.weights,
        "parameters": sum(p.numel() for p in run.method.parameters()),
    }


def as_dict(value: Any) -> Any:
    """Plain dictionaries of an mmengine config."""
    return value.to_dict() if isinstance(value, ConfigDict) else dict(value) if isinstance(value, Mapping) else value
