import pytest
import torch

from mlcil.errors import UserError
from mlcil.interop.official import dual_blocks, from_transformer, is_unused, to_transformer, transformer_sessions
from mlcil.models.network import build_network

CASES = {"dkt": {}, "daformer": {"edition": "M"}, "daformer S": {"edition": "S"}}


def network(case, classes):
    torch.manual_seed(0)
    method = case.split()[0]
    spec = {
        "backbone": {"name": method, "dim": 16, "depth": 2, "heads": 4},
        "head": {"type": method, "num_heads": 4, **CASES[case]},
        "image_size": 32,
    }
    return build_network(spec, classes), method


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("classes", [[4], [4, 2], [4, 2, 2, 2]])
def test_round_trip(case, classes):
    model, method = network(case, classes)
    ours = model.state_dict()
    official = to_transformer(ours, method)
    again, unknown = from_transformer({f"module.{name}": value for name, value in official.items()}, method)
    assert not unknown
    assert again.keys() == ours.keys()
    for name, value in ours.items():
        torch.testing.assert_close(again[name], value, rtol=0, atol=0, msg=name)
    assert transformer_sessions(official, method) == classes
    model.load_state_dict(again, strict=True)


def test_names_of_the_releases():
    official = to_transformer(network("dkt", [4, 2])[0].state_dict(), "dkt")
    assert official["sabs.1.attn.k.weight"].shape == (16, 16)
    expected = """general_token patch_embed.proj4.bias sabs.0.mlp.bn2.running_var tabs.attnCA.q.bias
        tabs.mlp.dwconv.weight task_tokens.1 head.0.head.weight head.1.norm.bias"""
    assert not set(expected.split()) - set(official)
    official = to_transformer(network("daformer", [4, 2])[0].state_dict(), "daformer")
    assert official["keys.1.weight"].shape == (64, 4, 1, 1)
    expected = """pos_embed patch_embed.proj.weight sabs.0.attn.gating_param sabs.0.attn.qk.weight
        sabs.1.attn.pos_proj.bias duals.0.attn.to_v.weight duals.0.mlp.fc2.bias keys.0.bias
        head.1.head.weight head_div.norm.weight"""
    assert not set(expected.split()) - set(official)


def test_unused_entries_are_left_out():
    assert is_unused("patch_embed.proj.1.running_mean", "dkt")
    assert is_unused("tabs.attnCA.proj1.bias", "dkt")
    assert not is_unused("patch_embed.proj1.weight", "dkt")
    assert is_unused("duals.0.attn.proj.weight", "daformer")
    assert not is_unused("patch_embed.proj.weight", "daformer")
    assert from_transformer({"patch_embed.proj.0.weight": torch.ones(1)}, "dkt") == ({}, [])


def test_unknown_entries_are_named():
    assert from_transformer({"odd.weight": torch.ones(1)}, "dkt")[1] == ["odd.weight"]
    with pytest.raises(UserError, match="odd has no counterpart in the official layout of daformer"):
        to_transformer({"odd": torch.ones(1)}, "daformer")


def test_the_last_of_several_dual_blocks_counts():
    model, method = network("daformer", [4, 2])
    official = to_transformer(model.state_dict(), method)
    two = {name.replace("duals.0.", "duals.1."): value for name, value in official.items()}
    two.update({name: value + 1 for name, value in official.items() if name.startswith("duals.0.")})
    assert dual_blocks(f"module.{name}" for name in two) == 2
    assert is_unused("duals.0.norm1.weight", method, 2)
    assert not is_unused("duals.1.norm1.weight", method, 2)
    with pytest.warns(UserWarning, match="2 dual blocks.*last one's result only"):
        ours, unknown = from_transformer(two, method)
    assert not unknown
    assert ours.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=0, msg=name)
