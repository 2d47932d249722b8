"""Labels in all forms that people have them in, read by one function."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from PIL import Image, PngImagePlugin, TiffImagePlugin

from mlcil.datasets.folder import same_content
from mlcil.datasets.label_forms import keywords
from mlcil.datasets.labels import LabelledPhotos, PhotosDataset, read_labels, similar
from mlcil.errors import UserError

#: what four photos show
SHOWN = {"0.jpg": ["ant"], "1.jpg": ["ant", "bee"], "2.jpg": [], "3.jpg": ["cat"]}
CLASSES = ("ant", "bee", "cat")
YES = [[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 0, 1]]
XMP = """<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
<rdf:Description xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:subject><rdf:Bag>{}</rdf:Bag></dc:subject>
</rdf:Description></rdf:RDF></x:xmpmeta>"""


def photos(folder: Path) -> Path:
    for number, name in enumerate(SHOWN):
        tiny.write_image(folder / name, seed=number)
    return folder


def written(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def xmp(labels: list[str]) -> bytes:
    return XMP.format("".join(f"<rdf:li>{name}</rdf:li>" for name in labels)).encode()


def iptc(labels: list[str]) -> bytes:
    """A Photoshop segment of JPEG with IPTC keywords."""
    records = b"".join(b"\x1c\x02\x19" + len(name).to_bytes(2, "big") + name for name in (t.encode() for t in labels))
    records += b"\0" * (len(records) % 2)
    return b"Photoshop 3.0\0" + b"8BIM\x04\x04\0\0" + len(records).to_bytes(4, "big") + records


# -- the forms; all list the same -------------------------------------------------------------------------


def a_list(folder: Path) -> Path:
    lines = [f"{file},{';'.join(labels)}" for file, labels in SHOWN.items()]
    return written(photos(folder) / "labels.csv", "file,labels\n" + "\n".join(lines))


def a_quoted_list(folder: Path) -> Path:
    lines = [f'{file},"{", ".join(labels)}"' for file, labels in SHOWN.items()]
    return written(photos(folder) / "labels.csv", "\ufeffFile,Tags\r\n" + "\r\n".join(lines) + "\r\n\r\n")


def a_spreadsheet_of_europe(folder: Path) -> Path:
    lines = [f"{file};{','.join(labels)}" for file, labels in SHOWN.items()]
    return written(photos(folder) / "labels.csv", "file;labels\n" + "\n".join(lines))


def a_tsv(folder: Path) -> Path:
    lines = [f"{file}\t{','.join(labels)}" for file, labels in SHOWN.items()]
    return written(photos(folder) / "labels.tsv", "image\tlabels\n" + "\n".join(lines))


def columns(folder: Path) -> Path:
    lines = [",".join([file, *("1.0" if name in labels else "" for name in CLASSES)]) for file, labels in SHOWN.items()]
    return written(photos(folder) / "labels.csv", f"file,{','.join(CLASSES)}\n" + "\n".join(lines))


def json_lines(folder: Path) -> Path:
    lines = [json.dumps({"file": file, "labels": labels}) for file, labels in SHOWN.items()]
    return written(photos(folder) / "labels.jsonl", "\n".join(lines))


def predictions(folder: Path) -> Path:
    lines = [{"image": f, "labels": [{"label": name, "score": 0.9} for name in labels]} for f, labels in SHOWN.items()]
    return written(photos(folder) / "tags.jsonl", "\n".join(map(json.dumps, lines)))


def a_list_of_objects(folder: Path) -> Path:
    lines = [{"file": file, "labels": dict.fromkeys(labels, 1)} for file, labels in SHOWN.items()]
    return written(photos(folder) / "labels.json", json.dumps(lines))


def label_studio(folder: Path) -> Path:
    addresses = ["/data/upload/1/0a1b2c3d-{}", "/data/local-files/?d=shop/{}", "https://host/a%20b/{}?x=1", "{}"]
    tasks = [
        {"id": 1, "data": {"image": address.format(file)}, "annotations": [{"result": [choices(labels)]}]}
        for address, (file, labels) in zip(addresses, SHOWN.items(), strict=True)
    ]
    tasks[3]["annotations"] += [{"result": [choices(["dog"])], "was_cancelled": True}, {"result": []}]  # type: ignore[operator]
    return written(photos(folder) / "export.json", json.dumps(tasks))


def choices(labels: list[str]) -> dict[str, object]:
    return {"type": "choices", "from_name": "tags", "value": {"choices": labels}}


def folders(folder: Path) -> Path:
    photos(folder / "originals")
    for file, labels in SHOWN.items():
        for name in labels:
            (folder / "sorted" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(folder / "originals" / file, folder / "sorted" / name / file)
    shutil.copy(folder / "originals" / "2.jpg", folder / "sorted" / "2.jpg")
    return folder / "sorted"


def xmp_keywords(folder: Path) -> Path:
    photos(folder)
    for file, labels in SHOWN.items():
        with Image.open(folder / file) as image:
            image.load()
        image.save(folder / file, xmp=xmp(labels))
    return folder


def iptc_keywords(folder: Path) -> Path:
    photos(folder)
    for file, labels in SHOWN.items():
        content = (folder / file).read_bytes()
        segment = iptc(labels)
        (folder / file).write_bytes(
            content[:2] + b"\xff\xed" + (len(segment) + 2).to_bytes(2, "big") + segment + content[2:]
        )
    return folder


def coco(folder: Path) -> Path:
    content = {
        "images": [{"id": row, "file_name": file} for row, file in enumerate(SHOWN)],
        "categories": [{"id": column, "name": name} for column, name in enumerate(CLASSES)],
        "annotations": [
            {"id": 10 * row + column, "image_id": row, "category_id": column, "iscrowd": column % 2}
            for row, labels in enumerate(SHOWN.values())
            for column, name in enumerate(CLASSES)
            if name in labels
        ],
    }
    return written(photos(folder) / "instances.json", json.dumps(content))


def coco_layout(folder: Path) -> Path:
    images = photos(folder / "train2014")
    coco(images).rename(written(folder / "annotations/instances_train2014.json", ""))
    return folder


def voc(folder: Path) -> Path:
    photos(folder / "JPEGImages")
    for file, labels in SHOWN.items():
        objects = "".join(f"<object><name>{name}</name></object>" for name in labels)
        written(folder / "Annotations" / f"{file[0]}.xml", f"<annotation>{objects}</annotation>")
    written(folder / "ImageSets/Main/trainval.txt", "0\n1\n2\n3\n")
    return folder


LISTINGS = [
    a_list, a_quoted_list, a_spreadsheet_of_europe, a_tsv, columns, json_lines, predictions, a_list_of_objects,
    label_studio, folders, xmp_keywords, iptc_keywords,
]  # fmt: skip


def by_name(read: LabelledPhotos) -> list[list[int]]:
    """Cells in the order of the photos' names."""
    order = sorted(range(len(read)), key=lambda row: read.files[row].name)
    return read.cells_NC[order].tolist()


