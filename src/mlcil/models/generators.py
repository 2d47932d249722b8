"""Networks that make images: the generator of ABD and R-DFCIL, and DGR's variational auto-encoder.

Legend: B images, Z latent values.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmengine.dist import get_dist_info
from torch import Tensor, nn

HIDDEN_EPS = 0.8  # of the batch norms behind the hidden convolutions (official behaviour of both papers)


def layout(image_size: int) -> tuple[int, tuple[int, ...]]:
    """Side of the first map and channels of the maps for square images of ``image_size`` pixels.

    The papers' three: 32 pixels from 8 by (128, 128, 64), 64 from 8 by (128, 128, 128, 64), 224 from 7 by six
    times 64; other sizes are halved likewise.

    Raises:
        ValueError: the size cannot be halved to a side of at most 8.
    """
    side, doublings = image_size, 0
    while side > 8 and side % 2 == 0:
        side, doublings = side // 2, doublings + 1
    if side > 8:
        raise ValueError(f"no generator for images of {image_size} pixels: use 4 to 8 times a power of two")
    width = 128 if image_size <= 64 else 64
    return side, (*[width] * max(doublings, 1), 64)[: doublings + 1]


def draw_latents(count: int, latent: int, like: Tensor) -> Tensor:
    """(count, latent) of N(0, 1) from the global generator of the CPU, other ones in every process.

    Every process draws those of all and keeps its share, so one saved state of the generator serves all.
    """
    rank, world = get_dist_info()
    return torch.randn(world * count, latent)[rank * count : (rank + 1) * count].to(like)


def doubling_kernel(weight: Tensor) -> Tensor:
    """The 4x4 kernel whose transposed convolution of stride 2 doubles an image and then convolves it.

    Nearest-neighbour doubling writes every pixel into a 2x2 square, so doubling and a 3x3 convolution (padding 1)
    are one transposed convolution (stride 2, padding 1) with the sum of four shifted copies of the turned kernel:
    16 products a pixel of the small image in place of 36, and no doubled map in memory. Same numbers up to rounding.

    Args:
        weight: (O, I, 3, 3) of the convolution.

    Returns:
        (I, O, 4, 4).
    """
    turned = weight.flip(2, 3).transpose(0, 1)
    wide = F.pad(turned, (1, 0)) + F.pad(turned, (0, 1))
    return F.pad(wide, (0, 0, 1, 0)) + F.pad(wide, (0, 0, 0, 1))


class UpBlock(nn.Module):
    """Nearest-neighbour doubling, 3x3 convolution, batch norm, leaky ReLU; see :func:`doubling_kernel`."""

    def __init__(self, inp: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inp, out, 3, padding=1)
        self.norm = nn.BatchNorm2d(out, eps=HIDDEN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        y = F.conv_transpose2d(x, doubling_kernel(self.conv.weight), self.conv.bias, stride=2, padding=1)
        return F.leaky_relu(self.norm(y), 0.2)


class ToImage(nn.Module):
    """3x3 convolution to three channels, tanh, batch norm without parameters."""

    def __init__(self, inp: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inp, 3, 3, padding=1)
        self.norm = nn.BatchNorm2d(3, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(torch.tanh(self.conv(x)))


class Generator(nn.Module):
    """Latent vectors to normalised images: each channel of a batch has mean 0 and variance 1.

    Args:
        image_size: side of the images in pixels, see :func:`layout`.
        latent: values Z of a latent vector, N(0, 1).
        width: most channels of a map, for generators smaller than the papers'; ``None`` for theirs.

    Raises:
        ValueError: no layout for that image size.
    """

    def __init__(self, image_size: int = 32, latent: int = 1000, width: int | None = None) -> None:
        super().__init__()
        side, channels = layout(image_size)
        if width is not None:
            channels = tuple(min(width, channel) for channel in channels)
        self.latent, self.shape = latent, (channels[0], side, side)
        self.project = nn.Linear(latent, channels[0] * side * side)
        self.norm = nn.BatchNorm2d(channels[0])
        self.blocks = nn.Sequential(*(UpBlock(a, b) for a, b in itertools.pairwise(channels)))
        self.to_image = ToImage(channels[-1])

    def forward(self, latents_BZ: Tensor) -> Tensor:
        """(B, Z) -> (B, 3, image_size, image_size), normalised."""
        x = self.norm(self.project(latents_BZ).view(-1, *self.shape))
        return self.to_image(self.blocks(x))


class VAE(nn.Module):
    """The variational auto-encoder of deep generative replay, on images in [0, 1].

    Args:
        image_size: side of the images in pixels, a multiple of 8 (32 in ABD's tables).
        latent: values Z of a code.
        widths: channels of the encoder's three maps.

    Raises:
        ValueError: the size is no multiple of 8.
    """

    def __init__(self, image_size: int = 32, latent: int = 1024, widths: Sequence[int] = (64, 128, 512)) -> None:
        super().__init__()
        if image_size % 8:
            raise ValueError(f"image_size {image_size} does not suit the auto-encoder; use a multiple of 8")
        a, b, c = widths
        self.latent, self.shape = latent, (c, image_size // 8, image_size // 8)
        size = c * (image_size // 8) ** 2
        self.encoder = nn.Sequential(
            *(nn.Conv2d(inp, out, 4, stride=2, padding=1) for inp, out in ((3, a), (a, b), (b, c)))
        )
        self.mean, self.log_variance = nn.Linear(size, latent), nn.Linear(size, latent)
        self.project = nn.Linear(latent, size)
        self.decoder = nn.Sequential(
            *(nn.ConvTranspose2d(inp, out, 4, stride=2, padding=1) for inp, out in ((c, c // 2), (c // 2, a), (a, 3)))
        )

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, H, W) in [0, 1] -> mean (B, Z) and log of the variance (B, Z) of the codes."""
        x = images
        for convolution in self.encoder:
            x = F.relu(convolution(x))
        return self.mean(x.flatten(1)), self.log_variance(x.flatten(1))

    def decode(self, latents_BZ: Tensor) -> Tensor:
        """(B, Z) -> (B, 3, H, W) in (0, 1)."""
        x = self.project(latents_BZ).view(-1, *self.shape)
        first, second, last = self.decoder
        return torch.sigmoid(last(F.relu(second(F.relu(first(x))))))

    def forward(self, images: Tensor, noise_BZ: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Reconstruction (B, 3, H, W), mean (B, Z) and log-variance (B, Z); without noise the mean is decoded."""
        mean_BZ, log_variance_BZ = self.encode(images)
        code_BZ = mean_BZ
        if noise_BZ is not None:
            code_BZ = mean_BZ + torch.exp(0.5 * log_variance_BZ) * noise_BZ
        return self.decode(code_BZ), mean_BZ, log_variance_BZ
