"""What DKT and DAFormer add to the loss, and when."""

import pytest
import torch

from mlcil.methods import DKT, DAFormer
from mlcil.methods.base import BalancedFinetuning, SessionContext
from mlcil.models.network import IncrementalNetwork

SMALL = {"dim": 16, "depth": 2, "heads": 4, "drop_path": 0.0}


def network(kind, **head):
    return IncrementalNetwork({"name": kind, **SMALL}, {"type": kind, "num_heads": 4, **head}, 32)


def losses(method, sessions=2, images=6):
    torch.manual_seed(1)
    for index in range(sessions):
        low, high = 2 * index, 2 * index + 2
        method.begin_session(SessionContext(index, low, high, 2, 8, None, 1.0, batch_size=images))
    method.train()
    targets = torch.nn.functional.one_hot(torch.arange(images) % high, high).float()
    return method(torch.rand(images, 3, 32, 32), targets, mode="loss")


@pytest.mark.parametrize("method", [DKT(network("dkt")), DAFormer(network("daformer", drop_path=0.0))])
def test_the_first_session_has_the_classification_loss_alone(method):
    assert set(losses(method, sessions=1)) == {"loss_cls"}


def test_terms_of_dkt():
    assert set(losses(DKT(network("dkt")))) == {"loss_cls", "loss_kd", "loss_cs"}
    assert set(losses(DKT(network("dkt"), separation=0.0))) == {"loss_cls", "loss_kd"}


def test_the_released_code_adds_the_classification_loss_twice():
    found = []
    for fix in (False, True):
        torch.manual_seed(0)
        found.append(losses(DKT(network("dkt"), clf_weight_fix=fix))["loss_cls"].item())
    assert found[0] == pytest.approx(2 * found[1])


@pytest.mark.parametrize(
    ("distillation", "terms"),
    [
        ("plain", {"loss_kd"}),
        ("neighbours", {"loss_nn"}),
        ("both", {"loss_kd", "loss_nn"}),
    ],
)
@pytest.mark.parametrize("edition", ["M", "S"])
def test_terms_of_daformer(distillation, terms, edition):
    method = DAFormer(network("daformer", edition=edition, drop_path=0.0), distillation=distillation, neighbours=3)
    assert set(losses(method)) == {"loss_cls", "loss_div"} | terms


def test_plain_distillation_is_the_default():
    assert DAFormer(network("daformer")).distillation == "plain"
    assert DAFormer(network("daformer")).network.head.edition == "M"


def test_unknown_distillation():
    with pytest.raises(ValueError, match="distillation 'knn' is unknown; use one of plain, neighbours, both"):
        DAFormer(network("daformer"), distillation="knn")


@pytest.mark.parametrize("method", [DKT(network("dkt")), DAFormer(network("daformer", drop_path=0.0))])
def test_fine_tuning_lets_go_of_the_teacher(method):
    losses(method)
    assert method.teacher is not None
    method.begin_finetuning()
    assert method.teacher is None
    trained = {name.split(".")[0] for name, p in method.network.named_parameters() if p.requires_grad}
    assert "head" in trained
    method.begin_session(SessionContext(2, 4, 6, 2, 8, None, 1.0, batch_size=6))
    assert all(p.requires_grad for p in method.network.backbone.parameters())


def test_a_phase_only_where_it_is_asked_for():
    assert DKT(network("dkt")).finetuning is None
    assert DKT(network("dkt"), finetuning={"epochs": 4}).finetuning == BalancedFinetuning(epochs=4)
    with pytest.raises(TypeError, match="epoch"):
        DKT(network("dkt"), finetuning={"epoch": 4})
