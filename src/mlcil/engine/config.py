"""Configs: python files with ``_base_``, ``key=value`` overrides, defaults, and a check of every key.

A config is a handful of dictionaries; each is the arguments of one class or function, so its allowed keys
and their meaning are in that docstring:

=================  ======================================================================
``scenario``       :class:`mlcil.datasets.scenario.Scenario`; its ``dataset`` names a data set by ``type``
``network``        :class:`mlcil.models.network.IncrementalNetwork` (``backbone``, ``head``, ``image_size``)
``method``         a class of :mod:`mlcil.methods` by ``type``
``memory``         a class of :mod:`mlcil.memory` by its ``selection``, or ``None``
``train_cfg``      :class:`mlcil.engine.settings.TrainSettings`, as other sections without a class
``train_transform``  :class:`mlcil.datasets.transforms.TrainTransform`
``image_cache``    :class:`mlcil.datasets.cache.CacheOptions`
``feature_store``  :class:`mlcil.datasets.feature_store.FeatureStoreOptions`
``plugins``        python files with methods or data sets of one's own (docs/add_a_method.md)
=================  ======================================================================

Configs are programs: run only those you would run as python.
"""

from __future__ import annotations

import ast
import contextlib
import copy
import dataclasses
import functools
import hashlib
import importlib.util
import inspect
import math
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from mmengine.config import Config
from mmengine.fileio.handlers.registry_utils import file_handlers
from mmengine.hooks import Hook
from mmengine.optim.scheduler.param_scheduler import ReduceOnPlateauParamScheduler
from mmengine.registry import HOOKS, OPTIM_WRAPPER_CONSTRUCTORS, PARAM_SCHEDULERS, VISBACKENDS

from mlcil.configs import compose
from mlcil.configs.published import PUBLISHED
from mlcil.datasets.augment import NORMALISATIONS
from mlcil.datasets.cache import CacheOptions
from mlcil.datasets.feature_store import FeatureStoreOptions
from mlcil.datasets.scenario import Scenario
from mlcil.datasets.transforms import TrainTransform
from mlcil.engine.optim import decay_groups
from mlcil.engine.schedules import build_schedule, takes_session
from mlcil.engine.settings import (
    BatchSizes,
    ClipNorm,
    ClipValue,
    Optimiser,
    Plain,
    TestLoader,
    TrainLoader,
    TrainSettings,
)
from mlcil.errors import UserError
from mlcil.memory import memory_class
from mlcil.models.backbones import ENCODERS, OWN, TimmBackbone, check_name
from mlcil.models.heads import HEADS
from mlcil.models.network import IncrementalNetwork
from mlcil.models.onnx_backbone import ONNX, SUFFIX, OnnxBackbone, describe
from mlcil.models.resnet import VARIANTS as RESNETS
from mlcil.models.resnet import ResNet
from mlcil.models.tresnet import TResNet
from mlcil.protocols import check_option
from mlcil.registry import DATASETS, METHODS, registered
from mlcil.schema import check, check_keys, check_library, near

for _format in ("yaml", "yml"):  # mmengine would make, and call, any python object that a YAML base names
    file_handlers.pop(_format, None)

CONVERT = "convert_to_iter_based"  # an argument of mmengine's registry, not of its schedules
LENGTHS = {"step_size", "begin", "end", "milestones", "T_max", "total_steps", "periods"}  # of mmengine's schedules
LONGEST_NAME = 200  # bytes of a run's name: file systems take 255, and temporary names are longer

#: every top-level key and its default; ``...`` marks what a config must give
DEFAULTS: dict[str, Any] = {
    "plugins": [],  # python files, relative to the config, that register methods or data sets of one's own
    "scenario": ...,
    "network": ...,
    "method": ...,
    "memory": None,
    "train_transform": {"cutout": 0.0, "randaugment": False},
    "train_dataloader": {"batch_size": 64, "num_workers": 8},
    "test_dataloader": {"batch_size": 64, "num_workers": 8, "precision": "fp32"},
    "image_cache": {"enabled": True, "folder": None, "limit_gb": 32},  # decoded images, shared by all runs
    "feature_store": {"enabled": True, "folder": None, "limit_gb": 16, "dtype": "float32"},  # of a frozen backbone
    "train_cfg": {"max_epochs": 20},
    "optim_wrapper": {"optimizer": {"type": "Adam", "lr": 1e-4, "weight_decay": 1e-4}},
    "param_scheduler": [{"type": "OneCycle"}],
    "auto_scale_lr": None,
    "custom_hooks": [],
    "visualizer": {"vis_backends": None},  # trackers as mmengine has them; None: json lines, TensorBoard if installed
    **{field.name: field.default for field in dataclasses.fields(Plain)},
}


