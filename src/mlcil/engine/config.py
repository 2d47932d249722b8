"""Configs: python files with ``_base_``, ``key=value`` overrides, defaults, and a check of every key.

A config is a handful of dictionaries; each is the arguments of one class or function, so its allowed keys
and their meaning are in that docstring:

=================  ======================================================================
``scenario``       :class:`mlcil.datasets.scenario.Scenario`; its ``dataset`` names a data set by ``type``
``network``        :class:`mlcil.models.network.IncrementalNetwork` (``backbone``, ``head``, ``image_size``)
``method``         a class of :mod:`mlcil.methods` by ``type``
``memory``         a class of :mod:`mlcil.memory` by its ``selection``, or ``None``
``train_cfg``      :class:`mlcil.engine.loop.IncrementalTrainLoop`
``train_transform``  :class:`mlcil.datasets.transforms.TrainTransform`
``image_cache``    :class:`mlcil.datasets.cache.CacheOptions`
``plugins``        python files with methods or data sets of one's own (docs/add_a_method.md)
=================  ======================================================================

Configs are programs: run only those you would run as python.
"""

from __future__ import annotations

import ast
import copy
import difflib
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config, ConfigDict
from mmengine.registry import HOOKS, PARAM_SCHEDULERS

import mlcil.datasets
import mlcil.engine.mixing
import mlcil.methods
from mlcil.configs import compose
from mlcil.configs.published import PUBLISHED
from mlcil.datasets.augment import NORMALISATIONS
from mlcil.datasets.cache import CacheOptions
from mlcil.datasets.loading import BAD_IMAGE
from mlcil.datasets.scenario import Scenario
from mlcil.datasets.transforms import TrainTransform
from mlcil.engine.loop import IncrementalTrainLoop
from mlcil.engine.optim import OWN_WRAPPERS, PRECISIONS, SESSION_SCHEDULERS, check_sharpness, decay_groups
from mlcil.errors import UserError
from mlcil.evaluation.singlelabel import LOCAL_ACCURACIES
from mlcil.memory import memory_class
from mlcil.models.backbones import ENCODERS, OWN, TimmBackbone, check_name
from mlcil.models.heads import HEADS
from mlcil.models.network import IncrementalNetwork
from mlcil.models.resnet import VARIANTS as RESNETS
from mlcil.models.resnet import ResNet
from mlcil.models.tresnet import TResNet
from mlcil.protocols import check_option
from mlcil.registry import DATASETS, METHODS

#: every top-level key and its default; ``...`` marks what a config must give
DEFAULTS: dict[str, Any] = {
    "plugins": [],  # python files, relative to the config, that register methods or data sets of one's own
    "name": None,  # run name; default: from the config's words or path
    "scenario": ...,
    "network": ...,
    "method": ...,
    "memory": None,
    "pretrained": None,  # weight file, 'package:efficientnet-lite0', or None for random initial weights
    "allow_leaky_weights": False,  # load weights that were trained on the evaluated classes
    "train_transform": {"cutout": 0.0, "randaugment": False},
    "train_dataloader": {"batch_size": 64, "num_workers": 8},
    "test_dataloader": {"batch_size": 64, "num_workers": 8, "precision": "fp32"},
    "image_cache": {"enabled": True, "folder": None, "limit_gb": 32},  # decoded images, shared by all runs
    "frozen_maps_gb": 4,  # memory for the maps of a frozen backbone when nothing augments its images; 0: none is kept
    "train_cfg": {"max_epochs": 20},
    "optim_wrapper": {"optimizer": {"type": "Adam", "lr": 1e-4, "weight_decay": 1e-4}},
    "param_scheduler": [{"type": "OneCycle"}],
    # {"base_batch_size": 256}: the learning rates are meant for so many images an update and scaled in proportion;
    # with "published_batch_size" too, the log says when an update has another number of images than that
    "auto_scale_lr": None,
    "precision": "auto",  # auto, fp32, bf16, fp16
    "channels_last": True,  # memory layout of convolutions; same numbers up to rounding
    "fold_batch_norm": True,  # inside convolutions where nothing trains; not with deterministic=True
    "deterministic": False,
    "threads": None,  # CPU threads of the arithmetic; None leaves PyTorch's choice
    "seed": 3407,
    "empty_classes": "zero",  # a class without test positives counts as AP 0 (official) or is left out: 'skip'
    "local_accuracy": "all",  # images that count where predictions are among a session's classes; 'official': ABD's
    "on_bad_image": "raise",  # an image that cannot be read stops the run, or 'skip': it is left out and counted
    "log_root": "logs",
    "checkpoint_root": "saved_models",
    "log_level": "INFO",
    "log_interval": 50,  # steps between two loss lines
    "launcher": "none",  # none, pytorch (torchrun), slurm
    "custom_hooks": [],
    "compile": False,  # the backbone through torch.compile: other rounding, and minutes before the first step
}
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR")
_LOADER_KEYS = ("batch_size", "num_workers")
_TRAIN_LOADER_KEYS = (*_LOADER_KEYS, "drop_last")


