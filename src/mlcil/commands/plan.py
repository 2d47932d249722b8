"""What a config would train: sessions, images, labels, steps, parameters, weights. Nothing is trained."""

from __future__ import annotations

import argparse
import json
from typing import Any

from mlcil.engine.build import build_run
from mlcil.engine.config import load_config
from mlcil.engine.run import Run
from mlcil.interop.downloads import command_for
from mlcil.interop.pretrained import how_to_get, load_pretrained, resolve_source
from mlcil.reporting import log_lines
from mlcil.reporting.tables import layout


def main(options: argparse.Namespace) -> int:
    """``plan CONFIG [key=value ...]``."""
    content = make_plan(build_run(load_config(options.config, options.overrides), files=False))
    print(json.dumps(content, indent=1) if options.json else plan_text(content))
    return 0


def make_plan(run: Run) -> dict[str, Any]:
    """Builtins only, so that it goes to json; the run's network grows to all its classes."""
    scenario, method, loader = run.scenario, run.method, run.train_loader
    weights = look_at_weights(run)
    epochs = [run.train.epochs(session.index) for session in scenario.sessions]
    plan: dict[str, Any] = scenario.plan(loader.batch_size, epochs, loader.drop_last)
    parameters = []
    for session in scenario.sessions:
        method.network.grow(session.num_new)
        parameters.append(sum(p.numel() for p in method.parameters()))
    for row, count in zip(plan["sessions"], parameters, strict=True):
        row["parameters"] = count
    plan["method"] = type(method).__name__
    plan["backbone"] = method.network.spec["backbone"]["name"]
    plan["memory"] = dict(run.memory_options) if run.memory_options is not None else None
    plan["weights"] = weights
    return plan


def look_at_weights(run: Run) -> dict[str, Any]:
    """What the backbone starts from, loaded into it when it is there.

    Raises:
        UserError: it does not fit, is damaged or leaks, as training would say.
    """
    source, name = run.settings.pretrained, run.method.network.spec["backbone"]["name"]
    if source is None:
        return {"source": None, "found": False, "sha256": None}
    path, trained_on = resolve_source(source, name)
    if not path.is_file():
        how = how_to_get(source, path, name) + command_for(path)
        return {"source": source, "found": False, "sha256": None, "trained_on": trained_on, "missing": how}
    backbone, leaky = run.method.network.backbone, run.settings.allow_leaky_weights
    found = load_pretrained(backbone, source, run.scenario.classes, allow_leaky_weights=leaky, name=name)
    return {**found, "found": True}


def plan_text(plan: dict[str, Any]) -> str:
    """The plan as a table with its facts above and below."""
    single = plan["task"] == "single_label"
    hidden = [] if single else ["labels", "hidden old", "hidden future", "unknown cells", "seen before"]
    rows = [["session", "classes", "images", *hidden, "test images", "steps", "parameters"]]
    for row in plan["sessions"]:
        shown = row["classes"]
        names = ", ".join(shown[:3]) + (f", ... ({len(shown)})" if len(shown) > 3 else "")
        labels = [
            str(row["labels_given"]),
            str(row["hidden_old"]),
            str(row["hidden_future"]),
            str(row["unknown"]),
            f"{row['images_seen_before']} ({100 * row['share_seen_before']:.0f}%)",
        ]
        rows.append(
            [
                str(row["index"]),
                names,
                str(row["images"]),
                *([] if single else labels),
                str(row["test_images"]["seen"]),
                str(row["steps"]),
                f"{row['parameters']:,}",
            ]
        )
    total = sum(row["steps"] for row in plan["sessions"])
    rows.append(["all", "", str(sum(r["images"] for r in plan["sessions"])), *[""] * (len(hidden) + 1), str(total), ""])
    weights = plan["weights"]
    source = "none: the backbone starts from random values"
    if weights["source"]:
        source = (
            log_lines.weights(weights)
            if weights["found"]
            else f"MISSING, training would stop here: {weights['missing']}"
        )
    return "\n".join(
        [
            f"{plan['method']} on {plan['name']}, protocol {plan['protocol']} ({plan['hash']})",
            f"backbone {plan['backbone']}; weights: {source}",
            f"memory: {plan['memory'] or 'none'}",
            "",
            layout(rows),
            "",
            *(SINGLE_LABEL_NOTES if single else _multi_label_notes(plan)),
        ]
    )


SINGLE_LABEL_NOTES = ("test images: of all classes seen so far. steps: one process, without exemplars.",)


def _multi_label_notes(plan: dict[str, Any]) -> list[str]:
    return [
        f"exposures per training image: {plan['exposures_per_image']:.2f}; "
        f"images that return: {sum(row['images_seen_before'] for row in plan['sessions'])}; "
        f"unknown cells: {sum(row['unknown'] for row in plan['sessions'])}; "
        f"test images fixed: {plan['fixed_test_images']}",
        "labels hidden: positives of other sessions' classes on the session's images; unknown cells: labels of classes",
        "seen so far, present or absent, that nobody gave; seen before: images that an earlier session has trained on",
        "already (none with -disjoint behind the protocol). test images: growing, of all classes seen so far. steps:",
        "one process, without exemplars.",
    ]
