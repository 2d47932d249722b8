"""CSC's head against loops over classes; what growth keeps."""

import torch
import torch.nn.functional as F

from mlcil.models.heads import CSCHead


def head_of(*classes, width=6):
    torch.manual_seed(0)
    head = CSCHead(8, width)
    for count in classes:
        head.grow(count)
    for parameter in head.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return head.double().eval()


def maps_of(images=3):
    return torch.randn(images, 8, 2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def by_hand(head, x_K):
    """Logits of both branches of one image's map (K, h, w), class by class."""
    x_TK = x_K.flatten(1).T
    cam, mix, relation, readout = (head.grown[name] for name in ("cam", "mix", "relation", "readout"))

    def leaky(x):
        return torch.where(x > 0, x, 0.2 * x)

    maps = [x_TK @ cam.weight[c] for c in range(cam.out_features)]
    v0 = [m.softmax(0) @ head.project(x_TK) for m in maps]
    mixed = [sum(mix.weight[c, k] * v0[k] for k in range(len(v0))) for c in range(len(v0))]
    v1 = [a + leaky(head.general(leaky(b))) for a, b in zip(v0, mixed, strict=True)]
    pooled = head.pooled(torch.stack(v1).mean(0))
    norm = head.norm
    whole = leaky((pooled - norm.running_mean) / (norm.running_var + norm.eps).sqrt() * norm.weight + norm.bias)
    shares = [torch.sigmoid(relation(torch.cat([whole, node]))) for node in v1]
    v2 = [leaky(head.specific(leaky(sum(s[k] * v1[k] for k in range(len(v1)))))) for s in shares]
    graph = [readout.weight[c] @ (v0[c] + v2[c]) + readout.bias[c] for c in range(len(v0))]
    return torch.stack([m.max() for m in maps]), torch.stack(graph)


def test_both_branches_and_their_mean():
    head, maps = head_of(2, 3), maps_of()
    cam_BC, graph_BC = head.branches(maps)
    for image, cam_C, graph_C in zip(maps, cam_BC, graph_BC, strict=True):
        wanted_cam, wanted_graph = by_hand(head, image)
        torch.testing.assert_close(cam_C, wanted_cam)
        torch.testing.assert_close(graph_C, wanted_graph)
    logits_BC, tokens = head(maps)
    torch.testing.assert_close(logits_BC, (cam_BC + graph_BC) / 2)
    assert tokens is None


def test_the_specific_graph_is_each_images_own():
    head = head_of(4)
    seen = []
    relations = head.relations
    head.relations = lambda v1_BCE: seen.append(relations(v1_BCE)) or seen[-1]
    head(maps_of())
    assert seen[0].shape == (3, 4, 4)
    assert ((seen[0] > 0) & (seen[0] < 1)).all()
    assert not torch.allclose(seen[0][0], seen[0][1])


def test_growth_copies_every_old_block_with_its_biases():
    head = head_of(3)
    before = {name: value.clone() for name, value in head.state_dict().items()}
    head.grow(2)
    after = head.state_dict()
    assert after.keys() == before.keys()
    for name, value in before.items():
        kept = after[name][tuple(slice(length) for length in value.shape)]
        assert torch.equal(kept, value), name
        assert after[name].dtype == value.dtype
    assert not after["grown.mix.weight"][:3, 3:].any()
    assert after["grown.mix.weight"][3:].all()


def test_growth_keeps_map_logits_and_the_general_graph_of_old_classes():
    head, maps = head_of(3), maps_of()

    def own_nodes(v1_BCE):  # without the image-specific graph
        return torch.eye(v1_BCE.shape[1], dtype=v1_BCE.dtype).expand(len(v1_BCE), -1, -1)

    whole_before, _ = head(maps)
    relations, head.relations = head.relations, own_nodes
    cam_before, graph_before = head.branches(maps)
    head.grow(2)
    head.double()
    cam_after, graph_after = head.branches(maps)
    torch.testing.assert_close(cam_after[:, :3], cam_before, rtol=0, atol=1e-12)
    torch.testing.assert_close(graph_after[:, :3], graph_before, rtol=0, atol=1e-12)
    head.relations = relations
    assert not torch.allclose(head(maps)[0][:, :3], whole_before)  # an image's graph takes the new nodes in


def test_everything_trains_and_one_image_is_enough():
    head = head_of(2, 2).train()
    head.freeze_old_sessions()
    loss = F.softplus(head(maps_of(1))[0]).sum()
    loss.backward()
    assert all(parameter.grad is not None for parameter in head.parameters())
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())
