"""TResNet: sizes, initial values, and that branches which start at zero can learn."""

import copy
from types import ModuleType

import pytest
import timm
import torch

from mlcil.models.backbones import build_backbone, grid_of
from mlcil.models.inplace_abn import ABN
from mlcil.models.tresnet import VARIANTS, BasicBlock, Bottleneck, TResNet


@pytest.mark.parametrize("name", VARIANTS)
def test_parameter_counts_are_those_of_timm(name):
    ours = build_backbone(name)
    theirs = timm.create_model(name, num_classes=0)
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in theirs.parameters())
    assert ours.out_channels == theirs.num_features


def test_parameters_of_the_m_variant():
    assert sum(p.numel() for p in build_backbone("tresnet_m").parameters()) == 29_340_032


def test_maps_of_the_four_stages():
    net = build_backbone("tresnet", 64, layers=[1, 1, 1, 1], width=0.25).eval()
    shapes = [tuple(m.shape[1:]) for m in net(torch.rand(2, 3, 64, 64))]
    assert shapes == [(16, 16, 16), (32, 8, 8), (256, 4, 4), (512, 2, 2)]
    assert grid_of(net, 64) == (2, 2)


def test_the_last_norm_of_every_branch_starts_at_zero_and_moves():
    net = build_backbone("tresnet", 64, layers=[1, 1, 1, 1], width=0.25, abn="torch")
    last = [m.conv2.abn for m in net.modules() if isinstance(m, BasicBlock)]
    last += [m.conv3.abn for m in net.modules() if isinstance(m, Bottleneck)]
    assert all((abn.weight == 0).all() for abn in last)
    net(torch.rand(2, 3, 64, 64))[-1].square().sum().backward()
    assert all(abn.weight.grad.abs().sum() > 0 for abn in last)


def test_image_sizes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="multiple of 32"):
        build_backbone("tresnet_m", 100)


def test_names_that_do_not_exist_suggest_near_ones():
    with pytest.raises(ValueError, match="resnet18"):
        build_backbone("resnet_18")


@pytest.mark.parametrize(("name", "channels", "grid"), [("test_resnet", 96, (2, 2)), ("test_vit", 64, (4, 4))])
def test_timm_backbones_give_their_last_map(name, channels, grid):
    net = build_backbone(name, 64)
    assert grid_of(net, 64) == grid
    assert net(torch.rand(1, 3, 64, 64))[-1].shape == (1, net.out_channels, *grid)
    assert net.out_channels == channels


@pytest.mark.parametrize("slope", [None, 0.01])
@pytest.mark.parametrize("training", [True, False])
def test_abn_is_batch_norm_with_the_absolute_weight(slope, training):
    torch.manual_seed(0)
    abn = ABN(5, slope, implementation="torch").double().train(training)
    plain = torch.nn.BatchNorm2d(5).double().train(training)
    torch.nn.init.normal_(abn.weight)
    with torch.no_grad():
        plain.weight.copy_(abn.weight.abs() + 1e-5)
    x = torch.randn(4, 5, 3, 3, dtype=torch.float64)
    expected = plain(x)
    if slope is not None:
        expected = torch.nn.functional.leaky_relu(expected, slope)
    torch.testing.assert_close(abn(x), expected)
    torch.testing.assert_close(abn.running_var, plain.running_var)
    assert set(abn.state_dict()) == set(plain.state_dict())


def test_own_abn_agrees_with_the_package():
    package = pytest.importorskip("inplace_abn", reason="the package inplace-abn is optional")
    torch.manual_seed(0)
    ours = ABN(6, 1e-3, implementation="torch")
    theirs = package.InPlaceABN(6, activation="leaky_relu", activation_param=1e-3)
    torch.nn.init.normal_(ours.weight)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(4, 6, 5, 5)
    for train in (True, False):
        a, b = x.clone().requires_grad_(True), x.clone().requires_grad_(True)
        y, z = ours.train(train)(a * 1), theirs.train(train)(b * 1)
        torch.testing.assert_close(y, z, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(ours.running_var, theirs.running_var)


def test_the_package_is_used_when_it_imports(monkeypatch):
    calls = []

    def inplace_abn(x, weight, bias, mean, var, training, momentum, eps, activation, slope):
        calls.append((training, momentum, eps, activation, slope))
        return x

    package = ModuleType("inplace_abn")
    package.inplace_abn = inplace_abn
    monkeypatch.setattr("mlcil.models.inplace_abn.load_package", lambda: package)
    abn = copy.deepcopy(ABN(3, 0.01))  # as for a teacher
    abn.train()(torch.rand(2, 3, 4, 4))
    abn.eval()(torch.rand(2, 3, 4, 4))  # evaluation gains nothing from the package
    assert calls == [(True, 0.1, 1e-5, "leaky_relu", 0.01)]


def test_recomputed_blocks_give_the_same_step_with_less_kept():
    """Outputs, gradients and running statistics; the statistics move once a step."""
    found, kept = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        network = TResNet([2, 1, 2, 1], 0.25, recompute=recompute).double().train()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if name.endswith("abn.weight"):
                    parameter.fill_(0.5)
        bytes_kept = []
        images = torch.rand(3, 3, 64, 64, dtype=torch.float64)
        with torch.autograd.graph.saved_tensors_hooks(lambda x, b=bytes_kept: b.append(x.nbytes) or x, lambda x: x):
            last = network(images)[-1]
        kept.append(sum(bytes_kept))
        last.square().mean().backward()
        state = [value.clone() for value in network.state_dict().values()]
        found.append([last.detach(), *(p.grad for p in network.parameters()), *state])
    assert len(found[0]) == len(found[1])
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=1e-9, atol=1e-12)
    assert kept[1] < kept[0] / 2
