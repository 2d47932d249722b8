from typing import Any

import pytest
import tiny
import torch
from torch import Tensor

from mlcil.errors import UserError
from mlcil.interop.official import COCO_CLASSES, from_official, sessions_in, strip_prefixes, to_official
from mlcil.models.network import IncrementalNetwork
from mlcil.models.tresnet import VARIANTS


def network(head: dict[str, Any], layers: tuple[int, ...] = (2, 2, 3, 2)) -> IncrementalNetwork:
    made = IncrementalNetwork({**tiny.BACKBONE, "layers": list(layers)}, head, tiny.SIZE)
    made.grow(3)
    made.grow(2)
    return made


def same(left: dict[str, Tensor], right: dict[str, Tensor]) -> bool:
    return left.keys() == right.keys() and all(torch.equal(left[name], right[name]) for name in left)


@pytest.mark.parametrize("head", [{"type": "linear"}, tiny.ICA])
def test_round_trip(head: dict[str, Any]) -> None:
    ours = network(head).state_dict()
    official = to_official(ours)
    assert len(official) == len(ours)
    again, unknown = from_official(official)
    assert not unknown
    assert same(again, dict(ours))


@pytest.mark.parametrize("prefix", ["module.", "body.", "module.body."])
def test_prefixes(prefix: str) -> None:
    ours = network(tiny.ICA).state_dict()
    official = {prefix + name: value for name, value in to_official(ours).items()}
    again, unknown = from_official(official)
    assert not unknown
    assert same(again, dict(ours))
    assert sessions_in(official) == [3, 2]


def test_strip_prefixes() -> None:
    assert strip_prefixes("module.body.conv1.0.weight") == "conv1.0.weight"
    assert strip_prefixes("tab.norm1.bias") == "tab.norm1.bias"


def test_names_of_the_release() -> None:
    official = to_official(network(tiny.ICA).state_dict())
    expected = """pos_embed cls_token task_tokens.1 last_proj.weight tab.norm1.weight tab.attn.q.weight tab.mlp.fc2.bias
        head.1.head.bias head.0.norm.weight conv1.0.weight conv1.1.running_var layer1.0.conv2.0.weight
        layer2.0.conv1.0.0.weight layer2.1.conv1.0.weight layer3.0.conv2.0.0.weight layer3.0.se.fc1.weight
        layer2.0.downsample.1.0.weight layer4.0.conv3.1.bias"""
    absent = set(expected.split()) - set(official)
    assert not absent, sorted(official)


def test_unknown_entries_are_named() -> None:
    assert from_official({"conv1.0.weight": torch.ones(1), "odd.weight": torch.ones(1)})[1] == ["odd.weight"]
    with pytest.raises(UserError, match="odd has no counterpart"):
        to_official({"odd": torch.ones(1)})


def test_all_variants_have_names_in_both_layouts() -> None:
    for name in VARIANTS:
        with torch.device("meta"):
            ours = IncrementalNetwork({"name": name}, {"type": "linear"}, 64).state_dict()
        assert set(from_official(to_official(ours))[0]) == set(ours)


def test_negative_timm_norms_are_refused() -> None:
    state = {"body.conv1.bn.weight": -torch.ones(2), "body.conv1.conv.weight": torch.ones(2)}
    with pytest.raises(UserError, match=r"body\.conv1\.bn\.weight has negative entries"):
        from_official(state)


def test_coco_classes() -> None:
    assert len(set(COCO_CLASSES)) == 80
    assert list(COCO_CLASSES) == sorted(COCO_CLASSES)
