"""Images that show nothing: grey, noise, gradients, text. No label should be given to them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from mlcil.files import default_cache, write_atomically

COUNT = 40
SIZE = 160  # pixels a side
KINDS = ("grey", "noise", "soft noise", "gradient", "text")


def image_of_nothing(number: int, seed: int = 0) -> Image.Image:
    """The same image for the same number and seed; the number also chooses its kind."""
    rng = np.random.default_rng([seed, number])
    kind = KINDS[number % len(KINDS)]
    if kind == "grey":
        return Image.new("RGB", (SIZE, SIZE), (int(rng.integers(256)),) * 3)
    if kind == "noise":
        return Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
    if kind == "soft noise":
        noise = Image.fromarray(rng.integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8))
        return noise.filter(ImageFilter.GaussianBlur(float(rng.uniform(1, 8))))
    if kind == "gradient":
        ends = rng.integers(0, 256, (2, 3))
        ramp = np.linspace(ends[0], ends[1], SIZE)[None].repeat(SIZE, 0).astype(np.uint8)
        return Image.fromarray(np.rot90(ramp, int(rng.integers(4))).copy())
    page = Image.new("RGB", (SIZE, SIZE), "white")
    pen = ImageDraw.Draw(page)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz     "))
    for line in range(8, SIZE - 8, 14):
        pen.text((8, line), "".join(rng.choice(letters, 24)), fill="black")
    return page


def files_of_nothing(count: int = COUNT) -> list[Path]:
    """The images as files, written when they are not there yet."""
    folder = default_cache() / "nothing"
    paths = [folder / f"{number}.png" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            image = image_of_nothing(number)
            write_atomically(path, lambda file, image=image: image.save(file, "PNG"))  # type: ignore[misc]
    return paths
