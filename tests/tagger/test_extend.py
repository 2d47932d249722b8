"""Labels added to a tiny tagger whose photos are coloured squares; the default method on a frozen random backbone."""

import csv
import json
import re
import signal

import numpy as np
import pytest
import tiny
import torch
from PIL import Image

import mlcil
from mlcil.datasets.labels import read_labels
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.interop.pretrained import file_sha256
from mlcil.tagger import base, extend, session
from mlcil.tagger.nothing import KINDS, image_of_nothing
from mlcil.tagger.photos import Extras, folds_of, gather

COLOURS = {"red": (230, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230), "yellow": (240, 220, 30)}
WEIGHTS = ["--backbone", "tresnet", "--weights"]
SMALL = ["network.backbone.layers=[1,1,1,1]", "network.backbone.width=0.25", "network.image_size=64"]


def photo(path, shown, seed):
    """Noise with a square of each colour in a corner of its own."""
    rng = np.random.default_rng(seed)
    pixels = rng.integers(90, 150, (64, 64, 3)).astype(np.uint8)
    for number, colour in enumerate(shown):
        x, y = 32 * (number % 2), 32 * (number // 2 % 2)
        pixels[y + 2 : y + 30, x + 2 : x + 30] = COLOURS[colour]
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def listed(folder, name, count, known, seed, unknown=()):
    """A CSV with a column for each known colour; ``unknown`` ones are in the photos all the same."""
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        shown = [colour for colour in (*known, *unknown) if rng.random() < 0.4]
        photo(folder / "photos" / f"{name}_{number}.png", shown, 1000 * seed + number)
        rows.append([f"photos/{name}_{number}.png", *(int(colour in shown) for colour in known)])
    path = folder / f"{name}.csv"
    with open(path, "w", newline="") as file:
        csv.writer(file).writerows([["file", *known], *rows])
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A tagger of red and green, one extended by blue, and lists of photos."""
    from mlcil import cli

    folder = tmp_path_factory.mktemp("tagger")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLCIL_CACHE", str(folder / "cache"))
        patch.chdir(folder)
        weights = tiny.write_stage(folder / "weights.pth")
        first = listed(folder, "first", 60, ("red", "green"), 1, ("blue",))
        listed(folder, "second", 40, ("blue",), 2, ("red", "green"))
        listed(folder, "few", 10, ("blue",), 6)
        listed(folder, "test", 60, ("red", "green", "blue"), 3)
        words = ["tag", first, "--out", "first.tagger", *WEIGHTS, weights, *SMALL]
        assert cli.main([str(word) for word in words]) == 0
        assert cli.main(["extend", "first.tagger", "second.csv", "--out", "second.tagger"]) == 0
    return folder


@pytest.fixture
def place(made, monkeypatch):
    """Its folder; two folds are quicker than five."""
    monkeypatch.setenv("MLCIL_CACHE", str(made / "cache"))
    monkeypatch.setattr(extend, "FOLDS", 2)
    monkeypatch.chdir(made)
    return made


def scores(path, folder):
    photos = sorted((folder / "photos").glob("test_*.png"))
    tagger = mlcil.load(path, precision="fp32")
    found = np.array([list(values.values()) for _, values in tagger.predict(photos)])
    thresholds = tagger.thresholds or [np.nan] * len(tagger.classes)
    return dict(zip(tagger.classes, found.T, strict=True)), dict(zip(tagger.classes, thresholds, strict=True))


def truth(folder):
    with open(folder / "test.csv") as file:
        rows = {row["file"].split("/")[1]: row for row in csv.DictReader(file)}
    names = sorted(rows)
    return {colour: np.array([int(rows[name][colour]) for name in names]) for colour in ("red", "green", "blue")}


def test_old_scores_are_the_same_bits_and_the_new_label_is_found(place):
    (before, old), (after, new) = scores("first.tagger", place), scores("second.tagger", place)
    assert list(after) == ["red", "green", "blue"]
    for label in ("red", "green"):
        assert np.array_equal(before[label], after[label])
        assert old[label] == new[label]
    shown = truth(place)["blue"]
    given = after["blue"] >= new["blue"]
    assert after["blue"][shown == 1].mean() > after["blue"][shown == 0].mean() + 0.2  # a random backbone
    assert given.mean() <= 2 * shown.mean()


def test_the_file_says_where_it_comes_from(place, capsys):
    stage = StageCheckpoint.load(place / "second.tagger")
    assert stage.parents == [file_sha256(place / "first.tagger")]
    assert stage.method == "Ridge"
    assert stage.kept["statistics"] > 0
    assert stage.card["images"] == 100
    assert stage.card["labels"]["blue"]["present"] > 5
    text = tiny.call(capsys, "info", "second.tagger")[1]
    assert file_sha256(place / "first.tagger") in text
    assert "blue (1)" in text


def test_nothing_is_seen_in_grey_noise_and_text(place, tmp_path):
    numbers = [
        n for n in range(50) if KINDS[n % len(KINDS)] != "gradient"
    ]  # a blue ramp is blue to a tagger of colours
    for number in numbers:
        image_of_nothing(number, seed=7).save(tmp_path / f"{number:02}.png")  # others than those of the training
    tagger = mlcil.load(place / "second.tagger")
    found = [values["blue"] >= tagger.thresholds[2] for _, values in tagger.predict(sorted(tmp_path.glob("*.png")))]
    assert len(found) == 40
    assert np.mean(found) <= 0.05


def test_what_is_said_before_and_after(place, capsys):
    code, out, err = tiny.call(
        capsys, "extend", "second.tagger", listed(place, "third", 30, ("yellow",), 4), "--out", "3.tagger"
    )
    assert (code, err) == (0, "")
    assert "30 photos, method ridge" in out
    assert "of old photos there is: statistics (" in out
    assert "worth to new labels: a point or two at most, since there are photos without them" in out
    assert "their scores stay the same to the bit" in out
    (line,) = [line for line in out.splitlines() if line.startswith("features of 70 photos and images of nothing ")]
    assert re.search(r"take up to [\d.]+ .*, with all that follows about [\d.]+ ", line)
    assert out.index(line) < out.index("yellow: threshold")
    assert "scores of the 3 old labels: largest difference 0" in out
    assert "yellow: threshold 0." in out
    before = (place / "second.tagger").read_bytes()
    code, _, err = tiny.call(capsys, "extend", "second.tagger", "third.csv", "--out", "second.tagger")
    assert (code, (place / "second.tagger").read_bytes() == before) == (2, True)
    assert "never replaced" in err


def test_check(place, capsys, tmp_path):
    words = ["check", "first.tagger", "second.tagger", "--on", "test.csv"]
    code, out, _ = tiny.call(capsys, *words, "--html", tmp_path / "c.html", "--json", tmp_path / "c.json")
    assert code == 0
    assert "largest difference of a score of a label that both have: 0" in out
    result = json.loads((tmp_path / "c.json").read_text())
    assert [row["label"] for row in result["labels"]] == ["red", "green", "blue"]
    assert result["labels"][2]["before"] is None
    assert "the same to the bit" in (tmp_path / "c.html").read_text()
    stage = StageCheckpoint.load(place / "second.tagger")
    stage.state_dict["head.classifiers.0.weight"] *= -1
    stage.save(tmp_path / "worse.tagger")
    code, out, _ = tiny.call(capsys, "check", "first.tagger", tmp_path / "worse.tagger", "--on", "test.csv")
    assert code == 1
    assert "FAILED: AP falls by more than 1 points beyond its interval: red" in out
    assert tiny.call(capsys, *words, "--max-drop", "-1")[0] == 2
    code, _, err = tiny.call(
        capsys, "check", "first.tagger", "second.tagger", "--on", listed(place, "other", 4, ("yellow",), 5)
    )
    assert code == 2
    assert "has none of the labels of" in err


def test_a_keep_set_is_to_rows_what_unlabelled_photos_are(place):
    """As the guide says: old labels are not trained, so those of the keep-set are not used."""
    stage, labels, keep = (
        StageCheckpoint.load(place / "first.tagger"),
        read_labels("second.csv"),
        read_labels("first.csv"),
    )
    one, other = (
        gather(stage, labels, ["blue"], extras, True, True)
        for extras in (Extras(unlabelled=keep.files), Extras(keep=keep))
    )
    assert one.files == other.files
    assert np.array_equal(one.cells_NL, other.cells_NL)
    assert (other.old_NO == -1).all()
    trained = gather(stage, labels, ["blue"], Extras(keep=keep), False, False)
    assert (trained.old_NO[len(labels) : -trained.nothing] >= 0).all()


def test_options_of_the_method_stay_through_extensions(place, tmp_path, capsys):
    options = ["method.gaussian=True", "method.negatives=0.3"]
    weights = [*WEIGHTS, place / "weights.pth", *SMALL]
    words = [("tag", "first.csv", "--out", tmp_path / "1", *weights, *options)]
    words += [("extend", tmp_path / "1", "second.csv", "--out", tmp_path / "2")]
    words += [("extend", tmp_path / "2", listed(place, "third", 30, ("yellow",), 4), "--out", tmp_path / "3")]
    for command in words:
        code, _, err = tiny.call(capsys, *command)
        assert (code, err) == (0, "")
    for name in "123":
        stage = StageCheckpoint.load(tmp_path / name)
        assert (stage.method_options["gaussian"], stage.method_options["negatives"]) == (True, 0.3)
        assert stage.method_state["sums"]["gram_HH"].ndim == 1
    again = ("extend", tmp_path / "1", "second.csv", "--out", tmp_path / "4")
    assert tiny.call(capsys, *again, "method.negatives=0.1")[0] == 0
    assert StageCheckpoint.load(tmp_path / "4").method_options["negatives"] == 0.1
    code, _, err = tiny.call(capsys, *again[:-1], tmp_path / "5", "method.gaussian=False")
    assert code == 2
    assert "its method Ridge cannot go on (its sums are those of gaussian=True)" in err
    assert not (tmp_path / "5").exists()


def test_a_label_is_refined_only_when_asked_for(place, tmp_path, capsys):
    both = listed(place, "both", 40, ("red", "yellow"), 8)
    code, out, err = tiny.call(capsys, "extend", "second.tagger", both, "--out", tmp_path / "left")
    assert (code, err) == (0, "")
    assert "known already and left as they are: red (--refine LABEL" in out
    code, out, err = tiny.call(
        capsys, "extend", "second.tagger", both, "--out", tmp_path / "refined", "--refine", "red"
    )
    assert (code, err) == (0, "")
    (before, _), (left, _), (refined, _) = (
        scores(path, place) for path in ("second.tagger", tmp_path / "left", tmp_path / "refined")
    )
    assert list(left) == list(refined) == ["red", "green", "blue", "yellow"]
    assert np.array_equal(before["red"], left["red"])
    assert not np.array_equal(before["red"], refined["red"])
    assert all(np.array_equal(before[name], refined[name]) for name in ("green", "blue"))
    shown = truth(place)["red"]
    assert refined["red"][shown == 1].mean() > refined["red"][shown == 0].mean() + 0.3
    code, out, err = tiny.call(
        capsys, "extend", tmp_path / "refined", both, "--out", tmp_path / "again", "--refine", "red"
    )
    assert (code, err) == (0, "")


@pytest.mark.parametrize("head", [{"type": "linear"}, tiny.ICA])
def test_a_stage_checkpoint_of_any_method_gets_rows_beside_its_outputs(place, tmp_path, capsys, head):
    stage = tiny.write_stage(tmp_path / "session_0.pth", head=head)
    code, out, err = tiny.call(capsys, "extend", stage, "second.csv", "--out", tmp_path / "two")
    assert (code, err) == (0, "")
    assert "of old photos there is: nothing" in out
    (before, _), (after, thresholds) = scores(stage, place), scores(tmp_path / "two", place)
    assert list(after) == ["ant", "bee", "blue"]
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert np.isnan(thresholds["ant"])
    assert thresholds["blue"] > 0
    code, out, err = tiny.call(capsys, "extend", tmp_path / "two", "first.csv", "--out", tmp_path / "three")
    assert (code, err) == (0, "")
    assert "of old photos there is: statistics" in out  # those of blue's photos
    (third, _) = scores(tmp_path / "three", place)
    assert list(third) == ["ant", "bee", "blue", "red", "green"] or list(third) == [
        "ant",
        "bee",
        "blue",
        "green",
        "red",
    ]
    assert all(np.array_equal(third[name], after[name]) for name in after)


def test_kept_features_stay_beside_old_outputs(place, tmp_path, capsys):
    words = [
        "tag",
        "first.csv",
        "--out",
        tmp_path / "one",
        "--method",
        "kept_features",
        *WEIGHTS,
        "weights.pth",
        *SMALL,
    ]
    assert tiny.call(capsys, *words)[0] == 0
    code, out, err = tiny.call(capsys, "extend", tmp_path / "one", "second.csv", "--out", tmp_path / "two")
    assert (code, err) == (0, "")
    code, out, err = tiny.call(
        capsys, "extend", tmp_path / "two", listed(place, "third", 30, ("yellow",), 4), "--out", tmp_path / "3"
    )
    assert (code, err) == (0, "")
    assert "largest difference 0" in out
    (one, _), (three, _) = scores(tmp_path / "one", place), scores(tmp_path / "3", place)
    assert all(np.array_equal(one[name], three[name]) for name in one)
    state = StageCheckpoint.load(tmp_path / "3").method_state
    assert len(state["features"]) == 60 + 40 + 30 + 3 * 40
    assert (state["rows"] == -1).all()


def test_another_method_trains_the_network(place, tmp_path, capsys):
    stage = tiny.write_stage(tmp_path / "session_0.pth")
    words = ["train_cfg.max_epochs=1", "train_dataloader.num_workers=0", "test_dataloader.num_workers=0"]
    code, out, err = tiny.call(
        capsys, "extend", stage, "second.csv", "--out", tmp_path / "lwf", "--method", "lwf", *words
    )
    assert (code, err) == (0, "")
    assert "this method changes their scores" in out
    (before, _), (after, _) = scores(stage, place), scores(tmp_path / "lwf", place)
    assert list(after) == ["ant", "bee", "blue"]
    assert not np.array_equal(before["ant"], after["ant"])
    again = StageCheckpoint.load(tmp_path / "lwf")
    assert (again.method, again.classes_per_session) == ("LwF", [2, 1])
    code, _, err = tiny.call(capsys, "extend", stage, "second.csv", "--out", tmp_path / "krt", "--method", "krt")
    assert code == 2
    assert "KRT works with the head 'ica', but" in err


def test_a_classifier_of_timm(place, tmp_path, capsys):
    import timm

    torch.manual_seed(0)
    model = timm.create_model("resnet10t", num_classes=3).eval()
    torch.save(model.state_dict(), tmp_path / "c.pth")
    (tmp_path / "names.txt").write_text("ant\nbee\ncat\n")
    words = ["extend", tmp_path / "c.pth", "few.csv", "--out", tmp_path / "out", "--classes", tmp_path / "names.txt"]
    code, _, err = tiny.call(capsys, *words, "--backbone", "resnet10t")
    assert (code, err) == (0, "")
    tagger = mlcil.load(tmp_path / "out", precision="fp32")
    assert tagger.classes == ["ant", "bee", "cat", "blue"]
    images = torch.rand(2, 3, 224, 224)
    mean, std = tagger.network.backbone.mean, tagger.network.backbone.std
    with torch.no_grad():
        torch.testing.assert_close(
            tagger.scores(images)[:, :3], model((images - mean) / std).sigmoid(), rtol=0, atol=1e-4
        )
    assert "the timm model that the checkpoint is of" in tiny.call(capsys, *words)[2]


def test_only_photos_of_the_new_label(place, tmp_path, capsys):
    """Without anything else they say nothing; a tagger's statistics, other photos or a keep-set do."""
    lone = tmp_path / "lone.csv"
    with open(place / "second.csv") as file:
        shown = [place / row["file"] for row in csv.DictReader(file) if row["blue"] == "1"]
    lone.write_text("file,labels\n" + "".join(f"{path},blue\n" for path in shown))
    stage = tiny.write_stage(tmp_path / "session_0.pth")
    words = ["extend", stage, lone, "--out", tmp_path / "out"]
    before = tiny.snapshot(tmp_path)
    code, _, err = tiny.call(capsys, *words)
    assert code == 2
    assert "no photo is known to lack 'blue', so there is nothing to tell it from" in err
    assert tiny.snapshot(tmp_path) == before
    code, out, err = tiny.call(capsys, "extend", "first.tagger", lone, "--out", tmp_path / "statistics")
    assert (code, err) == (0, "")
    assert "no photo is known to lack blue: taken instead are what is kept of the photos of earlier sessions" in out
    assert "worth to labels that no listed photo lacks, least first: nothing (refused), statistics" in out
    code, out, _ = tiny.call(capsys, *words, "--unlabelled", _others(place, tmp_path))
    assert code == 0
    assert "taken instead are 10 unlabelled photos" in out


def test_a_keep_set_stands_for_photos_without_the_label(place, tmp_path, capsys):
    lone = tmp_path / "lone.csv"
    with open(place / "second.csv") as file:
        shown = [place / row["file"] for row in csv.DictReader(file) if row["blue"] == "1"]
    lone.write_text("file,labels\n" + "".join(f"{path},blue\n" for path in shown))
    stage = tiny.write_stage(tmp_path / "session_0.pth", ("red", "green"))
    keep = listed(tmp_path, "keep", 20, ("red", "green"), 11)
    words = ["extend", stage, lone, "--out", tmp_path / "out", "--keep", keep]
    code, out, err = tiny.call(capsys, *words)
    assert (code, err) == (0, "")
    assert "of old photos there is: a keep-set" in out
    assert "no photo is known to lack blue: taken instead are 20 photos of the keep-set" in out
    (before, _), (after, _) = scores(stage, place), scores(tmp_path / "out", place)
    assert all(np.array_equal(before[name], after[name]) for name in ("red", "green"))
    shown = truth(place)["blue"]
    assert after["blue"][shown == 1].mean() > after["blue"][shown == 0].mean() + 0.1


def test_rows_that_are_trained(place, tmp_path, capsys):
    words = ["--method", "frozen_rows", "train_cfg.max_epochs=2"]
    code, out, err = tiny.call(capsys, "extend", "first.tagger", "second.csv", "--out", tmp_path / "two", *words)
    assert (code, err) == (0, "")
    assert "method frozen_rows" in out
    assert "scores of the 2 old labels: largest difference 0" in out
    assert StageCheckpoint.load(tmp_path / "two").method == "FrozenRows"
    (before, _), (after, thresholds) = scores("first.tagger", place), scores(tmp_path / "two", place)
    assert list(after) == ["red", "green", "blue"]
    assert all(np.array_equal(before[name], after[name]) for name in before)
    assert 0 < thresholds["blue"] < 1


def test_two_extensions_of_one_tagger_are_merged(place, tmp_path, capsys):
    yellow = listed(place, "fourth", 30, ("yellow",), 9)
    assert tiny.call(capsys, "extend", "first.tagger", yellow, "--out", tmp_path / "yellow")[0] == 0
    code, _, err = tiny.call(capsys, "merge", "second.tagger", tmp_path / "yellow", "--out", tmp_path / "both")
    assert (code, err) == (0, "")
    found = scores(tmp_path / "both", place)
    assert list(found[0]) == ["red", "green", "blue", "yellow"]
    for one in ("second.tagger", tmp_path / "yellow"):
        for part, expected in zip(found, scores(one, place), strict=True):
            assert all(np.array_equal(part[name], values) for name, values in expected.items())


def test_a_tagger_has_its_names_with_it(place, tmp_path, capsys):
    """No list of labels beside it can be lost or taken for another one's."""
    (tmp_path / "alone").mkdir()
    moved = tmp_path / "alone" / "renamed"
    moved.write_bytes((place / "second.tagger").read_bytes())
    code, out, _ = tiny.call(capsys, "predict", moved, "photos/test_0.png", "--top", "3")
    assert code == 0
    assert {label["label"] for label in json.loads(out)["labels"]} == {"red", "green", "blue"}
    code, _, err = tiny.call(capsys, "extend", moved, tmp_path / "lost.csv", "--out", tmp_path / "out")
    assert (code, err.count("\n")) == (2, 1)
    assert "lost.csv" in err
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["alone", "renamed"]


COMMANDS = {
    "tag": ["tag", "long.csv", "--out", "OUT", *WEIGHTS, "weights.pth", *SMALL],
    "extend": ["extend", "first.tagger", "long.csv", "--out", "OUT"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_ctrl_c_leaves_nothing_half_written_and_features_for_the_next_try(
    place, tmp_path, capsys, monkeypatch, command
):
    listed(place, "long", 90, ("yellow",), 10)
    monkeypatch.setenv("MLCIL_CACHE", str(tmp_path / "cache"))
    words = [str(tmp_path / "out") if word == "OUT" else word for word in COMMANDS[command]]
    computed, compute = [], session.features_of

    def counted(*arguments):
        if len(computed) == 2:
            signal.raise_signal(signal.SIGINT)
        found = compute(*arguments)
        computed.append(found.computed)
        return found

    monkeypatch.setattr(session, "features_of", counted)
    before = tiny.snapshot(place / "photos")
    code, _, err = tiny.call(capsys, *words)
    assert code == 130
    assert err == "mlcil: stopped; nothing was written, and features computed so far are kept for the next try\n"
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert sum(computed) >= 64
    monkeypatch.setattr(extend, "append_session", lambda *_: signal.raise_signal(signal.SIGINT))
    computed.append(0)  # no signal here
    code, _, err = tiny.call(capsys, *words)
    assert (code, "nothing was written" in err) == (130, True)
    assert sum(computed) < 130
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    assert tiny.snapshot(place / "photos") == before


@pytest.mark.parametrize(
    "words",
    [
        ["check", "first.tagger", "second.tagger", "--on", "test.csv", "--html", "OUT/a", "--json", "OUT/b"],
        ["predict", "first.tagger", "photos", "--output", "OUT/a"],
        ["predict", "first.tagger", "OUT", "--format", "xmp"],
    ],
)
def test_ctrl_c_in_what_looks_at_photos(place, tmp_path, capsys, monkeypatch, words):
    for number in range(20):
        photo(tmp_path / f"{number:02}.png", ["red"], number)
    opened, decode = [], base.decode

    def counted(*arguments):
        opened.append(1)
        if len(opened) == 18:
            signal.raise_signal(signal.SIGINT)
        return decode(*arguments)

    monkeypatch.setattr(base, "decode", counted)
    code, _, err = tiny.call(capsys, *[word.replace("OUT", str(tmp_path)) for word in words])
    assert (code, err) == (130, "mlcil: interrupted\n")
    made = [path.name for path in tmp_path.iterdir() if path.suffix != ".png"]
    assert made == [] if "xmp" not in words else all(name.endswith(".png.xmp") for name in made)
    assert all("</x:xmpmeta>" in (tmp_path / name).read_text() for name in made)


def _others(place, tmp_path):
    for number in range(10):
        photo(tmp_path / "others" / f"{number}.png", ["red"], 99 + number)
    return tmp_path / "others"


LISTED = "file,{}\nphotos/first_0.png,{}\nphotos/first_1.png,0\n"
BAD = {
    "another spelling": (LISTED.format("Red", 1), [], "label 'Red', and the tagger has it as 'red'"),
    "nothing new": (LISTED.format("red", 1), [], "has no label that first.tagger lacks"),
    "no photo shows it": (LISTED.format("blue", 0), [], "no photo shows 'blue'"),
    "the same label twice": (LISTED.format("blue,blue", "1,1"), [], "blue"),
    "a missing file": (LISTED.format("blue", 1).replace("first_0", "none"), [], "photos/none.png"),
    "keep-set": (LISTED.format("blue", 1), ["--keep", "second.csv"], "has none of the tagger's 2 labels"),
    "refine": (LISTED.format("blue", 1), ["--refine", "rde"], "has no label 'rde' (did you mean 'red'?)"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_sentence_and_leaves_nothing(place, tmp_path, capsys, name):
    content, words, says = BAD[name]
    path = place / "bad.csv"
    path.write_text(content)
    code, _, err = tiny.call(capsys, "extend", "first.tagger", path, "--out", tmp_path / "out", *words)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_folds_spread_every_label_and_do_not_depend_on_the_order():
    rng = np.random.default_rng(0)
    cells, names = (rng.random((200, 3)) < [0.5, 0.1, 0.05]).astype(np.int8), [f"{n}.jpg" for n in range(200)]
    fold = folds_of(cells, names)
    rarest = np.bincount(fold[cells[:, 2] == 1], minlength=5)
    assert rarest.max() - rarest.min() <= 1
    order = rng.permutation(200)
    assert np.array_equal(folds_of(cells[order], [names[n] for n in order]), fold[order])