def folds(cfg: Config) -> bool:
    """Whether networks that only predict have their batch norms inside the convolutions."""
    return bool(cfg.fold_batch_norm and not cfg.deterministic)


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
    if isinstance(config, str) and not config.endswith(".py") and not Path(config).is_file():
        cfg, name = _named([*config.split(), *words])
        filename = None
    else:
        filename = Path(config)
        cfg, name = _file(filename, words), run_name(filename)
    keys = [word.partition("=")[0] for word in words]
    for given, other in (("total", "per_class"), ("per_class", "total")):  # a budget takes the place of the recipe's
        if f"memory.{given}" in keys and isinstance(cfg.get("memory"), dict):
            cfg["memory"].pop(other, None)
    for override, key in zip(words, keys, strict=True):
        if key not in compose.CHOICES:
            _apply(cfg, override)
    return finish_config(cfg, default_name=name, filename=filename)


def _named(words: list[str]) -> tuple[dict[str, Any], str]:
    """Settings and run name of a method or of published settings."""
    chosen = [word.partition("=") for word in words[1:]]
    choices = {key: value for key, _, value in chosen if key in compose.CHOICES}
    return compose.resolve(words[0], choices, PUBLISHED)


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
    try:
        cfg = Config.fromfile(str(path), import_custom_modules=False).to_dict()
    except Exception as error:  # anything can go wrong in somebody's python file
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path} cannot be read as a config ({type(error).__name__}: {reason}); expected python that runs, so "
            "correct it"
        ) from error
    base = cfg.pop("based_on", None)
    return compose.merge(_named(str(base).split())[0], cfg) if base else cfg


def finish_config(cfg: dict[str, Any], default_name: str, filename: Path | None = None) -> Config:
    """Defaults and checks for a dictionary; see :func:`load_config`."""
    where = str(filename) if filename else "the config"
    check_keys(cfg, DEFAULTS, where)
    for key, default in DEFAULTS.items():
        if default is ... and key not in cfg:
            raise UserError(f"{where} has no {key!r}; every config gives scenario, network and method, so add it")
        if isinstance(default, dict):
            cfg[key] = {**copy.deepcopy(default), **_mapping(cfg.get(key) or {}, key)}
        else:
            cfg.setdefault(key, copy.deepcopy(default))
    cfg["plugins"] = load_plugins(cfg["plugins"], filename.parent if filename else Path())
    cfg["name"] = str(cfg["name"] or default_name)
    if Path(cfg["name"]).name != cfg["name"] or cfg["name"] in (".", ".."):
        raise UserError(f"run name {cfg['name']!r} must be a plain folder name, without slashes; change --name")
    _check_sections(cfg)
    return Config(cfg, filename=str(filename) if filename else None)


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
        except Exception as error:  # anything can go wrong in somebody's python file
            del sys.modules[name]
            reason = " ".join(str(error).split())[:300]
            raise UserError(
                f"plugins: {path} cannot be imported ({type(error).__name__}: {reason}); expected python that runs, "
                "so correct it"
            ) from error
    return found


