"""Downloads from a server on loopback: whole, broken off, wrong, missing, redirected, slow, hostile."""

import hashlib
import io
import tarfile
import threading
import time
import zipfile
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest
import torch
from tiny import call

from mlcil.errors import UserError
from mlcil.interop import downloads
from mlcil.interop.downloads import DOWNLOADS, TRESNET, Download, Part
from mlcil.system import download
from mlcil.system.download import Remote, fetch, unpack


class Handler(BaseHTTPRequestHandler):
    files: ClassVar[dict] = {}
    asked: ClassVar[list] = []
    broken: ClassVar[set] = set()

    def do_GET(self):
        begun = self.headers.get("Range")
        self.asked.append((self.path, begun))
        kind, _, name = self.path.strip("/").partition("/")
        content = self.files.get(name)
        if content is None:
            return self.send_error(404)
        digest = hashlib.sha256(content).hexdigest()
        if kind == "moved":
            self.send_response(302)
            self.send_header("X-Linked-ETag", f'"{digest}"')
            self.send_header("Location", f"/whole/{name}")
            return self.end_headers()
        if kind == "away":
            self.send_response(302)
            self.send_header("Location", "file:///etc/hosts")
            return self.end_headers()
        start = int(begun.removeprefix("bytes=").removesuffix("-")) if begun and kind != "again" else 0
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if kind in ("cut", "again") and name not in self.broken:
            self.broken.add(name)
            self.wfile.write(content[: len(content) // 2])
            return None
        if kind == "slow":
            for k in range(start, len(content), max(len(content) // 5, 1)):
                self.wfile.write(content[k : k + max(len(content) // 5, 1)])
                self.wfile.flush()
                time.sleep(0.05)
            return None
        if kind == "stuck":
            self.wfile.write(content[:10])
            self.wfile.flush()
            time.sleep(1)
            return None
        self.wfile.write(content[start:])
        return None

    def log_message(self, *words):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setattr(Handler, "files", {"a.bin": bytes(range(256)) * 40})
    monkeypatch.setattr(Handler, "asked", [])
    monkeypatch.setattr(Handler, "broken", set())
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as found:
        threading.Thread(target=found.serve_forever, args=(0.01,), daemon=True).start()
        yield f"http://127.0.0.1:{found.server_port}"
        found.shutdown()


def remote(server, kind, name="a.bin", checksum=""):
    right = f"md5:{hashlib.md5(Handler.files.get(name, b'')).hexdigest()}"
    return Remote(f"{server}/{kind}/{name}", name, 1000, right if checksum == "" else checksum)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("kind", ["whole", "moved", "slow"])
def test_a_file_arrives_once(server, tmp_path, kind):
    wanted = remote(server, kind)
    assert fetch(wanted, tmp_path / "new").read_bytes() == Handler.files["a.bin"]
    count = len(Handler.asked)
    fetch(wanted, tmp_path / "new")
    assert len(Handler.asked) == count
    assert names(tmp_path / "new") == ["a.bin"]


@pytest.mark.parametrize("kind", ["cut", "again"])
def test_what_broke_off_goes_on(server, tmp_path, kind):
    """Also with a server that sends everything again."""
    with pytest.raises(UserError, match=r"could not be read .* repeat the command, which goes on where it stopped"):
        fetch(remote(server, kind), tmp_path)
    assert names(tmp_path) == [".a.bin.part"]
    half = (tmp_path / ".a.bin.part").stat().st_size
    assert half == len(Handler.files["a.bin"]) // 2
    assert fetch(remote(server, kind), tmp_path).read_bytes() == Handler.files["a.bin"]
    assert Handler.asked[-1][1] == f"bytes={half}-"
    assert names(tmp_path) == ["a.bin"]


def test_other_bytes_and_other_files_are_refused(server, tmp_path):
    with pytest.raises(UserError, match=r"gave a file with md5:.*, expected md5:0; it is removed"):
        fetch(remote(server, "whole", checksum="md5:0"), tmp_path)
    assert names(tmp_path) == []
    with pytest.raises(UserError, match="names no checksum"):
        fetch(remote(server, "whole", checksum=None), tmp_path / "b")
    (tmp_path / "a.bin").write_text("mine")
    with pytest.raises(UserError, match="nothing is overwritten"):
        fetch(remote(server, "whole"), tmp_path)
    assert (tmp_path / "a.bin").read_text() == "mine"


def test_the_checksum_of_a_hub_counts(server, tmp_path, monkeypatch):
    assert fetch(remote(server, "moved", checksum=None), tmp_path).exists()
    monkeypatch.setattr(download, "_sha256", lambda etag: "sha256:" + "0" * 64)
    with pytest.raises(UserError, match="expected sha256:0000"):
        fetch(remote(server, "moved", checksum=None), tmp_path / "b")


def test_servers_that_do_not_answer_are_a_sentence(server, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "TIMEOUT", 0.2)
    for kind, says in (
        ("whole/none", "answers 404"), ("stuck", "timed out"), ("away", "not allowed"),
    ):  # fmt: skip
        kind, _, name = kind.partition("/")
        with pytest.raises(UserError, match=says):
            fetch(remote(server, kind, name or "a.bin"), tmp_path / kind)
    with pytest.raises(UserError, match="behind a proxy set https_proxy"):
        fetch(replace(remote(server, "whole"), url="http://127.0.0.1:9/a"), tmp_path / "c")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    with pytest.raises(UserError, match="check the network"):
        fetch(replace(remote(server, "whole"), url="http://example.invalid/a"), tmp_path / "d")


def test_space_is_looked_at_first(server, tmp_path):
    with pytest.raises(UserError, match=r"needs 1000000000\.0 GB .* make room or name another place with --root"):
        fetch(replace(remote(server, "whole"), size=10**18), tmp_path)
    assert Handler.asked == []


# -- archives -------------------------------------------------------------------------------------------------


def archive(files, kind="tar"):
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as file:
            for name, text in files.items():
                file.writestr(name, text)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as file:
            for name, text in files.items():
                info = tarfile.TarInfo(name)
                if isinstance(text, tuple):
                    info.type, info.linkname = text
                else:
                    info.size = len(text)
                file.addfile(info, io.BytesIO(text.encode()) if isinstance(text, str) else None)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("kind", "files"),
    [
        ("tar", {"ok.txt": "x", "../out.txt": "x"}),
        ("tar", {"/tmp/out.txt": "x"}),
        ("tar", {"link": (tarfile.SYMTYPE, "/etc"), "link/out.txt": "x"}),
        ("tar", {"hard": (tarfile.LNKTYPE, "../out.txt")}),
        ("tar", {"device": (tarfile.CHRTYPE, "")}),
        ("zip", {"ok.txt": "x", "a/../../out.txt": "x"}),
        ("zip", {"/out.txt": "x"}),
        ("zip", {"..\\out.txt": "x"}),
    ],
)
def test_no_path_leaves_the_folder(tmp_path, kind, files):
    path = tmp_path / "files" / f"a.{kind}"
    path.parent.mkdir()
    path.write_bytes(archive(files, kind))
    with pytest.raises(UserError, match="is not unpacked"):
        unpack(path, path.parent)
    assert names(tmp_path) == ["files"]
    assert names(path.parent) == [path.name]


def test_damaged_archives_and_files_that_are_there(tmp_path):
    (tmp_path / "a.zip").write_bytes(archive({"x/1": "new", "x/2": "new"}, "zip"))
    (tmp_path / "1").write_text("mine")
    unpack(tmp_path / "a.zip", tmp_path, "x")
    assert {name: (tmp_path / name).read_text() for name in "12"} == {"1": "mine", "2": "new"}
    (tmp_path / "b.zip").write_bytes(b"PK nothing")
    with pytest.raises(UserError, match="could not be unpacked"):
        unpack(tmp_path / "b.zip", tmp_path)


def test_what_an_archive_holds_must_fit_on_the_disk(tmp_path, monkeypatch):
    (tmp_path / "a.tar").write_bytes(archive({"big.txt": "x" * 2000}))
    monkeypatch.setattr(download.shutil, "disk_usage", lambda folder: SimpleNamespace(free=1999))
    with pytest.raises(UserError, match=r"what a\.tar holds needs .* make room or name another place"):
        unpack(tmp_path / "a.tar", tmp_path)
    assert names(tmp_path) == ["a.tar"]
    monkeypatch.undo()
    (tmp_path / "a.tar").write_bytes((tmp_path / "a.tar").read_bytes()[:1500])  # cut off
    with pytest.raises(UserError, match="could not be unpacked"):
        unpack(tmp_path / "a.tar", tmp_path)
    assert names(tmp_path) == ["a.tar"]


def test_unpacking_that_was_interrupted_is_done_again(server, tmp_path, monkeypatch):
    Handler.files["a.zip"] = archive({"x/1": "one", "x/2": "two"}, "zip")
    small = Download(str(tmp_path), (Part(remote(server, "whole", "a.zip"), "1", "x"),), "free")
    monkeypatch.setattr(downloads, "DOWNLOADS", {"small": small})
    (tmp_path / "a.zip").write_bytes(Handler.files["a.zip"])
    (tmp_path / "1").write_text("one")  # moved to its place already, the other one not yet
    (tmp_path / ".a.zip.unpacked").mkdir()
    assert "is unpacked in" in downloads.download("small")[0]
    assert names(tmp_path) == ["1", "2"]
    assert "is there already" in downloads.download("small")[0]
    assert Handler.asked == []


# -- the command ----------------------------------------------------------------------------------------------


def voc(split, server):
    base = "VOCdevkit/VOC2007"
    xml = "<annotation><object><name>cat</name><difficult>0</difficult></object></annotation>"
    files = {f"{base}/ImageSets/Main/{split}.txt": "000001\n", f"{base}/Annotations/{split}.xml": xml}
    Handler.files[f"{split}.tar"] = archive(files)
    return Part(remote(server, "cut", f"{split}.tar"), f"{base}/ImageSets/Main/{split}.txt")


def test_the_command_fetches_unpacks_and_goes_on(server, tmp_path, capsys, monkeypatch):
    small = replace(DOWNLOADS["voc2007"], parts=tuple(voc(split, server) for split in ("trainval", "test")))
    monkeypatch.setattr(downloads, "DOWNLOADS", {"voc2007": small})
    root = tmp_path / "voc"
    for _ in small.parts:  # each breaks off once
        code, _, err = call(capsys, "download", "voc2007", "--root", root)
        assert code == 2
        assert "goes on where it stopped" in err
    code, out, _ = call(capsys, "download", "voc2007", "--root", root)
    assert code == 0
    assert "test.tar is unpacked" in out
    assert "licence: photos from Flickr" in out
    assert sorted(str(path.relative_to(root)) for path in root.rglob("*") if path.is_file()) == sorted(
        f"VOCdevkit/VOC2007/{place}"
        for split in ("trainval", "test")
        for place in (f"ImageSets/Main/{split}.txt", f"Annotations/{split}.xml")
    )
    count = len(Handler.asked)
    assert call(capsys, "download", "voc2007", "--root", root)[0] == 0
    assert len(Handler.asked) == count
    Handler.broken.clear()
    for name in ("trainval", "test"):  # the same by the command that needs them
        monkeypatch.chdir(tmp_path)
        code, _, err = call(capsys, "train", "lwf", "data=voc", "pretrained=None", "--download")
        assert code == 2
        assert f"{name}.tar could not be read" in err
    call(capsys, "train", "lwf", "data=voc", "pretrained=None", "--download")
    assert all((tmp_path / small.root / part.holds).is_file() for part in small.parts)
    code, _, err = call(capsys, "download", "voc2012")
    assert code == 2
    assert "expected one of voc2007" in err


def test_weights_that_have_seen_the_labels_are_not_kept(server, tmp_path, monkeypatch):
    for outputs in (11221, 80):
        buffer = io.BytesIO()
        torch.save({"head.fc.weight": torch.zeros(outputs, 2)}, buffer)
        Handler.files["w.pth"] = buffer.getvalue()
        monkeypatch.setattr(
            downloads,
            "DOWNLOADS",
            {TRESNET: Download(str(tmp_path), (Part(remote(server, "whole", "w.pth")),), "free")},
        )
        if outputs == 80:
            (tmp_path / "w.pth").unlink()
            with pytest.raises(UserError, match=r"80 outputs.*it is removed"):
                downloads.download(TRESNET)
            assert not (tmp_path / "w.pth").exists()
            (tmp_path / "w.pth").write_bytes(Handler.files["w.pth"])  # a person's own
            assert "there already" in downloads.download(TRESNET)[0]
            assert (tmp_path / "w.pth").exists()
        else:
            assert "complete" in downloads.download(TRESNET)[0]
            assert (tmp_path / "w.pth").exists()


def test_the_table_is_of_official_addresses(capsys):
    hosts = {
        "www.cs.toronto.edu", "cs231n.stanford.edu", "thor.robots.ox.ac.uk", "images.cocodataset.org", "huggingface.co"
    }  # fmt: skip
    parts = [part for known in DOWNLOADS.values() for part in known.parts]
    assert {part.remote.url.split("/")[2] for part in parts} == hosts
    assert all(part.remote.checksum or part.remote.url.startswith("https://huggingface.co/timm/") for part in parts)
    assert all(len(part.remote.checksum) == len("md5:") + 32 for part in parts if part.remote.checksum)
    code, out, _ = call(capsys, "download")
    assert code == 0
    assert all(name in out and known.licence in out for name, known in DOWNLOADS.items())
    guide = (Path(__file__).resolve().parents[2] / "docs" / "data.md").read_text()
    assert all(f"`mlcil download {name}`" in guide for name in DOWNLOADS)


def test_what_is_missing_names_its_command_and_train_fetches_it(server, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words, command in (
        (["data=coco"], "mlcil download coco2014 --root datasets/coco2014"),
        (["data=voc", "scenario.dataset.root=here"], "mlcil download voc2007 --root here"),
    ):
        for verb in ("plan", "train"):
            code, _, err = call(capsys, verb, "krt", *words)
            assert code == 2
            assert command in err
    assert "mlcil download" not in call(capsys, "plan", "lwf", "data=coco_format", "protocol=B0-C1")[2]
    assert "mlcil download cifar100" in call(capsys, "plan", "lwf", "data=cifar100")[2]
    assert "mlcil download tiny-imagenet-200" in call(capsys, "plan", "lwf", "data=tiny_imagenet")[2]
    fetched = []
    monkeypatch.setattr("mlcil.engine.build.download", lambda name, root=None: fetched.append((name, root)) or [name])
    code, out, err = call(capsys, "train", "krt", "data=voc", "--download")
    assert (code, out.split()) == (2, ["voc2007", TRESNET])  # nothing came, so the run does not begin
    assert fetched == [("voc2007", Path("datasets/voc2007")), (TRESNET, None)]
    call(capsys, "train", "lwf", "data=coco_format", "protocol=B0-C1", "pretrained=None", "--download")
    assert len(fetched) == 2