@pytest.mark.parametrize("form", LISTINGS)
def test_what_is_not_named_is_unknown(form: Callable[[Path], Path], tmp_path: Path) -> None:
    read = read_labels(form(tmp_path / "x"))
    assert read.classes == CLASSES
    assert by_name(read) == [[1 if cell else -1 for cell in row] for row in YES]
    assert all(file.is_file() for file in read.files)
    assert (read.missing, read.alike) == ((), ())
    assert by_name(read_labels(read.source, reviewed="all")) == YES
    assert by_name(read_labels(read.source, reviewed=["bee"])) == [
        [cell if cell or column == 1 else -1 for column, cell in enumerate(row)] for row in YES
    ]


@pytest.mark.parametrize("form", [coco, coco_layout, voc])
def test_forms_that_name_everything_by_convention(form: Callable[[Path], Path], tmp_path: Path) -> None:
    read = read_labels(form(tmp_path / "x"))
    assert (read.classes, by_name(read)) == (CLASSES, YES)
    assert "what is not named counts as no" in read.notes[0]
    some = read_labels(read.source, reviewed="ant, bee")
    assert by_name(some) == [[a, b, c or -1] for a, b, c in YES]


def test_a_column_a_label_says_yes_no_and_unknown(tmp_path: Path) -> None:
    photos(tmp_path)
    path = written(tmp_path / "l.csv", "dog,file,cat\n1,0.jpg,0\n,1.jpg,yes\nFALSE,2.jpg,nan\n0,3.jpg\n")
    read = read_labels(path)
    assert read.classes == ("dog", "cat")  # in the order of the columns
    assert read.cells_NC.tolist() == [[1, 0], [-1, 1], [0, -1], [0, -1]]
    assert read_labels(path, reviewed="cat").cells_NC.tolist() == [[1, 0], [-1, 1], [0, 0], [0, 0]]


