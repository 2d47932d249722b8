"""Settings that papers and this project's tables have published, by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlcil.configs.compose import Entry

PUBLISHED: dict[str, Entry] = {}


def _rows(
    folder: str,
    method: str,
    data: str,
    stems: Mapping[str, str],
    settings: Mapping[str, Any] | None = None,
    backbone: str | None = None,
) -> None:
    """A row for each name and protocol of ``stems``."""
    for stem, protocol in stems.items():
        PUBLISHED[f"{folder}/{stem}"] = Entry(method, data, protocol, backbone, settings or {})


# KRT, its baselines, and what came after it in the same protocol
_COCO = {f"coco_{name}": name.upper().replace("C", "-C") for name in ("b0c10", "b0c5", "b20c4", "b40c10")}
_VOC = {f"voc_{name}": name.upper().replace("C", "-C") for name in ("b0c4", "b10c2", "b4c2", "b5c3")}
_rows("finetune", "finetune", "coco", _COCO)
_rows("krt", "krt", "coco", _COCO)
for _method in ("krt", "finetune"):
    _rows(_method, _method, "voc", _VOC)
for _method in ("csc", "hcp", "kbk"):  # protocols that figures were found of
    _rows(_method, _method, "coco", {name: _COCO[name] for name in ("coco_b0c10", "coco_b40c10")})
    _rows(_method, _method, "voc", _VOC)
_replay20 = dict(memory=dict(per_class=20, deduplicate=True))
_replay2 = dict(memory=dict(per_class=2, deduplicate=False))  # an image may be stored once a class
_rows("krt", "krt", "coco", {f"{name}_replay20": protocol for name, protocol in _COCO.items()}, _replay20)
_rows("krt", "krt", "voc", {f"{name}_replay2": protocol for name, protocol in _VOC.items()}, _replay2)
_logged = {weight: dict(method=dict(token_weight=float(weight))) for weight in (80, 300)}  # of the recorded runs
_rows("krt", "krt", "coco", {"coco_b0c10": "B0-C10"}, _logged[300])
_rows("krt", "krt", "coco", {"coco_b0c10_replay20": "B0-C10"}, {**_replay20, **_logged[80]})
_replay5 = dict(memory=dict(per_class=5, deduplicate=True))
_total1000 = dict(memory=dict(total=1000, deduplicate=False))
_rows("krt", "krt", "coco", {"coco_b0c10_replay5": "B0-C10"}, {**_replay5, **_logged[80]})
_rows("krt", "krt", "coco", {"coco_b0c10_total1000": "B0-C10"}, {**_total1000, **_logged[80]})
_rows("pod", "pod", "coco", {"coco_b0c10_replay20": "B0-C10"}, _replay20)
_rows("pod", "pod", "voc", {"voc_b0c4_replay2": "B0-C4"}, _replay2)
_rows("joint", "joint", "coco", {"coco": "B0-C10"})
_rows("joint", "joint", "voc", {"voc": "B0-C4"})

# the rows of ABD's tables; ImageNet: its first five sessions of ten classes
for _method in (
    "abd", "bic", "deep_inversion", "dgr", "e2e", "finetune", "joint", "lwf", "lwf_coreset", "lwf_mc", "lwf_synthetic",
    "rehearsal",
):  # fmt: skip
    _name = _method.removesuffix("_coreset")
    _coreset: dict[str, Any] = {}
    if _name != _method:
        _coreset["memory"] = dict(total=2000, selection="random_coreset")
    _rows(_method, _name, "cifar100", {f"cifar100_{n}tasks": f"{n}-tasks" for n in (5, 10, 20)}, _coreset)
    _rows(_method, _name, "tiny_imagenet", {"tinyimagenet_20tasks": "20-tasks"}, _coreset)
    if _method != "dgr":
        _first = {"scenario": {"max_sessions": 5}, **_coreset}
        _rows(_method, _name, "imagenet1000", {"imagenet50_5tasks": "B0-C10"}, _first)

# R-DFCIL
for _data, _half in (("cifar100", 50), ("tiny_imagenet", 100), ("imagenet100", None)):
    _name = "tiny_imagenet200" if _data == "tiny_imagenet" else _data
    _stems = {_name: "10-tasks", f"{_name}_5tasks": "5-tasks", f"{_name}_20tasks": "20-tasks"}
    if _half:
        _stems |= {f"{_name}_half_{n}tasks": f"B{_half}-{n}-tasks" for n in (5, 10, 25)}
    _rows("rdfcil", "rdfcil", _data, _stems)

# DKT and DAFormer
_CIFAR100 = {f"cifar100_{n}-{n}": f"B0-C{n}" for n in (20, 10, 5, 2)}
_rows("dkt", "dkt", "cifar100", _CIFAR100)
_rows("dkt", "dkt", "imagenet100", {"imagenet100_10-10": "B0-C10"})
_rows("dkt", "dkt", "imagenet1000", {"imagenet1000_100-100": "B0-C100"})
for _edition in "ms":
    _more: dict[str, Any] = dict(network=dict(head=dict(edition=_edition.upper())))
    for _data, _n, _stems in (
        ("cifar100", 10, _CIFAR100),
        ("imagenet100", 10, {"imagenet100_10-10": "B0-C10"}),
        ("imagenet1000", 100, {"imagenet1000_100-100": "B0-C100"}),
    ):
        _rows(f"daformer/{_edition}", "daformer", _data, _stems, _more)
        _joint = {f"{_data}_joint": f"B0-C{_n}"}
        _rows(f"daformer/{_edition}", "daformer", _data, _joint, {"scenario": {"joint": True}, **_more})

# real photos and CIFAR-100 in minutes
for _data, _protocol, _memory in (("coco", "B0-C10", _replay20), ("voc", "B0-C4", _replay2)):
    for _method in ("finetune", "joint", "krt"):
        _rows("lite", _method, _data, {f"{_data}_{_method}": _protocol}, backbone="lite0")
    _rows("lite", "krt", _data, {f"{_data}_krt_replay": _protocol}, _memory, "lite0")
for _method in ("abd", "bic", "finetune", "lwf"):
    _rows("lite", _method, "cifar100", {f"cifar100_{_method}": "5-tasks"}, backbone="small")
_rows("lite", "rdfcil", "cifar100", {"cifar100_rdfcil": "5-tasks"}, dict(seed=0), "small")
_rows("lite", "dkt", "cifar100", {"cifar100_dkt": "B0-C20"}, backbone="small")
for _edition in "ms":
    _more = dict(network=dict(head=dict(edition=_edition.upper())))
    _rows("lite", "daformer", "cifar100", {f"cifar100_daformer_{_edition}": "B0-C20"}, _more, "small")

# the demos: the digits' backbone starts from the letters, the stand-in for ImageNet
_rows("demo", "finetune", "letters", {"pretrain": "B0-C24"}, dict(scenario=dict(joint=True)))
for _method in ("krt", "finetune"):
    _rows("demo", _method, "digits", {_method: "B0-C2"}, dict(pretrained="saved_models/demo_pretrain/session_0.pth"))
_rows("demo", "abd", "digits_single", {"single_label": "5-tasks"})
_rows("demo", "dkt", "digits_single", {"transformers": "B0-C2"})
for _edition in "ms":
    _more = dict(network=dict(head=dict(edition=_edition.upper())))
    _rows("demo", "daformer", "digits_single", {f"transformers_daformer_{_edition}": "B0-C2"}, _more)
