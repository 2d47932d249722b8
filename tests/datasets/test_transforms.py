"""Reading images, and what the random transforms do on average."""

import contextlib

import numpy as np
import pytest
import torch
from PIL import Image

from mlcil.datasets import transforms as T
from mlcil.errors import UserError

SIDE = 33


def picture(height=SIDE, width=SIDE, seed=0):
    """Noise on a slope: every operation changes it, and no two places look alike."""
    noise = np.random.default_rng(seed).integers(30, 190, (height, width, 3))
    return (noise + np.linspace(0, 40, width).astype(int)[None, :, None]).astype(np.uint8)


# reading


@pytest.mark.parametrize(
    ("mode", "suffix"), [("L", "png"), ("P", "gif"), ("RGBA", "png"), ("CMYK", "jpg"), ("1", "png")]
)
def test_every_mode_becomes_rgb(tmp_path, mode, suffix):
    path = tmp_path / f"image.{suffix}"
    Image.fromarray(picture()).convert(mode).save(path)
    assert T.load_rgb(path).mode == "RGB"
    found = T.decode(path, 16)
    assert found.shape == (16, 16, 3)
    assert found.dtype == np.uint8


def test_decode_forces_both_sides_and_is_deterministic(tmp_path):
    path = tmp_path / "wide.png"
    Image.fromarray(picture(20, 90)).save(path)
    expected = Image.fromarray(picture(20, 90)).resize((24, 24), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(T.decode(path, 24), np.asarray(expected))
    np.testing.assert_array_equal(T.decode(path, 24), T.decode(path, 24))


def write_missing(path):
    pass


def write_empty(path):
    path.write_bytes(b"")


def write_text(path):
    path.write_text("<html>404</html>")


def write_truncated_header(path):
    Image.fromarray(picture()).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[:20])


def write_truncated_pixels(path):
    Image.fromarray(picture(200, 200)).save(path, "JPEG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_truncated_png(path):
    Image.fromarray(picture(200, 200)).save(path, "PNG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def write_folder(path):
    path.mkdir()


@pytest.mark.parametrize(
    "write",
    [
        write_missing,
        write_empty,
        write_text,
        write_truncated_header,
        write_truncated_pixels,
        write_truncated_png,
        write_folder,
    ],
)
def test_bad_files_are_named_in_one_sentence(tmp_path, write):
    path = tmp_path / "picture.jpg"
    write(path)
    with pytest.raises(UserError) as caught:
        T.load_rgb(path)
    message = str(caught.value)
    assert str(path) in message
    assert "\n" not in message


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
def test_damage_anywhere_is_a_user_error_or_an_image(tmp_path, kind):
    path = tmp_path / "picture"
    Image.fromarray(picture()).save(path, kind)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        content = bytearray(whole[: int(rng.integers(1, len(whole) + 1))])
        for place in rng.integers(0, len(content), 4):
            content[place] = int(rng.integers(256))
        path.write_bytes(content)
        with contextlib.suppress(UserError):
            assert T.load_rgb(path).mode == "RGB"


def test_to_tensor():
    array = picture(4, 6)
    found = T.to_tensor(array)
    assert found.dtype == torch.float32
    assert found.shape == (3, 4, 6)
    assert found.is_contiguous()
    np.testing.assert_array_equal(found.numpy(), array.transpose(2, 0, 1).astype(np.float32) / np.float32(255))
    ends = np.array([[[0, 255, 0]]], np.uint8)
    assert T.to_tensor(ends).flatten().tolist() == [0.0, 1.0, 0.0]


def test_to_tensor_shares_nothing_with_its_input():
    array = picture()
    T.to_tensor(array).zero_()
    np.testing.assert_array_equal(array, picture())


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
    np.testing.assert_array_equal(np.asarray(T.draw_cutout(image, row, column, 10, (1, 2, 3))), expected)


def test_cutout_always_paints_one_filled_rectangle():
    image, cutout, rng = Image.fromarray(picture()), T.Cutout(0.5), np.random.default_rng(0)
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

    monkeypatch.setattr(T, "apply_operation", record)
    policy, rng, image = T.RandAugment(), np.random.default_rng(0), Image.fromarray(picture())
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
    assert set(names) == set(T.MAGNITUDES)
    np.testing.assert_allclose(counts / len(executed), 1 / len(T.MAGNITUDES), atol=0.008)

    indices, counts = np.unique([index for _, index, *_ in executed], return_counts=True)
    assert indices.tolist() == list(range(1, T.LEVELS))
    np.testing.assert_allclose(counts / len(executed), 1 / (T.LEVELS - 1), atol=0.01)

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


@pytest.mark.parametrize("name", sorted(T.MAGNITUDES))
@pytest.mark.parametrize("sign", [-1, 1])
def test_operations_keep_size_and_mode(name, sign):
    image = Image.fromarray(picture(20, 30))
    for index in range(1, T.LEVELS):
        found = T.apply_operation(image, name, index, sign, centre=(10.0, 5.0))
        assert (found.size, found.mode) == (image.size, "RGB")


# the whole


def test_same_generator_same_picture():
    transform = T.TrainTransform(SIDE)
    made = [transform(picture(), np.random.default_rng((1, 2, 3))) for _ in range(2)]
    np.testing.assert_array_equal(*made)
    assert made[0].dtype == np.uint8
    assert made[0].shape == (SIDE, SIDE, 3)


def test_no_hidden_randomness_and_no_change_of_the_input():
    array = picture()
    transform = T.TrainTransform(SIDE, flip=True)
    state = np.random.get_state()[1].copy()
    for seed in range(50):
        transform(array, np.random.default_rng(seed))
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    np.testing.assert_array_equal(array, picture())


def test_read_only_input_is_accepted():
    array = picture()
    array.flags.writeable = False
    T.to_tensor(T.TrainTransform(SIDE, flip=True)(array, np.random.default_rng(0)))


def test_all_off_is_the_identity():
    transform = T.TrainTransform(SIDE, cutout=0.0, randaugment=False)
    np.testing.assert_array_equal(transform(picture(), np.random.default_rng(0)), picture())


def test_flip_mirrors_half_of_the_images():
    transform, rng = T.TrainTransform(SIDE, cutout=0.0, randaugment=False, flip=True), np.random.default_rng(0)
    mirrored = 0
    for _ in range(400):
        found = transform(picture(), rng)
        same = np.array_equal(found, picture())
        assert same or np.array_equal(found, picture()[:, ::-1])
        mirrored += not same
    assert 150 < mirrored < 250
