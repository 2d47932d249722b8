"""The lines of ``logs/<run>/log/log.txt`` that people and scripts look for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlcil.evaluation.metrics import metrics_of


def start(name: str, scenario: Any, facts: Mapping[str, Any], method: str) -> list[str]:
    """Run, scenario, device; weights with their sha256; the activated batch norm in use.

    Args:
        name: the run's.
        scenario: :class:`mlcil.datasets.scenario.Scenario`.
        facts: provenance as in results.json.
        method: class name.
    """
    return [
        f"run {name}: {method}, {scenario.name} {scenario.protocol} ({len(scenario.sessions)} sessions, protocol "
        f"{scenario.hash}), {facts['device']}, {facts['processes']} process(es), {facts['precision']}, "
        f"seed {facts['seed']}, {facts['parameters']:,} parameters before session 0",
        f"weights: {weights(facts['weights'])}",
        f"activated batch norm: {facts['abn']}",
    ]


def weights(found: Mapping[str, Any] | None) -> str:
    """Provenance of initial weights: file, checksum, training data, and what the leak check says."""
    if found is None:
        return "none, the backbone starts from random values"
    leak = f"LEAKY: {found['leak']}" if found["leak"] else "nothing found"
    return (
        f"{found['source']} sha256 {found['sha256']}, {found['entries']} entries, trained on: {found['trained_on']}; "
        f"leak check: {leak}"
    )


def session_start(session: Any, counts: Mapping[str, Any], epochs: int, steps: int, trainable: int) -> str:
    """Range, images and steps of a session."""
    images, names = counts["images"], session.classes
    shown = ", ".join(names) if len(names) <= 100 else f"{', '.join(names[:10])}, ... ({len(names)})"
    return (
        f"session {session.index}: classes [{session.low}, {session.high}) {shown}; {images} new "
        f"images, {images + counts['exemplars']} with exemplars; {epochs} epochs of {steps} steps; "
        f"{trainable:,} trainable parameters"
    )


def report(values_by_name: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """What a method found out before the first step (``dpl: target, reached, threshold, ...``)."""
    return [
        f"{name}: " + ", ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in shown(values))
        for name, values in values_by_name.items()
    ]


def shown(values: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """What is known and fits on a line: everything but lists (results.json has them)."""
    return [(key, value) for key, value in values.items() if value is not None and not isinstance(value, list)]


def memory(counts: Mapping[str, int]) -> str:
    """Exemplars before and after removing duplicates."""
    return (
        f"memory: {counts['chosen']} chosen, {counts['stored']} stored after removing duplicates, "
        f"{counts['total']} in total"
    )


def skipped(found: Mapping[str, Mapping[int, str]], shown: int = 5) -> list[str]:
    """How many images of each split cannot be read, and why the first ones."""
    lines = []
    for split, rows in found.items():
        if rows:
            lines.append(f"unreadable images: {len(rows)} of the {split} split, left out of the run; the first:")
            lines += [f"image skipped: {sentence}" for sentence in list(rows.values())[:shown]]
    return lines


def metrics(result: Mapping[str, Any], label: str) -> list[str]:
    """``current_mAP_base = ...``, or ``current_accuracy_base = ...``, and its companions."""
    splits = ("base", "seen", "new")
    headline = metrics_of(result).headline
    lines = [f"{label} current_{headline}_{split} = {number(result[headline][split])}" for split in splits]
    if headline == "accuracy":
        lines.append(f"{label} " + ", ".join(f"top5_{split} = {number(result['top5'][split])}" for split in splits))
        sessions = ", ".join(number(value) for value in result["session_accuracy"])
        lines.append(f"{label} accuracy on the classes of each session: {sessions}")
        return lines
    fixed = ", ".join(f"fixed_mAP_{split} = {number(result['fixed_mAP'][split])}" for split in splits)
    lines.append(f"{label} {fixed}")
    if "judged" in result:
        lines.append(
            f"{label} judged on {100 * result['judged']:.1f}% of the labels; the others are unknown and count nowhere"
        )
    for threshold, values in result["f1"].items():
        lines.append(f"{label} at {threshold}: " + ", ".join(f"{k} {number(v)}" for k, v in values.items()))
    return lines


def number(value: float | None) -> str:
    """Two decimals; a number that does not exist is ``nan``."""
    return "nan" if value is None else f"{value:.2f}"


def batch(images: int, processes: int, accumulated: int, published: int | None, base: int | None) -> list[str]:
    """What an update of the weights sees, when the published figures come from another number of images.

    Args:
        images: a process's batch.
        processes: how many there are.
        accumulated: batches of a process whose gradients make one update.
        published: images of an update in the published runs, or ``None`` when that is not stated.
        base: images of an update that the learning rate is meant for, or ``None`` when it is not scaled.
    """
    found = images * processes * accumulated
    if published is None or published == found:
        return []
    count, rest = divmod(published, images * processes)
    share = published // (processes * accumulated)
    advice = f"set train_dataloader.batch_size={share}" if share else "use fewer processes"
    if count > 1 and not rest:
        advice += f" or, where the memory is small, optim_wrapper.accumulative_counts={count}"
    rate = f"the learning rate is scaled by {found}/{base}" if base else "the learning rate is not scaled"
    return [
        f"batch: {images} images x {processes} process(es) x {accumulated} accumulated = {found} an update, but the "
        f"published figures come from {published}; {rate}. For the published batch {advice}"
    ]
