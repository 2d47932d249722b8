"""Orders of the papers: by their generators and as lists (first entries and digests of the released configs)."""

import hashlib
import json

import pytest

from mlcil.class_orders import ORDERS, SUBSETS
from mlcil.errors import UserError
from mlcil.protocols import order_classes, protocol_name, split_evenly, split_sessions

#: keyword, classes -> first entries, and SHA-256 of the JSON list of all
PUBLISHED = {
    ("random:0", 100): ([23, 8, 11, 7, 48, 13, 1, 91], "94d732da0e0131a9"),
    ("random:1", 100): ([53, 37, 65, 51, 4, 20, 38, 9], "26e8fe4851994132"),
    ("random:2", 100): ([0, 76, 61, 63, 1, 71, 2, 6], "d905e946065439ad"),
    ("random:0", 200): ([131, 181, 22, 172, 144, 92, 97, 187], "fa9b4dbfc913d82c"),
    ("random:1", 200): ([33, 146, 79, 19, 23, 131, 12, 187], "70670b6fa8f862d8"),
    ("random:2", 200): ([51, 94, 55, 35, 170, 177, 20, 85], "ba24207b308b787e"),
    ("numpy:1993", 100): ([68, 56, 78, 8, 23, 84, 90, 65], "e90204efdce7db6c"),
    ("numpy:1993", 1000): ([54, 7, 894, 512, 126, 337, 988, 11], "1184d882ffd7c9e3"),
    ("dytox_cifar100_1", 100): ([87, 0, 52, 58, 44, 91, 68, 97], "6d53568230308dde"),
    ("dytox_cifar100_2", 100): ([58, 30, 93, 69, 21, 77, 3, 78], "5699376452328298"),
    ("dytox_cifar100_3", 100): ([71, 54, 45, 32, 4, 8, 48, 66], "c9cf6d307050e37e"),
}


@pytest.mark.parametrize(("keyword", "count"), list(PUBLISHED))
def test_published_orders(keyword: str, count: int) -> None:
    first, digest = PUBLISHED[keyword, count]
    order = [int(name) for name in order_classes([str(i) for i in range(count)], keyword)]
    assert order[:8] == first
    assert sorted(order) == list(range(count))
    assert hashlib.sha256(json.dumps(order).encode()).hexdigest()[:16] == digest


def test_torchs_order() -> None:
    """``torch.randperm(10, generator=torch.Generator().manual_seed(42))``."""
    names = [str(i) for i in range(10)]
    assert order_classes(names, "torch:42") == tuple("2618450937")


def test_lists_are_permutations() -> None:
    for order in ORDERS.values():
        assert sorted(order) == list(range(len(order)))
    for subset in SUBSETS.values():
        assert len(set(subset)) == len(subset)
        assert all(len(synset) == 9 and synset[0] == "n" and synset[1:].isdigit() for synset in subset)
    assert SUBSETS["imagenet100_dkt"] != SUBSETS["imagenet100_dytox"]


def test_order_by_position() -> None:
    assert order_classes(["a", "b", "c"], [2, 0, 1]) == ("c", "a", "b")


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([0, 1, 3], r"positions that holds 3; expected every number from 0 to 2 once"),
        ([0, 1, 1], r"positions that has 2 different ones of 3"),
        ([0, 1], r"positions that has 2 different ones of 3"),
        ([0, 1, "c"], r"class_order is \[0, 1, 'c'\]; expected a keyword or a list"),
        ([True, False, 2], r"class_order is \[True, False, 2\]; expected a keyword or a list"),
        (7, r"class_order is 7; expected a keyword or a list"),
        ("numpy:x", r"class_order is 'numpy:x'; expected a whole number below 2\*\*32 after 'numpy:'"),
        ("numpy:4294967296", r"expected a whole number below 2\*\*32"),
        ("torch:", r"after 'torch:'"),
        ("dytox_cifar100_1", r"orders 100 classes, but the data set has 3; use another order"),
        ("dytox_cifar100", r"'dytox_cifar100' is unknown \(did you mean 'dytox_cifar100_.'\?\)"),
    ],
)
def test_mistakes(order: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        order_classes(["a", "b", "c"], order)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("total", "sessions", "base", "sizes"),
    [
        (100, 5, 0, [20] * 5),
        (100, 10, 0, [10] * 10),
        (100, 20, 0, [5] * 20),
        (100, 50, 0, [2] * 50),
        (100, 6, 50, [50] + [10] * 5),
        (100, 11, 50, [50] + [5] * 10),
        (100, 26, 50, [50] + [2] * 25),
        (100, 7, 0, [16] + [14] * 6),
        (200, 10, 0, [20] * 10),
        (200, 26, 100, [100] + [4] * 25),
        (10, 10, 0, [1] * 10),
        (10, 1, 0, [10]),
        (10, 1, 10, [10]),
    ],
)
def test_even_splits(total: int, sessions: int, base: int, sizes: list[int]) -> None:
    """The table of R-DFCIL's specification, and edges."""
    names = [str(i) for i in range(total)]
    assert [s.num_new for s in split_sessions(names, *split_evenly(total, sessions, base))] == sizes


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((100, 120), r"num_sessions is 120, but there are only 100 classes; .*use at most 100 sessions"),
        ((100, 0), r"num_sessions is 0, but expected a whole number of at least 1"),
        ((100, "5"), r"num_sessions is '5', but expected a whole number"),
        ((100, 5, -1), r"base is -1"),
        ((100, 5, 101), r"base is 101, but there are only 100 classes"),
        ((100, 1, 50), r"a single session of 100 classes cannot have a base of 50"),
        ((100, 5, 50), r"the 50 classes after a base of 50 cannot be split into 4 equal sessions; .*=3 or 6"),
        ((100, 60, 50), r"cannot be split into 59 equal sessions; use num_sessions=51"),
        ((100, 3, 100), r"the 0 classes after a base of 100 cannot be split into 2 equal sessions; use a smaller base"),
    ],
)
def test_splits_that_do_not_work(arguments: tuple[int, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        split_evenly(*arguments)


def test_names_of_protocols() -> None:
    assert protocol_name(*split_evenly(100, 10)) == "B0-C10"
    assert protocol_name(*split_evenly(100, 11, 50)) == "B50-C5"
