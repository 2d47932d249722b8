"""KRT's augmentation: what it draws on average, and what is done with it."""

import numpy as np
import pytest
from PIL import Image

from mlcil.datasets import randaugment as R

SIDE = 33


def picture(height=SIDE, width=SIDE):
    """Noise on a slope: every operation changes it, and no two places look alike."""
    noise = np.random.default_rng(0).integers(30, 190, (height, width, 3))
    return (noise + np.linspace(0, 40, width).astype(int)[None, :, None]).astype(np.uint8)


# cutout


@pytest.mark.parametrize(
    ("row", "column", "rows", "columns"),
    [
        (20, 20, slice(15, 26), slice(15, 26)),  # inclusive end: 11 pixels for a side of 10
        (0, 0, slice(0, 6), slice(0, 6)),
        (39, 2, slice(34, 40), slice(0, 8)),
    ],
)
def test_cutout_rectangle(row, column, rows, columns):
    image = Image.fromarray(picture(40, 40))
    expected = picture(40, 40)
    expected[rows, columns] = (1, 2, 3)
    np.testing.assert_array_equal(np.asarray(R.draw_cutout(image, R.Square(10, row, column, 1, 2, 3))), expected)


def test_cutout_always_paints_one_filled_rectangle():
    image, cutout, rng = Image.fromarray(picture()), R.Cutout(0.5), np.random.default_rng(0)
    colours, corners = set(), set()
    for _ in range(200):
        found = np.asarray(cutout(image, rng))
        rows, columns = np.nonzero((found != picture()).any(axis=2))
        top, bottom, left, right = rows.min(), rows.max(), columns.min(), columns.max()
        inside = found[top : bottom + 1, left : right + 1].reshape(-1, 3)
        assert len(np.unique(inside, axis=0)) == 1
        assert bottom - top <= int(0.5 * SIDE + 0.5)
        colours.add(tuple(inside[0]))
        corners.add((top, left))
    assert len(colours) > 190
    assert len(corners) > 80


# RandAugment


def recorded_operations(monkeypatch, images):
    """What the policy executes on ``images`` images, as a list per image."""
    done = []

    def record(image, name, index, sign=1, centre=None):
        done[-1].append((name, index, sign, centre))
        return image

    monkeypatch.setattr(R, "apply_operation", record)
    policy, rng, image = R.RandAugment(), np.random.default_rng(0), Image.fromarray(picture())
    for _ in range(images):
        done.append([])
        assert policy(image, rng).size == image.size
    return done


def test_statistics_of_the_policy(monkeypatch):
    images = 20_000
    done = recorded_operations(monkeypatch, images)
    lengths = np.bincount([len(d) for d in done], minlength=3) / images
    np.testing.assert_allclose(lengths, [0.25, 0.5, 0.25], atol=0.015)

    executed = [operation for d in done for operation in d]
    names, counts = np.unique([name for name, *_ in executed], return_counts=True)
    assert set(names) == set(R.MAGNITUDES)
    np.testing.assert_allclose(counts / len(executed), 1 / len(R.MAGNITUDES), atol=0.008)

    indices, counts = np.unique([index for _, index, *_ in executed], return_counts=True)
    assert indices.tolist() == list(range(1, R.LEVELS))
    np.testing.assert_allclose(counts / len(executed), 1 / (R.LEVELS - 1), atol=0.01)

    signs = np.array([sign for _, _, sign, _ in executed])
    assert set(signs.tolist()) == {-1, 1}
    assert abs(signs.mean()) < 0.03
    assert any(len(d) == 2 and d[0][0] == d[1][0] for d in done), "the pair is drawn with replacement"


def test_centres_lie_in_the_image(monkeypatch):
    centres = [c for d in recorded_operations(monkeypatch, 2000) for name, _, _, c in d if name == "Cutout"]
    low, high = np.min(centres, axis=0), np.max(centres, axis=0)
    assert (low >= 0).all()
    assert (high <= SIDE).all()
    assert (high - low > 0.8 * SIDE).all()


@pytest.mark.parametrize("name", sorted(R.MAGNITUDES))
@pytest.mark.parametrize("sign", [-1, 1])
def test_operations_keep_size_and_mode(name, sign):
    image = Image.fromarray(picture(20, 30))
    for index in range(1, R.LEVELS):
        found = R.apply_operation(image, name, index, sign, centre=(10.0, 5.0))
        assert (found.size, found.mode) == (image.size, "RGB")
