"""The two kinds of file a run leaves in ``saved_models/<run>/``.

``session_<t>.pth`` (stage checkpoint)
    Written once when session t ends.
``resume.pth``
    Written over and over while the run goes on (:mod:`mlcil.engine.resume`).

Every key of them is known here and nowhere else. Both hold tensors and builtins only and load with
``torch.load(..., weights_only=True)``.
"""

from __future__ import annotations

import contextlib
import math
import random
import reprlib
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import torch

import mlcil
from mlcil.errors import UserError
from mlcil.files import write_atomically
from mlcil.images import Fit
from mlcil.interop.tensor_files import first_not_finite, load_tensors
from mlcil.models.network import LARGEST_IMAGE, IncrementalNetwork, build_network

STAGE_FORMAT = "mlcil-stage-1"
RESUME_FORMAT = "mlcil-resume-4"
#: of the description of a network, and of the sessions that it was grown by
LARGEST_NUMBER, LONGEST_WORD, MOST_VALUES, MOST_SESSIONS = 2**20, 200, 1000, 1000
TASKS = ("multi_label", "single_label")


@dataclass
class StageCheckpoint:
    """``session_<t>.pth``: what a session leaves. Enough to predict, to test, and to teach the next one.

    Attributes:
        run, session: whose and which.
        network: :attr:`~mlcil.models.network.IncrementalNetwork.spec`.
        classes_per_session, classes: outputs of each session, and the names of all of them.
        state_dict: of the network.
        method, method_state: its class and its state.
        logit_correction: (C, 2) scale and shift of every logit, or ``None``.
        protocol, protocol_hash, task, fit: of the scenario.
        metrics: the session's main figures.
        weights: provenance of the pretrained weights, or ``None``.
        mlcil_version: what wrote it.
        method_options: arguments of the method's class, so that a session can be appended.
        thresholds: a score a class from which its label is given, nan where none was chosen; ``None`` for none at all.
        parents: SHA-256 of the files that this one was made from.
        kept: bytes kept of the images seen so far, by kind.
        card: plain values about the tagger, for ``mlcil info``.
    """

    run: str
    session: int
    network: dict[str, Any]
    classes_per_session: list[int]
    classes: list[str]
    state_dict: dict[str, torch.Tensor]
    method: str = ""
    method_state: dict[str, Any] = field(default_factory=dict)
    logit_correction: torch.Tensor | None = None
    protocol: str = ""
    protocol_hash: str = ""
    task: str = "multi_label"
    fit: dict[str, Any] = field(default_factory=dict)
    metrics: dict[str, Any] = field(default_factory=dict)
    weights: dict[str, Any] | None = None
    mlcil_version: str = mlcil.__version__
    method_options: dict[str, Any] = field(default_factory=dict)
    thresholds: list[float] | None = None
    parents: list[str] = field(default_factory=list)
    kept: dict[str, int] = field(default_factory=dict)
    card: dict[str, Any] = field(default_factory=dict)

    def save(self, path: Path) -> None:
        """Write it atomically; raises :class:`UserError` when the disk does not take it."""
        save(path, {"format": STAGE_FORMAT, **vars(self)})

    @classmethod
    def load(cls, path: Path) -> StageCheckpoint:
        """Read it.

        Raises:
            UserError: missing, damaged, not a stage checkpoint, or one whose parts contradict each other.
        """
        return cls.of(load_tensors(path), path)

    @classmethod
    def of(cls, content: Any, path: Path) -> StageCheckpoint:
        """From what a file holds.

        Raises:
            UserError: no stage checkpoint, or one whose parts contradict each other; names ``path``.
        """
        if not isinstance(content, dict) or content.get("format") != STAGE_FORMAT:
            raise UserError(
                f"{path} is no stage checkpoint of mlcil (format {STAGE_FORMAT}); expected a session_<t>.pth, or "
                "convert a released KRT checkpoint with: python -m mlcil convert"
            )
        found = _contradiction(content)
        if found:
            raise UserError(
                f"{path} is no usable stage checkpoint: {found}; take it from the run again or train it again"
            )
        content.setdefault("run", path.stem)
        content.setdefault("session", len(content["classes_per_session"]) - 1)
        return cls(**{part.name: content[part.name] for part in fields(cls) if part.name in content})

    def build(self, path: Path | str = "checkpoint") -> IncrementalNetwork:
        """The network, in evaluation mode.

        It is built without memory first, so that a description of another size than the weights costs nothing.

        Raises:
            UserError: the description gives no network, or the weights do not fit it; names ``path``.
        """
        return _network_of(self, path)


