import pytest
import torch

from mlcil.models.backbones import build_backbone, grid_of
from mlcil.models.heads import FullLinearHead, SessionLinearHead
from mlcil.models.network import IncrementalNetwork, build_network
from mlcil.models.resnet import VARIANTS, ResNet, ZeroShortcut

# parameters of the papers' models without a head
PARAMETERS = {"resnet32_rdfcil": 463_504, "resnet18_rdfcil": 11_168_832}
GRIDS = {"resnet32_rdfcil": 8, "resnet18_rdfcil": 2, "resnet32_abd": 8, "resnet18_abd": 8}


@pytest.mark.parametrize("name", VARIANTS)
def test_variants(name):
    backbone = build_backbone(name, image_size=32)
    assert grid_of(backbone, 32) == (GRIDS[name], GRIDS[name])
    assert len(backbone(torch.rand(2, 3, 32, 32))) == len(VARIANTS[name]["blocks"])
    if name in PARAMETERS:
        assert sum(p.numel() for p in backbone.parameters()) == PARAMETERS[name]


def test_images_are_normalised_inside():
    torch.manual_seed(0)
    plain = ResNet((1,), (4,))
    torch.manual_seed(0)
    normalising = ResNet((1,), (4,), mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
    images = torch.rand(2, 3, 8, 8)
    expected = plain((images - normalising.mean) / normalising.std)[-1]
    torch.testing.assert_close(normalising(images)[-1], expected)
    assert "mean" not in normalising.state_dict()


def test_where_the_sums_are_rectified():
    maps = torch.randn(2, 4, 8, 8)
    for rectify, expected in (("always", [True, True]), ("first", [True, False]), ("never", [False, False])):
        blocks = ResNet((2,), (4,), rectify=rectify).stages[0]
        assert [bool((block(maps) >= 0).all()) for block in blocks] == expected


@pytest.mark.parametrize(("before", "behind"), [(0, 4), (2, 2)])
def test_shortcut_of_zeros(before, behind):
    x = torch.rand(1, 4, 6, 6)
    y = ZeroShortcut(before, behind, 2)(x)
    assert y.shape == (1, 8, 3, 3)
    torch.testing.assert_close(y[:, before : before + 4], x[..., ::2, ::2])
    assert not y[:, :before].any()
    assert not y[:, before + 4 :].any()


@pytest.mark.parametrize("options", [{"shortcut": "none"}, {"rectify": "last"}, {"init": "zeros"}, {"blocks": (1, 1)}])
def test_options_are_checked(options):
    with pytest.raises(ValueError, match=r"unknown|widths"):
        ResNet(**options)


def test_a_head_of_sessions_keeps_old_layers():
    head = SessionLinearHead(8)
    head.grow(3)
    before = head.classifiers[0].weight.clone()
    head.grow(2)
    assert torch.equal(head.classifiers[0].weight, before)
    assert head(torch.rand(4, 8, 2, 2))[0].shape == (4, 5)
    assert all(layer.bias is None for layer in head.classifiers)
    assert head.classifiers[1].weight.abs().max() < 0.01


def test_a_full_head_shows_what_was_seen():
    head = FullLinearHead(8, 5)
    head.grow(2)
    features = torch.rand(4, 8, 2, 2)
    assert head(features)[0].shape == (4, 2)
    head.grow(3)
    torch.testing.assert_close(head(features)[0], head.classify(features.mean((2, 3))))
    with pytest.raises(ValueError, match=r"5 outputs and shows 5.*num_classes"):
        head.grow(1)


@pytest.mark.parametrize("head", [{"type": "session_linear"}, {"type": "full_linear", "num_classes": 7}])
def test_a_network_is_rebuilt_from_its_description(head):
    network = IncrementalNetwork({"name": "resnet32_abd", "blocks": (1,), "widths": (4,)}, head, 16).double()
    for classes in (3, 2):
        network.grow(classes)
    again = build_network(network.spec, network.classes_per_session).double()
    again.load_state_dict(network.state_dict())
    images = torch.rand(2, 3, 16, 16, dtype=torch.float64)
    torch.testing.assert_close(again(images).logits_BC, network(images).logits_BC)