def test_a_reviewed_column_names_what_a_person_looked_at(tmp_path: Path) -> None:
    photos(tmp_path)
    path = written(
        tmp_path / "l.csv",
        "file,labels,reviewed,who\n0.jpg,ant,ant;bee,me\n1.jpg,bee,,me\n2.jpg,,all,me\n3.jpg,ant,cat,me\n",
    )
    read = read_labels(path)
    assert read.classes == CLASSES  # one that is only looked for is a label, too
    assert read.cells_NC.tolist() == [[1, 0, -1], [-1, 1, -1], [0, 0, 0], [1, -1, 0]]
    assert read.notes == ("columns that say nothing of labels: who",)
    lines = [
        {"file": "0.jpg", "labels": ["ant"], "reviewed": ["bee"]},
        {"file": "1.jpg", "tags": "cat", "reviewed": "all"},
    ]
    read = read_labels(written(tmp_path / "l.jsonl", "\n".join(map(json.dumps, lines))))
    assert read.cells_NC.tolist() == [[1, 0, -1], [0, 0, 1]]


def test_photos_in_another_folder(tmp_path: Path) -> None:
    path = a_list(tmp_path / "a")
    photos(tmp_path / "b" / "deep")
    moved = path.rename(tmp_path / "labels.csv")
    read = read_labels(moved, tmp_path / "b")  # found by its plain name
    assert read.files[0] == tmp_path / "b" / "deep" / "0.jpg"
    assert read.ids[0] == "deep/0.jpg"
    windows = written(tmp_path / "w.csv", "file,labels\nb\\deep\\0.jpg,ant\n")
    assert read_labels(windows).files == (tmp_path / "b" / "deep" / "0.jpg",)


def test_a_photo_that_is_there_twice_is_one(tmp_path: Path) -> None:
    read = read_labels(folders(tmp_path))
    assert [[file.parent.name for file in group] for group in read.repeated] == [["ant", "bee"]]
    tiny.write_image(tmp_path / "sorted" / "cat" / "0.jpg", seed=99)  # another photo of the same name
    assert len(read_labels(tmp_path / "sorted")) == 5
    path = written(tmp_path / "l.csv", "file,ant,bee\na.jpg,1,0\nb.jpg,0,\na.jpg,1,\n")
    for name in ("a.jpg", "b.jpg"):
        tiny.write_image(tmp_path / name)
    read = read_labels(path)
    assert read.cells_NC.tolist() == [[-1, 0]]
    assert read.notes == ("1 cells are yes and no on photos with the same bytes; they are unknown",)
    assert read.repeated == ((tmp_path / "a.jpg", tmp_path / "b.jpg"),)