def run_name(path: Path) -> str:
    """``photos/mine.py`` -> ``photos_mine``: the folder and the file."""
    return "_".join([*path.parts[:-1][-1:], path.stem])


def _apply(cfg: dict[str, Any], override: str) -> None:
    key, sign, text = override.partition("=")
    if not sign or not key:
        raise UserError(
            f"{override!r} is neither a config file nor an override; overrides look like train_cfg.max_epochs=2"
        )
    *parents, last = key.split(".")
    node = cfg
    for parent in parents:
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


def check_keys(given: Mapping[str, Any], allowed: Iterable[str], where: str) -> None:
    """Raise :class:`UserError` for the first unknown key, suggesting the near one."""
    allowed = list(allowed)
    for key in given:
        if key not in allowed:
            raise UserError(f"unknown key {key!r} in {where}; {_near(key, allowed)}")


def _near(found: object, known: Iterable[str]) -> str:
    """The known word that was probably meant, else all of them."""
    lower = {word.lower(): word for word in known}
    near = difflib.get_close_matches(str(found).lower(), lower, 1)
    return f"did you mean {lower[near[0]]!r}?" if near else f"known: {', '.join(sorted(lower.values()))}"


def _mapping(value: Any, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise UserError(f"{key} in the config is {value!r}; expected a dictionary of options")
    return value


def _arguments(function: Callable[..., Any], *without: str) -> list[str]:
    return [name for name in inspect.signature(function).parameters if name not in ("self", "kwargs", *without)]


def _check_sections(cfg: dict[str, Any]) -> None:
    scenario = dict(_mapping(cfg["scenario"], "scenario"))
    check_keys(scenario, _arguments(Scenario.__init__), "scenario")
    _check_typed(scenario.get("dataset"), DATASETS, "scenario.dataset")
    if "num_sessions" not in scenario:
        for key in ("base", "increment"):
            if key not in scenario:
                raise UserError(f"scenario has no {key!r}; give the classes of a session, such as scenario.{key}=10")
    network = _mapping(cfg["network"], "network")
    check_keys(network, _arguments(IncrementalNetwork.__init__), "network")
    backbone = _mapping(network.get("backbone") or {}, "network.backbone")
    if "name" not in backbone:
        raise UserError("network.backbone has no 'name'; use one of " + ", ".join(OWN) + " or a timm model")
    try:
        check_name(str(backbone["name"]))
    except ValueError as error:
        raise UserError(f"network.backbone.name: {error}") from error
    backbone_class: Any = TResNet if backbone["name"] in OWN else TimmBackbone
    if backbone["name"] in RESNETS:
        backbone_class = ResNet
    backbone_class = ENCODERS.get(str(backbone["name"]), backbone_class)
    check_keys(backbone, {"name", *_arguments(backbone_class.__init__, "image_size")}, "network.backbone")
    _name_normalisation(cfg["network"]["backbone"])
    head = _mapping(network.get("head") or {}, "network.head")
    head_class: Any = HEADS.get(str(head.get("type")))
    if head_class is None:
        raise UserError(f"network.head.type is {head.get('type')!r}; use one of {', '.join(map(repr, HEADS))}")
    check_keys(head, {"type", *_arguments(head_class.__init__, "in_channels", "grid")}, "network.head")
    _check_typed(cfg["method"], METHODS, "method", "network")
    _check_memory(cfg)
    check_keys(cfg["train_transform"], _arguments(TrainTransform.__init__, "size"), "train_transform")
    TrainTransform(32, **cfg["train_transform"])  # refuses what it cannot do
    check_keys(cfg["image_cache"], _arguments(CacheOptions.__init__), "image_cache")
    CacheOptions(**cfg["image_cache"])
    check_keys(cfg["train_dataloader"], _TRAIN_LOADER_KEYS, "train_dataloader")
    check_keys(cfg["test_dataloader"], (*_LOADER_KEYS, "precision"), "test_dataloader")
    check_keys(cfg["train_cfg"], _arguments(IncrementalTrainLoop.__init__, "runner", "dataloader"), "train_cfg")
    views = cfg["train_cfg"].get("repeated_augmentation", 1)
    if type(views) is not int or views < 1:
        raise UserError(f"train_cfg.repeated_augmentation is {views!r}; expected a whole number of at least 1")
    wrapper_keys = ("optimizer", "clip_grad", "accumulative_counts", "type", "constructor", "paramwise_cfg", "rho")
    check_keys(cfg["optim_wrapper"], wrapper_keys, "optim_wrapper")
    _check_wrapper(cfg["optim_wrapper"])
    groups = _mapping(cfg["optim_wrapper"].get("paramwise_cfg") or {}, "optim_wrapper.paramwise_cfg")
    check_keys(groups, _arguments(decay_groups, "model", "weight_decay", "lr"), "optim_wrapper.paramwise_cfg")
    optimizer = _mapping(cfg["optim_wrapper"].get("optimizer") or {}, "optim_wrapper.optimizer")
    optimizer_class = getattr(torch.optim, str(optimizer.get("type")), None)
    if optimizer_class is None:
        raise UserError(
            f"optim_wrapper.optimizer.type is {optimizer.get('type')!r}; expected a torch optimiser such as 'Adam'"
        )
    check_keys(optimizer, {"type", *_arguments(optimizer_class.__init__, "params")}, "optim_wrapper.optimizer")
    try:
        optimizer_class([torch.zeros(1)], **{k: v for k, v in optimizer.items() if k != "type"})
    except (TypeError, ValueError) as error:
        raise UserError(f"optim_wrapper.optimizer: {error}; correct its value") from error
    for key, registry in (("param_scheduler", PARAM_SCHEDULERS), ("custom_hooks", HOOKS)):
        if not isinstance(cfg[key], list) or not all(isinstance(section, Mapping) for section in cfg[key]):
            raise UserError(f"{key} in the config is {cfg[key]!r}; expected a list of dictionaries with a 'type'")
        for section in cfg[key]:
            if registry.get(str(section.get("type"))) is None:
                raise UserError(f"{key} has the type {section.get('type')!r}; expected a registered class of mmengine")
    for hook in cfg["custom_hooks"]:
        if hook["type"] == "MixUp":
            check_keys(hook, {"type", *_arguments(mlcil.engine.mixing.MixUp.__init__)}, "custom_hooks")
            if cfg["train_transform"].get("on_device"):
                raise UserError(
                    "train_transform.on_device=True does not go with MixUp in custom_hooks, which mixes images that "
                    "are augmented already; leave one of them out"
                )
            mlcil.engine.mixing.MixUp(**{key: value for key, value in hook.items() if key != "type"})
    for scheduler in cfg["param_scheduler"]:
        if scheduler["type"] in SESSION_SCHEDULERS:
            arguments = _arguments(SESSION_SCHEDULERS[scheduler["type"]].__init__, "optimizer")
            check_keys(scheduler, {"type", *arguments}, "param_scheduler")
    for where, value in (("", cfg["precision"]), ("test_dataloader.", cfg["test_dataloader"]["precision"])):
        if value not in PRECISIONS:
            raise UserError(f"{where}precision is {value!r}; use one of {', '.join(PRECISIONS)}")
    check_option("local_accuracy", cfg["local_accuracy"], LOCAL_ACCURACIES)
    check_option("on_bad_image", cfg["on_bad_image"], BAD_IMAGE)
    if cfg["auto_scale_lr"] is not None:
        sizes = _mapping(cfg["auto_scale_lr"], "auto_scale_lr")
        check_keys(sizes, ("base_batch_size", "published_batch_size"), "auto_scale_lr")
        for key in ("base_batch_size", *(key for key in ("published_batch_size",) if key in sizes)):
            if type(sizes.get(key)) is not int or sizes[key] < 1:
                raise UserError(f"auto_scale_lr.{key} is {sizes.get(key)!r}; expected a whole number of at least 1")
    if cfg["log_level"] not in LOG_LEVELS:
        raise UserError(f"log_level is {cfg['log_level']!r}; use one of {', '.join(LOG_LEVELS)}")
    for key in ("fold_batch_norm", "compile"):
        if not isinstance(cfg[key], bool):
            raise UserError(f"{key} is {cfg[key]!r}; expected True or False")
    if cfg["compile"] and cfg["network"]["backbone"].get("recompute"):
        raise UserError("compile=True does not go with network.backbone.recompute=True; switch one of them off")
    kept = cfg["frozen_maps_gb"]
    if isinstance(kept, bool) or not isinstance(kept, (int, float)) or not kept >= 0:
        raise UserError(f"frozen_maps_gb is {kept!r}; expected a number of gigabytes of at least 0")
    if type(cfg["seed"]) is not int or cfg["seed"] < 0:
        raise UserError(f"seed is {cfg['seed']!r}; expected a whole number of at least 0")
    if not isinstance(cfg["train_dataloader"].get("drop_last", False), bool):
        raise UserError(
            f"train_dataloader.drop_last is {cfg['train_dataloader']['drop_last']!r}; expected True or False"
        )
    for key in ("batch_size", "num_workers"):
        for section in ("train_dataloader", "test_dataloader"):
            value = cfg[section][key]
            if not isinstance(value, int) or value < (1 if key == "batch_size" else 0):
                raise UserError(f"{section}.{key} is {value!r}; expected a whole number")
    epochs = cfg["train_cfg"].get("max_epochs")
    if not isinstance(epochs, int) or epochs < 1:
        raise UserError(f"train_cfg.max_epochs is {epochs!r}; expected a whole number of at least 1")


def _check_wrapper(wrapper: Mapping[str, Any]) -> None:
    """The optimiser wrapper's kind, radius and accumulated batches."""
    kind, counts = wrapper.get("type", "AutocastOptimWrapper"), wrapper.get("accumulative_counts", 1)
    if kind not in OWN_WRAPPERS:
        raise UserError(f"optim_wrapper.type is {kind!r}; use one of {', '.join(map(repr, OWN_WRAPPERS))}")
    sharp = kind == "SharpnessAwareOptimWrapper"
    if "rho" in wrapper and not sharp:
        raise UserError("optim_wrapper.rho belongs to optim_wrapper.type='SharpnessAwareOptimWrapper'; set both")
    if type(counts) is not int or counts < 1:
        raise UserError(f"optim_wrapper.accumulative_counts is {counts!r}; expected a whole number of at least 1")
    if sharp:
        check_sharpness(wrapper.get("rho", 3.0), counts)


def _name_normalisation(backbone: dict[str, Any]) -> None:
    """Numbers in place of ``mean="cifar100"`` and ``std="cifar100"``."""
    for index, key in enumerate(("mean", "std")):
        if isinstance(backbone.get(key), str):
            check_option(f"network.backbone.{key}", backbone[key], tuple(NORMALISATIONS))
            backbone[key] = list(NORMALISATIONS[backbone[key]][index])


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
    check_keys(memory, _arguments(memory_class(selection).__init__), "memory")
    if wanted and selection not in wanted:
        raise UserError(
            f"method {name} does not work with memory.selection={selection!r}; use {' or '.join(map(repr, wanted))}"
        )


def _check_typed(section: Any, registry: Any, where: str, *without: str) -> None:
    if not isinstance(section, Mapping) or "type" not in section:
        raise UserError(f"{where} needs a 'type'; known: {', '.join(sorted(registry.module_dict))}")
    cls = registry.get(str(section["type"]))
    if cls is None:
        raise UserError(f"{where}.type {section['type']!r} is unknown; {_near(section['type'], registry.module_dict)}")
    function = cls.__init__ if inspect.isclass(cls) else cls
    check_keys(section, {"type", *_arguments(function, *without)}, where)


def as_dict(value: Any) -> Any:
    """Plain dictionaries of an mmengine config."""
    return value.to_dict() if isinstance(value, ConfigDict) else value