def load_config(config: str | Path, overrides: Iterable[str] = ()) -> Config:
    """The settings that a name or a file stands for, with overrides and defaults, every key of them checked.

    Args:
        config: a method (``lwf data=coco protocol=B40-C10``), the name of published settings (``krt/coco_b0c10``) or a
            python file, which may begin with ``based_on = "lwf data=coco"``.
        overrides: ``key=value`` words; ``data``, ``protocol`` and ``backbone`` choose parts of a name.

    Raises:
        UserError: no such file or name, a file that is not python, an unknown key (the near one is suggested), a
            missing section, or a wrong value.
    """
    words = list(overrides)
    if compose.is_file(config):
        filename = Path(config)
        cfg, name = _file(filename, words), run_name(filename)
    else:
        _check_words(words, [*compose.CHOICES, *DEFAULTS])
        cfg, name = _named(str(config), words)
        filename = None
    keys = [word.partition("=")[0] for word in words]
    for given, other in (("total", "per_class"), ("per_class", "total")):  # a budget takes the place of the recipe's
        if f"memory.{given}" in keys and isinstance(cfg.get("memory"), dict):
            cfg["memory"].pop(other, None)
    for override, key in zip(words, keys, strict=True):
        if key not in compose.CHOICES:
            apply_override(cfg, override)
    return finish_config(cfg, default_name=name, filename=filename)


def _check_words(words: Iterable[str], known: Sequence[str]) -> None:
    """Refuse ``key=value`` words of an unknown key before they are missed as a choice."""
    for word in words:
        key, sign, _ = word.partition("=")
        top = key.partition(".")[0]
        if sign and top and top not in known:
            raise UserError(f"unknown key {top!r} in {word!r}; {near(top, known)}")


def _named(text: str, words: Iterable[str] = ()) -> tuple[dict[str, Any], str]:
    """Settings and run name of a method or of published settings."""
    name, _, rest = text.strip().partition(" ")
    for word in rest.split():
        if word.partition("=")[0] not in compose.CHOICES:
            raise UserError(
                f"{word!r} in {text!r} is no choice of data, protocol or backbone; other settings are set beside the "
                f"name; {near(word.partition('=')[0], compose.CHOICES)}"
            )
    chosen = [word.partition("=") for word in (*rest.split(), *words)]
    choices = {key: value for key, _, value in chosen if key in compose.CHOICES}
    return compose.resolve(name, choices, PUBLISHED)


def _file(path: Path, words: list[str]) -> dict[str, Any]:
    """What a python file sets, on top of what it is based on."""
    if not path.is_file():
        name = compose.new_name(path, PUBLISHED)
        if name is None:
            raise UserError(f"{path} is no config file; expected a python file, or a name that `mlcil config` lists")
        known = f"`{name}`" if name else "a method and its data, such as `krt data=coco protocol=B0-C10`"
        raise UserError(f"{path} does not exist: configs have names now, this one is {known}; `mlcil config` lists all")
    chosen = [word for word in words if word.partition("=")[0] in compose.CHOICES]
    if chosen:
        raise UserError(f"{chosen[0]!r} goes with the name of a method, but {path} is a file; write it into the file")
    cfg = read_python(path)
    base = cfg.pop("based_on", None)
    return compose.merge(_named(str(base))[0], cfg) if base else cfg


def read_python(path: Path) -> dict[str, Any]:
    """Run a python file, with the ``_base_`` files that it names.

    Returns:
        What it sets.

    Raises:
        UserError: no python file, or one that does not run to its end.
    """
    if path.suffix != ".py" or not path.is_file():
        raise UserError(f"{path} is no python file; expected a config whose name ends with .py, so name or write one")
    try:
        return dict(Config.fromfile(str(path), import_custom_modules=False).to_dict())
    except (Exception, SystemExit) as error:  # anything can go wrong in somebody's python file
        raise UserError(
            f"{path} cannot be read as a config ({_reason(error)}); expected python that runs, so correct it"
        ) from error


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


