"""A tiny tagger behind HTTP, and a stand-in for Label Studio that speaks its part of the protocol."""

import io
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time
import zlib
from pathlib import Path

import pytest
import tiny
from fastapi.testclient import TestClient
from label_studio import LabelStudio, label_studio, png
from PIL import Image

import mlcil
from mlcil.errors import UserError
from mlcil.tagger.server import studio as studio_module
from mlcil.tagger.server.app import Served, Service, create_app
from mlcil.tagger.server.limits import Limits, RefusedError
from mlcil.tagger.server.studio import Learner, Studio, choices_of, newest, versions

CONFIG = (
    '<View><Image name="photo" value="$picture"/><Choices name="insects" toName="photo" choice="multiple">'
    '<Choice value="ant"/><Choice value="bee"/><Choice value="cat"/></Choices></View>'
)
LIMITS = Limits(images=3, megabytes=1, megapixels=1, seconds=20)


def flat(width, height):
    file = io.BytesIO()
    Image.new("RGB", (width, height)).save(file, "PNG")
    return file.getvalue()


def bomb():
    """A PNG of a few bytes that says it has 400 million pixels."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND", b"")


@pytest.fixture(scope="module")
def stage(tmp_path_factory):
    return tiny.write_stage(tmp_path_factory.mktemp("served") / "insects.tagger")


@pytest.fixture(scope="module")
def served(stage):
    return Served(mlcil.load(stage, precision="fp32"), "insects")


@pytest.fixture
def client(served):
    with TestClient(create_app(Service(served, LIMITS))) as client:
        yield client


@pytest.fixture
def address():
    with label_studio() as address:
        yield address


@pytest.fixture
def backend(served, address):
    with TestClient(create_app(Service(served, LIMITS, Studio(address, "secret", 10**6)))) as client:
        yield client


def test_one_image_and_many_get_the_scores_of_predict(client, served, tmp_path):
    files = [png(0), png(9)]
    for number, content in enumerate(files):
        (tmp_path / f"{number}.png").write_bytes(content)
    expected = [scores for _, scores in served.tagger.predict(sorted(tmp_path.glob("*.png")))]
    form = [("images", (f"{number}.png", content, "image/png")) for number, content in enumerate(files)]
    answer = client.post("/predict?scores=true", files=form).json()
    assert answer["model_version"] == "insects"
    assert [image["image"] for image in answer["images"]] == ["0.png", "1.png"]
    for image, scores in zip(answer["images"], expected, strict=True):
        assert image["scores"] == pytest.approx(scores, abs=1e-6)
        assert image["labels"] == [
            {"label": name, "score": image["scores"][name]} for name, value in scores.items() if value >= 0.8
        ]
    alone = client.post("/predict?scores=true", content=files[1], headers={"content-type": "image/png"}).json()
    assert alone["images"][0]["scores"] == pytest.approx(expected[1], abs=1e-6)
    assert "scores" not in client.post("/predict", content=files[1]).json()["images"][0]


def test_thresholds_of_the_tagger_decide(stage):
    tagger = mlcil.load(stage, precision="fp32")
    tagger.thresholds = [0.0, float("nan")]
    with TestClient(create_app(Service(Served(tagger, "x"), LIMITS))) as client:
        assert client.get("/labels").json()["labels"] == [
            {"label": "ant", "threshold": 0.0},
            {"label": "bee", "threshold": 0.8},
        ]
        found = client.post("/predict", content=png()).json()["images"][0]["labels"]
    assert [label["label"] for label in found] == ["ant"]


def test_the_page_needs_nothing_from_elsewhere_and_escapes_names(served):
    tagger = served.tagger
    with TestClient(create_app(Service(Served(tagger, "<b>x"), LIMITS))) as client:
        answer = client.get("/")
    assert answer.status_code == 200
    assert "<b>x" not in answer.text
    assert "http" not in answer.text
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    assert '{"label": "ant", "threshold": 0.8}' in answer.text
    assert client.get("/docs").status_code == 404


@pytest.mark.parametrize(
    ("body", "kind", "status", "says"),
    [
        (b"only text", "text/plain", 415, "the image is no image that can be read; expected one of JPEG"),
        (b"", "image/png", 400, "no body; expected an image"),
        (png()[:200], "image/png", 422, "the image is a damaged image"),
        (bomb(), "image/png", 413, "the image has far too many pixels; expected at most 1 million"),
        (flat(1600, 1000), "image/png", 413, "has 2 million pixels; expected at most 1 million"),
        (bytes(2 * 10**6), "image/png", 413, "the request has 2 MB; expected at most 1 MB"),
        (b"nothing", "multipart/form-data; boundary=x", 400, "the form"),
        (b"{}", "application/json", 403, "start the server with --label-studio"),
    ],
)
def test_a_bad_request_is_refused_in_a_sentence(client, body, kind, status, says):
    answer = client.post("/predict", content=body, headers={"content-type": kind})
    assert answer.status_code == status
    assert says in answer.json()["error"]


def test_a_thousand_images_are_refused_and_one_bad_one_is_named(client):
    answer = client.post("/predict", files=[("images", (f"{n}.png", b"x", "image/png")) for n in range(1000)])
    assert (answer.status_code, answer.json()["error"]) == (
        413,
        "there are more than 3 images; send at most 3 at a time",
    )
    form = [("images", ("good.png", png(), "image/png")), ("images", ("../../etc/passwd", b"root:", "image/png"))]
    answer = client.post("/predict", files=form)
    assert answer.status_code == 415
    assert answer.json()["error"].startswith("../../etc/passwd is no image")
    assert client.post("/predict", data={"words": "x"}, files={}).status_code == 415
    answer = client.get("/predict")
    assert answer.status_code == 405
    assert "expected POST /predict" in answer.json()["error"]


def test_a_body_without_a_length_is_counted(client):
    read = []

    def endless():
        for number in range(10_000):
            read.append(number)
            yield bytes(100_000)

    answer = client.post("/predict", content=endless(), headers={"content-type": "image/png"})
    assert answer.status_code == 413
    assert "the request has more; expected at most 1 MB" in answer.json()["error"]


def test_slow_work_is_answered_in_time(served, monkeypatch):
    monkeypatch.setattr(Served, "tag", lambda *_: time.sleep(0.6) or [])
    with TestClient(create_app(Service(served, Limits(seconds=0.2)))) as client:
        answer = client.post("/predict", content=png())
    assert answer.status_code == 503
    assert "no answer within 0.2 seconds" in answer.json()["error"]


# -- Label Studio ------------------------------------------------------------------------------------------------------


def ask(client, *addresses, config=CONFIG):
    tasks = [{"id": number, "data": {"picture": address}} for number, address in enumerate(addresses)]
    return client.post("/predict", json={"tasks": tasks, "label_config": config, "project": "7.1"})


def test_tasks_are_answered_with_choices_of_the_project(backend, served, address, monkeypatch):
    monkeypatch.setattr(served.tagger, "thresholds", [0.0, 0.0])
    answer = ask(backend, "/data/upload/7/a.png", f"{address}/data/upload/7/b.png")
    assert answer.status_code == 200
    assert LabelStudio.asked[0] == ("/data/upload/7/a.png", "Token secret")
    for entry in answer.json()["results"]:
        (result,) = entry["result"]
        assert (result["from_name"], result["to_name"], result["type"]) == ("insects", "photo", "choices")
        assert set(result["value"]["choices"]) == {"ant", "bee"}
        assert entry["model_version"] == "insects"
    less = CONFIG.replace('<Choice value="bee"/>', "").replace(' choice="multiple"', "")
    (entry,) = ask(backend, "/data/upload/7/a.png", config=less).json()["results"]
    assert entry["result"][0]["value"]["choices"] == ["ant"]


@pytest.mark.parametrize(
    ("image", "status", "says"),
    [
        ("file:///etc/passwd", 400, "nothing else is opened"),
        ("http://example.com/a.png", 400, "nothing else is opened"),
        ("//example.com/a.png", 400, "nothing else is opened"),
        ("http://127.0.0.1:1@example.com/a.png", 400, "nothing else is opened"),
        ("/etc/passwd", 502, "(404)"),
        ("/data/away", 502, "(302)"),
        (None, 400, "is not named in its task"),
    ],
)
def test_nothing_but_the_label_studio_is_opened(backend, image, status, says):
    answer = ask(backend, image)
    assert answer.status_code == status
    assert says in answer.json()["error"]


def test_other_tasks_are_answered_beside_a_bad_one(backend):
    first, second = ask(backend, "http://example.com/a.png", "/data/upload/7/a.png").json()["results"]
    assert first["result"] == []
    assert "nothing else is opened" in first["error"]
    assert "error" not in second


def test_setup_says_the_version_and_what_the_config_lacks(backend):
    body = {"project": "7.1", "schema": CONFIG, "hostname": "http://example.com", "access_token": "theirs"}
    assert backend.post("/setup", json=body).json() == {"model_version": "insects"}
    answer = backend.post("/setup", json={**body, "schema": "<View><Text name='t' value='$t'/></View>"})
    assert answer.status_code == 400
    assert "has no choices for an image" in answer.json()["error"]
    for config in ("<View", '<!DOCTYPE x [<!ENTITY a "b">]><View/>'):
        with pytest.raises(RefusedError, match="labelling config"):
            choices_of(config)
    assert backend.post("/setup", content=b"[").status_code == 400
    assert backend.post("/webhook", json={"action": "START_TRAINING"}).status_code == 403


def test_a_personal_token_is_exchanged(address):
    assert Studio(address, "a.b.c", 10**6).image("/data/upload/7/a.png", "it") == png()
    assert LabelStudio.asked[-1] == ("/data/upload/7/a.png", "Bearer short")
    assert "a.b.c" not in repr(Studio(address, "a.b.c", 1))
    with pytest.raises(RefusedError, match="expected a smaller one"):
        Studio(address, "secret", 10).image("/data/upload/7/a.png", "it")
    with pytest.raises(UserError, match="--label-studio is 'ftp://x'"):
        Studio("ftp://x", "secret", 1)


def annotated(number, choices):
    result = [{"type": "choices", "value": {"choices": choices}}]
    return {"id": number, "data": {"picture": f"/data/upload/7/{number}.png"}, "annotations": [{"result": result}]}


def until(condition):
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_an_annotation_is_learnt_by_the_command_and_served(served, stage, address, tmp_path, monkeypatch):
    """The command itself is stood in for: what it is given, and what is made of its file."""
    base = tmp_path / "insects.tagger"
    base.write_bytes(stage.read_bytes())
    given = []

    def extend(self, words):
        tasks = json.loads(Path(words[1]).read_text())
        given.append((words, [t["annotations"][0]["result"][0]["value"]["choices"] for t in tasks]))
        for task in tasks:
            assert Path(words[3], task["data"]["image"]).read_bytes() == png()
        more = tiny.stage(("ant", "bee", "cat"))
        more.parents = [studio_module.file_sha256(base)]
        more.save(tmp_path / words[5].rpartition("/")[2])

    monkeypatch.setattr(Learner, "_extend", extend)
    studio = Studio(address, "secret", 10**6)
    service = Service(served, LIMITS, studio)

    def learnt(path):
        service.served = Served.of(mlcil.load(path, precision="fp32"), path)

    service.learner = Learner(base, studio, 7, "cat, dog", learnt)  # and no dog has been seen yet
    LabelStudio.tasks = [annotated(1, ["cat"]), annotated(2, []), annotated(3, ["cat"])]
    LabelStudio.tasks[2]["data"]["picture"] = "http://example.com/a.png"
    with TestClient(create_app(service)) as client:
        event = {"action": "ANNOTATION_CREATED", "project": {"id": 7}}
        assert client.post("/webhook", json={**event, "project": {"id": 8}}).status_code == 409
        assert client.post("/webhook", json={"action": "PROJECT_UPDATED"}).json() == {"status": "ignored"}
        answer = client.post("/webhook", json=event)
        assert (answer.status_code, answer.json()) == (202, {"status": "learning"})
        until(lambda: not service.learner.state()["working"])
        assert client.get("/health").json()["model_version"] == "insects-2"
        assert [entry["label"] for entry in client.get("/labels").json()["labels"]] == ["ant", "bee", "cat"]
        last = service.learner.state()["last"]
        assert last == (
            "insects-2.tagger is learnt from 2 photos; 1 of 3 photos did not come; reviewed, but not ticked on any "
            "photo yet: dog"
        )
        client.post("/webhook", json=event)
        until(lambda: service.learner.state()["last"] == "nothing new is annotated; 1 of 3 photos did not come")
        LabelStudio.tasks[2]["data"]["picture"] = "/data/upload/7/3.png"  # now it does
        client.post("/webhook", json=event)
        until(lambda: "3 photos; reviewed" in service.learner.state()["last"])
        client.post("/webhook", json=event)
        until(lambda: service.learner.state()["last"] == "nothing new is annotated")
        for version, ticked in ((4, []), (5, ["cat"])):  # a tick that goes and comes back
            LabelStudio.tasks[2]["annotations"] = annotated(3, ticked)["annotations"]
            client.post("/webhook", json=event)
            until(lambda version=version: f"insects-{version}" in service.learner.state()["last"])
    (words, choices), (_, more), (_, without), (_, back) = given
    assert more == back == [["cat"], [], ["cat"]]
    assert without == [["cat"], [], []]
    assert words[0] == str(base)
    assert words[6:] == ["--reviewed", "cat"]
    assert choices == [["cat"], []]
    assert newest(base) == tmp_path / "insects-5.tagger"
    tiny.write_stage(tmp_path / "insects-6.tagger")  # of no parent
    assert list(versions(base)) == [2, 3, 4, 5, 6]
    assert newest(base) == tmp_path / "insects-5.tagger"


def test_what_cannot_be_learnt_is_said_in_health(served, stage, address, tmp_path):
    base = tmp_path / "insects.tagger"
    base.write_bytes(stage.read_bytes())
    LabelStudio.tasks = [annotated(1, ["Ant"])]
    service = Service(served, LIMITS)
    service.learner = Learner(base, Studio(address, "secret", 10**6), 7, None, pytest.fail)
    with TestClient(create_app(service)) as client:
        client.post("/webhook", json={"action": "START_TRAINING", "project": {"id": 7}})
        until(lambda: not service.learner.state()["working"])
        assert "the tagger has it as 'ant'" in client.get("/health").json()["learning"]["last"]
    assert list(tmp_path.iterdir()) == [base]


# -- the command -------------------------------------------------------------------------------------------------------


def test_the_command_serves_refuses_early_and_ends_at_a_signal(stage):
    words = [sys.executable, "-m", "mlcil", "serve", str(stage), "--port", "0"]
    process = subprocess.Popen(
        words, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(tiny.SOURCES)}
    )
    try:
        line = process.stdout.readline()
        assert "2 labels at http://127.0.0.1:" in line
        port = int(line.rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port)) as client:
            client.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 500000000\r\n\r\n" + bytes(1000))
            answer = b"".join(iter(lambda: client.recv(10_000), b""))
        assert answer.startswith(b"HTTP/1.1 413")
        assert b"the request has 500 MB; expected at most 100 MB" in answer
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()


def test_wrong_options_are_said(stage, capsys, monkeypatch):
    monkeypatch.delenv("LABEL_STUDIO_API_KEY", raising=False)
    for options, says in (
        (["--timeout", "0"], "the limit of seconds is 0.0; expected more than 0"),
        (["--port", "70000"], "127.0.0.1:70000 cannot be served"),
        (["--label-studio", "http://x"], "LABEL_STUDIO_API_KEY"),
        (["--project", "1"], "--project goes with --label-studio"),
    ):
        code, out, err = tiny.call(capsys, "serve", stage, *options)
        assert (code, out) == (2, "")
        assert says in err
    with socket.create_server(("127.0.0.1", 0)) as taken:
        code, _, err = tiny.call(capsys, "serve", stage, "--port", taken.getsockname()[1])
    assert code == 2
    assert "a free port" in err
