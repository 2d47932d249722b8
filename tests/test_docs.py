"""The guides do what they say: examples run from an empty folder, every command and link leads somewhere."""

import csv
import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import torch
from label_studio import LabelStudio, label_studio
from mmengine.registry import HOOKS
from tiny import SOURCES, call, coco_folder, write_config, write_image, write_stage

import mlcil
import mlcil.engine.config
from mlcil import cli
from mlcil.commands.bench_plan import find_bench, load_bench
from mlcil.engine.config import load_config
from mlcil.tagger.nothing import image_of_nothing

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("*/README.md"), *ROOT.glob("docs/*.md")])
METHOD, DATA_SET = ROOT / "docs" / "add_a_method.md", ROOT / "docs" / "add_a_data_set.md"
OWN_PHOTOS = ROOT / "docs" / "your_own_photos.md"
ADD_LABELS, SERVE = ROOT / "docs" / "add_labels.md", ROOT / "docs" / "serve.md"
EXAMPLES = {"less_forgetting.py": METHOD, "photo_list.py": DATA_SET}
#: words that stand for something of the reader's
PLACEHOLDER = re.compile(r"\b[A-Z]{2,}[A-Z0-9_]*\b")
#: programs that are not the project's
OTHERS = ("pip", "curl")


def fenced(page, language):
    """The fenced blocks of a page in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.DOTALL | re.MULTILINE)


def files(page):
    """Name and content of the python files that a page shows: the name stands before the block."""
    return dict(re.findall(r"`(\w+\.py)`[^`]*\n\n```python\n(.*?)```", page.read_text(), re.DOTALL))


def commands(page):
    """Every command of a page's ``sh`` blocks, and those in the text whose first word says that they are some."""
    for block in fenced(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            if words:
                yield words
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    for code in re.findall(r"`([^`]+)`", text):
        words = shlex.split(code.replace("\n", " "))
        if len(words) > 1 and words[0] in ("mlcil", "sh", "make", "python", "pytest"):
            yield words


def resolve(words):
    """Fail unless the command of ``mlcil`` exists and the config that it names resolves, in the folder of the page."""
    if len(words) == 1:  # a command by its name
        assert (ROOT / "src" / "mlcil" / "commands" / f"{words[0]}.py").is_file(), words
        return
    options, rest = cli.parser().parse_known_args(words)
    assert not [word for word in rest if word.startswith("-")], words
    config = getattr(options, "config", None)
    if config is None or PLACEHOLDER.search(config):
        return
    if options.command == "bench":
        load_bench(find_bench(config))
    elif options.command == "config":
        assert cli.main(words) == 0
    else:
        load_config(config, [*options.overrides, *rest])


def resolve_script(script, *words):
    """The same for ``sh train_mlcil_coco.sh`` and its neighbour, whose first word may name another config."""
    (default,) = re.findall(r"^run_experiment (\S+)", (ROOT / script).read_text(), re.MULTILINE)
    named = [word for word in words if "/" in word and "=" not in word]
    load_config([default, *named][-1], [word for word in words if "=" in word])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_exist(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(mlcil.engine.config, "PACKAGES", {})  # trackers are installed by who wants them
    shown = files(page)
    for name, code in shown.items():
        Path(name).write_text(code)
    for words in commands(page):
        if "mlcil" in words:
            if page not in EXAMPLES.values() or words[2:3] == ["NAME"]:  # those are run below
                resolve(words[words.index("mlcil") + 1 :])
        elif words[0] == "make":
            targets = (ROOT / "Makefile").read_text()
            assert all(re.search(rf"^{word}:", targets, re.MULTILINE) for word in words[1:] if "=" not in word), words
        elif words[0] in ("sh", "python", "pytest"):
            named, *rest = [word for word in words[1:] if not word.startswith("-")]
            assert (ROOT / named).exists() or named in shown, words
            if named.startswith("train_mlcil") and "--demo" not in words:
                resolve_script(named, *rest)
        else:
            assert words[0] in OTHERS or "=" in words[0], words


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles], link


def test_every_guide_is_linked_from_the_readme():
    readme = (ROOT / "README.md").read_text()
    assert [page.name for page in ROOT.glob("docs/*.md") if f"docs/{page.name}" not in readme] == []


@pytest.mark.parametrize(
    ("page", "most"), [(METHOD, 350), (DATA_SET, 300)], ids=lambda value: getattr(value, "stem", "")
)
def test_a_guide_and_what_it_copies_from_are_read_quickly(page, most):
    text = page.read_text()
    first = re.search(r"\]\(\.\./(src/\S+?)\)", text)  # the file to copy from
    copied = (ROOT / first[1]).read_text()
    assert len((text + copied).splitlines()) < most


def test_the_table_of_the_engine_says_what_each_file_knows():
    page = (ROOT / "docs" / "architecture.md").read_text()
    told = {}
    for line in re.findall(r"^\| `.*\.py`.*\|$", page, re.MULTILINE):
        names, _, knows = line.strip("| ").split(" | ")
        told.update({name: set(re.findall(r"\w+", knows)) - {"nothing"} for name in re.findall(r"(\w+)\.py", names)})
    engine = ROOT / "src" / "mlcil" / "engine"
    parts = {path.stem for path in engine.glob("*.py")} - {"__init__"}
    assert told.keys() == parts
    for name in parts - {"build"}:  # which knows all of them
        text = (engine / f"{name}.py").read_text()
        assert told[name] == set(re.findall(r"^from mlcil\.engine(?: import |\.)(\w+)", text, re.MULTILINE)), name


def test_the_readme_is_short():
    assert len((ROOT / "README.md").read_text().splitlines()) < 120


# -- examples, run as the page says ------------------------------------------------------------------------------------


def follow(page, folder, capsys, monkeypatch):
    """Write the page's files into a folder and run its ``sh`` blocks there; returns what the commands print."""
    monkeypatch.chdir(folder)
    for name, code in files(page).items():
        Path(name).write_text(code)
    printed = {}
    for block in fenced(page, "sh"):
        for line in block.splitlines():
            words = shlex.split(line, comments=True)
            if words[0] == "python":
                subprocess.run([sys.executable, *words[1:]], check=True, cwd=folder)
                continue
            assert words[0] == "mlcil", line
            code, out, err = call(capsys, *words[1:])
            assert code == 0, err
            printed[line] = out
    return printed


def results_of(run):
    return json.loads((Path("logs") / run / "results.json").read_text())["sessions"]


def test_the_method_of_the_page(tmp_path, capsys, monkeypatch):
    """In a folder with nothing in it, and with nothing in the cache."""
    monkeypatch.setenv("MLCIL_CACHE", str(tmp_path / "cache"))
    printed = follow(METHOD, tmp_path, capsys, monkeypatch)
    assert len(results_of("less_forgetting_digits")) == 2
    assert np.isfinite(results_of("less_forgetting_digits")[1]["mAP"]["seen"])
    assert re.search(r"loss_features: \d", Path("logs/less_forgetting_digits/log/log.txt").read_text())
    first, second = (
        torch.load(f"saved_models/less_forgetting_digits/session_{t}.pth", weights_only=True)["state_dict"]
        for t in (0, 1)
    )
    name = "head.classifiers.0.weight"
    assert torch.equal(first[name], second[name])
    stem = next(key for key in first if key.startswith("backbone.") and first[key].ndim == 4)
    assert not torch.equal(first[stem], second[stem])
    table = printed["mlcil compare logs/less_forgetting_digits logs/finetune_digits_b0-c5"]
    assert "| less_forgetting_digits | 1 |" in table
    (code,) = fenced(ROOT / "docs" / "read_the_results.md", "py")
    exec(code.replace("krt_voc_b0-c4", "less_forgetting_digits"), {})
    assert str(results_of("less_forgetting_digits")[1]["mAP"]["seen"]) in capsys.readouterr().out
    (method,) = re.findall(r"`(method\s=\sdict\(_delete_=True[^`]*)`", METHOD.read_text())
    text = files(METHOD)["less_forgetting_digits.py"].replace("dict(type=", "dict(_delete_=True, type=")
    text = re.sub(r"^method = .*$", " ".join(method.split()), text, flags=re.MULTILINE)
    Path("on_krt.py").write_text(re.sub(r"^based_on = .*$", 'based_on = "krt data=digits"', text, flags=re.MULTILINE))
    code, out, err = call(capsys, "plan", "on_krt.py")
    assert code == 0, err
    assert out.startswith("LessForgetting on digits")
    code, _, err = call(capsys, "plan", "less_forgetting_digits.py", "method.wieght=1")
    assert code == 2
    assert "did you mean 'weight'?" in err


def test_the_data_set_of_the_page(tmp_path, capsys, monkeypatch):
    printed = follow(DATA_SET, tmp_path, capsys, monkeypatch)
    assert len(list(Path("photos").glob("*.png"))) == 80
    tagged = [json.loads(line) for line in list(printed.values())[-1].splitlines()]
    assert len(tagged) == 80
    assert {label["label"] for image in tagged for label in image["labels"]} <= {"red", "green", "blue", "yellow"}
    assert results_of("colours")[-1]["mAP"]["seen"] > 60  # a guess has about 40
    Path("photos/photos.csv").write_text("file,split\n1.png,train\n")
    code, _, err = call(capsys, "plan", "colours.py")
    assert code == 2
    assert "expected columns file, split and labels" in err


def test_own_photos_in_every_form(tmp_path, capsys, monkeypatch):
    printed = follow(OWN_PHOTOS, tmp_path, capsys, monkeypatch)
    looked = [line for line in printed if line.startswith("mlcil data")]
    assert len(looked) == 8
    for line in looked:
        assert "60 photos, 4 labels" in printed[line], line
        (total,) = re.findall(r"^ *all +(\d+) +(\d+) +(\d+)$", printed[line], re.MULTILINE)
        unknown = 147 if "labels.csv" in line else 0
        assert list(map(int, total)) == [93, 147 - unknown, unknown], line
    assert results_of("lwf_columns_b0-c2_small")[-1]["mAP"]["seen"] > 60  # a guess has about 40
    tagged = list(csv.DictReader(Path("tags.csv").read_text().splitlines()))
    assert (
        len(tagged) == len(json.loads(Path("tasks.json").read_text())) == len(list(Path("photos").glob("*.xmp"))) == 60
    )
    assert {label for row in tagged for label in row["labels"].split(";") if label} <= {
        "red",
        "green",
        "blue",
        "yellow",
    }


def test_labels_are_added_as_the_page_says(tmp_path, capsys, monkeypatch):
    """With what it prints; seconds, scores and digests are this machine's."""
    monkeypatch.setenv("MLCIL_CACHE", str(tmp_path / "cache"))
    for name, value in (("FOLDS", 2), ("PROVED", 4)):
        monkeypatch.setattr(f"mlcil.tagger.extend.{name}", value)
    folder = tmp_path / "empty"
    folder.mkdir()
    printed = follow(ADD_LABELS, folder, capsys, monkeypatch)
    number = re.compile(r"\d[\d.]* [smh]\b( \d+ [smh]\b)?|\d[\d.]*")
    outputs = {line.split()[1]: number.sub("N", text) for line, text in printed.items()}
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", ADD_LABELS.read_text(), re.DOTALL | re.MULTILINE)
    shown = [block for language, block in blocks if not language]
    for command, block in zip(("data", "extend", "check", "predict"), shown[1:], strict=True):
        for line in number.sub("N", block).splitlines():
            words = line.split("  ")[0] if command == "check" else line.partition(', "score"')[0]
            assert words in outputs[command], (command, line)
    assert Path("check.html").is_file()
    tagger = mlcil.load("v2.tagger")
    assert tagger.classes == ["ball", "ladder", "tent"]
    for place in range(20):
        image_of_nothing(place, seed=7).save(f"nothing_{place}.png")
    blank = [scores["tent"] >= tagger.thresholds[2] for _, scores in tagger.predict(sorted(Path().glob("nothing_*")))]
    assert sum(blank) <= 1


@contextmanager
def serving(line, changes, folder):
    """The server of a page's line on a free port; yields its address."""
    words = shlex.split(line)
    variables = dict(word.split("=") for word in words[: words.index("mlcil")])
    words = [changes.get(word, word) for word in words[words.index("mlcil") + 1 :]]
    environment = {**os.environ, **variables, "PYTHONPATH": str(SOURCES), "MLCIL_CACHE": str(folder)}
    command = [sys.executable, "-m", "mlcil", *words, "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment) as process:
        try:
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()
            assert process.wait(20) == 0


def curl(line, address, folder):
    """What a request of the page is answered."""
    words = shlex.split(line)
    (url,) = [word for word in words if word.startswith("http")]
    url = address + url.removeprefix("http://127.0.0.1:8000")
    given = {option: words[at + 1] for at, option in enumerate(words) if option in ("-H", "--data-binary")}
    forms = [words[at + 1].split("=@") for at, option in enumerate(words) if option == "-F"]
    if forms:
        answer = httpx.post(url, files=[(name, (file, (folder / file).read_bytes())) for name, file in forms])
    elif given:
        content = (folder / given["--data-binary"].removeprefix("@")).read_bytes()
        answer = httpx.post(url, content=content, headers=dict([given["-H"].split(": ")]))
    else:
        answer = httpx.get(url)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_the_servers_of_the_page(tmp_path, capsys, monkeypatch):
    """The first one stops when it would begin to listen; the requests go to the second one."""
    monkeypatch.chdir(tmp_path)
    write_stage(tmp_path / "v2.tagger")
    for name in ("photo", "one", "two"):
        write_image(tmp_path / f"{name}.jpg")
    (alone,), requests, (studio,) = [block.splitlines() for block in fenced(SERVE, "sh")]
    with monkeypatch.context() as patch:
        patch.setattr("uvicorn.Server.run", lambda *_: None)
        patch.setattr("signal.signal", lambda *_: None)
        code, out, err = call(capsys, *shlex.split(alone)[1:], "--port", "0")
    assert (code, err) == (0, "")
    assert re.fullmatch(r"v2\.tagger: 2 labels at http://127\.0\.0\.1:\d+\n", out)
    with label_studio() as theirs, serving(studio, {"http://127.0.0.1:8080": theirs}, tmp_path) as address:
        one, two, labels, health = [curl(line, address, tmp_path) for line in requests]
        (shown,) = map(json.loads, fenced(SERVE, "json"))
        assert one.keys() == shown.keys()
        assert one["images"][0].keys() == shown["images"][0].keys()
        assert (one["model_version"], one["images"][0]["image"]) == (shown["model_version"], "the image")
        assert [image["image"] for image in two["images"]] == ["one.jpg", "two.jpg"]
        assert two["images"][0]["scores"].keys() == {label["label"] for label in labels["labels"]} == {"ant", "bee"}
        assert (health["status"], health["model_version"]) == ("UP", "v2")
        config = (
            '<View><Image name="image" value="$image"/><Choices name="choice" toName="image" choice="multiple">'
            '<Choice value="ant"/></Choices></View>'
        )
        assert httpx.post(f"{address}/setup", json={"schema": config}).json() == {"model_version": "v2"}
        task = {"id": 1, "data": {"image": "/data/upload/7/a.png"}}
        answer = httpx.post(f"{address}/predict", json={"tasks": [task], "label_config": config})
        assert answer.json()["results"][0]["model_version"] == "v2"
        assert LabelStudio.asked == [("/data/upload/7/a.png", "Token TOKEN")]
        event = {"action": "ANNOTATION_CREATED", "project": {"id": 8}}
        assert "this server learns from project 7" in httpx.post(f"{address}/webhook", json=event).json()["error"]
        assert httpx.get(f"{address}/health").json()["learning"] == {"working": False, "last": ""}


def test_the_hook_of_the_page(tmp_path, capsys, monkeypatch):
    page = ROOT / "docs" / "train.md"
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(HOOKS.module_dict, "WorstClass", raising=False)  # of a copy of the page's file
    Path("worst_class.py").write_text(files(page)["worst_class.py"])
    (words,) = [words for words in commands(page) if "WorstClass" in words[-1]]
    code, _, err = call(capsys, *words[1:], "protocol=B0-C5", "train_cfg.max_epochs=1")
    assert code == 0, err
    (folder,) = Path("logs").iterdir()
    worst = re.findall(r"session (\d): class \d is worst, AP ([\d.]+)", (folder / "log" / "log.txt").read_text())
    assert [(int(index), float(ap)) for index, ap in worst] == [
        (index, pytest.approx(min(session["AP"]), abs=0.006)) for index, session in enumerate(results_of(folder.name))
    ]


@pytest.mark.parametrize(("name", "most"), [("less_forgetting.py", 45), ("photo_list.py", 60)])
def test_an_example_is_short(name, most):
    assert len([line for line in files(EXAMPLES[name])[name].splitlines() if line.strip()]) <= most


def test_the_first_run_of_the_guide(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for line in fenced(ROOT / "docs" / "train.md", "sh")[0].splitlines():
        words = shlex.split(line, comments=True)
        assert call(capsys, *words[1:])[0] == 0, line
    assert (tmp_path / "logs" / "lwf_digits_single_5-tasks" / "report.html").is_file()


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('plugins = ["missing.py"]', "missing.py does not exist; expected a python file"),
        ('plugins = "less_forgetting.py"', "expected a list of python files"),
        ('plugins = ["broken.py"]', "broken.py cannot be imported (ZeroDivisionError"),
        ('plugins = ["notes.txt"]', "expected a name that ends with .py"),
    ],
)
def test_a_plugin_that_cannot_be_used_is_named(tmp_path, capsys, line, says):
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "notes.txt").write_text("")
    base = write_config(tmp_path, coco_folder(tmp_path / "coco"))
    experiment = tmp_path / "mine.py"
    experiment.write_text(f"_base_ = [{base.name!r}]\n{line}\n")
    code, _, err = call(capsys, "plan", experiment)
    assert code == 2
    assert says in err
