"""Train a few methods on embedded digits, without a download, and compare them."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from typing import Any

from mlcil.commands.bench_plan import find_bench, load_bench, run_overrides
from mlcil.engine.config import load_config
from mlcil.engine.train import train
from mlcil.reporting.tables import SPLITS, session_table

#: label and config of the runs of a demo
DEMOS = {
    "scenes": (("pretraining", "pretrain"), ("KRT", "krt"), ("fine-tuning", "finetune")),
    "transformers": (
        ("DKT", "transformers"),
        ("DAFormer-S", "transformers_daformer_s"),
        ("DAFormer-M", "transformers_daformer_m"),
    ),
}


def main(options: argparse.Namespace) -> int:
    """The runs of an embedded scenario and one table."""
    results = {}
    demos = single_label_demo if options.single_label else named_demo
    for label, cfg in demos(options.overrides, "transformers" if options.transformers else "scenes"):
        print(f"\n== {label}: {cfg.method.type}, logs/{cfg.name} ==", flush=True)
        results[label] = train(cfg, overwrite=True)
    results.pop("pretraining", None)
    print("\n" + session_table(results, SPLITS[:1] if options.single_label else SPLITS))
    return 0


def named_demo(overrides: Sequence[str], name: str) -> Iterator[tuple[str, Any]]:
    """Label and config of the runs of :data:`DEMOS`, one after the other: KRT needs the pretraining's weights."""
    for label, stem in DEMOS[name]:
        yield label, load_config(f"demo/{stem}", overrides)


def single_label_demo(overrides: Sequence[str], _: str) -> Iterator[tuple[str, Any]]:
    """Label and config of the runs of the bench ``demo_single_label``."""
    for entry in load_bench(find_bench("demo_single_label"))["runs"]:
        name = "demo_" + "".join(c if c.isalnum() else "_" for c in entry["label"].lower())
        words = [*run_overrides(entry), f"name={name!r}", *overrides]
        yield entry["label"], load_config(entry["config"], words)
