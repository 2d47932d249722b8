import random
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch

from mlcil.engine import checkpoint
from mlcil.errors import UserError


def test_plain_has_tensors_and_builtins_only() -> None:
    parameter = torch.nn.Parameter(torch.ones(2))
    given = {"a": np.float32(1.5), "b": (np.int64(2), [np.arange(3)]), 3: parameter, "c": None, "d": np.bool_(True)}
    found = checkpoint.plain(given)
    assert type(found["a"]) is float
    assert type(found["b"]) is list
    assert type(found["b"][0]) is int
    assert type(found["d"]) is bool
    assert torch.equal(found["b"][1][0], torch.arange(3))
    assert not found[3].requires_grad
    assert found["c"] is None


def test_what_is_saved_loads_without_unpickling_code(tmp_path: Path) -> None:
    checkpoint.save(tmp_path / "x.pth", {"scores": np.ones((2, 3)), "mAP": np.float64(3.5), "t": torch.ones(2)})
    found = torch.load(tmp_path / "x.pth", weights_only=True)
    assert found["mAP"] == 3.5
    assert found["scores"].dtype == torch.float64


def draw() -> list[float]:
    plain = [random.random(), random.gauss(0, 1), torch.rand(1).item()]
    return [*plain, float(np.random.rand()), float(np.random.randn())]


def test_random_state_goes_on(tmp_path: Path) -> None:
    draw()  # leaves a second normal number in python's and numpy's generators
    checkpoint.save(tmp_path / "x.pth", checkpoint.random_state())
    expected = draw()
    draw()
    checkpoint.restore_random_state(torch.load(tmp_path / "x.pth", weights_only=True))
    assert draw() == expected


@pytest.mark.parametrize("head", [{"type": "linear"}, tiny.ICA])
def test_network_of_a_stage(tmp_path: Path, head: dict[str, object]) -> None:
    stage = checkpoint.load_stage(tiny.write_stage(tmp_path / "s.pth", head=head))
    network = checkpoint.network_of(stage)
    assert not network.training
    images = torch.rand(2, 3, tiny.SIZE, tiny.SIZE)
    logits = network(images).logits_BC
    assert logits.shape == (2, 2)
    assert torch.equal(logits, checkpoint.network_of(tiny.stage_content(head=head))(images).logits_BC)


def test_stages_of_several_sessions(tmp_path: Path) -> None:
    stage = tiny.stage_content(head=tiny.ICA)
    network = checkpoint.network_of(stage)
    network.grow(3)
    stage.update(classes_per_session=network.classes_per_session, state_dict=network.state_dict())
    stage["classes"] = [*stage["classes"], "eel", "fox", "gnu"]
    checkpoint.save(tmp_path / "s.pth", stage)
    again = checkpoint.network_of(checkpoint.load_stage(tmp_path / "s.pth"))
    assert again.classes_per_session == [2, 3]
    assert again(torch.rand(1, 3, tiny.SIZE, tiny.SIZE)).logits_BC.shape == (1, 5)


def test_weights_that_do_not_fit() -> None:
    stage = tiny.stage_content()
    del stage["state_dict"]["head.linear.bias"]
    with pytest.raises(UserError, match=r"s\.pth: the weights do not fit the network .*head\.linear\.bias"):
        checkpoint.network_of(stage, "s.pth")


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    stage = tiny.write_stage(tmp_path / "session_0.pth")
    checkpoint.save(tmp_path / "resume.pth", {"format": checkpoint.RESUME_FORMAT})
    assert checkpoint.load_resume_state(tmp_path / "resume.pth") == {"format": checkpoint.RESUME_FORMAT}
    with pytest.raises(UserError, match="is no mlcil-resume-2 file"):
        checkpoint.load_resume_state(stage)
    with pytest.raises(UserError, match="is no stage checkpoint"):
        checkpoint.load_stage(tmp_path / "resume.pth")
    with pytest.raises(UserError, match="nothing to resume"):
        checkpoint.load_resume_state(tmp_path / "none.pth")
