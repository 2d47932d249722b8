from types import SimpleNamespace

import numpy as np
import torch

from mlcil.methods.daformer import DAFormer, MixUp, mix_up, mixing_weight, smooth


def test_an_image_meets_its_mirror_image_in_the_batch():
    inputs = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 3, 2, 2)
    targets = torch.eye(4)
    mixed, soft = mix_up(inputs, targets, 0.75)
    torch.testing.assert_close(mixed[:, 0, 0, 0], torch.tensor([0.75, 1.25, 1.75, 2.25]))
    torch.testing.assert_close(soft[0], torch.tensor([0.75, 0, 0, 0.25]))
    assert (inputs[0] == 0).all()


def test_the_middle_of_an_odd_batch_stays():
    inputs = torch.rand(3, 3, 2, 2)
    mixed, soft = mix_up(inputs, torch.eye(3), 0.3)
    torch.testing.assert_close(mixed[1], inputs[1])
    torch.testing.assert_close(soft[1], torch.eye(3)[1])


def test_label_smoothing():
    torch.testing.assert_close(smooth(torch.eye(2), 0.1), torch.tensor([[0.95, 0.05], [0.05, 0.95]]))


def test_without_probability_nothing_is_mixed():
    assert mixing_weight(np.random.default_rng(0), 0.8, probability=0.0) == 1.0


def test_a_batch_is_mixed_by_its_place_alone():
    method = SimpleNamespace(mixup=MixUp())

    def mixed(epoch, index):
        batch = {"inputs": torch.eye(4)[:, :3, None, None], "targets": torch.eye(4)}
        DAFormer.mix(method, batch, (3, 1, 0, epoch, index, 0))
        return batch["targets"]

    torch.testing.assert_close(mixed(2, 5), mixed(2, 5), rtol=0, atol=0)
    assert not torch.equal(mixed(2, 5), mixed(2, 6))
    assert not torch.equal(mixed(2, 5), mixed(3, 5))


def test_what_is_unknown_does_not_leak_into_a_mixture():
    images = torch.rand(2, 3, 2, 2)
    unknown, absent = torch.tensor([[-1.0, 1.0, 0.0], [-1.0, 0.0, 1.0]]), torch.tensor([[0.0, 1, 0], [0, 0, 1]])
    for found, expected in zip(mix_up(images, unknown, 0.7, 0.1), mix_up(images, absent, 0.7, 0.1), strict=True):
        assert torch.equal(found, expected)
    assert unknown[0, 0] == -1