@dataclass
class ResumeState:
    """``resume.pth``: the rolling state of a run.

    Attributes:
        session, phase, epoch, iteration, inside: see :class:`~mlcil.engine.run.Position`.
        protocol_hash, network, conditions: what must be the same when the run goes on.
        parts: by name, what each part of the run said of itself; those of the learning are there inside a session.
        random: of each process, the state of its random generators.
        weights: provenance of the pretrained weights, or ``None``.
    """

    session: int
    phase: int
    epoch: int
    iteration: int
    inside: bool
    protocol_hash: str
    network: dict[str, Any]
    conditions: dict[str, str]
    parts: dict[str, Any]
    random: list[dict[str, Any]]
    weights: dict[str, Any] | None = None

    def save(self, path: Path) -> None:
        """Write it atomically; raises :class:`UserError` when the disk does not take it."""
        save(path, {"format": RESUME_FORMAT, **vars(self)})

    @classmethod
    def load(cls, path: Path) -> ResumeState:
        """Read it.

        Raises:
            UserError: missing, damaged or of another kind.
        """
        if not path.exists():
            raise UserError(f"{path} does not exist, so there is nothing to resume; start the run without --resume")
        content = load_tensors(path)
        names = {part.name for part in fields(cls)}
        if not isinstance(content, dict) or content.get("format") != RESUME_FORMAT or not names <= set(content):
            raise UserError(f"{path} is no {RESUME_FORMAT} file; give the run's own folder or start without --resume")
        return cls(**{name: content[name] for name in names})


