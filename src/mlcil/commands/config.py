"""Print what a config resolves to, as a python config to train from."""

from __future__ import annotations

import argparse

from mlcil.engine.config import load_config
from mlcil.errors import UserError
from mlcil.files import write_text


def main(options: argparse.Namespace) -> int:
    """``config CONFIG [key=value ...]``."""
    cfg = load_config(options.config, options.overrides)
    if options.output is None:
        print(cfg.pretty_text, end="" if cfg.pretty_text.endswith("\n") else "\n")
        return 0
    if options.output.suffix != ".py" or options.output.is_dir():
        raise UserError(f"--output {options.output} is no name of a python file; expected one such as mine.py")
    write_text(options.output, cfg.pretty_text)
    return 0
