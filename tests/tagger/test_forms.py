"""From labels in every form that people have them in to an extended tagger, as the guide says."""

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import tiny
from extractor import extractor
from PIL import Image

import mlcil

COLOURS = {"red": (230, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 230)}
XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject><rdf:Bag>{}</rdf:Bag></dc:subject>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def table(path, rows, delimiter=","):
    with open(path, "w", newline="") as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)
    return path


def a_list(folder, photos, labels):
    return table(folder / "labels.csv", [["file", "labels"], *([str(p), ";".join(s)] for p, s in photos.items())])


def tsv(folder, photos, labels):
    rows = [["image", "tags"], *([p.name, ",".join(s)] for p, s in photos.items())]
    return table(folder / "labels.tsv", rows, "\t")


def columns(folder, photos, labels):
    """The last photo was not looked at."""
    rows = [[p.name, *(int(name in s) for name in labels)] for p, s in photos.items()]
    return table(folder / "labels.csv", [["file", *labels], *rows[:-1], [rows[-1][0], *("" for _ in labels)]])


def folders(folder, photos, labels):
    for photo, shown in photos.items():
        for name in shown or [""]:
            (folder / "sorted" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(photo, folder / "sorted" / name / photo.name)
    return folder / "sorted"


def coco(folder, photos, labels):
    content = {
        "images": [{"id": row, "file_name": photo.name} for row, photo in enumerate(photos)],
        "categories": [{"id": column, "name": name} for column, name in enumerate(labels)],
        "annotations": [
            {"id": 10 * row + labels.index(name), "image_id": row, "category_id": labels.index(name), "iscrowd": 0}
            for row, shown in enumerate(photos.values())
            for name in shown
        ],
    }
    (folder / "instances.json").write_text(json.dumps(content))
    return folder / "instances.json"


def voc(folder, photos, labels):
    for name in ("ImageSets/Main", "Annotations", "JPEGImages"):
        (folder / "voc" / name).mkdir(parents=True)
    (folder / "voc/ImageSets/Main/trainval.txt").write_text("\n".join(photo.stem for photo in photos))
    for photo, shown in photos.items():
        Image.open(photo).save(folder / "voc/JPEGImages" / f"{photo.stem}.jpg", quality=100)
        objects = "".join(f"<object><name>{name}</name></object>" for name in shown)
        (folder / "voc/Annotations" / f"{photo.stem}.xml").write_text(f"<annotation>{objects}</annotation>")
    return folder / "voc"


def label_studio(folder, photos, labels):
    tasks = [
        {
            "data": {"image": f"/data/upload/1/0a1b2c3d-{photo.name}"},
            "annotations": [{"result": [{"type": "choices", "value": {"choices": list(shown)}}] if shown else []}],
        }
        for photo, shown in photos.items()
    ]
    (folder / "export.json").write_text(json.dumps(tasks))
    return folder / "export.json"


def json_lines(folder, photos, labels):
    lines = [json.dumps({"file": photo.name, "labels": list(shown)}) for photo, shown in photos.items()]
    (folder / "labels.jsonl").write_text("\n".join(lines))
    return folder / "labels.jsonl"


def keywords(folder, photos, labels):
    """Photos in folders by month, as photo programs keep them."""
    for row, (photo, shown) in enumerate(photos.items()):
        target = folder / "tagged" / f"2026-0{1 + row % 2}" / f"{photo.stem}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        xmp = XMP.format("".join(f"<rdf:li>{name}</rdf:li>" for name in shown))
        Image.open(photo).convert("RGB").save(target, quality=100, xmp=xmp.encode())
    return folder / "tagged"


#: each with the words that a person adds: where the photos are, and what was looked for
FORMS = {
    a_list: ["--reviewed", "all"],
    tsv: ["--photos", "PHOTOS", "--reviewed", "all"],
    columns: ["--photos", "PHOTOS"],
    folders: ["--reviewed", "all"],
    coco: ["--photos", "PHOTOS"],
    voc: [],
    label_studio: ["--photos", "PHOTOS", "--reviewed", "all"],
    json_lines: ["--photos", "PHOTOS", "--reviewed", "all"],
    keywords: ["--form", "keywords", "--reviewed", "all"],
}


def written(form, folder, photos, labels):
    """A listing of photos in a form, which knows some labels; and the words that go with it."""
    folder.mkdir(parents=True)
    known = {photo: [name for name in labels if name in shown] for photo, shown in photos.items()}
    return form(folder, known, list(labels)), FORMS[form]


def drawn(folder, count, seed):
    """Squares of colours in noise: photo -> what it shows."""
    rng, photos = np.random.default_rng(seed), {}
    folder.mkdir(parents=True)
    for number in range(count):
        shown = [name for name in COLOURS if rng.random() < 0.4]
        pixels = rng.integers(90, 150, (32, 32, 3)).astype(np.uint8)
        for place, name in enumerate(shown):
            x, y = 16 * (place % 2), 16 * (place // 2)
            pixels[y + 1 : y + 15, x + 1 : x + 15] = COLOURS[name]
        photos[folder / f"{folder.name}_{number}.png"] = shown
        Image.fromarray(pixels).save(folder / f"{folder.name}_{number}.png")
    return photos


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("forms")
    extractor(folder / "extractor.onnx", pooled=True)
    return folder, {name: drawn(folder / name, 24, seed) for seed, name in enumerate(("first", "new", "test"))}


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.__name__)
def test_from_labels_to_an_extended_tagger(place, form, tmp_path, capsys, monkeypatch):
    folder, photos = place
    monkeypatch.setenv("MLCIL_CACHE", str(folder / "cache"))
    monkeypatch.setattr("mlcil.tagger.extend.FOLDS", 1)
    monkeypatch.chdir(tmp_path)
    made = {}
    for name, labels in (("first", ["red", "green"]), ("new", ["blue"]), ("test", list(COLOURS))):
        path, words = written(form, tmp_path / name, photos[name], labels)
        made[name] = [path, *(str(folder / name) if word == "PHOTOS" else word for word in words)]

    def say(*words):
        code, out, err = tiny.call(capsys, *words)
        assert (code, err) == (0, ""), (words, out)
        return out

    assert "24 photos, 2 labels" in say("data", *made["first"])
    words = ["--backbone", folder / "extractor.onnx", "network.image_size=32"]
    out = say("tag", *made["first"], "--out", "1.tagger", *words)
    assert ("COCO's convention" in out) == (form is coco)  # what `data` remarks on is said here too
    assert "scores of the 2 old labels: largest difference 0" in say(
        "extend", "1.tagger", *made["new"], "--out", "2.tagger"
    )
    listing, *words = made["test"]
    assert "blue " in say("check", "1.tagger", "2.tagger", "--on", listing, *words)
    tagged = say("predict", "2.tagger", Path(listing if Path(listing).is_dir() else folder / "test"), "--scores")
    assert {frozenset(json.loads(line)["scores"]) for line in tagged.splitlines()} == {frozenset(COLOURS)}
    assert mlcil.load("2.tagger").info.card["labels"]["blue"]["present"] >= 5


def test_photos_for_testing_are_left_out_and_judged(place, tmp_path, capsys, monkeypatch):
    folder, photos = place
    monkeypatch.setenv("MLCIL_CACHE", str(folder / "cache"))
    monkeypatch.setattr("mlcil.tagger.extend.FOLDS", 1)
    monkeypatch.chdir(tmp_path)
    rows = [[p, "test" if n % 3 == 0 else "train", int("red" in s)] for n, (p, s) in enumerate(photos["first"].items())]
    listed = table(tmp_path / "split.csv", [["file", "split", "red"], *rows])
    words = ["--backbone", folder / "extractor.onnx", "network.image_size=32"]
    code, out, err = tiny.call(capsys, "tag", listed, "--out", "1.tagger", *words)
    assert (code, err) == (0, "")
    assert "8 photos of split.csv are for testing, so nothing is learnt from them\n16 photos, method ridge" in out
    code, out, err = tiny.call(capsys, "check", "1.tagger", "1.tagger", "--on", listed)
    assert (code, err) == (0, "")
    assert "split.csv: the 8 photos that are for testing" in out
    assert "of 8 photos get other labels" in out