def plain(value: Any) -> Any:
    """Copy of a structure with numpy scalars and arrays turned into builtins and tensors."""
    if isinstance(value, Mapping):
        return {plain(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if isinstance(value, np.ndarray):
        return torch.from_numpy(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, torch.Tensor):
        return value.detach().cpu()
    return value


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and builtins atomically; raises :class:`UserError` when the disk does not take it."""
    write_atomically(path, lambda file: torch.save(plain(content), file))


def random_state() -> dict[str, Any]:
    """State of the python, numpy, torch and cuda generators."""
    version, internal, gauss = random.getstate()
    name, keys, position, has_gauss, cached = np.random.get_state()  # type: ignore[misc]
    state: dict[str, Any] = {
        "python": [version, list(internal), gauss],
        "numpy": [str(name), np.asarray(keys, dtype=np.int64), int(position), int(has_gauss), float(cached)],
        "torch": torch.get_rng_state(),
    }
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state_all()
    return state


def restore_random_state(state: Mapping[str, Any]) -> None:
    """Set the generators to a saved state."""
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, keys.numpy().astype(np.uint32), position, has_gauss, cached))
    torch.set_rng_state(state["torch"])
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])


def _contradiction(stage: Mapping[str, Any]) -> str | None:
    """What is wrong with the parts of a stage checkpoint that a network is built from, or ``None``."""
    network, sizes, classes = (stage.get(key) for key in ("network", "classes_per_session", "classes"))
    state = stage.get("state_dict")
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        return "its state_dict is no dictionary of tensors"
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return f"its classes are {_short(classes)}, expected a list of names"
    if not isinstance(sizes, list) or not all(type(size) is int and size > 0 for size in sizes):
        return f"its classes_per_session is {_short(sizes)}, expected a list of positive numbers"
    if len(set(classes)) < len(classes):
        return f"it names the class {_short(Counter(classes).most_common(1)[0][0])} twice"
    if len(sizes) > MOST_SESSIONS:
        return f"it has {len(sizes)} sessions, expected at most {MOST_SESSIONS}"
    if sum(sizes) != len(classes):
        return f"it names {len(classes)} classes, but its sessions have {_short(sum(sizes))}"
    if not isinstance(network, dict):
        return f"its network is {_short(network)}, expected a dictionary"
    size = network.get("image_size")
    if type(size) is not int or not 1 <= size <= LARGEST_IMAGE:
        return f"its image_size is {_short(size)}, expected 1 to {LARGEST_IMAGE} pixels"
    backbone = network.get("backbone")
    layers = backbone.get("layers") if isinstance(backbone, dict) else None
    if isinstance(layers, list) and not all(type(n) is int and 0 < n <= len(state) for n in layers):
        return f"its backbone has layers={_short(layers)}, more than the {len(state)} entries of its state_dict"
    odd = _odd_value(network)
    if odd:
        return f"its network has {odd}, which no network needs"
    bad = first_not_finite(state)
    if bad:
        return f"{bad} holds values that are not finite"
    return _wrong_field(stage, len(classes)) or _odd_use(stage)


def _odd_value(network: Mapping[str, Any]) -> str | None:
    """What in the description of a network could make building it take for ever, or ``None``."""
    left: list[Any] = [network]
    for _ in range(MOST_VALUES):
        if not left:
            return None
        value = left.pop()
        if isinstance(value, (dict, list, tuple)):
            left.extend(value.values() if isinstance(value, dict) else value)
        elif isinstance(value, (int, float)) and not abs(value) <= LARGEST_NUMBER:
            return f"the number {value:.6g}"
        elif isinstance(value, str) and len(value) > LONGEST_WORD:
            return f"a word of {len(value)} characters"
        elif not isinstance(value, (int, float, str, NoneType)):
            return f"a value of the type {type(value).__name__}"
    return f"more than {MOST_VALUES} values"


def _odd_use(stage: Mapping[str, Any]) -> str | None:
    """What is wrong with the words and numbers that say how the network is used, or ``None``."""
    task, fit = stage.get("task"), stage.get("fit", {})
    if task is not None and task not in TASKS:
        return f"its task is {_short(task)}, expected {' or '.join(TASKS)}"
    odd = _odd_value(fit or {})
    if odd:
        return f"its fit has {odd}, which no fit needs"
    try:
        Fit.of(fit)
    except UserError as error:
        return str(error)
    return None


@contextlib.contextmanager
def _no_more_than(state: Mapping[str, torch.Tensor], sessions: int) -> Iterator[None]:
    """Stop the building of a network that grows far beyond its weights.

    Raises:
        ValueError: inside, by the module that is one too many.
    """
    left = {"modules": 1000 + 20 * len(state) + 20 * sessions}
    left["values"] = 10**7 + 10 * sum(value.numel() for value in state.values())

    def take(kind: str, count: int) -> None:
        left[kind] -= count
        if left[kind] < 0:
            raise ValueError(f"it would have far more {kind} than its {len(state)} weights need")

    def module(*_: Any) -> None:
        take("modules", 1)

    def values(_: Any, __: str, parameter: torch.Tensor | None) -> None:
        take("values", 0 if parameter is None else parameter.numel())

    hooks = torch.nn.modules.module
    handles = [
        hooks.register_module_module_registration_hook(module),
        hooks.register_module_parameter_registration_hook(values),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _wrong_field(stage: Mapping[str, Any], classes: int) -> str | None:
    """What is wrong with what a stage checkpoint says besides its network, or ``None``."""
    for name in ("method_state", "method_options", "metrics", "fit", "card"):
        if not isinstance(stage.get(name, {}), dict):
            return f"its {name} is {_short(stage[name])}, expected a dictionary"
    for name in ("run", "method", "protocol", "protocol_hash", "task", "mlcil_version"):
        if not isinstance(stage.get(name, ""), str):
            return f"its {name} is {_short(stage[name])}, expected a text"
    correction = stage.get("logit_correction")
    if correction is not None:
        if not isinstance(correction, torch.Tensor) or correction.shape != (classes, 2):
            return f"its logit_correction is {_short(correction)}, expected a scale and a shift for {classes} classes"
        if not correction.is_floating_point() or not bool(torch.isfinite(correction).all()):
            return "its logit_correction holds values that are not finite"
    thresholds = stage.get("thresholds")
    if thresholds is not None:
        if not isinstance(thresholds, list) or len(thresholds) != classes:
            return f"its thresholds are {_short(thresholds)}, expected one for each of {classes} classes"
        if not all(type(value) is float and (math.isnan(value) or 0 <= value <= 1) for value in thresholds):
            return f"its thresholds are {_short(thresholds)}, expected numbers from 0 to 1"
    parents, kept = stage.get("parents", []), stage.get("kept", {})
    if not isinstance(parents, list) or not all(isinstance(name, str) for name in parents):
        return f"its parents are {_short(parents)}, expected a list of digests"
    if not isinstance(kept, dict) or not all(isinstance(k, str) and type(v) is int and v >= 0 for k, v in kept.items()):
        return f"its kept is {_short(kept)}, expected bytes by kind"
    return None


def _short(value: Any) -> str:
    text = reprlib.repr(value)  # whole, a list that names another often could be of any length
    return text if len(text) <= 60 else text[:57] + "..."


def _network_of(stage: StageCheckpoint, path: Path | str) -> IncrementalNetwork:
    spec, sizes, state = stage.network, list(stage.classes_per_session), stage.state_dict
    try:
        try:
            with torch.device("meta"), _no_more_than(state, len(sizes)):
                _check_shapes(build_network(spec, sizes), state, path)
        except (NotImplementedError, RuntimeError) as error:
            if "meta" not in str(error):  # some timm models look at numbers while they are built: they have none yet
                raise
        with _no_more_than(state, len(sizes)):
            network = build_network(spec, sizes)
    except UserError:
        raise
    except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, MemoryError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"{path} describes a network that cannot be built ({reason}); write the checkpoint again with this version"
        ) from error
    _check_shapes(network, state, path)
    network.load_state_dict(state, strict=True)
    return network.eval()


def _check_shapes(network: IncrementalNetwork, state: Mapping[str, torch.Tensor], path: Path | str) -> None:
    wanted = network.state_dict()
    wrong = [
        f"size mismatch for {name}: {tuple(state[name].shape)} instead of {tuple(value.shape)}"
        for name, value in wanted.items()
        if name in state and state[name].shape != value.shape
    ]
    wrong += [f"{name} is missing" for name in wanted if name not in state]
    wrong += [f"{name} is unexpected" for name in state if name not in wanted]
    if wrong:
        raise UserError(
            f"{path}: the weights do not fit the network described in the same file ({'; '.join(wrong[:3])}"
            f"{f' and {len(wrong) - 3} more' if len(wrong) > 3 else ''}); write the checkpoint again"
        )
