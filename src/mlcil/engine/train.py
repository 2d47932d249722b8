"""From a checked config to a finished run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import set_random_seed

from mlcil.datasets.scenario import Scenario
from mlcil.engine.config import as_dict
from mlcil.engine.runner import IncrementalRunner
from mlcil.errors import UserError
from mlcil.interop.pretrained import resolve_source
from mlcil.memory.exemplars import ExemplarMemory
from mlcil.methods.base import Method
from mlcil.models.network import IncrementalNetwork
from mlcil.registry import DATASETS, METHODS

DEMO_HINT = "`sh train_mlcil_coco.sh --demo` runs without it"


def build_scenario(cfg: Config) -> Scenario:
    """The scenario of a config; data are read here."""
    options = as_dict(cfg.scenario)
    try:
        dataset = DATASETS.build(options.pop("dataset"))
    except TypeError as error:
        raise UserError(f"scenario.dataset: {error}") from error
    if cfg.memory is not None:
        options["replay_labels"] = cfg.memory.get("labels", "oracle")
    return Scenario(dataset=dataset, **options)


def build_method(cfg: Config) -> Method:
    """The method of a config around a fresh network."""
    try:
        network = IncrementalNetwork(**as_dict(cfg.network))
        return METHODS.build({**as_dict(cfg.method), "network": network})  # type: ignore[no-any-return]
    except (TypeError, ValueError) as error:
        raise UserError(f"network or method of the config: {error}") from error


def check_weights(cfg: Config) -> None:
    """Say early when the weight file is not there.

    Raises:
        UserError: naming the file, where it is expected and what runs without it.
    """
    if cfg.pretrained is not None:
        path, _ = resolve_source(cfg.pretrained)
        if not path.exists():
            raise UserError(
                f"pretrained weights are missing: expected the file {path} (docs/data.md says where to get it); "
                f"{DEMO_HINT}"
            )


def check_run(cfg: Config, resume: bool = False, overwrite: bool = False) -> Scenario:
    """Everything that can be wrong with names, data and weights, before anything is written.

    Raises:
        UserError: missing data or weights, or a run of that name exists and neither ``resume`` nor
            ``overwrite`` is given.
    """
    run_dir = Path(cfg.log_root) / cfg.name
    if (run_dir / "config.py").exists() and not (resume or overwrite):
        raise UserError(
            f"{run_dir} holds a run of that name already; go on with it by --resume, choose another --name, or "
            "replace it by --overwrite"
        )
    scenario = build_scenario(cfg)
    scenario.train.check_files()
    scenario.test.check_files()
    check_weights(cfg)
    return scenario


def build_runner(cfg: Config, resume: bool = False, overwrite: bool = False) -> IncrementalRunner:
    """Scenario, method, memory and runner; nothing is trained yet. Raises as :func:`check_run`."""
    scenario = check_run(cfg, resume, overwrite)
    memory = ExemplarMemory(**as_dict(cfg.memory)) if cfg.memory is not None else None
    if overwrite:
        for old in (Path(cfg.checkpoint_root) / cfg.name).glob("*.pth"):
            old.unlink()
    set_random_seed(cfg.seed, deterministic=cfg.deterministic)  # before the first initial weight is drawn
    return IncrementalRunner(cfg, scenario, build_method(cfg), memory, resume=resume)


def train(cfg: Config, resume: bool = False, overwrite: bool = False) -> list[dict[str, Any]]:
    """Run all sessions; returns the sessions' results."""
    runner = build_runner(cfg, resume, overwrite)
    runner.train()
    return runner.results
