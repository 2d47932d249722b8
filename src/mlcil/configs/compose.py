"""From words to settings: ``lwf data=coco protocol=B40-C10``, or the name of published settings."""

from __future__ import annotations

import copy
import difflib
import importlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from mlcil.errors import UserError

FOLDER = Path(__file__).parent
#: the file of ``data/`` for labels that are given by their path, and how such files end
PHOTOS, LISTS = "photos", (".csv", ".tsv", ".txt", ".json", ".jsonl")
#: words that choose a part, beside the method
CHOICES = ("data", "protocol", "backbone")
PROTOCOLS = (
    "B40-C10 (40 classes first and then 10 a session), 10-tasks (so many equal sessions), B50-10-tasks (50 classes "
    "first and then ten equal sessions), joint (all classes in one session); with -disjoint behind it every image is "
    "part of one session alone"
)


@dataclass(frozen=True)
class Entry:
    """A method on data: a row of :data:`mlcil.configs.published.PUBLISHED`, or what somebody has typed.

    Attributes:
        method: a file of ``methods/``.
        data: a file of ``data/``, or the path of labels.
        protocol: see :data:`PROTOCOLS`; ``None`` is the data set's usual one.
        backbone: a file of ``backbones/``, or ``None`` for that of the method or the data set.
        settings: what differs besides.
    """

    method: str
    data: str | None = None
    protocol: str | None = None
    backbone: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)


def names(kind: str) -> list[str]:
    """Sorted names of the files in ``methods``, ``data``, ``backbones`` or ``bench``."""
    return sorted(path.stem for path in (FOLDER / kind).glob("*.py"))


def summary(kind: str, name: str) -> str:
    """A line about a part: its name, what it is for, and the first sentence of its file."""
    part = load_part(kind, name)
    tasks = [part.task] if kind == "data" else list(part.recipes if kind == "methods" else part.tasks)
    fits = "one or many" if len(tasks) == 2 else {"multi_label": "many labels", "single_label": "one class"}[tasks[0]]
    text = str(part.__doc__).partition("\n")[0]
    return f"  {name:16}{fits:13}{text}"