def finish_config(cfg: dict[str, Any], default_name: str, filename: Path | None = None) -> Config:
    """Defaults and checks for a dictionary; see :func:`load_config`."""
    where = str(filename) if filename else "the config"
    check_keys(cfg, DEFAULTS, where)
    for key, default in DEFAULTS.items():
        if default is ... and key not in cfg:
            raise UserError(f"{where} has no {key!r}; every config gives scenario, network and method, so add it")
        if isinstance(default, dict):
            cfg[key] = {**copy.deepcopy(default), **_mapping({} if cfg.get(key) is None else cfg[key], key)}
        else:
            cfg.setdefault(key, copy.deepcopy(default))
    cfg["plugins"] = load_plugins(cfg["plugins"], filename.parent if filename else Path())
    cfg["name"] = str(cfg["name"] or default_name)
    if Path(cfg["name"]).name != cfg["name"] or cfg["name"] in (".", ".."):
        raise UserError(f"run name {cfg['name']!r} must be a plain folder name, without slashes; change --name")
    if len(os.fsencode(cfg["name"])) > LONGEST_NAME or "\0" in cfg["name"]:
        raise UserError(
            f"run name {cfg['name'][:40]!r}... is no name of a folder: expected at most {LONGEST_NAME} bytes, none of "
            "them zero; give a shorter --name"
        )
    _check_sections(cfg)
    return FormattedOnce(cfg, filename=str(filename) if filename else None)


class FormattedOnce(Config):  # type: ignore[misc]
    """A config whose text is made once: a run asks for it at its beginning, at its end and behind every session."""

    made: ClassVar[dict[str, str]] = {}  # content -> text, of the last few

    @property
    def pretty_text(self) -> str:
        """The config as python."""
        made, content = FormattedOnce.made, repr(self.to_dict())
        if content not in made:
            if len(made) == 8:
                made.clear()
            made[content] = str(super().pretty_text)
        return made[content]


def load_plugins(files: Any, folder: Path) -> list[str]:
    """Run python files that register methods or data sets, each once a process.

    Args:
        files: paths, relative to ``folder``.

    Returns:
        Their absolute paths.

    Raises:
        UserError: not a list of paths, a file is missing, or it does not run.
    """
    if isinstance(files, str) or not isinstance(files, (list, tuple)):
        raise UserError(f"plugins is {files!r}; expected a list of python files, such as plugins=['my_method.py']")
    found = []
    for path in ((folder / str(file)).resolve() for file in files):
        name = f"mlcil_plugin_{hashlib.sha256(str(path).encode()).hexdigest()[:12]}"
        found.append(str(path))
        if name in sys.modules:
            continue
        if not path.is_file():
            raise UserError(f"plugins: {path} does not exist; expected a python file, so correct the path")
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise UserError(f"plugins: {path} is no python file; expected a name that ends with .py, so rename it")
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(module)
        except (Exception, SystemExit) as error:  # anything can go wrong in somebody's python file
            del sys.modules[name]
            raise UserError(
                f"plugins: {path} cannot be imported ({_reason(error)}); expected python that runs, so correct it"
            ) from error
    return found


def run_name(path: Path) -> str:
    """``photos/mine.py`` -> ``photos_mine``: the folder and the file."""
    return "_".join([*path.parts[:-1][-1:], path.stem])


def apply_override(cfg: dict[str, Any], override: str) -> None:
    """Put a ``key.key=value`` of the command line into nested settings.

    Raises:
        UserError: it is no such word, or reaches into a list.
    """
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise UserError(
            f"{override!r} is neither a config file nor an override; overrides look like train_cfg.max_epochs=2"
        )
    *parents, last = key.split(".")
    node = cfg
    for depth, parent in enumerate(parents, 1):
        if isinstance(node.get(parent, DEFAULTS.get(parent) if node is cfg else None), (list, tuple)):
            raise UserError(
                f"{override!r} reaches into a list; expected the whole list as {'.'.join(parents[:depth])}=[...], or a "
                "list set in a file: `mlcil config ... --output mine.py` writes one to edit"
            )
        if not isinstance(node.get(parent), dict):
            default = DEFAULTS.get(parent) if node is cfg else None
            node[parent] = copy.deepcopy(default) if isinstance(default, dict) else {}
        node = node[parent]
    node[last] = _value(text)


