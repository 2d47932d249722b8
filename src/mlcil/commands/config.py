"""Print what a config resolves to, as a python config to train from."""

from __future__ import annotations

import argparse

from mlcil.configs import compose
from mlcil.configs.published import PUBLISHED
from mlcil.errors import UserError
from mlcil.files import write_text
from mlcil.system.imports import quick_imports


def main(options: argparse.Namespace) -> int:
    """``config [CONFIG] [key=value ...]``; without a config, what can be named."""
    if options.config is None:
        print(listing())
        return 0
    with quick_imports():
        from mlcil.engine.config import load_config  # torch, which names do not need

    cfg = load_config(options.config, options.overrides)
    if options.output is None:
        print(cfg.pretty_text, end="" if cfg.pretty_text.endswith("\n") else "\n")
        return 0
    if options.output.suffix != ".py" or options.output.is_dir():
        raise UserError(f"--output {options.output} is no name of a python file; expected one such as mine.py")
    write_text(options.output, cfg.pretty_text)
    return 0


def listing() -> str:
    """Methods, data sets, backbones, protocols and published settings."""
    lines = ["mlcil train METHOD data=DATA [protocol=PROTOCOL] [backbone=BACKBONE] [key=value ...]"]
    for title, kind in (("METHOD", "methods"), ("DATA", "data"), ("BACKBONE", "backbones")):
        lines += ["", title, *(compose.summary(kind, name) for name in compose.names(kind))]
    lines += ["", "PROTOCOL", *(f"  {word}" for word in compose.PROTOCOLS.split(", ")), ""]
    lines += ["mlcil train NAME [key=value ...], settings as published", *(f"  {name}" for name in PUBLISHED), ""]
    lines += ["mlcil bench NAME, a table of runs", *(f"  {name}" for name in compose.names("bench"))]
    return "\n".join(lines)
