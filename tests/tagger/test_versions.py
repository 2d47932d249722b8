import json

import pytest
import tiny
import torch

import mlcil
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.errors import UserError
from mlcil.tagger import versions


def images():
    return torch.rand(3, 3, tiny.SIZE, tiny.SIZE, generator=torch.Generator().manual_seed(1))


def scores(path):
    tagger = mlcil.load(path, precision="fp32")
    return dict(zip(tagger.classes, tagger.scores(images()).T, strict=True))


@pytest.fixture(params=["linear", "ica"])
def parent(request, tmp_path):
    """A tagger with thresholds and calibration."""
    stage = tiny.stage(("ant", "bee", "cat"), tiny.ICA if request.param == "ica" else {"type": "linear"})
    stage.thresholds, stage.logit_correction = (
        [0.2, 0.4, float("nan")],
        torch.tensor([[2.0, 1.0], [1.0, 0.0], [3.0, -1]]),
    )
    stage.card = {"images": 30, "labels": {"ant": {"present": 3, "absent": 27}}}
    stage.save(tmp_path / "parent.tagger")
    return tmp_path / "parent.tagger"


def extension(parent, name, label, seed):
    """A child with one more row on the same backbone."""
    stage = StageCheckpoint.load(parent)
    torch.manual_seed(seed)
    row = tiny.stage((label,))
    row.network, backbone = {**stage.network, "head": {"type": "linear"}}, stage.state_dict
    rows = {"head.linear.weight": torch.randn(1, width(stage)), "head.linear.bias": torch.zeros(1)}
    row.state_dict = {**{k: v for k, v in backbone.items() if k.startswith("backbone.")}, **rows}
    row.thresholds, row.logit_correction = [0.7], torch.tensor([[1.5, 0.5]])
    parts = [(stage, list(range(len(stage.classes)))), (row, [0])]
    child = versions.side_by_side(parts, {"parents": [versions.file_sha256(parent)]})
    child.save(parent.parent / name)
    return parent.parent / name


def width(stage):
    return stage.build().backbone.out_channels


def test_rename(parent, tmp_path, capsys):
    out = tmp_path / "renamed.tagger"
    code, text, _ = tiny.call(capsys, "rename", parent, "ant=red ant", "--out", out)
    assert code == 0
    assert "red ant" in text
    before, after = scores(parent), scores(out)
    assert list(after) == ["red ant", "bee", "cat"]
    assert torch.equal(before["ant"], after["red ant"])
    made = StageCheckpoint.load(out)
    assert made.parents == [versions.file_sha256(parent)]
    assert made.card["labels"] == {"red ant": {"present": 3, "absent": 27}}
    assert made.thresholds[:2] == [0.2, 0.4]


def test_drop_keeps_the_other_scores_to_the_bit(parent, tmp_path, capsys):
    out = tmp_path / "smaller.tagger"
    assert tiny.call(capsys, "drop", parent, "bee", "--out", out)[0] == 0
    before, after = scores(parent), scores(out)
    assert list(after) == ["ant", "cat"]
    assert all(torch.equal(before[name], after[name]) for name in after)
    made = StageCheckpoint.load(out)
    assert made.thresholds[0] == 0.2
    assert made.thresholds[1] != made.thresholds[1]
    again = versions.drop(out, ["cat"], tmp_path / "one.tagger")
    assert again.classes == ["ant"]
    assert torch.equal(scores(tmp_path / "one.tagger")["ant"], before["ant"])


def test_two_extensions_of_one_parent_are_merged(parent, tmp_path, capsys):
    one, two = extension(parent, "one.tagger", "dog", 1), extension(parent, "two.tagger", "eel", 2)
    out = tmp_path / "both.tagger"
    code, text, _ = tiny.call(capsys, "merge", one, two, "--out", out)
    assert code == 0
    assert "5 labels" in text
    found = scores(out)
    assert list(found) == ["ant", "bee", "cat", "dog", "eel"]
    assert all(torch.equal(found[name], values) for name, values in scores(one).items())
    assert torch.equal(found["eel"], scores(two)["eel"])
    assert StageCheckpoint.load(out).parents == [versions.file_sha256(one), versions.file_sha256(two)]
    assert StageCheckpoint.load(out).thresholds[3:] == [0.7, 0.7]


