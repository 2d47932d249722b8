"""Reading images, and the training augmentation as a whole."""

import contextlib

import numpy as np
import pytest
from PIL import Image

from mlcil import images
from mlcil.datasets import transforms as T
from mlcil.datasets.randaugment import Cutout, RandAugment
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
    assert images.load_rgb(path).mode == "RGB"
    found = images.decode(path, 16)
    assert found.shape == (16, 16, 3)
    assert found.dtype == np.uint8


def test_decode_forces_both_sides_and_is_deterministic(tmp_path):
    path = tmp_path / "wide.png"
    Image.fromarray(picture(20, 90)).save(path)
    expected = Image.fromarray(picture(20, 90)).resize((24, 24), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(images.decode(path, 24), np.asarray(expected))
    np.testing.assert_array_equal(images.decode(path, 24), images.decode(path, 24))


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
        images.load_rgb(path)
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
            assert images.load_rgb(path).mode == "RGB"


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
    T.TrainTransform(SIDE, flip=True)(array, np.random.default_rng(0))


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


def test_draws_on_the_device_are_those_of_the_workers():
    transform = T.TrainTransform(SIDE, flip=True, on_device=True)
    mirror, *rest = transform.draw(np.random.default_rng(3))
    rng = np.random.default_rng(3)
    assert mirror == float(rng.random() < 0.5)
    square = Cutout(0.5).draw(rng, SIDE, SIDE)
    assert rest[: len(square)] == [float(value) for value in square]
    assert rest[len(square) :] == RandAugment().draw(rng, SIDE, SIDE)


def test_without_steps_there_is_nothing_to_do_on_the_device():
    assert not T.TrainTransform(SIDE, cutout=0.0, randaugment=False, on_device=True).on_device


def test_the_device_augments_for_krt_only():
    with pytest.raises(UserError, match="cutout, randaugment and flip, but the config also has PaddedCrop, Hole"):
        T.TrainTransform(SIDE, crop="padded", hole=4, on_device=True)
    with pytest.raises(UserError, match="on_device is 1; expected True or False"):
        T.TrainTransform(SIDE, on_device=1)
