import pytest
import tiny
import torch

from mlcil.models.network import IncrementalNetwork, build_network

ROWS = {"type": "session_linear"}


def composed(parts):
    return {"type": "composed", "parts": parts}


@pytest.mark.parametrize("head", [{"type": "linear"}, tiny.ICA])
def test_finished_heads_stand_side_by_side(head):
    torch.manual_seed(0)
    old = build_network({"backbone": tiny.BACKBONE, "head": head, "image_size": tiny.SIZE}, [2, 1]).eval()
    spec = {**old.spec, "head": composed([{"head": head, "sizes": [2, 1]}, {"head": ROWS, "sizes": [2]}])}
    new = build_network(spec, [2, 1, 2]).eval()
    new.backbone.load_state_dict(old.backbone.state_dict())
    new.head.parts[0].load_state_dict(old.head.state_dict())
    images = torch.rand(3, 3, tiny.SIZE, tiny.SIZE)
    logits = new(images).logits_BC
    assert logits.shape == (3, 5)
    assert torch.equal(logits[:, :3], old(images).logits_BC)
    pooled = new(images).features_BK
    torch.testing.assert_close(logits[:, 3:], pooled @ new.head.parts[1].classifiers[0].weight.T)


def test_columns_choose_and_order_outputs():
    parts = [{"head": ROWS, "sizes": [2, 2], "columns": [3, 0]}, {"head": ROWS, "sizes": [1]}]
    network = IncrementalNetwork(tiny.BACKBONE, composed(parts), tiny.SIZE)
    network.grow(3)
    network.eval()
    output = network(torch.rand(2, 3, tiny.SIZE, tiny.SIZE))
    all_of_it = network.head.parts[0](output.maps[-1])[0]
    assert torch.equal(output.logits_BC[:, :2], all_of_it[:, [3, 0]])
    with pytest.raises(ValueError, match="4 classes, but the heads of the parts have 3 outputs"):
        network.grow(1)


def test_what_cannot_be_composed():
    with pytest.raises(ValueError, match=r"columns \[2\] are not all among the 2 outputs"):
        IncrementalNetwork(tiny.BACKBONE, composed([{"head": ROWS, "sizes": [2], "columns": [2]}]), tiny.SIZE)
    with pytest.raises(ValueError, match="head type 'tail' is unknown"):
        IncrementalNetwork(tiny.BACKBONE, composed([{"head": {"type": "tail"}, "sizes": [2]}]), tiny.SIZE)
