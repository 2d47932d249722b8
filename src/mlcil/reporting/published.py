"""Published results, to stand beside ours: by multi-label experiment, and below by single-label one.

Multi-label: Tables 1 and 2 of KRT (Dong et al., ICCV 2023), TResNet-M at 224 px, as reprinted in the comparison
tables of "Knowing Beyond the Known" (KBK, arXiv 2608.30316); the paper's own tables could not be read. CSC, HCP and KBK
are from the same tables. Entries are (average mAP, last mAP, last CF1, last OF1) in percent, ``None`` where the source
has no number that could be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from mlcil.reporting.run_settings import NEUTRAL, settings_of, without

SOURCE = "KRT (ICCV 2023), Tables 1 and 2, and CSC, HCP and KBK, as in arXiv 2608.30316; TResNet-M, full data set"

T = TypeVar("T")
Entry = tuple[float | None, float | None, float | None, float | None]
MeanStd = tuple[float, float | None]
Published = Mapping[str, MeanStd]

#: columns of the multi-label entries, in their order
COLUMNS = ("average mAP", "last mAP", "CF1", "OF1")


def _by_experiment(names: Sequence[str], rows: Mapping[str, Sequence[T]]) -> dict[str, dict[str, T]]:
    """Experiment -> method -> numbers, from rows with an entry an experiment."""
    return {name: {method: entries[i] for method, entries in rows.items()} for i, name in enumerate(names)}


_COCO: dict[str, tuple[Entry, Entry]] = {
    "Joint": ((None, 81.8, 76.4, 79.4), (None, 81.8, 76.4, 79.4)),
    "Fine-tuning": ((38.3, 16.9, 6.1, 13.4), (35.1, 17.0, 6.0, 13.6)),
    "PODNet": ((43.7, 25.6, 7.2, 14.1), (44.3, 24.7, 6.8, 13.9)),
    "oEWC": ((46.9, 24.3, 6.7, 13.4), (44.8, 27.3, 11.1, 16.5)),
    "LwF": ((47.9, 28.9, 9.0, 15.1), (48.6, 29.9, 9.5, 15.8)),
    "KRT": ((74.6, 65.9, 55.6, 56.5), (77.8, 74.0, 64.4, 63.4)),
    "CSC": ((78.0, 72.8, 64.9, 66.8), (78.2, 74.0, 65.7, 67.0)),
    "HCP": ((77.9, 71.2, 60.4, 65.3), (78.9, 75.3, 64.9, 68.6)),
    "KBK": ((80.7, 75.8, 67.3, 68.2), (79.7, 77.2, 69.6, 70.0)),
    "TPCIL, 5/class": ((63.8, 50.8, 20.1, 21.6), (63.1, 53.1, 25.3, 25.1)),
    "PODNet, 5/class": ((65.7, 53.4, 13.6, 17.3), (65.4, 57.8, 24.2, 23.4)),
    "DER++, 5/class": ((68.1, 54.6, 33.3, 36.7), (69.6, 59.0, 41.9, 43.7)),
    "KRT-R, 5/class": ((75.8, 68.3, 60.0, 61.0), (78.0, 74.3, 66.0, 65.9)),
    "CSC-R, 5/class": ((79.2, 73.7, 67.3, 68.1), (78.4, None, None, None)),
    "HCP-R, 5/class": ((79.4, 74.5, 70.3, 72.9), (79.4, 76.7, 71.5, 74.1)),
    "KBK-R, 5/class": ((81.0, 76.3, 72.8, 75.7), (79.9, 77.7, 73.9, 76.4)),
    "iCaRL, 20/class": ((59.7, 43.8, 19.3, 22.8), (65.6, 55.7, 22.1, 25.5)),
    "BiC, 20/class": ((65.0, 51.1, 31.0, 38.1), (65.5, 55.9, 38.1, 40.7)),
    "ER, 20/class": ((60.3, 47.2, 40.6, 43.6), (68.9, 61.6, 58.6, 61.1)),
    "TPCIL, 20/class": ((69.4, 60.6, 51.7, 52.8), (72.4, 66.5, 60.4, 62.6)),
    "PODNet, 20/class": ((70.0, 58.8, 45.2, 48.7), (71.0, 64.2, 46.6, 42.1)),
    "DER++, 20/class": ((72.7, 63.1, 45.2, 48.7), (73.6, 66.3, 51.5, 53.5)),
    "KRT-R, 20/class": ((76.5, 70.2, 63.9, 64.7), (78.3, 75.2, 67.9, 68.9)),
    "CSC-R, 20/class": ((None, 74.8, 67.8, 68.6), (None, None, None, None)),
    "HCP-R, 20/class": ((79.6, 74.6, 70.4, 73.0), (79.6, 77.2, 71.9, 74.5)),
    "KBK-R, 20/class": ((81.4, 77.2, 73.5, 76.3), (80.4, 78.3, 74.4, 76.7)),
    "PRS, 1000": ((48.8, 27.9, 8.5, 14.7), (50.8, 33.2, 9.3, 15.1)),
    "OCDM, 1000": ((49.5, 28.5, 8.6, 14.9), (51.3, 34.0, 9.5, 15.5)),
    "KRT-R, 1000": ((75.7, 69.3, 61.6, 63.6), (78.3, 75.1, 67.5, 68.5)),
    "CSC-R, 1000": ((79.3, 73.9, 67.5, 68.5), (78.5, 76.0, 67.8, 69.7)),
    "HCP-R, 1000": ((79.5, 74.4, 70.2, 72.8), (79.5, 76.7, 71.8, 74.4)),
    "KBK-R, 1000": ((81.6, 77.3, 73.7, 76.5), (80.3, 78.2, 74.3, 76.8)),
}
_VOC: dict[str, tuple[Entry, Entry]] = {
    "Joint": ((None, 93.6, None, None), (None, 93.6, None, None)),
    "Fine-tuning": ((82.1, 62.9, None, None), (72.9, 43.0, None, None)),
    "KRT": ((89.1, 80.2, None, None), (84.3, 71.5, None, None)),
    "CSC": ((90.4, 85.1, None, None), (89.0, 83.8, None, None)),
    "HCP": ((92.9, 87.9, None, None), (90.1, 81.9, None, None)),
    "KBK": ((94.1, 90.9, None, None), (90.9, 85.0, None, None)),
    "iCaRL, 2/class": ((87.2, 72.4, None, None), (79.0, 66.7, None, None)),
    "BiC, 2/class": ((86.8, 72.2, None, None), (81.7, 69.7, None, None)),
    "ER, 2/class": ((86.1, 71.5, None, None), (81.5, 68.6, None, None)),
    "TPCIL, 2/class": ((87.6, 77.3, None, None), (80.7, 70.8, None, None)),
    "PODNet, 2/class": ((88.1, 76.6, None, None), (81.2, 71.4, None, None)),
    "DER++, 2/class": ((87.9, 76.1, None, None), (82.3, 70.6, None, None)),
    "KRT-R, 2/class": ((90.7, 83.4, None, None), (87.7, 80.5, None, None)),
    "CSC-R, 2/class": ((92.4, 87.9, None, None), (91.6, 87.8, None, None)),
    "HCP-R, 2/class": ((93.5, 89.2, None, None), (92.1, 86.3, None, None)),
    "KBK-R, 2/class": ((94.7, 91.3, None, None), (92.8, 88.8, None, None)),
}
#: average and last mAP in VOC B10-C2 and B4-C2 with parts of KBK
_ABLATION: dict[str, tuple[float, float, float, float]] = {
    "Plain": (72.87, 46.76, 60.20, 22.01),
    "FP": (82.09, 66.29, 75.88, 52.95),
    "FP, RE": (86.00, 73.45, 80.73, 64.44),
    "HCP": (90.05, 81.85, 82.94, 70.08),
    "HFP": (85.21, 70.12, 78.67, 60.47),
    "HFP, URE": (87.01, 75.36, 81.30, 72.63),
    "HFP, URE, CGC": (89.28, 80.37, 84.51, 70.71),
    "HFP, URE, SPU": (90.63, 83.37, 85.03, 68.78),
    "KBK": (90.89, 84.95, 85.53, 72.24),
}
#: experiment -> "method" or "method, budget" -> numbers
PUBLISHED: dict[str, dict[str, Entry]] = {
    **_by_experiment(("coco_b0c10", "coco_b40c10"), _COCO),
    **_by_experiment(("voc_b0c4", "voc_b10c2"), _VOC),
    **_by_experiment(
        ("kbk_voc_b10c2", "kbk_voc_b4c2"),
        {row: ((a, b, None, None), (c, d, None, None)) for row, (a, b, c, d) in _ABLATION.items()},
    ),
}

ABD_SOURCE = (
    "README of ABD's release (last accuracy, mean and std of 3 runs); Omega: the paper (arXiv 2106.09701v2) as quoted "
    "by others; what is missing was not found"
)
RDFCIL_SOURCE = (
    "R-DFCIL (arXiv 2203.13104v2) as quoted by others, average accuracy as reprinted by PASS++; the paper's table of "
    "equal sessions was not found"
)

#: of 5, 10 and 20 tasks
_ABD_LAST: dict[str, tuple[MeanStd, MeanStd, MeanStd]] = {
    "UB": ((69.9, 0.2), (69.9, 0.2), (69.9, 0.2)),
    "Base": ((16.4, 0.4), (8.8, 0.1), (4.4, 0.3)),
    "LwF": ((17.0, 0.1), (9.2, 0.0), (4.7, 0.1)),
    "LwF.MC": ((32.5, 1.0), (17.1, 0.1), (7.7, 0.5)),
    "DGR": ((14.4, 0.4), (8.1, 0.1), (4.1, 0.3)),
    "DeepInversion": ((18.8, 0.3), (10.9, 0.6), (5.7, 0.3)),
    "ABD": ((43.9, 0.9), (33.7, 1.2), (20.0, 1.4)),
    "Naive Rehearsal, 2000": ((34.0, 0.2), (24.0, 1.0), (14.9, 0.7)),
    "LwF, 2000": ((39.4, 0.3), (27.4, 0.8), (16.6, 0.4)),
    "E2E, 2000": ((47.4, 0.8), (38.4, 1.3), (32.7, 1.9)),
    "BiC, 2000": ((53.7, 0.4), (45.9, 1.8), (37.5, 3.2)),
}
_ABD_OMEGA: dict[str, tuple[MeanStd, MeanStd, MeanStd]] = {
    "ABD": ((78.6, 1.1), (69.6, 1.6), (52.5, 2.5)),
    "Naive Rehearsal, 2000": ((73.4, 0.8), (64.6, 2.1), (51.4, 2.9)),
    "LwF, 2000": ((79.0, 0.0), (69.4, 0.4), (54.2, 2.2)),
    "BiC, 2000": ((87.5, 0.9), (81.9, 2.0), (71.7, 3.4)),
}
#: last and average accuracy of ABD, then of R-DFCIL
_RDFCIL: dict[str, tuple[tuple[MeanStd, float], tuple[MeanStd, float]]] = {
    "rdfcil_cifar100_half_5tasks": (((50.55, 1.14), 62.4), ((54.76, 0.76), 64.78)),
    "rdfcil_cifar100_half_10tasks": (((43.65, 2.4), 58.97), ((49.7, 0.61), 61.71)),
    "rdfcil_cifar100_half_25tasks": (((25.27, 1.09), 48.91), ((30.01, 0.56), 49.95)),
    "rdfcil_tiny_imagenet200_half_5tasks": (((33.18, None), 44.55), ((40.44, None), 48.91)),
    "rdfcil_tiny_imagenet200_half_10tasks": (((27.34, None), 41.64), ((38.19, None), 47.6)),
    "rdfcil_tiny_imagenet200_half_25tasks": (((16.46, None), 34.47), ((27.29, None), 40.85)),
}
#: experiment -> method -> column -> (mean, std or None), in percent
SINGLE_LABEL: dict[str, dict[str, dict[str, MeanStd]]] = {
    f"abd_cifar100_{tasks}tasks": {
        method: {"last accuracy": last[i], **({"Omega": _ABD_OMEGA[method][i]} if method in _ABD_OMEGA else {})}
        for method, last in _ABD_LAST.items()
    }
    for i, tasks in enumerate((5, 10, 20))
}
SINGLE_LABEL |= {
    experiment: {
        method: {"last accuracy": last, "average accuracy": (average, None)}
        for method, (last, average) in zip(("ABD", "R-DFCIL"), numbers, strict=True)
    }
    for experiment, numbers in _RDFCIL.items()
}


def experiments() -> list[str]:
    """Names that a bench may compare with."""
    return [*PUBLISHED, *SINGLE_LABEL]


def source_of(experiment: str) -> str:
    """Where the numbers of an experiment are from."""
    if experiment in PUBLISHED:
        return SOURCE
    return ABD_SOURCE if experiment.startswith("abd_") else RDFCIL_SOURCE


def published(experiment: str, label: str) -> Published:
    """Column -> (mean, std or None) of a method; empty where the source has nothing.

    Args:
        experiment: one of :func:`experiments`.
        label: the method, with its budget behind a comma.
    """
    if experiment in SINGLE_LABEL:
        return SINGLE_LABEL[experiment].get(label, {})
    entry = PUBLISHED[experiment].get(label, (None,) * len(COLUMNS))
    return {column: (value, None) for column, value in zip(COLUMNS, entry, strict=True) if value is not None}


#: settings that a published number does not hang on: the machine's, and how often something is said
MACHINE = (
    *NEUTRAL, "seed", "threads", "precision", "deterministic", "compile", "channels_last", "fold_batch_norm",
    "frozen_maps_gb", "custom_hooks", "on_bad_image", "test_dataloader", "train_dataloader.pin_memory",
    "train_cfg.val_interval", "pretrained", "scenario.dataset.label_cardinality",
)  # fmt: skip
#: type of a data set -> (training, test) images that the published numbers rest on; COCO with or without those that
#: show no object
IMAGES: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "coco": ((82783, 82081), (40504, 40137)),
    "voc": ((5011,), (4952,)),
    "cifar100": ((50000,), (10000,)),
    "tiny_imagenet": ((100000,), (10000,)),
}


def differences(run: Mapping[str, Any], settings: Mapping[str, Any]) -> list[str]:
    """What stands between a run and a published number, ``key VALUE, published VALUE``; empty where they agree.

    Args:
        run: content of its results.json.
        settings: nested settings that the number belongs to.
    """
    ours = settings_of(run)
    if "scenario" not in ours:
        return ["its settings cannot be read"]
    a, b = without(ours, MACHINE), without(settings, MACHINE)
    found = [
        f"{key} {a.get(key, 'not set')}, published {b.get(key, 'not set')}"
        for key in dict.fromkeys([*b, *a])
        if a.get(key) != b.get(key)
    ]
    if (ours.get("pretrained") is None) != (settings.get("pretrained") is None):
        found.append(f"pretrained {ours.get('pretrained')!r}, published {settings.get('pretrained')!r}")
    if leak := ((run.get("provenance") or {}).get("weights") or {}).get("leak"):
        found.append(f"its weights have seen the classes ({leak})")
    known, counts = IMAGES.get(str(settings["scenario"]["dataset"]["type"])), run.get("images") or {}
    for split, sizes in zip(("train", "test"), known or (), strict=False):
        if counts.get(split) not in sizes:
            found.append(f"{split} images {counts.get(split, 'unknown')}, published {sizes[0]}")
    if run.get("status") != "done":
        found.append("it is not finished")
    return found
