import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from mlcil.models.generators import VAE, Generator, doubling_kernel, draw_latents, layout
from mlcil.models.inversion import (
    BatchNormStatistics,
    Inversion,
    InversionSettings,
    class_balance,
    effective_classes,
    gaussian_divergence,
    gaussian_kernel,
    moments,
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


@pytest.mark.parametrize("bias", [True, False])
def test_a_doubled_convolution_is_one_transposed_convolution(bias):
    torch.manual_seed(0)
    x = torch.randn(2, 3, 5, 4, dtype=torch.float64, requires_grad=True)
    layer = nn.Conv2d(3, 6, 3, padding=1, bias=bias).double()
    expected = layer(F.interpolate(x, scale_factor=2.0))
    found = F.conv_transpose2d(x, doubling_kernel(layer.weight), layer.bias, stride=2, padding=1)
    torch.testing.assert_close(found, expected)
    cost = torch.randn_like(expected)
    for value in (x, layer.weight):
        one, two = (torch.autograd.grad((y * cost).sum(), value, retain_graph=True)[0] for y in (expected, found))
        torch.testing.assert_close(one, two)


def test_moments_and_their_gradients():
    torch.manual_seed(0)
    x = (torch.randn(4, 3, 5, 6, dtype=torch.float64) * 3 + 2).requires_grad_()
    v, m = torch.var_mean(x, (0, 2, 3), correction=0)
    found = moments(x)
    torch.testing.assert_close(found, (m, v))
    weights = torch.randn(2, 3, dtype=torch.float64)
    one, two = (
        torch.autograd.grad((weights * torch.stack(pair)).sum(), x)[0] for pair in ((m, v), (found[0], found[1]))
    )
    torch.testing.assert_close(one, two)
    assert torch.autograd.gradcheck(moments, x.detach().requires_grad_())


def test_smoothing_is_a_convolution_with_reflected_borders():
    images = torch.rand(2, 3, 7, 9, dtype=torch.float64)
    weight = gaussian_kernel().expand(3, 1, 5, 5)
    expected = F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), weight, groups=3)
    torch.testing.assert_close(smoothed(images), expected)


def test_narrow_generators():
    generator = Generator(32, width=16)
    assert [block.conv.out_channels for block in generator.blocks] == [16, 16]
    assert generator(torch.randn(2, 1000)).shape == (2, 3, 32, 32)


def test_half_precision_keeps_the_terms_near(teacher):
    terms = []
    for precision in ("fp32", "bf16"):
        torch.manual_seed(2)
        inversion = Inversion(teacher, InversionSettings(precision=precision, channels_last=precision == "bf16"))
        terms.append({k: float(v) for k, v in inversion.step(teacher, inversion.latents(32)).items()})
    for name, value in terms[0].items():
        assert terms[1][name] == pytest.approx(value, rel=0.05, abs=0.02), name
    assert terms[0] != terms[1]


def test_the_sheet_is_always_the_same_and_draws_from_nobody(teacher):
    torch.manual_seed(3)
    inversion = Inversion(teacher, InversionSettings(iterations=3))
    inversion.fit(teacher, 16)
    state = torch.get_rng_state()
    images, labels, shown = inversion.sheet(teacher, 2)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(inversion.sheet(teacher, 2)[0], images)
    assert labels.tolist() == sorted(labels.tolist())
    assert max(labels.bincount()) <= 2
    assert len(images) == len(labels)
    assert 1 <= shown <= 4


def test_classes_that_a_mean_prediction_shows():
    for shown in (1, 3, 4):
        logits = 50 * torch.eye(4)[torch.arange(12) % shown]
        assert effective_classes(float(class_balance(logits)), 4) == pytest.approx(shown, abs=1e-3)
    assert effective_classes(0.3, 1) == 1