def test_empty_files_are_not_the_same_photo(tmp_path: Path) -> None:
    files = [
        written(tmp_path / name, text) for name, text in (("a", ""), ("b", ""), ("c", "x"), ("d", "y"), ("e", "x"))
    ]
    assert same_content([*files, files[0], tmp_path / "none"]).tolist() == [0, 1, 2, 3, 2, 0, 6]


def test_keywords_of_formats_and_of_broken_files(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4))
    text = PngImagePlugin.PngInfo()
    text.add_itxt("XML:com.adobe.xmp", xmp(["ant"]).decode())
    image.save(tmp_path / "a.png", pnginfo=text)
    image.save(tmp_path / "a.webp", xmp=xmp(["ant"]))
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[700] = xmp(["ant"])
    image.save(tmp_path / "a.tif", tiffinfo=tags)
    assert [keywords(file) for file in sorted(tmp_path.iterdir())] == [["ant"]] * 3
    image.save(tmp_path / "bomb.jpg", xmp=b"<!DOCTYPE x [<!ENTITY a 'b'>]>" + xmp(["&a;"]))
    image.save(tmp_path / "cut.jpg", xmp=xmp(["ant"])[:60])
    written(tmp_path / "text.jpg", "no image")
    assert [keywords(tmp_path / name) for name in ("bomb.jpg", "cut.jpg", "text.jpg", "none.jpg")] == [[]] * 4


def test_a_folder_that_could_be_both(tmp_path: Path) -> None:
    xmp_keywords(tmp_path / "2024")
    read = read_labels(tmp_path)
    assert read.classes == ("2024",)
    assert read.notes == ("3 of 4 photos hold keywords, which are not read; --form keywords reads them",)
    assert read_labels(tmp_path, form="keywords").classes == CLASSES


def test_labels_that_differ_by_spelling() -> None:
    alike, near = similar(
        ["Cat", "cat", "ice-cream", "ice cream", "bicycle", "bicyle", "shelf 1", "shelf 2", "dog", "car"]
    )
    assert alike == (("Cat", "cat"), ("ice-cream", "ice cream"))
    assert near == (("bicycle", "bicyle"),)


# -- as a data set ----------------------------------------------------------------------------------------


