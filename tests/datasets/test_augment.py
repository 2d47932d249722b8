import pickle
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mlcil.datasets import augment
from mlcil.datasets.augment import INCREASING, NORMALISATIONS, IncreasingRandAugment, seeded
from mlcil.datasets.transforms import TrainTransform
from mlcil.errors import UserError
from mlcil.images import Fit

PLAIN: dict[str, Any] = {"cutout": 0.0, "randaugment": False}


def picture(height: int = 32, width: int = 32, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(side: int = 32) -> Image.Image:
    ramp = np.linspace(0, 255, side)
    return Image.fromarray(
        np.stack([ramp[:, None] + 0 * ramp, 0 * ramp[:, None] + ramp, np.outer(ramp, ramp) / 255], 2).astype(np.uint8)
    )


OPTIONS: list[dict[str, Any]] = [
    {"crop": "padded", "flip": True},
    {"crop": "padded", "fill": "cifar100", "flip": True},
    {"crop": "resized", "flip": True, "interpolation": "bicubic"},
    {"jitter": {"brightness": 63 / 255, "contrast": 0.8}, "flip": True, "crop": "padded"},
    {"crop": "padded", "flip": True, "policy": "autoaugment_cifar10"},
    {"policy": "autoaugment_imagenet"},
    {"crop": "padded", "flip": True, "policy": "rand-m9-mstd0.5-inc1", "hole": 16},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_key_alone_decides(options: dict[str, Any]) -> None:
    transform = TrainTransform(32, **PLAIN, **options)
    image = picture(48, 40) if options.get("crop") == "resized" else picture()
    results = []
    for attempt in range(2):
        torch.manual_seed(attempt)
        np.random.seed(attempt)
        results.append([transform(image, np.random.default_rng((7, 1, 2, place))) for place in range(12)])
    np.testing.assert_array_equal(*results)
    assert results[0][0].shape == (32, 32, 3)
    assert results[0][0].dtype == np.uint8
    assert len({result.tobytes() for result in results[0]}) > 6
    again = pickle.loads(pickle.dumps(transform))(image, np.random.default_rng((7, 1, 2, 0)))  # worker processes
    np.testing.assert_array_equal(again, results[0][0])


def test_torchs_own_draws_are_left_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    with seeded(np.random.default_rng(0)):
        inside = torch.rand(4)
    assert torch.equal(torch.rand(4), expected)
    with seeded(np.random.default_rng(0)):
        assert torch.equal(torch.rand(4), inside)


@pytest.mark.parametrize(("fill", "border"), [("black", (0, 0, 0)), ("cifar100", (129, 124, 112))])
def test_padded_crops_are_windows_of_the_bordered_image(fill: str, border: tuple[int, ...]) -> None:
    transform = TrainTransform(8, **PLAIN, crop="padded", padding=2, fill=fill)
    image = picture(8, 8)
    canvas = np.empty((12, 12, 3), np.uint8)
    canvas[:] = border
    canvas[2:10, 2:10] = image
    windows = {canvas[y : y + 8, x : x + 8].tobytes(): (y, x) for y in range(5) for x in range(5)}
    found = [windows[transform(image, np.random.default_rng(i)).tobytes()] for i in range(400)]
    assert set(found) == set(windows.values())
    assert np.abs(np.mean(found, 0) - 2).max() < 0.25


def test_half_of_the_images_are_mirrored() -> None:
    transform, image = TrainTransform(32, **PLAIN, flip=True), picture()
    mirrored = [transform(image, np.random.default_rng(i)).tobytes() == image[:, ::-1].tobytes() for i in range(400)]
    assert 0.42 < np.mean(mirrored) < 0.58


def test_resized_crops_take_images_of_any_shape() -> None:
    transform = TrainTransform(32, **PLAIN, crop="resized")
    assert transform.whole
    assert not TrainTransform(32).whole
    for shape in ((20, 90), (90, 20), (33, 33), (1, 1)):
        assert transform(picture(*shape), np.random.default_rng(0)).shape == (32, 32, 3)


def test_a_hole_is_black_and_in_the_image() -> None:
    transform, white = TrainTransform(32, **PLAIN, hole=16), np.full((32, 32, 3), 255, np.uint8)
    for seed in range(50):
        row, column = (int(v) for v in np.random.default_rng(seed).integers(32, size=2))
        row, column = int(np.random.default_rng(seed).integers(32)), column
        rows, columns, _ = np.nonzero(transform(white, np.random.default_rng(seed)) == 0)
        assert (rows.min(), rows.max()) == (max(row - 8, 0), min(row + 7, 31))
        assert columns.max() - columns.min() <= 15


def test_parts_run_in_the_promised_order(monkeypatch: pytest.MonkeyPatch) -> None:
    transform = TrainTransform(
        32, cutout=0.5, randaugment=True, flip=True, jitter={"hue": 0.1}, crop="padded", hole=4,
        policy="rand-m9-mstd0.5-inc1",
    )  # fmt: skip
    names = [getattr(step, "__name__", type(getattr(step, "transform", step)).__name__) for step in transform.steps]
    assert names == ["ColorJitter", "PaddedCrop", "Mirror", "IncreasingRandAugment", "Hole", "Cutout", "RandAugment"]


TIMM = {
    "AutoContrast": "auto_contrast", "Equalize": "equalize", "Invert": "invert", "Rotate": "rotate",
    "Posterize": "posterize", "Solarize": "solarize", "SolarizeAdd": "solarize_add", "Color": "color",
    "Contrast": "contrast", "Brightness": "brightness", "Sharpness": "sharpness", "ShearX": "shear_x",
    "ShearY": "shear_y", "TranslateX": "translate_x_rel", "TranslateY": "translate_y_rel",
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(INCREASING))
@pytest.mark.parametrize("strength", [0.3, 0.85, 0.99])
@pytest.mark.parametrize("sign", [1, -1])
def test_operations_are_timms(name: str, strength: float, sign: int) -> None:
    """Against timm's functions at the parameters of ``rand-m9-mstd0.5-inc1`` (15 operations)."""
    timm = pytest.importorskip("timm.data.auto_augment")
    parameters: dict[str, tuple[float, ...]] = {
        "Rotate": (sign * 30 * strength,),
        "Posterize": (4 - int(4 * strength),),
        "Solarize": (256 - int(256 * strength),),
        "SolarizeAdd": (int(110 * strength),),
        **{key: (max(0.1, 1 + sign * 0.9 * strength),) for key in ("Color", "Contrast", "Brightness", "Sharpness")},
        **dict.fromkeys(("ShearX", "ShearY"), (sign * 0.3 * strength,)),
        **dict.fromkeys(("TranslateX", "TranslateY"), (sign * 0.45 * strength,)),
    }
    options = {"fillcolor": (124, 116, 104), "resample": Image.Resampling.BICUBIC}
    image = Image.fromarray(picture())
    expected = getattr(timm, TIMM[name])(image, *parameters.get(name, ()), **options)
    np.testing.assert_array_equal(np.asarray(INCREASING[name](image, strength, sign)), np.asarray(expected))


def test_magnitudes_are_timms() -> None:
    """The strengths above are what timm makes of a magnitude."""
    timm = pytest.importorskip("timm.data.auto_augment")
    assert timm._LEVEL_DENOM == 10
    assert timm._posterize_increasing_level_to_arg(9.0, {}) == (4 - int(4 * 0.9),)
    assert timm._solarize_increasing_level_to_arg(9.0, {}) == (256 - int(256 * 0.9),)
    assert timm._solarize_add_level_to_arg(9.0, {}) == (int(110 * 0.9),)


def test_no_bits_left_is_black() -> None:
    assert not np.asarray(INCREASING["Posterize"](smooth(), 1.0, 1)).any()


def test_half_of_the_operations_are_executed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[str, float, int]] = []

    def note(name: str) -> Any:
        return lambda image, strength, sign: (seen.append((name, strength, sign)), image)[1]

    monkeypatch.setattr(augment, "INCREASING", {name: note(name) for name in INCREASING})
    for seed in range(3000):
        IncreasingRandAugment()(smooth(), np.random.default_rng(seed))
    assert 2800 < len(seen) < 3200
    assert {name for name, _, _ in seen} == set(INCREASING)
    strengths = np.array([strength for _, strength, _ in seen])
    assert abs(strengths.mean() - 0.9) < 0.005
    assert abs(strengths.std() - 0.05) < 0.005
    assert strengths.max() <= 1
    assert abs(np.mean([sign for _, _, sign in seen])) < 0.06


def test_normalisations_are_statistics() -> None:
    for mean, std in NORMALISATIONS.values():
        assert len(mean) == len(std) == 3
        assert all(0.3 < value < 0.6 for value in mean)
        assert all(0.15 < value < 0.35 for value in std)


# -- to a square ------------------------------------------------------------------------------------------


def test_square_forces_both_sides() -> None:
    image = Image.fromarray(picture(20, 90))
    expected = np.asarray(image.resize((24, 24), Image.Resampling.BILINEAR))
    np.testing.assert_array_equal(np.asarray(Fit()(image, 24)), expected)
    assert Fit()(image.resize((24, 24)), 24).size == (24, 24)


@pytest.mark.parametrize("shape", [(300, 400), (400, 300), (256, 256), (100, 90), (257, 511)])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_centre_is_torchvisions_resize_and_crop(shape: tuple[int, int], interpolation: str) -> None:
    transforms = pytest.importorskip("torchvision.transforms")
    image = Image.fromarray(picture(*shape))
    mode = transforms.InterpolationMode(interpolation)
    both = transforms.Compose([transforms.Resize(256, mode), transforms.CenterCrop(224)])
    found = Fit("centre", interpolation=interpolation)(image, 224)
    np.testing.assert_array_equal(np.asarray(found), np.asarray(both(image)))


def test_the_short_side_goes_with_the_size() -> None:
    image = Image.fromarray(picture(60, 80))
    np.testing.assert_array_equal(Fit("centre")(image, 112), Fit("centre", 128)(image, 112))
    assert Fit("centre", 20)(image, 24).size == (24, 24)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("center", r"fit is 'center' \(did you mean 'centre'\?\)"),
        (3, r"fit is 3; expected 'square', 'centre' or dict\(kind='centre', ...\)"),
        ({"kid": "centre"}, r"unknown key 'kid' in fit \(did you mean 'kind'\?\)"),
        ({"kind": "centre", "short_side": 0}, r"fit.short_side is 0"),
        ({"kind": "centre", "short_side": 2.5}, r"fit.short_side is 2.5"),
        ({"interpolation": "nearest"}, r"fit.interpolation is 'nearest'.*'bilinear', 'bicubic'"),
    ],
)
def test_fit_mistakes(value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Fit.of(value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"crop": "pad"}, r"train_transform.crop is 'pad' \(did you mean 'padded'\?\); use one of 'padded', 'resized'"),
        ({"crop": "padded", "padding": -1}, r"train_transform.padding is -1"),
        ({"crop": "padded", "padding": "4"}, r"train_transform.padding is '4'"),
        ({"crop": "padded", "fill": "cifar1000"}, r"train_transform.fill is 'cifar1000' \(did you mean 'cifar10"),
        ({"crop": "resized", "interpolation": "cubic"}, r"train_transform.interpolation is 'cubic'"),
        ({"policy": "autoaugment"}, r"train_transform.policy is 'autoaugment'"),
        ({"hole": -3}, r"train_transform.hole is -3"),
        ({"hole": 1.5}, r"train_transform.hole is 1.5"),
        ({"jitter": 0.4}, r"train_transform.jitter is 0.4; expected dict"),
        ({"jitter": {"contrats": 0.4}}, r"unknown key 'contrats' in train_transform.jitter \(did you mean 'contrast'"),
        ({"jitter": {"hue": 3}}, r"train_transform.jitter is {'hue': 3}: .*correct its value"),
    ],
)
def test_transform_mistakes(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        TrainTransform(32, **PLAIN, **options)
