"""Train all sessions of a config."""

from __future__ import annotations

import argparse

from mlcil.engine.build import check_run, download_missing, folder_of, is_first
from mlcil.engine.config import load_config
from mlcil.engine.train import train
from mlcil.errors import UserError
from mlcil.reporting import log_lines


def main(options: argparse.Namespace) -> int:
    """``train CONFIG [key=value ...]``."""
    # torchrun and our scripts may pass a second config: the last one given is meant
    configs = [word for word in (options.config, *options.overrides) if "=" not in word]
    overrides = [word for word in (options.config, *options.overrides) if "=" in word]
    if not configs:
        raise UserError(
            "no config given; expected a method with its data (krt data=coco), a name that `mlcil config` lists, or a "
            "python file"
        )
    if options.name:
        overrides.append(f"name={options.name!r}")
    if options.full_paths:
        overrides.append("full_paths=True")
    overrides.append(f"launcher={options.launcher!r}")
    cfg = load_config(configs[-1], overrides)
    if options.download and is_first(cfg):
        for line in download_missing(cfg):
            print(line)
    resume = options.resume or (options.auto_resume and folder_of(cfg).is_begun())
    if options.check:
        run = check_run(cfg, resume, options.overwrite, options.accept_changes).run
        weights = log_lines.weights(run.weights)
        print(f"{run.name} can be trained: {run.scenario.name} {run.scenario.protocol}; weights: {weights}")
    else:
        train(cfg, resume=resume, overwrite=options.overwrite, accept_changes=options.accept_changes)
    return 0