def merge(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """A copy of ``base`` with the values of ``more``; dictionaries merge, unless they have a true ``_delete_``."""
    merged = dict(copy.deepcopy(base))
    for key, value in more.items():
        if isinstance(value, Mapping):
            kept = merged.get(key) if not value.get("_delete_") else None
            inside = {name: item for name, item in value.items() if name != "_delete_"}
            merged[key] = merge(kept if isinstance(kept, Mapping) else {}, inside)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def resolve(name: str, choices: Mapping[str, Any], published: Mapping[str, Entry]) -> tuple[dict[str, Any], str]:
    """Settings and name of a run.

    Args:
        name: a method, or the name of published settings.
        choices: values of :data:`CHOICES`.
        published: entries by name.

    Raises:
        UserError: an unknown word, a method and a data set that do not fit, or no data set or protocol.
    """
    if name in published:
        label = "_".join([*name.split("/"), *(word.lower() for word in choices.values())])
        return compose(replace(published[name], **choices)), label
    check_name(name, published)
    entry = Entry(name, **choices)
    settings = compose(entry)
    protocol = entry.protocol or load_part("data", data_part(str(entry.data))).protocol
    data = Path(str(entry.data)).absolute().stem if data_part(str(entry.data)) == PHOTOS else entry.data
    return settings, "_".join(str(word).lower() for word in (name, data, protocol, entry.backbone) if word)


def is_file(config: str | Path) -> bool:
    """Whether a config is given by its file, and not by a name with its words."""
    return not isinstance(config, str) or config.endswith(".py") or Path(config).is_file()


def check_name(name: str, published: Iterable[str]) -> None:
    """Refuse what is neither a method nor among published settings.

    Raises:
        UserError: suggests the near name.
    """
    known = [*names("methods"), *published]
    if name not in known:
        raise UserError(
            f"{name!r} is no config: neither a python file nor a method nor published settings"
            f"{_meant(name, known)}; `mlcil config` lists them"
        )


def compose(entry: Entry) -> dict[str, Any]:
    """The settings of an entry. Raises as :func:`resolve`."""
    method = load_part("methods", entry.method)
    if entry.data is None:
        raise UserError(f"{entry.method} needs data; add data=NAME with one of {', '.join(fitting_data(method))}")
    part_of_data = data_part(entry.data)
    data = load_part("data", part_of_data)
    if data.task not in method.recipes:
        raise UserError(
            f"{entry.method} is for {_spoken(next(iter(method.recipes)))}, but data={entry.data} has "
            f"{_spoken(data.task)}; use one of {', '.join(fitting_data(method))}"
        )
    tags = getattr(data, "tags", ())
    for tag, reason in getattr(method, "unfit", {}).items():
        if tag in tags:
            raise UserError(f"{entry.method} does not go with data={entry.data}: {reason}; use smaller images")
    protocol = entry.protocol or data.protocol
    if protocol is None:
        raise UserError(f"data={entry.data} needs a protocol; add protocol=PROTOCOL, one of {PROTOCOLS}")
    backbone = entry.backbone or getattr(data, "backbone", None)
    recipe = method.recipes[data.task]
    parts = [data, *([load_part("recipes", recipe)] if recipe else []), method]
    if backbone is not None:
        parts.append(load_part("backbones", backbone))
        if data.task not in parts[-1].tasks:
            raise UserError(f"backbone={backbone} is not for {_spoken(data.task)}; leave it out")
        if reason := getattr(parts[-1], "unfit", {}).get(entry.method):
            raise UserError(f"{entry.method} does not go with backbone={backbone}: {reason}; leave it out")
    words = {entry.method, part_of_data, *tags, data.task, recipe, backbone, protocol}
    settings: dict[str, Any] = {"method": {}, "memory": None}
    for part in parts:
        settings = merge(settings, getattr(part, "settings", {}))
        for when, more in getattr(part, "on", {}).items():
            if words.issuperset((when,) if isinstance(when, str) else when):
                settings = merge(settings, more)
    head = settings["network"]["head"]
    if head["type"] == "full_linear":
        head.setdefault("num_classes", data.classes)
    if part_of_data != entry.data:
        settings = merge(settings, {"scenario": {"dataset": {"source": entry.data}}})
    settings = merge(settings, {"scenario": sessions(protocol, data.protocol)})
    return merge(settings, entry.settings)


def data_part(word: str) -> str:
    """The file of ``data/`` for what stands behind ``data=``: a name, or the path of somebody's labels."""
    if word in names("data"):
        return word
    return PHOTOS if Path(word).exists() or len(Path(word).parts) > 1 or Path(word).suffix in LISTS else word


def fitting_data(method: ModuleType) -> list[str]:
    """Names of the data sets that a method of ``methods/`` can be trained on."""
    unfit, parts = set(getattr(method, "unfit", ())), ((name, load_part("data", name)) for name in names("data"))
    return [name for name, data in parts if data.task in method.recipes and unfit.isdisjoint(getattr(data, "tags", ()))]


def sessions(protocol: str, usual: str | None = None) -> dict[str, Any]:
    """The part of ``scenario`` that a protocol's name stands for.

    Args:
        protocol: see :data:`PROTOCOLS`.
        usual: the data set's protocol, whose classes a session ``joint`` keeps for its name.

    Raises:
        UserError: no such protocol.
    """
    if protocol.endswith("-disjoint"):
        return {**sessions(protocol.removesuffix("-disjoint"), usual), "disjoint": True}
    if protocol == "joint":
        return {**(sessions(usual) if usual else {"num_sessions": 1}), "joint": True}
    found = re.fullmatch(r"(?:B(\d+)-)?(?:C(\d+)|(\d+)-tasks)", protocol)
    if found is None or (found[1] is None and found[2] is not None):
        raise UserError(f"protocol is {protocol!r}; expected one such as {PROTOCOLS}")
    if found[2] is not None:
        return {"base": int(found[1]), "increment": int(found[2])}
    if found[1] is None:
        return {"num_sessions": int(found[3])}
    return {"base": int(found[1]), "num_sessions": int(found[3]) + 1}


def new_name(path: Path, known: Iterable[str]) -> str | None:
    """What a file of the former folder ``configs/`` is called now; ``None`` for other paths."""
    if "configs" not in path.parts:
        return None
    below = "/".join(path.with_suffix("").parts[path.parts.index("configs") + 1 :])
    return below.removeprefix("bench/") if below.removeprefix("bench/") in known else ""


def load_part(kind: str, name: str) -> ModuleType:
    """The module of a part. Raises :class:`~mlcil.errors.UserError` for an unknown name."""
    if name not in names(kind):
        option = {"methods": "the method", "backbones": "backbone"}.get(kind, kind)
        more = ", or the path of a file or folder with labels" if kind == "data" else ""
        raise UserError(f"{option} is {name!r}{_meant(name, names(kind))}; use one of {', '.join(names(kind))}{more}")
    return importlib.import_module(f"mlcil.configs.{kind}.{name}")


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def _spoken(task: str) -> str:
    return "many labels an image" if task == "multi_label" else "one class an image"