def test_files_are_never_replaced(parent, tmp_path, capsys):
    before = tiny.snapshot(tmp_path)
    for words in (
        ("rename", parent, "ant=wasp"),
        ("drop", parent, "ant"),
        ("merge", parent, parent),
    ):
        code, _, err = tiny.call(capsys, *words, "--out", parent)
        assert code == 2
        assert "never replaced; choose another --out" in err
    assert tiny.snapshot(tmp_path) == before


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("rename", "ant=bee"), "would have the labels 'bee' and 'bee'"),
        (("rename", "ant=BEE"), "would have the labels 'BEE' and 'bee'"),
        (("rename", "ent=wasp"), "has no label 'ent' (did you mean 'ant'?)"),
        (("rename", "ant="), "the new name of 'ant' is ''"),
        (("rename", "ant"), "'ant' is no OLD=NEW"),
        (("drop", "wasp"), "has no label 'wasp'"),
        (("drop", "ant", "bee", "cat"), "keep at least one"),
        (("merge", "PARENT"), "there is nothing to merge"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(parent, tmp_path, capsys, words, says):
    out = tmp_path / "out.tagger"
    words = [parent if word == "PARENT" else word for word in words]
    code, _, err = tiny.call(capsys, words[0], parent, *words[1:], "--out", out)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1
    assert not out.exists()


def test_taggers_that_do_not_belong_together(parent, tmp_path):
    one = extension(parent, "one.tagger", "dog", 1)
    other = StageCheckpoint.load(extension(parent, "two.tagger", "eel", 2))
    changed = {
        k: v + 1 if k.startswith("backbone") and v.is_floating_point() else v for k, v in other.state_dict.items()
    }
    StageCheckpoint(**{**vars(other), "state_dict": changed}).save(tmp_path / "tuned.tagger")
    with pytest.raises(UserError, match="have other backbone weights"):
        versions.merge(one, tmp_path / "tuned.tagger", tmp_path / "out")
    changed = {
        k: v + 1 if k == "head.parts.1.linear.bias" else v for k, v in StageCheckpoint.load(one).state_dict.items()
    }
    StageCheckpoint(
        **{**vars(StageCheckpoint.load(one)), "state_dict": changed, "classes": ["ant", "bee", "cat", "dog"]}
    ).save(tmp_path / "moved")
    versions.rename(extension(parent, "three.tagger", "fox", 3), {"fox": "dog"}, tmp_path / "three_dog")
    with pytest.raises(UserError, match="there is nothing to merge"):
        versions.merge(one, tmp_path / "three_dog", tmp_path / "out")
    both = versions.merge(one, tmp_path / "two.tagger", tmp_path / "both")
    assert both.classes == ["ant", "bee", "cat", "dog", "eel"]
    with pytest.raises(UserError, match="'dog' has other scores in"):
        versions.merge(tmp_path / "moved", tmp_path / "both", tmp_path / "out")


def test_info(parent, tmp_path, capsys):
    child = extension(parent, "child.tagger", "dog", 1)
    code, text, _ = tiny.call(capsys, "info", child)
    assert code == 0
    for words in (
        versions.file_sha256(parent),
        "4 labels",
        "ant (0): 0.200; photos: 3 present, 27 absent",
        "cat (0): none",
    ):
        assert words in text
    facts = json.loads(tiny.call(capsys, "info", child, "--json")[1])
    assert facts["parents"] == [versions.file_sha256(parent)]
    assert [label["label"] for label in facts["labels"]] == ["ant", "bee", "cat", "dog"]
    assert facts["labels"][2]["threshold"] is None
    assert facts["card"] == {"images": 30}