def many(folder: Path, header: str = "file,labels,reviewed", split: bool = False) -> Path:
    lines = [header]
    for number in range(30):
        tiny.write_image(folder / f"{number}.png", seed=number // 2)  # each photo twice
        labels = ";".join(name for k, name in enumerate(CLASSES) if number // 2 % (k + 2) == 0)
        lines.append(f"{number}.png,{labels},all" + (f",{'test' if number < 3 else 'train'}" if split else ""))
    return written(folder / "labels.csv", "\n".join(lines))


def test_a_part_is_set_aside_and_nothing_stands_on_both_sides(tmp_path: Path) -> None:
    dataset = PhotosDataset(many(tmp_path))
    train, test = dataset.train(), dataset.test()
    assert (dataset.name, len(train) + len(test)) == ("labels", 15)
    assert train.positives().tolist() == [6, 4, 3]
    assert test.positives().tolist() == [2, 1, 1]
    assert set(train.ids).isdisjoint(test.ids)
    assert (train.selects_NC == (train.labels_NC == 1)).all()
    assert PhotosDataset(tmp_path / "labels.csv").test().ids == test.ids
    assert len(PhotosDataset(tmp_path / "labels.csv", test_share=0.5).test()) == 7


def test_the_split_of_the_file(tmp_path: Path) -> None:
    path = many(tmp_path, "file,labels,reviewed,split", split=True)
    read = read_labels(path)
    assert read.test_N is not None
    assert read.test_N.tolist() == [True, True] + [False] * 13  # the second one's copy was for training
    assert read.notes == ("1 photos stand in training and test with the same bytes; they are for testing only",)
    assert PhotosDataset(path).test().ids == ("0.png", "2.png")


@pytest.mark.parametrize(("word", "tested"), [("val", [False, True]), ("test", [False, True])])
def test_a_folder_of_each_split(word: str, tested: list[bool], tmp_path: Path) -> None:
    for number, split in enumerate(("train", word)):
        tiny.write_image(tmp_path / split / "ant" / f"{number}.png", seed=number)
    read = read_labels(tmp_path)
    assert read.classes == ("ant",)
    assert dict(zip(read.ids, np.asarray(read.test_N).tolist(), strict=True)) == {
        "train/ant/0.png": False,
        f"{word}/ant/1.png": True,
    }


@pytest.mark.parametrize(("words", "tested"), [(("val", "test"), [False, False, True]), (("Valid",), [False, True])])
def test_no_split_is_a_label(words: tuple[str, ...], tested: list[bool], tmp_path: Path) -> None:
    for number, split in enumerate(("train", *words)):
        tiny.write_image(tmp_path / split / "ant" / f"{number}.png", seed=number)
    read = read_labels(tmp_path)
    assert read.classes == ("ant",)
    found = dict(zip(read.ids, np.asarray(read.test_N).tolist(), strict=True))
    assert [found[f"{split}/ant/{number}.png"] for number, split in enumerate(("train", *words))] == tested


def test_a_label_that_nothing_lacks_is_not_trained(tmp_path: Path) -> None:
    dataset = PhotosDataset(a_list(tmp_path))
    with pytest.raises(UserError, match="no training photo is known to lack 'ant', 'bee', 'cat', so there is nothing"):
        dataset.train()
    with pytest.raises(UserError, match=r"test_share is 2; expected a number between 0 and 1"):
        PhotosDataset(tmp_path, test_share=2)


def test_training_by_the_path_of_the_labels(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = many(tmp_path / "shop 1")
    words = ["finetune", f"data={path}", "protocol=B0-C1", "backbone=small", "--json"]
    code, out, err = tiny.call(capsys, "plan", *words)
    assert code == 0, err
    plan = json.loads(out)
    assert (plan["name"], [s["images"] for s in plan["sessions"]]) == ("labels", [6, 4, 3])
    code, out, err = tiny.call(capsys, "plan", "finetune", f"data={tmp_path}/none.csv", "protocol=B0-C1")
    assert (code, "none.csv does not exist; expected a CSV" in err) == (2, True)
    code, out, err = tiny.call(capsys, "plan", "finetune", "data=shop", "protocol=B0-C1")
    assert (code, "or the path of a file or folder with labels" in err) == (2, True)


# -- bad input --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("l.csv", "file,labels\n0.jpg,ant\nx.jpg,bee\ny.jpg,\nx.jpg,ant\n", "2 of 3 photos are .*: x.jpg, y.jpg; put"),
        ("l.csv", "file,ant,,bee\n0.jpg,1,,1\n", "column 3 of the first line has no name"),
        ("l.csv", "file,ant,bee,ant\n0.jpg,1,,1\n", "the columns 2 and 4 are both named 'ant'"),
        ("l.csv", "file,labels\n0.jpg,Ant\n1.jpg,ant\n", "differ by case, blanks or hyphens only: 'Ant' and 'ant'"),
        ("l.csv", "0.jpg,ant\n1.jpg,bee\n", "names the columns '0.jpg', 'ant'; expected one of them to be 'file'"),
        ("l.csv", "file,labels\n0.jpg,ant,bee\n", "line 2: 3 values under 2 columns"),
        ("l.csv", "file,labels\n,ant\n", "line 2: no name of a photo in the column 'file'"),
        ("l.csv", "file,author\n0.jpg,Bob\n", "line 2: 'Bob' in the column 'author'; expected 1, 0 or nothing"),
        ("l.csv", "file,labels,split\n0.jpg,ant,tset\n", "line 2: the split 'tset'; expected train, test or val"),
        ("l.csv", "file,labels\n0.jpg,\n", "names no label"),
        ("l.csv", "file,labels\n", "names no photo"),
        ("l.csv", 'file,labels\n"0.jpg,ant\n', "line 2: unexpected end of data"),
        ("l.csv", " \n", "is empty; expected a CSV"),
        ("l.csv", "file,labels\n0.jpg,\0\n", "holds bytes of 0"),
        ("l.jsonl", '{"file": "0.jpg", "labels": ["ant"]}\n{"file": ', "no complete json .line 2: "),
        ("l.json", '{"file": "0.jpg",\n "labels": ["ant"', "no complete json .Expecting"),
        ("l.json", "[" * 100_000, "no complete json"),
        ("l.json", "[1]", "entry 1 is a json int"),
        ("l.json", '[{"name": "0.jpg"}]', "entry 1 has the keys 'name'; expected a text 'file'"),
        ("l.json", '[{"file": "0.jpg", "labels": [1]}]', r"the labels \[1\]; expected a list of texts"),
        ("l.json", '[{"file": "0.jpg", "labels": {"ant": 7}}]', "expected a list of texts, or an object with 1, 0"),
        ("l.json", '[{"data": {"text": "hello"}}]', "task 1 has the data 'text'; expected one that names an image"),
        ("l.json", '[{"data": {"image": "0.jpg"}, "annotations": []}]', "names no photo"),
    ],
)  # fmt: skip
def test_a_file_that_is_wrong(name: str, text: str, says: str, tmp_path: Path) -> None:
    path = written(photos(tmp_path) / name, text)
    with pytest.raises(UserError, match=says) as error:
        read_labels(path)
    assert "\n" not in str(error.value)


def test_a_path_that_is_wrong(tmp_path: Path) -> None:
    path = a_list(tmp_path / "x")
    (tmp_path / "latin.csv").write_bytes("file,labels\n0.jpg,Käfer\n".encode("latin-1"))
    (tmp_path / "empty").mkdir()
    for wrong, says in [
        ({"path": tmp_path / "none.csv"}, "none.csv does not exist; expected a CSV"),
        ({"path": tmp_path / "latin.csv"}, "is not UTF-8 text .byte 19.; .*save it again as 'CSV UTF-8'"),
        ({"path": tmp_path / "empty"}, "holds no photo"),
        ({"path": path.parent / "0.jpg"}, "is a photo; .*so give the list of its labels"),
        ({"path": path.parent}, "none of the 4 photos in .* holds a keyword; .*do you mean .*labels.csv"),
        ({"path": path.parent, "form": "folder"}, "form is 'folder'.*did you mean 'folders'"),
        ({"path": path, "photos": tmp_path / "no"}, "folder of photos .*no does not exist"),
        ({"path": path, "photos": tmp_path / "empty"}, "none of its 4 photos is in .*empty.*with --photos FOLDER"),
        ({"path": path, "reviewed": "ant,bea"}, "reviewed names 'bea', .*did you mean 'bee'"),
    ]:
        with pytest.raises(UserError, match=says):
            read_labels(**wrong)  # type: ignore[arg-type]


def test_missing_photos_and_spellings_can_be_reported_instead(tmp_path: Path) -> None:
    path = written(photos(tmp_path) / "l.csv", "file,labels\n0.jpg,Ant\nx.jpg,ant\n1.jpg,bee\n")
    read = read_labels(path, strict=False)
    assert (read.missing, read.alike, len(read)) == (("x.jpg",), (("Ant", "ant"),), 2)
    long = written(tmp_path / "m.csv", "file,labels\n" + "".join(f"m{k}.jpg,ant\n" for k in range(60)))
    with pytest.raises(UserError, match=r"m49.jpg and 10 more \(`mlcil data` lists all\)"):
        read_labels(written(tmp_path / "n.csv", long.read_text() + "0.jpg,ant\n"))
    with pytest.raises(UserError, match="none of its 60 photos is in"):
        read_labels(long, strict=False)
