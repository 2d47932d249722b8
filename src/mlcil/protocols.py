"""Class orders and the split of classes into sessions (pure Python).

A protocol ``B{b}-C{c}`` has ``b`` classes in session 0 (``c`` when ``b`` is 0) and ``c`` new classes in every
later session. KRT official behaviour: the ranges are contiguous in the class order, COCO 2014's order is its
80 names sorted as plain strings, VOC 2007's order is :data:`VOC_CLASSES`.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from mlcil.errors import UserError

#: PASCAL VOC's classes in their usual (alphabetical) order
VOC_CLASSES: tuple[str, ...] = (
    "aeroplane",
    "bicycle",
    "bird",
    "boat",
    "bottle",
    "bus",
    "car",
    "cat",
    "chair",
    "cow",
    "diningtable",
    "dog",
    "horse",
    "motorbike",
    "person",
    "pottedplant",
    "sheep",
    "sofa",
    "train",
    "tvmonitor",
)


@dataclass(frozen=True)
class Session:
    """One step of the stream.

    Attributes:
        index: 0 for the base session.
        low, high: class indices [low, high) that are new in this session; ``high`` is also the number of
            classes seen after it.
        classes: names of the new classes, ``high - low`` of them.
    """

    index: int
    low: int
    high: int
    classes: tuple[str, ...]

    @property
    def num_new(self) -> int:
        """How many classes are new."""
        return self.high - self.low


def split_sessions(classes: Sequence[str], base: int, increment: int) -> tuple[Session, ...]:
    """Cut an ordered list of classes into sessions (KRT official behaviour, with the checks it lacks).

    Args:
        classes: all class names in class order.
        base: classes of session 0; 0 means ``increment`` ("B0").
        increment: classes of every later session, at least 1.

    Returns:
        The sessions in order; together they hold every class once.

    Raises:
        UserError: there are no classes, ``base`` or ``increment`` is not a whole number in range, or the
            classes after the base session do not divide evenly; the nearest values that work are named.
    """
    total = len(classes)
    if total == 0:
        raise UserError("the protocol has no classes to split; give a data set with at least one class")
    for name, value, least in (("base", base, 0), ("increment", increment, 1)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(
                f"{name} is {value!r}, but expected a whole number of at least {least}; change {name} of the scenario"
            )
    if base > total:
        raise UserError(
            f"base is {base}, but there are only {total} classes; use a base of at most {total}, or 0 for "
            "sessions of equal size"
        )
    first = base or increment
    if first > total or (total - first) % increment:
        raise UserError(_uneven(total, base, increment))
    edges = [0, *range(first, total + 1, increment)]
    return tuple(
        Session(index, low, high, tuple(classes[low:high])) for index, (low, high) in enumerate(pairwise(edges))
    )


def _uneven(total: int, base: int, increment: int) -> str:
    """The sentence for a base and an increment that do not fit ``total`` classes."""
    rest = total - base
    increments = _nearest([n for n in range(1, rest + 1) if rest % n == 0], increment)
    advice = f"increment={' or '.join(map(str, increments))}"
    if base:
        bases = _nearest([b for b in range(1, total + 1) if (total - b) % increment == 0], base)
        advice += f" with base={base}, or base={' or '.join(map(str, bases))} with increment={increment}"
    after = f"the {rest} classes after a base of {base}" if base else f"{total} classes"
    return f"{after} cannot be split into sessions of {increment}; use {advice}"


def _nearest(values: Sequence[int], wanted: int) -> list[int]:
    """The closest values below and above ``wanted``, ascending; values are sorted."""
    below = [v for v in values if v < wanted][-1:]
    above = [v for v in values if v > wanted][:1]
    return below + above


def protocol_name(base: int, increment: int) -> str:
    """``B40-C10``; ``B0-C10`` when ``base`` is 0 or equals ``increment``."""
    return f"B{0 if base == increment else base}-C{increment}"


def order_classes(names: Sequence[str], order: str | Sequence[str] = "as_given") -> tuple[str, ...]:
    """Put class names into the order in which they are learnt.

    Args:
        names: the data set's class names, each once.
        order: ``as_given``; ``lexicographic`` (plain string order, KRT's order of COCO 2014);
            ``random:SEED`` (Python's seeded shuffle of ``names`` as given, SEED a whole number of at least
            0, the same on every machine); or a list that names every class once.

    Returns:
        All names, permuted.

    Raises:
        UserError: an unknown keyword, a bad seed, a name twice, or a list that misses a class or holds an
            unknown one (the near name is suggested).
    """
    twice = _first_duplicate(names)
    if twice is not None:
        raise UserError(f"the data set has the class {twice!r} twice; class names must differ, rename one of them")
    if isinstance(order, str):
        return _order_by_keyword(names, order)
    if not isinstance(order, Sequence) or not all(isinstance(name, str) for name in order):
        raise UserError(f"class_order is {order!r}; expected a keyword or a list of class names")
    known = set(names)
    for name in order:
        if name not in known:
            raise UserError(
                f"class_order names {name!r}, which is none of the {len(names)} classes of the data set"
                f"{did_you_mean(name, names)}; correct that name"
            )
    twice = _first_duplicate(order)
    if twice is not None:
        raise UserError(f"class_order names {twice!r} twice; name every class exactly once")
    missing = [name for name in names if name not in set(order)]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(
            f"class_order has {len(order)} of {len(names)} classes and misses {', '.join(map(repr, missing[:3]))}"
            f"{more}; name every class exactly once"
        )
    return tuple(order)


def _order_by_keyword(names: Sequence[str], order: str) -> tuple[str, ...]:
    if order == "as_given":
        return tuple(names)
    if order == "lexicographic":
        return tuple(sorted(names))
    keyword, colon, seed = order.partition(":")
    if keyword == "random" and colon:
        if not (seed.isascii() and seed.isdigit()):
            raise UserError(f"class_order is {order!r}; expected a whole number after 'random:', such as 'random:1993'")
        shuffled = list(names)
        random.Random(int(seed)).shuffle(shuffled)
        return tuple(shuffled)
    known = ("as_given", "lexicographic", "random:SEED")
    raise UserError(
        f"class_order {order!r} is unknown{did_you_mean(order, known)}; use one of {', '.join(known)} or a list of "
        "all class names"
    )


def _first_duplicate(names: Iterable[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the nearest known name, or an empty string."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f" (did you mean {near[0]!r}?)" if near else ""


def protocol_hash(mapping: Mapping[str, Any]) -> str:
    """12 hexadecimal digits that change when any value of a mapping of JSON values changes.

    SHA-256 of the JSON text with sorted keys and no spaces; the order of keys does not matter.
    """
    text = json.dumps(mapping, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
