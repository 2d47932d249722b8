import math

import pytest
import torch
from torch import nn

from mlcil.models.generators import VAE, Generator, draw_latents, layout
from mlcil.models.inversion import (
    BatchNormStatistics,
    Inversion,
    InversionSettings,
    class_balance,
    gaussian_divergence,
    gaussian_kernel,
    smoothed,
)
from mlcil.models.network import IncrementalNetwork


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    backbone = {"name": "resnet32_abd", "blocks": (1, 1), "widths": (4, 8), "mean": (0.5,) * 3, "std": (0.25,) * 3}
    network = IncrementalNetwork(backbone, {"type": "linear"}, 16)
    network.grow(4)
    network.train()
    for _ in range(5):
        network(torch.rand(16, 3, 16, 16))
    return network.eval().requires_grad_(False)


def test_layouts():
    assert layout(32) == (8, (128, 128, 64))
    assert layout(64) == (8, (128, 128, 128, 64))
    assert layout(224) == (7, (64,) * 6)
    with pytest.raises(ValueError, match="99 pixels"):
        layout(99)


@pytest.mark.parametrize(("size", "parameters"), [(32, 8_423_939), (64, 8_571_779), (224, 3_326_275)])
def test_generators_of_the_papers(size, parameters):
    assert sum(p.numel() for p in Generator(size).parameters()) == parameters


def test_generated_images_are_normalised():
    generator = Generator(16)
    images = generator(torch.randn(32, 1000))
    assert images.shape == (32, 3, 16, 16)
    torch.testing.assert_close(images.mean((0, 2, 3)), torch.zeros(3), atol=1e-4, rtol=0)
    torch.testing.assert_close(images.var((0, 2, 3)), torch.ones(3), atol=1e-2, rtol=0)


def test_autoencoder_shapes_and_sizes():
    vae = VAE(16, latent=10)
    images = torch.rand(2, 3, 16, 16)
    reconstruction, mean, log_variance = vae(images)
    assert reconstruction.shape == images.shape
    assert mean.shape == log_variance.shape == (2, 10)
    torch.testing.assert_close(vae(images, torch.zeros(2, 10))[0], reconstruction)
    with pytest.raises(ValueError, match="multiple of 8"):
        VAE(12)


def test_divergence_is_that_of_gaussians():
    torch.manual_seed(0)
    x = torch.randn(64, 3, 8, 8, dtype=torch.float64) * 2 + 1
    mean, variance = torch.tensor([0.0, 1.0, 2.0]).double(), torch.tensor([1.0, 4.0, 9.0]).double()
    v, m = torch.var_mean(x, (0, 2, 3), correction=0)
    old, new = torch.distributions.Normal(mean, variance.sqrt()), torch.distributions.Normal(m, v.sqrt())
    expected = torch.distributions.kl_divergence(old, new).mean()
    torch.testing.assert_close(gaussian_divergence(x, mean, variance), expected, rtol=1e-6, atol=1e-8)
    assert gaussian_divergence(x, m, v).abs() < 1e-7


def test_statistics_are_taken_once_a_layer_and_only_inside(teacher):
    norms = [m for m in teacher.modules() if isinstance(m, nn.BatchNorm2d)]
    statistics = BatchNormStatistics(teacher)
    images = torch.rand(4, 3, 16, 16)
    with statistics.watch() as terms:
        teacher(images)
        assert len(terms) == len(norms)
        assert all(term.ndim == 0 for term in terms)
    teacher(images)
    assert len(terms) == len(norms)
    assert not any(module._forward_pre_hooks for module in norms)


def test_kernel_and_smoothing():
    kernel = gaussian_kernel()
    assert float(kernel.sum()) == pytest.approx(1)
    assert float(kernel[2, 1] / kernel[2, 2]) == pytest.approx(math.exp(-1 / 4))
    flat = torch.full((1, 3, 8, 8), 0.3)
    torch.testing.assert_close(smoothed(flat), flat)
    point = torch.zeros(1, 1, 9, 9, dtype=torch.float64)
    point[0, 0, 4, 4] = 1
    torch.testing.assert_close(smoothed(point)[0, 0, 2:7, 2:7], kernel)


def test_balance():
    even = torch.eye(4).repeat(3, 1) * 50
    assert float(class_balance(even)) == pytest.approx(0, abs=1e-6)
    one_sided = torch.zeros(5, 4)
    one_sided[:, 0] = 1e4  # the other classes underflow to 0
    one_sided.requires_grad_(True)
    loss = class_balance(one_sided)
    loss.backward()
    assert float(loss.detach()) == pytest.approx(1)
    assert one_sided.grad.isfinite().all()
    assert class_balance(torch.zeros(3, 1)).isfinite()


def test_the_generator_learns_and_the_teacher_does_not(teacher):
    torch.manual_seed(1)
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    inversion = Inversion(teacher, InversionSettings(iterations=12))
    told = []
    first = inversion.losses(teacher, inversion.latents(32))
    last = inversion.fit(teacher, 32, lambda done, terms: told.append((done, terms)))
    assert last["statistics"] < float(first["statistics"])
    assert told[-1] == (12, last)
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_samples_repeat_with_the_random_state_and_survive_a_checkpoint(teacher):
    inversion = Inversion(teacher, InversionSettings(iterations=2))
    inversion.fit(teacher, 8)
    other = Inversion(teacher, InversionSettings(iterations=2))
    other.load_state_dict(inversion.state_dict())
    torch.manual_seed(5)
    images = inversion.sample(4)
    torch.manual_seed(5)
    torch.testing.assert_close(other.sample(4), images, rtol=0, atol=0)
    assert images.shape == (4, 3, 16, 16)
    assert not images.requires_grad
    assert "optimizer" not in inversion.state_dict(with_optimizer=False)


def test_processes_draw_different_latents(monkeypatch):
    drawn = []
    for rank in range(2):
        monkeypatch.setattr("mlcil.models.generators.get_dist_info", lambda rank=rank: (rank, 2))
        torch.manual_seed(3)
        drawn.append(draw_latents(4, 5, torch.zeros(1, dtype=torch.float64)))
    torch.manual_seed(3)
    torch.testing.assert_close(torch.cat(drawn), torch.randn(8, 5).double())
