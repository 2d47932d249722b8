"""What a table of somebody's own may hold, and the sentence about what it may not."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlcil.datasets.table import ImageTable, SingleLabelTable
from mlcil.errors import UserError

LABELS = [[1, 0], [0, -1], [1, 1]]
SELECTS = [[1, 0], [0, 0], [1, 1]]


def table(labels: Any = LABELS, selects: Any = SELECTS, **more: Any) -> ImageTable:
    options = {"ids": (0, 1, 2), "files": tuple(Path(f"{i}.jpg") for i in range(3)), **more}
    return ImageTable("mine", ("a", "b"), labels_NC=labels, selects_NC=selects, **options)


@pytest.mark.parametrize("dtype", [np.int64, np.int16, np.int8])
def test_labels_of_any_integer_type(dtype: Any) -> None:
    one = table(np.array(LABELS, dtype), np.array(SELECTS, dtype))
    assert (one.labels_NC.dtype, one.selects_NC.dtype) == (np.int8, np.bool_)
    np.testing.assert_array_equal(one.labels_NC, LABELS)
    np.testing.assert_array_equal(one.selects_NC, SELECTS)
    assert one.digest() == table(np.array(LABELS, np.int8), np.array(SELECTS, np.bool_)).digest()


def test_flags_as_labels_and_lists() -> None:
    one = table(np.array(SELECTS, np.bool_), SELECTS)
    np.testing.assert_array_equal(one.labels_NC, SELECTS)
    assert one.labels_NC.dtype == np.int8


def test_no_images() -> None:
    assert table([], [], ids=(), files=()).labels_NC.shape == (0, 2)
    assert len(SingleLabelTable("mine", ("a",), [])) == 0  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": np.array(LABELS, float)}, "'mine': labels_NC is a ndarray of float64; expected whole numbers"),
        ({"labels": np.array(LABELS) * 2}, "labels_NC has values from -2 to 2; expected whole numbers from -1 to 1"),
        ({"labels": []}, r"labels_NC is a list of float64; expected .* \(3, 2\), images and classes"),
        ({"labels": [[1], [0, 1], [1]]}, "labels_NC is a list of object"),
        ({"labels": np.array(LABELS).T}, r"labels_NC has the shape \(2, 3\); expected .* \(3, 2\)"),
        ({"selects": np.array(LABELS)}, "selects_NC has values from -1 to 1; expected whole numbers from 0 to 1"),
        ({"files": ()}, "'mine' has 3 ids and 0 files; expected one file an id"),
        ({"files": (), "pixels": np.zeros((3, 2, 2), np.uint8)}, r"pixels of uint8, shape \(3, 2, 2\); expected"),
        ({"files": (), "pixels": np.zeros((3, 2, 2, 3))}, "pixels of float64"),
        ({"ids": ("x", "y", "x")}, "'mine': the id 'x' is there more than once; expected every image once"),
    ],
)
def test_parts_that_do_not_fit(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        table(**options)


@pytest.mark.parametrize(
    ("labels", "more", "message"),
    [
        ([0, 2, 1], {}, "labels_N has values from 0 to 2; expected whole numbers from 0 to 1"),
        ([0, -1, 1], {}, "labels_N has values from -1 to 1"),
        ([0.0, 1.0, 1.0], {}, "labels_N is a list of float64"),
        ([0, 1], {}, "has 2 ids and 0 files and pixels"),
        ([0, 1], {"ids": (7, 8, 9)}, r"labels_N has the shape \(2,\); expected .* \(3,\), images, so"),
        ([0, 1, 1], {"ids": (7, 8, 7)}, "the id 7 is there more than once"),
    ],
)
def test_one_class_an_image(labels: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SingleLabelTable("mine", ("a", "b"), labels, pixels=np.zeros((3, 2, 2, 3), np.uint8), **more)
