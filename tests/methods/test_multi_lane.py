"""MULTI-LANE: its loss by hand, and runs in which old scores, checkpoint and tagger give the same bits."""

import pytest
import torch
from engine.test_run import assert_same_weights, config, scenes, weights, without_clock  # noqa: F401  (a fixture)
from golden import BATCH, SIZE, VIT
from tiny import run_until, runner_of

from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.engine.train import train
from mlcil.methods import MultiLane
from mlcil.methods.base import Batch, SessionContext
from mlcil.models.network import IncrementalNetwork
from mlcil.tagger import tagger

LANES = {"type": "lanes", "tokens": 4, "prompts": 3, "prompt_blocks": 2}


def lanes_config(scenes, folder, name="run"):  # noqa: F811
    backbone = {**VIT, "trunk": {**VIT["trunk"], "patch_size": 8}}
    return config(
        scenes,
        folder,
        name,
        network={"backbone": backbone, "head": LANES, "frozen_backbone": True},
        method={"type": "MultiLane"},
        train_cfg={"save_interval": 2},
    )


@pytest.fixture(scope="module")
def finished(scenes, tmp_path_factory):  # noqa: F811
    """A finished run, some test images, and their logits by every session's checkpoint."""
    folder = tmp_path_factory.mktemp("lanes")
    runner = runner_of(lanes_config(scenes, folder))
    runner.train()
    table = runner.run_settings.scenario.test
    images = torch.stack([torch.from_numpy(table.fitted(row, 32)) for row in range(5)]).permute(0, 3, 1, 2) / 255
    logits = []
    for t in range(3):
        network = StageCheckpoint.load(folder / "saved" / "run" / f"session_{t}.pth").build()
        with torch.no_grad():
            logits.append(network(images).logits_BC)
    return folder, images, logits


def test_later_sessions_change_no_bit_of_old_scores(finished):
    _, _, logits = finished
    assert [part.shape[1] for part in logits] == [4, 7, 10]
    assert torch.equal(logits[1][:, :4], logits[0])
    assert torch.equal(logits[2][:, :7], logits[1])


def test_every_session_has_trained_its_lane_and_the_tagger_tags(finished):
    folder, images, logits = finished
    loaded = tagger.load(folder / "saved" / "run" / "session_2.pth", precision="fp32")
    torch.testing.assert_close(loaded.scores(images), torch.sigmoid(logits[2]), rtol=0, atol=1e-6)
    lanes = [lane.state_dict() for lane in loaded.network.head.lanes]
    for name in ("tokens", "prompts"):
        assert not torch.equal(lanes[0][name], lanes[1][name])
        assert not torch.equal(lanes[1][name], lanes[2][name])


def test_a_stopped_run_goes_on_with_the_same_numbers(finished, scenes, tmp_path):  # noqa: F811
    folder, _, _ = finished
    run_until(lanes_config(scenes, tmp_path), session=1, epoch=1)
    train(lanes_config(scenes, tmp_path), resume=True)
    assert_same_weights(*(weights(place / "saved" / "run" / "session_2.pth") for place in (folder, tmp_path)))


def test_the_loss_by_hand():
    torch.manual_seed(0)
    method = MultiLane(IncrementalNetwork(VIT, LANES, SIZE, frozen_backbone=True))
    for index, (low, high) in enumerate(((0, 2), (2, 5))):
        method.begin_session(SessionContext(index, low, high, 3, 5, 2.0, 1.0, BATCH))
    method.train()
    images = torch.rand(2, 3, SIZE, SIZE)
    targets = torch.tensor([[-1.0, -1, 1, 0, -1], [-1, -1, 0, 0, 1]])
    found = method.loss(Batch(images, targets, torch.arange(2), torch.ones(2, dtype=torch.int64)))["loss_cls"]
    p = torch.sigmoid(method.network(images).logits_BC)
    expected = -(p[0, 2].log() + (1 - p[0, 3]).log() + (1 - p[1, 2]).log() + (1 - p[1, 3]).log() + p[1, 4].log()) / 5
    torch.testing.assert_close(found, expected)


def test_what_it_refuses():
    with pytest.raises(ValueError, match=r"needs network\.head\.type='lanes' and network\.frozen_backbone=True"):
        MultiLane(IncrementalNetwork(VIT, LANES, SIZE))
    with pytest.raises(ValueError, match=r"needs network\.head\.type='lanes'"):
        MultiLane(IncrementalNetwork(VIT, {"type": "linear"}, SIZE, frozen_backbone=True))
