"""Batch norms inside the convolutions: the same outputs, and nothing else touched."""

import pytest
import torch
from golden import BACKBONE, SIZE
from torch import nn

from mlcil.engine.evaluate import folded_inside, predict_view
from mlcil.methods import KRT
from mlcil.methods.base import Method, SessionContext
from mlcil.methods.data_free import DataFree
from mlcil.models.folding import folded
from mlcil.models.inplace_abn import ABN
from mlcil.models.network import IncrementalNetwork

ICA = {"type": "ica", "embed_dim": 32, "num_heads": 4}


def network_of(backbone=BACKBONE, size=SIZE, head=ICA, **options):
    """A network whose batch norms do something: odd statistics, negative and zero weights."""
    torch.manual_seed(0)
    network = IncrementalNetwork(backbone, head, size, **options)
    network.grow(3)
    network.grow(2)
    with torch.no_grad():
        for module in network.backbone.modules():
            if isinstance(module, (ABN, nn.BatchNorm2d)):
                module.weight.uniform_(-1, 1)
                module.weight[0] = 0
                module.bias.uniform_(-0.5, 0.5)
                module.running_mean.normal_(0, 0.3)
                module.running_var.uniform_(0.2, 2)
    return network.eval()


@pytest.mark.parametrize(
    ("backbone", "size"), [(BACKBONE, SIZE), ({"name": "resnet32_abd"}, 32), ({"name": "resnet18_rdfcil"}, 32)]
)
def test_outputs_are_those_of_evaluation_mode(backbone, size):
    network = network_of(backbone, size).double()
    images = torch.rand(3, 3, size, size, dtype=torch.float64)
    found = folded(network)
    with torch.no_grad():
        expected, output = network(images), found(images)
    assert not any(isinstance(module, (ABN, nn.BatchNorm2d)) for module in found.backbone.modules())
    for ours, theirs in zip(output.maps, expected.maps, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.logits_BC, expected.logits_BC, rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(output.tokens_BSD, expected.tokens_BSD, rtol=1e-9, atol=1e-9)


def test_float32_and_channels_last():
    network = network_of()
    images = torch.rand(4, 3, SIZE, SIZE)
    found = folded(network).to(memory_format=torch.channels_last)
    with torch.inference_mode():
        torch.testing.assert_close(found(images).logits_BC, network(images).logits_BC, rtol=1e-4, atol=1e-5)


def test_the_network_itself_stays():
    network = network_of().train()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    found = folded(network)
    assert not found.training
    assert network.training
    assert found.head is network.head
    after = network.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], before[name]) for name in before)


def test_a_frozen_backbone_computes_its_own_maps():
    network = network_of(frozen_backbone=True)
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.no_grad():
        expected = network(images).logits_BC
        torch.testing.assert_close(folded(network)(images).logits_BC, expected, rtol=1e-4, atol=1e-5)


def test_the_rest_of_a_timm_model_stays():
    network = IncrementalNetwork({"name": "resnet10t"}, {"type": "linear"}, 64).eval()
    network.grow(2)
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(folded(network)(images).logits_BC, network(images).logits_BC, rtol=0, atol=0)
    method = Method(network)
    with folded_inside(method):  # and is not copied for nothing
        assert method.network is network


class Batches(list):
    """What ``predict_view`` asks of a loader."""

    dataset = range(5)


def test_prediction_pass():
    method = Method(network_of())
    batches = Batches([{"inputs": torch.rand(5, 3, SIZE, SIZE)}])
    plain, fast = (predict_view(method, batches, fold=fold) for fold in (False, True))
    for expected, found in zip(plain, fast, strict=True):
        torch.testing.assert_close(torch.tensor(found), torch.tensor(expected), rtol=1e-4, atol=1e-5)
    network = method.network
    with folded_inside(method):
        assert method.network is not network
    assert method.network is network


def context(index, low, high):
    return SessionContext(
        index=index,
        low=low,
        high=high,
        step=2,
        num_classes=6,
        label_cardinality=2.0,
        labels_per_image=1.0,
        batch_size=4,
    )


def test_a_folded_teacher_gives_the_same_loss():
    losses = []
    images, targets = torch.rand(4, 3, SIZE, SIZE), torch.zeros(4, 7)
    targets[:, 5] = 1
    for fold in (False, True):
        method = KRT(network_of())
        method.fold_teacher = fold
        torch.manual_seed(1)
        method.begin_session(context(2, 5, 7))
        batch_norms = [m for m in method.teacher.modules() if isinstance(m, ABN)]
        assert bool(batch_norms) != fold
        assert not any(p.requires_grad for p in method.teacher.parameters())
        old_head, new_head = method.teacher.head, method.network.head
        assert old_head is not new_head
        losses.append(method.train()(images, targets, mode="loss"))
    for name, value in losses[0].items():
        torch.testing.assert_close(losses[1][name], value, rtol=1e-4, atol=1e-5)


def test_methods_that_read_statistics_keep_them():
    assert DataFree.reads_statistics
    method = Method(network_of())
    method.uses_teacher = method.fold_teacher = method.reads_statistics = True
    method.begin_session(context(2, 5, 7))
    assert any(isinstance(m, ABN) for m in method.teacher.modules())


@pytest.mark.parametrize(("together", "expected"), [(False, torch.float32), (True, torch.bfloat16)])
def test_precision_of_the_teacher(together, expected):
    method = Method(network_of(head={"type": "linear"}), teacher_autocast=together)
    method._teacher = [method.network.frozen_copy()]
    images = torch.rand(2, 3, SIZE, SIZE)
    with torch.autocast("cpu", torch.bfloat16):
        assert method.teacher_output(images).logits_BC.dtype == expected
    assert method.teacher_output(images).logits_BC.dtype == torch.float32  # outside it is the student's too


def test_folding_in_inference_mode_gives_ordinary_tensors():
    network = network_of(frozen_backbone=True).eval()
    with torch.inference_mode():
        copied = folded(network)
        copied(torch.rand(1, 3, 32, 32))
    assert not any(x.is_inference() for x in copied.backbone.parameters())
