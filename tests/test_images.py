"""The way of an image to a square, against torchvision's."""

import numpy as np
import pytest
from PIL import Image
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as F

from mlcil.images import Fit, find_images, images_below


@pytest.mark.parametrize("size", [(40, 31), (31, 40), (33, 33), (97, 20)], ids=str)
@pytest.mark.parametrize(("side", "short"), [(24, None), (24, 25), (25, 20), (24, 21)])
@pytest.mark.parametrize("how", ["bilinear", "bicubic"])
def test_the_centre_is_cut_out_as_torchvision_does(size, side, short, how):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), np.uint8)
    image = Image.fromarray(pixels)
    resized = F.resize(image, [short or round(side * 256 / 224)], InterpolationMode(how))
    expected = F.center_crop(resized, [side, side])
    np.testing.assert_array_equal(Fit("centre", short, how)(image, side), expected)


def test_a_folder_gives_what_a_data_set_reads(tmp_path):
    for name in ("b.ppm", "a.JPG", "deep/c.png", ".hidden.jpg", "d.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "folder.jpg").mkdir()
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path)] == ["a.JPG", "b.ppm", "deep/c.png"]
    assert find_images(tmp_path) == images_below(tmp_path)
