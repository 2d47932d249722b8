"""Class orders and the split of classes into sessions (pure Python, but for orders that other generators make).

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
from itertools import accumulate, pairwise
from typing import Any

from mlcil.class_orders import ORDERS
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


def sessions_of(classes: Sequence[str], sizes: Sequence[int]) -> tuple[Session, ...]:
    """Sessions of these sizes.

    Raises:
        UserError: a size below 1, or sizes that do not add up to the classes.
    """
    if not sizes or any(isinstance(size, bool) or not isinstance(size, int) or size < 1 for size in sizes):
        raise UserError(f"scenario.sizes is {sizes!r}; expected the classes of every session, such as [10, 5, 3]")
    if sum(sizes) != len(classes):
        raise UserError(
            f"scenario.sizes adds up to {sum(sizes)}, but there are {len(classes)} classes; expected all of them in "
            "sessions, so correct it"
        )
    edges = accumulate(sizes, initial=0)
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


def split_evenly(total: int, num_sessions: int, base: int = 0) -> tuple[int, int]:
    """Base and increment of so many sessions (R-DFCIL official behaviour).

    Args:
        total: number of classes.
        num_sessions: sessions in all, at least 1.
        base: classes of session 0; 0 means like the others, and what does not divide evenly comes with it.

    Returns:
        ``(base, increment)`` for :func:`split_sessions`; 100 classes in 7 sessions: (16, 14).

    Raises:
        UserError: a number out of range, more sessions than classes, or classes after the base that do not divide
            evenly; the nearest values that work are named.
    """
    for name, value, least in (("num_sessions", num_sessions, 1), ("base", base, 0)):
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise UserError(
                f"{name} is {value!r}, but expected a whole number of at least {least}; change {name} of the scenario"
            )
    if num_sessions > total:
        raise UserError(
            f"num_sessions is {num_sessions}, but there are only {total} classes; every session needs at least one new "
            f"class, so use at most {total} sessions"
        )
    if base > total:
        raise UserError(f"base is {base}, but there are only {total} classes; use a base of at most {total}")
    if num_sessions == 1:
        if base not in (0, total):
            raise UserError(f"a single session of {total} classes cannot have a base of {base}; leave base out")
        return total, total
    if base == 0:
        increment = total // num_sessions
        return total - increment * (num_sessions - 1), increment
    rest = total - base
    if rest < num_sessions - 1 or rest % (num_sessions - 1):
        near = _nearest([n + 1 for n in range(1, rest + 1) if rest % n == 0], num_sessions)
        raise UserError(
            f"the {rest} classes after a base of {base} cannot be split into {num_sessions - 1} equal sessions; use "
            + (f"num_sessions={' or '.join(map(str, near))}" if near else "a smaller base")
        )
    return base, rest // (num_sessions - 1)


def protocol_name(base: int, increment: int) -> str:
    """``B40-C10``; ``B0-C10`` when ``base`` is 0 or equals ``increment``."""
    return f"B{0 if base == increment else base}-C{increment}"


def order_classes(names: Sequence[str], order: str | Sequence[str] | Sequence[int] = "as_given") -> tuple[str, ...]:
    """Put class names into the order in which they are learnt.

    Args:
        names: the data set's class names, each once.
        order: ``as_given``; ``lexicographic`` (plain string order, KRT's order of COCO 2014); a seeded shuffle of
            ``names`` as given, SEED a whole number of at least 0, the same on every machine: ``random:SEED``
            (Python's; R-DFCIL and ABD take 0, 1, 2 on CIFAR and Tiny-ImageNet), ``numpy:SEED`` (NumPy's legacy
            generator; 1993 on ImageNet) or ``torch:SEED`` (``torch.randperm``; R-DFCIL's 42 for want of another);
            a key of :data:`mlcil.class_orders.ORDERS`; or a list that holds every class once, by name or by its
            position in ``names``.

    Returns:
        All names, permuted.

    Raises:
        UserError: an unknown keyword, a bad seed, an order of another number of classes, a name twice, or a list
            that misses a class or holds an unknown one (the near name is suggested).
    """
    twice = _first_duplicate(names)
    if twice is not None:
        raise UserError(f"the data set has the class {twice!r} twice; class names must differ, rename one of them")
    if isinstance(order, str):
        return _order_by_keyword(names, order)
    given: list[Any] = list(order) if isinstance(order, Sequence) else [None]
    if given and all(type(index) is int for index in given):
        return _order_by_index(names, given)
    if not all(isinstance(name, str) for name in given):
        raise UserError(f"class_order is {order!r}; expected a keyword or a list of class names")
    known = set(names)
    for name in given:
        if name not in known:
            raise UserError(
                f"class_order names {name!r}, which is none of the {len(names)} classes of the data set"
                f"{did_you_mean(name, names)}; correct that name"
            )
    twice = _first_duplicate(given)
    if twice is not None:
        raise UserError(f"class_order names {twice!r} twice; name every class exactly once")
    missing = [name for name in names if name not in set(given)]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise UserError(
            f"class_order has {len(given)} of {len(names)} classes and misses {', '.join(map(repr, missing[:3]))}"
            f"{more}; name every class exactly once"
        )
    return tuple(given)


def _order_by_keyword(names: Sequence[str], order: str) -> tuple[str, ...]:
    if order == "as_given":
        return tuple(names)
    if order == "lexicographic":
        return tuple(sorted(names))
    if order in ORDERS:
        if len(ORDERS[order]) != len(names):
            raise UserError(
                f"class_order {order!r} orders {len(ORDERS[order])} classes, but the data set has {len(names)}; use "
                "another order"
            )
        return tuple(names[index] for index in ORDERS[order])
    keyword, colon, seed = order.partition(":")
    if keyword in ("random", "numpy", "torch") and colon:
        if not (seed.isascii() and seed.isdigit()) or int(seed) >= 2**32:
            raise UserError(
                f"class_order is {order!r}; expected a whole number below 2**32 after '{keyword}:', such as "
                f"'{keyword}:1993'"
            )
        return tuple(names[index] for index in _shuffled(keyword, int(seed), len(names)))
    known = ("as_given", "lexicographic", "random:SEED", "numpy:SEED", "torch:SEED", *ORDERS)
    raise UserError(
        f"class_order {order!r} is unknown{did_you_mean(order, known)}; use one of {', '.join(known)} or a list of "
        "all class names"
    )


def _shuffled(generator: str, seed: int, count: int) -> list[int]:
    """0 to ``count`` - 1 as a seeded generator shuffles them."""
    if generator == "torch":
        import torch  # heavy: only when asked for

        return torch.randperm(count, generator=torch.Generator().manual_seed(seed)).tolist()
    if generator == "numpy":
        import numpy as np

        order = np.arange(count)
        np.random.RandomState(seed).shuffle(order)
        return [int(index) for index in order]
    shuffled = list(range(count))
    random.Random(seed).shuffle(shuffled)
    return shuffled


def _order_by_index(names: Sequence[str], order: Sequence[int]) -> tuple[str, ...]:
    """The classes at these positions."""
    if sorted(order) != list(range(len(names))):
        outside = [index for index in order if not 0 <= index < len(names)]
        found = f"holds {outside[0]}" if outside else f"has {len(set(order))} different ones of {len(names)}"
        raise UserError(
            f"class_order is a list of positions that {found}; expected every number from 0 to {len(names) - 1} once"
        )
    return tuple(names[index] for index in order)


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


def check_option(name: str, value: object, known: Sequence[str]) -> None:
    """Refuse a value that is not one of the known words.

    Raises:
        UserError: names the option, the value, the near word and all known ones.
    """
    if value not in known:
        raise UserError(
            f"{name} is {value!r}{did_you_mean(str(value), known)}; use one of {', '.join(map(repr, known))}"
        )


def protocol_hash(mapping: Mapping[str, Any]) -> str:
    """12 hexadecimal digits that change when any value of a mapping of JSON values changes.

    SHA-256 of the JSON text with sorted keys and no spaces; the order of keys does not matter.
    """
    text = json.dumps(mapping, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:12]
