import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
import torch
from mmengine.config import Config

from mlcil.engine import checkpoint
from mlcil.engine.build import restore_method
from mlcil.engine.checkpoint import ResumeState, StageCheckpoint
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
    network = StageCheckpoint.load(tiny.write_stage(tmp_path / "s.pth", head=head)).build()
    assert not network.training
    images = torch.rand(2, 3, tiny.SIZE, tiny.SIZE)
    logits = network(images).logits_BC
    assert logits.shape == (2, 2)
    assert torch.equal(logits, tiny.stage(head=head).build()(images).logits_BC)


def test_stages_of_several_sessions(tmp_path: Path) -> None:
    stage = tiny.stage(head=tiny.ICA)
    network = stage.build()
    network.grow(3)
    stage.classes_per_session, stage.state_dict = network.classes_per_session, network.state_dict()
    stage.classes = [*stage.classes, "eel", "fox", "gnu"]
    stage.save(tmp_path / "s.pth")
    again = StageCheckpoint.load(tmp_path / "s.pth").build()
    assert again.classes_per_session == [2, 3]
    assert again(torch.rand(1, 3, tiny.SIZE, tiny.SIZE)).logits_BC.shape == (1, 5)


def test_weights_that_do_not_fit() -> None:
    stage = tiny.stage()
    del stage.state_dict["head.linear.bias"]
    with pytest.raises(UserError, match=r"s\.pth: the weights do not fit the network .*head\.linear\.bias"):
        stage.build("s.pth")


def test_kinds_are_told_apart(tmp_path: Path) -> None:
    stage = tiny.write_stage(tmp_path / "session_0.pth")
    state = ResumeState(1, 2, 3, 4, True, "hash", {"a": 1}, {"b": "c"}, {"memory": None}, [{}])
    state.save(tmp_path / "resume.pth")
    assert ResumeState.load(tmp_path / "resume.pth") == state
    with pytest.raises(UserError, match="is no mlcil-resume-4 file"):
        ResumeState.load(stage)
    with pytest.raises(UserError, match="is no stage checkpoint"):
        StageCheckpoint.load(tmp_path / "resume.pth")
    with pytest.raises(UserError, match="nothing to resume"):
        ResumeState.load(tmp_path / "none.pth")


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"reference_batch": -1}, "s.pth: method.reference_batch is -1; expected a whole number of at least 1"),
        ({"restart": "x"}, "s.pth: method.restart is 'x'; expected True or False"),
        ({"x": 1}, "unknown key 'x' in s.pth: method"),
        ({3: 1}, "unknown key 3 in s.pth: method"),
    ],
)
def test_arguments_of_the_method_in_a_file_are_checked(options: dict[Any, Any], sentence: str) -> None:
    cfg = Config({"method": {"type": "Finetune"}, "network": {"head": {"type": "linear"}}})
    with pytest.raises(UserError, match=sentence):
        restore_method(cfg, replace(tiny.stage(), method_options=options), Path("s.pth"))


def test_the_command_changes_one_part_of_an_option_and_leaves_the_others() -> None:
    cfg = Config({"method": {"type": "KRT", "token_weight": 3.0}, "network": {"head": {"type": "ica"}}})
    stage = replace(
        tiny.stage(head=tiny.ICA),
        method="KRT",
        method_options={"search": {"band": 0.2}, "token_weight": 80.0},
        method_state={"result": None},
    )
    words = ["method.search.start=0.5", "seed=3"]
    method, arguments = restore_method(cfg, stage, Path("s.pth"), words)
    assert arguments == {"search": {"band": 0.2, "start": 0.5}, "token_weight": 80.0}
    assert (method.search.band, method.search.start) == (0.2, 0.5)
    assert stage.method_options["search"] == {"band": 0.2}
    assert restore_method(cfg, stage, Path("s.pth"), ["method={'token_weight': 5.0}"])[1] == {"token_weight": 5.0}