def _value(text: str) -> Any:
    words = {"true": True, "false": False, "none": None, "null": None}
    if text.lower() in words:
        return words[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{key} in the config is {value!r}; expected a dictionary of options")
    return value


def _check_sections(cfg: dict[str, Any]) -> None:
    """Everything that the config alone can get wrong, section by section."""
    check(Plain, {field.name: cfg[field.name] for field in dataclasses.fields(Plain)}, "")
    scenario = _mapping(cfg["scenario"], "scenario")
    if not {"num_sessions", "sizes"} & set(scenario):
        for key in ("base", "increment"):
            if key not in scenario:
                raise UserError(f"scenario has no {key!r}; give the classes of a session, such as scenario.{key}=10")
    _check_typed(scenario.get("dataset"), DATASETS, "scenario.dataset")
    check(Scenario, {key: value for key, value in scenario.items() if key != "dataset"}, "scenario", "dataset")
    _check_network(cfg)
    _check_typed(cfg["method"], METHODS, "method", "network")
    _check_memory(cfg)
    _check_made(functools.partial(TrainTransform, 32), cfg, "train_transform", _arguments(TrainTransform, "size"))
    check(TrainTransform, cfg["train_transform"], "train_transform", "size")  # what no step has looked at too
    _check_made(CacheOptions, cfg, "image_cache", _arguments(CacheOptions))
    _check_made(FeatureStoreOptions, cfg, "feature_store", _arguments(FeatureStoreOptions))
    check(TrainLoader, cfg["train_dataloader"], "train_dataloader")
    check(TestLoader, cfg["test_dataloader"], "test_dataloader")
    check(TrainSettings, cfg["train_cfg"], "train_cfg")
    if cfg["auto_scale_lr"] is not None:
        check(BatchSizes, cfg["auto_scale_lr"], "auto_scale_lr")
    _check_optimiser(cfg["optim_wrapper"])
    for key, registry in (("param_scheduler", PARAM_SCHEDULERS), ("custom_hooks", HOOKS)):
        if not isinstance(cfg[key], list) or not all(isinstance(section, Mapping) for section in cfg[key]):
            raise UserError(f"{key} in the config is {cfg[key]!r}; expected a list of dictionaries with a 'type'")
        for section in cfg[key]:
            if registered(registry, section.get("type")) is None:
                raise UserError(f"{key} has the type {section.get('type')!r}; expected a registered class of mmengine")
    for hook in cfg["custom_hooks"]:
        _check_hook(hook)
    for scheduler in cfg["param_scheduler"]:
        _check_schedule(scheduler, cfg["train_cfg"]["max_epochs"])
    _check_trackers(cfg["visualizer"])
    for setting, on in (
        ("network.backbone.recompute", cfg["network"]["backbone"].get("recompute")),
        ("sync_batch_norm", cfg["sync_batch_norm"]),
    ):
        if cfg["compile"] and on:
            raise UserError(f"compile=True does not go with {setting}=True; switch one of them off")


#: mmengine's hooks that have something to do in a run of sessions
HOOKS_OF_MMENGINE = ("EmptyCacheHook", "SyncBuffersHook")
#: mmengine's points that such a run comes to
POINTS = {f"{time}_{what}" for time in ("before", "after") for what in ("run", "train", "train_epoch", "train_iter")}


def _check_hook(section: Mapping[str, Any]) -> None:
    """Arguments by signature and by the class itself; what it does must have its turn."""
    cls, where = registered(HOOKS, section["type"]), f"custom_hooks {section['type']}"
    own = [part for part in cls.__mro__ if not part.__module__.startswith("mmengine.")]
    if cls not in own and section["type"] not in HOOKS_OF_MMENGINE:
        raise UserError(
            f"{where} is made for mmengine's own loops: a run of sessions has no validation of theirs, and its network "
            f"grows; expected {' or '.join(HOOKS_OF_MMENGINE)}, or a hook of a plugin"
        )
    for stage in Hook.stages:
        if stage not in POINTS and any(stage in vars(part) for part in own):
            raise UserError(
                f"{where} acts at {stage}, which a run of sessions never comes to; use after_session(runner, session, "
                "result) or a point of training instead"
            )
    check_library(cls, section, where)
    with _tried(where):
        cls(**{key: value for key, value in section.items() if key != "type"})


#: trackers of mmengine -> the package that each needs
PACKAGES = {
    "TensorboardVisBackend": "tensorboard", "WandbVisBackend": "wandb", "MLflowVisBackend": "mlflow",
    "ClearMLVisBackend": "clearml", "NeptuneVisBackend": "neptune", "DVCLiveVisBackend": "dvclive",
    "AimVisBackend": "aim",
}  # fmt: skip


def _check_trackers(visualizer: Mapping[str, Any]) -> None:
    """Backends that mmengine knows, with arguments that they take and packages that are installed."""
    check_keys(visualizer, ("vis_backends",), "visualizer")
    backends = visualizer["vis_backends"]
    if backends is None:
        return
    if not isinstance(backends, list) or not all(isinstance(backend, Mapping) for backend in backends):
        raise UserError(
            f"visualizer.vis_backends is {backends!r}; expected a list of dictionaries such as "
            "[dict(type='MLflowVisBackend')]"
        )
    for backend in backends:
        kind = str(backend.get("type"))
        cls = registered(VISBACKENDS, kind)
        if cls is None:
            raise UserError(f"visualizer.vis_backends has the type {kind!r}; {near(kind, VISBACKENDS.module_dict)}")
        check_keys(backend, {"type", *_arguments(cls)}, f"visualizer.vis_backends {kind}")
        package = PACKAGES.get(kind)
        if package and importlib.util.find_spec(package) is None:
            raise UserError(f"{kind} needs the package {package}, which is not installed; pip install {package}")


def _check_network(cfg: dict[str, Any]) -> None:
    """Backbone and head; the names of means and deviations become numbers, a file its description."""
    network = cfg["network"]
    check(IncrementalNetwork, {"backbone": {}, "head": {}, **_mapping(network, "network")}, "network")
    backbone, head = network.get("backbone") or {}, network.get("head") or {}
    if "name" not in backbone:
        raise UserError("network.backbone has no 'name'; use one of " + ", ".join(OWN) + " or a timm model")
    try:
        if not str(backbone["name"]).lower().endswith(SUFFIX):
            check_name(str(backbone["name"]))
    except ValueError as error:
        raise UserError(f"network.backbone.name: {error}") from error
    for index, key in enumerate(("mean", "std")):
        if isinstance(backbone.get(key), str):
            check_option(f"network.backbone.{key}", backbone[key], tuple(NORMALISATIONS))
            backbone[key] = list(NORMALISATIONS[backbone[key]][index])
    name = str(backbone["name"])
    if name.lower().endswith(SUFFIX):
        check_keys(backbone, ("name", "mean", "std"), "network.backbone of an ONNX file")
        backbone, network["image_size"] = describe(Path(name), network.get("image_size", 224), backbone)
        network["backbone"], network["frozen_backbone"], cfg["pretrained"] = backbone, True, name
        name = ONNX
    if name == ONNX and cfg["compile"]:
        raise UserError("compile=True does not go with a backbone in an ONNX file; switch it off")
    own = {ONNX: OnnxBackbone, **ENCODERS}
    backbone_class = own.get(name, ResNet if name in RESNETS else TResNet if name in OWN else TimmBackbone)
    options = {key: value for key, value in backbone.items() if key != "name" or backbone_class is TimmBackbone}
    check(backbone_class, options, "network.backbone", "image_size")
    head_class = HEADS.get(str(head.get("type")))
    if head_class is None:
        raise UserError(f"network.head.type is {head.get('type')!r}; use one of {', '.join(map(repr, HEADS))}")
    check(head_class, head, "network.head", "in_channels", "middle_channels", "grid", "blocks")


def _check_optimiser(wrapper: Any) -> None:
    """The optimiser's class judges its arguments itself."""
    check(Optimiser, wrapper, "optim_wrapper")
    check(
        decay_groups, wrapper.get("paramwise_cfg") or {}, "optim_wrapper.paramwise_cfg", "model", "weight_decay", "lr"
    )
    optimizer = wrapper["optimizer"]
    optimizer_class = getattr(torch.optim, str(optimizer.get("type")), None)
    if not inspect.isclass(optimizer_class) or not issubclass(optimizer_class, torch.optim.Optimizer):
        raise UserError(
            f"optim_wrapper.optimizer.type is {optimizer.get('type')!r}; expected a torch optimiser such as 'Adam'"
        )
    check_library(optimizer_class, optimizer, "optim_wrapper.optimizer", "params", "defaults")
    if registered(OPTIM_WRAPPER_CONSTRUCTORS, wrapper.get("constructor", "DecayGroupsConstructor")) is None:
        raise UserError(
            f"optim_wrapper.constructor is {wrapper['constructor']!r}; expected 'DecayGroupsConstructor', or a "
            "registered class of a plugin"
        )
    with _tried("optim_wrapper.optimizer"):
        weight = _weight()
        trial = optimizer_class([weight], **{k: v for k, v in optimizer.items() if k != "type"})
        for _ in range(3):
            trial.step()
        if not torch.isfinite(weight).all():
            raise ValueError("a step gives weights that are no numbers")
    clip = wrapper.get("clip_grad")
    if clip is not None:
        kind = clip.get("type", "norm")
        check_option("optim_wrapper.clip_grad.type", kind, ("norm", "value"))
        check(ClipNorm if kind == "norm" else ClipValue, clip, "optim_wrapper.clip_grad")


def _check_schedule(section: Mapping[str, Any], epochs: int) -> None:
    """Keys by signature; the class judges its values itself, and is stepped through a session."""
    cls, where = registered(PARAM_SCHEDULERS, section["type"]), f"param_scheduler {section['type']}"
    if takes_session(cls):
        check(cls, section, "param_scheduler", "optimizer", "epochs", "epoch_length")
    else:
        if issubclass(cls, ReduceOnPlateauParamScheduler):
            raise UserError(f"{where} waits for validations, which change nothing in a run; choose another schedule")
        check_library(cls, {k: v for k, v in section.items() if k != CONVERT}, where, "optimizer", "param_name")
        if not isinstance(section.get(CONVERT, False), bool):
            raise UserError(f"{where}.{CONVERT} is {section[CONVERT]!r}; expected True or False")
        for key in LENGTHS & set(section):
            if section[key] is not None and np.min(section[key], initial=0) < 0:
                raise UserError(f"{where}.{key} is {section[key]!r}; expected no number below 0")
    epochs = min(epochs, 1000)
    with _tried(where):
        optimizer = torch.optim.SGD([_weight()], lr=1.0, momentum=0.9)
        schedule = build_schedule(section, optimizer, epochs, epoch_length=5)
        for step in range(1, epochs * (1 if schedule.by_epoch else 5) + 1):
            optimizer.step()
            schedule.step()
            for key in ("lr", "momentum"):
                value = optimizer.param_groups[0][key]
                if not 0 <= value < math.inf:
                    raise ValueError(f"{key} is {value:g} after {step} steps, expected a finite number of at least 0")


def _weight() -> torch.nn.Parameter:
    """A parameter with a gradient, to try things on."""
    weight = torch.nn.Parameter(torch.zeros(2))
    weight.grad = torch.ones(2)
    return weight


@contextlib.contextmanager
def _tried(where: str) -> Iterator[None]:
    """Make whatever goes wrong inside a sentence about the settings there."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:  # a class of torch, of mmengine or of a plugin may raise anything
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"{where}: {reason}; correct its values") from error


def _check_memory(cfg: Mapping[str, Any]) -> None:
    """The memory's keys, and whether the method works with such a memory."""
    name = cfg["method"]["type"]
    wanted = METHODS.get(name).memory_selections
    if cfg["memory"] is None:
        if wanted:
            raise UserError(
                f"method {name} replays stored images, but the config has no memory; add "
                f"memory=dict(total=100, selection={wanted[0]!r}) with the budget you want"
            )
        return
    memory = _mapping(cfg["memory"], "memory")
    selection = memory.get("selection", "herding")
    check(memory_class(selection), memory, "memory")
    if wanted and selection not in wanted:
        raise UserError(
            f"method {name} does not work with memory.selection={selection!r}; use {' or '.join(map(repr, wanted))}"
        )


def _check_made(make: Callable[..., Any], cfg: Mapping[str, Any], where: str, keys: Iterable[str]) -> None:
    """Sections whose class refuses wrong values itself."""
    check_keys(cfg[where], keys, where)
    make(**cfg[where])


def _arguments(cls: type, *without: str) -> list[str]:
    return [name for name in inspect.signature(cls).parameters if name not in without]


def _check_typed(section: Any, registry: Any, where: str, *without: str) -> None:
    if not isinstance(section, Mapping) or "type" not in section:
        raise UserError(f"{where} needs a 'type'; known: {', '.join(sorted(registry.module_dict))}")
    cls = registered(registry, section["type"])
    if cls is None:
        raise UserError(
            f"{where}.type {section['type']!r} is unknown; a class of your own needs its file in plugins; "
            f"{near(section['type'], registry.module_dict)}"
        )
    check(cls, section, where, *without)
