import string
import subprocess
import sys

import pytest

from mlcil.errors import UserError
from mlcil.protocols import VOC_CLASSES, Session, order_classes, protocol_hash, protocol_name, split_sessions

LETTERS = tuple(string.ascii_lowercase[:20])


@pytest.mark.parametrize(
    ("base", "increment", "edges"),
    [
        (0, 4, [0, 4, 8, 12, 16, 20]),
        (4, 4, [0, 4, 8, 12, 16, 20]),
        (10, 2, [0, 10, 12, 14, 16, 18, 20]),
        (5, 3, [0, 5, 8, 11, 14, 17, 20]),
        (20, 7, [0, 20]),
        (0, 20, [0, 20]),
        (19, 1, [0, 19, 20]),
    ],
)
def test_sessions_hold_every_class_once(base: int, increment: int, edges: list[int]) -> None:
    sessions = split_sessions(LETTERS, base, increment)
    assert [s.low for s in sessions] + [sessions[-1].high] == edges
    assert [s.index for s in sessions] == list(range(len(edges) - 1))
    assert sum((s.classes for s in sessions), ()) == LETTERS
    assert all(s.num_new == len(s.classes) == s.high - s.low for s in sessions)


def test_session_is_a_value() -> None:
    assert Session(0, 0, 1, ("a",)) == Session(0, 0, 1, ("a",))
    with pytest.raises(AttributeError):
        Session(0, 0, 1, ("a",)).low = 1  # type: ignore[misc]


@pytest.mark.parametrize(
    ("base", "increment", "words"),
    [
        (0, 3, ["20 classes", "increment=2 or 4"]),
        (0, 21, ["20 classes", "increment=20"]),
        (10, 4, ["10 classes", "increment=2 or 5", "base=8 or 12"]),
        (19, 3, ["1 classes", "increment=1", "base=17 or 20"]),
        (21, 1, ["base is 21", "20"]),
        (-1, 1, ["base is -1"]),
        (0, 0, ["increment is 0"]),
        (0, -2, ["increment is -2"]),
        (0, True, ["increment is True"]),
        (0, 2.0, ["increment is 2.0"]),
        ("4", 2, ["base is '4'"]),
    ],
)
def test_a_split_that_does_not_work_names_one_that_does(base: int, increment: int, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        split_sessions(LETTERS, base, increment)
    for word in words:
        assert word in str(caught.value)


def advice(base: int, increment: int) -> str:
    """What the error says after "use", or nothing when the split works."""
    try:
        split_sessions(LETTERS, base, increment)
    except UserError as error:
        return str(error).split("use ", 1)[1]
    return ""


def test_the_named_values_work() -> None:
    tried = 0
    for base in range(21):
        for increment in range(1, 22):
            first, _, second = advice(base, increment).partition(", or base=")
            for value in filter(None, first.removeprefix("increment=").split(" with ")[0].split(" or ")):
                assert split_sessions(LETTERS, base, int(value))
                tried += 1
            for value in filter(None, second.split(" with ")[0].split(" or ")):
                assert split_sessions(LETTERS, int(value), increment)
                tried += 1
    assert tried


def test_no_classes() -> None:
    with pytest.raises(UserError, match="no classes"):
        split_sessions((), 0, 1)


def test_names_of_protocols() -> None:
    assert protocol_name(0, 10) == protocol_name(10, 10) == "B0-C10"
    assert protocol_name(40, 10) == "B40-C10"


def test_orders() -> None:
    names = ("tv", "Zebra", "ant", "ant hill")
    assert order_classes(names) == order_classes(names, "as_given") == names
    assert order_classes(names, "lexicographic") == ("Zebra", "ant", "ant hill", "tv")
    assert order_classes(names, ["ant", "tv", "ant hill", "Zebra"]) == ("ant", "tv", "ant hill", "Zebra")
    one, two = order_classes(VOC_CLASSES, "random:1"), order_classes(VOC_CLASSES, "random:2")
    assert one == order_classes(VOC_CLASSES, "random:1")
    assert one != two
    assert sorted(one) == sorted(two) == list(VOC_CLASSES)


def test_voc_classes() -> None:
    assert len(set(VOC_CLASSES)) == 20
    assert order_classes(VOC_CLASSES, "lexicographic") == VOC_CLASSES


@pytest.mark.parametrize(
    ("order", "words"),
    [
        ("lexicographical", ["did you mean 'lexicographic'", "as_given", "random:SEED"]),
        ("random", ["unknown"]),
        ("random:", ["whole number"]),
        ("random:-1", ["whole number"]),
        ("random:1.5", ["whole number"]),
        (["cat", "dog", "hosre"], ["'hosre'", "did you mean 'horse'"]),
        (["cat", "dog", "dog"], ["'dog' twice"]),
        (["cat", "dog"], ["2 of 3", "misses 'horse'"]),
        (["cat", 3, "dog"], ["list of class names"]),
        (7, ["keyword or a list"]),
    ],
)
def test_bad_orders(order: object, words: list[str]) -> None:
    with pytest.raises(UserError) as caught:
        order_classes(("cat", "dog", "horse"), order)  # type: ignore[arg-type]
    for word in words:
        assert word in str(caught.value)


def test_class_names_of_the_data_must_differ() -> None:
    with pytest.raises(UserError, match="'cat' twice"):
        order_classes(("cat", "dog", "cat"))


def test_hash() -> None:
    one = protocol_hash({"base": 4, "classes": ["a", "b"]})
    assert one == protocol_hash({"classes": ["a", "b"], "base": 4})
    assert len(one) == 12
    assert set(one) <= set(string.hexdigits.lower())
    others = [
        {"base": 5, "classes": ["a", "b"]},
        {"base": 4, "classes": ["b", "a"]},
        {"base": "4", "classes": ["a", "b"]},
    ]
    assert len({one, *map(protocol_hash, others)}) == 4


def test_imports_neither_torch_nor_numpy() -> None:
    code = "import sys, mlcil.protocols; sys.exit(any(m in sys.modules for m in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": ":".join(sys.path)}).returncode == 0
