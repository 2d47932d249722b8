"""What Label Studio asks of an ML backend, and what is asked of Label Studio: photos and annotations.

Neither the address nor the token that a request holds is used: both are the server's own settings.
"""

from __future__ import annotations

import hashlib
import http.client
import json
import logging
import re
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit
from xml.etree import ElementTree

from mlcil.datasets.label_forms import ALL
from mlcil.datasets.labels import names_of, read_labels
from mlcil.engine.checkpoint import StageCheckpoint
from mlcil.errors import UserError
from mlcil.interop.pretrained import file_sha256
from mlcil.tagger import outputs
from mlcil.tagger.server.limits import RefusedError

SECONDS = 20.0  # for one answer of Label Studio
LONGEST = 3600.0  # seconds that learning may take
MOST_JSON = 500 * 10**6  # bytes of a project's annotations
LEARNS = ("ANNOTATION_CREATED", "ANNOTATIONS_CREATED", "ANNOTATION_UPDATED", "ANNOTATIONS_DELETED", "START_TRAINING")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Control:
    """The part of a labelling config that shows choices for an image.

    Attributes:
        name: of the choices.
        to_name: of the image.
        key: under which a task names the image.
        choices: labels that can be ticked; a prediction of another one could not be shown.
        multiple: more than one may be ticked.
    """

    name: str
    to_name: str
    key: str
    choices: tuple[str, ...]
    multiple: bool


def choices_of(config: str) -> Control:
    """The first choices for an image in a labelling config.

    Raises:
        RefusedError: it cannot be read or has none.
    """
    try:
        if "<!DOCTYPE" in config or "<!ENTITY" in config:
            raise RefusedError(400, "the labelling config declares entities; expected Label Studio's own tags only")
        root = ElementTree.fromstring(config)
    except (ElementTree.ParseError, ValueError):
        raise RefusedError(400, "the labelling config is no XML that can be read; expected Label Studio's") from None
    images = {tag.get("name", ""): tag.get("value", "").lstrip("$") for tag in root.iter("Image")}
    for tag in root.iter("Choices"):
        if tag.get("toName") in images:
            to_name = tag.get("toName", "")
            choices = tuple(choice.get("alias") or choice.get("value") or "" for choice in tag.iter("Choice"))
            return Control(tag.get("name", ""), to_name, images[to_name], choices, tag.get("choice") == "multiple")
    raise RefusedError(
        400, 'the labelling config has no choices for an image; expected <Image name="image" .../> and <Choices '
        'name="choice" toName="image" choice="multiple">'
    )  # fmt: skip


def prediction(control: Control, named: outputs.Named, version: str) -> dict[str, Any]:
    """Labels of an image as Label Studio shows them."""
    shown = [(name, score) for name, score in named if name in control.choices][: None if control.multiple else 1]
    result = {
        "from_name": control.name,
        "to_name": control.to_name,
        "type": "choices",
        "value": {"choices": [name for name, _ in shown]},
    }
    score = min((score for _, score in shown), default=0.0)
    return {"result": [result] if shown else [], "score": score, "model_version": version}


class _Stays(urllib.request.HTTPRedirectHandler):
    """Goes nowhere else, since the token must not."""

    def redirect_request(self, *_: Any) -> None:
        return None


@dataclass(frozen=True)
class Studio:
    """A Label Studio.

    Attributes:
        address: ``http://host:port``.
        token: an access token of one of its users; a legacy one or a personal one.
        most: bytes of an image.
    """

    address: str
    token: str = field(repr=False)
    most: int

    def __post_init__(self) -> None:
        parts = urlsplit(self.address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UserError(
                f"--label-studio is {self.address!r}; expected the address of a Label Studio, such as "
                "http://127.0.0.1:8080"
            )

    def image(self, address: object, name: str) -> bytes:
        """The file of an image.

        Args:
            address: as a task names it.
            name: for messages.

        Raises:
            RefusedError: it is not on this Label Studio, or does not come.
        """
        if not isinstance(address, str) or not address:
            raise RefusedError(400, f"{name} is not named in its task; expected an address there")
        return self._fetch(address, name, self.most)

    def annotated(self, project: int) -> list[dict[str, Any]]:
        """The tasks of a project that have annotations, as its JSON export.

        Raises:
            RefusedError: it does not come.
        """
        name = f"the annotations of project {project}"
        body = self._fetch(f"/api/projects/{project}/export?exportType=JSON", name, MOST_JSON)
        tasks = json.loads(body)
        return [task for task in tasks if isinstance(task, dict) and isinstance(task.get("data"), dict)]

    def _fetch(self, address: str, name: str, most: int) -> bytes:
        try:
            full = urljoin(self.address.rstrip("/") + "/", address)
            here = _place(urlsplit(full)) == _place(urlsplit(self.address))
        except ValueError:
            here = False
        if not here:
            raise RefusedError(
                400,
                f"{name} is at {address[:100]!r}; expected an address of {self.address}, since nothing else is opened",
            )
        return self._open(urllib.request.Request(full, headers={"Authorization": self._authorization()}), name, most)

    def _authorization(self) -> str:
        if self.token.count(".") != 2:
            return f"Token {self.token}"
        body = json.dumps({"refresh": self.token}).encode()  # a personal token is exchanged for a short one
        address = urljoin(self.address.rstrip("/") + "/", "/api/token/refresh")
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        return f"Bearer {json.loads(self._open(request, 'an access token', 10**5))['access']}"

    def _open(self, request: urllib.request.Request, name: str, most: int) -> bytes:
        try:
            with urllib.request.build_opener(_Stays).open(request, timeout=SECONDS) as answer:
                body = bytes(answer.read(most + 1))
        except (OSError, http.client.HTTPException, ValueError) as error:
            reason = f"{error.code}" if isinstance(error, urllib.error.HTTPError) else f"{error}"
            raise RefusedError(502, f"{name} does not come from {self.address} ({reason}); look at its log") from None
        if len(body) > most:
            raise RefusedError(413, f"{name} has more than {most / 1e6:.0f} MB; expected a smaller one")
        return body


def _place(parts: SplitResult) -> tuple[str, str | None, int | None]:
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname, port


def versions(base: Path) -> dict[int, Path]:
    """Taggers that were learnt from this one, by number: ``my-2.tagger`` from ``my.tagger``."""
    pattern = re.compile(rf"{re.escape(base.stem)}-(\d+){re.escape(base.suffix)}")
    found = {}
    for path in base.parent.iterdir():
        match = pattern.fullmatch(path.name)
        if match:
            found[int(match[1])] = path
    return dict(sorted(found.items()))


def newest(base: Path) -> Path:
    """The last version whose parent is this tagger, or itself."""
    digest = file_sha256(base)
    for path in reversed(versions(base).values()):
        if StageCheckpoint.load(path).parents == [digest]:
            return path
    return base


def _annotated(tasks: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Task -> digest of what is annotated on it."""
    return {
        str(task.get("id")): hashlib.sha256(json.dumps(task.get("annotations")).encode()).hexdigest() for task in tasks
    }


class Learner:
    """Extends a tagger by the labels that are annotated in a project, in a process of its own.

    Every version is made from the same tagger and all annotations, so that labels of that tagger keep their scores, and
    a label learnt from a few photos is learnt better once there are more.

    Args:
        base: the tagger's file.
        studio, project: where annotations come from.
        reviewed: labels that the annotators looked for on every photo, with commas, or ``all``.
        learnt: called with the file of a new version.
    """

    def __init__(
        self, base: Path, studio: Studio, project: int, reviewed: str | None, learnt: Callable[[Path], object]
    ) -> None:
        self.base, self.studio, self.project, self.reviewed, self.learnt = base, studio, project, reviewed, learnt
        self._asked, self._closed = threading.Event(), False
        self._working, self._last = False, ""
        self._done: dict[str, str] = {}  # of the tasks that were learnt: see _annotated
        self._process: subprocess.Popen[str] | None = None
        self._thread = threading.Thread(target=self._run, name="learning", daemon=True)
        self._thread.start()

    def state(self) -> dict[str, Any]:
        """Whether it is at work, and a sentence about the last time."""
        return {"working": self._working or self._asked.is_set(), "last": self._last}

    def hear(self, event: Mapping[str, Any]) -> str:
        """Take an event of Label Studio; what was annotated is asked there.

        Raises:
            RefusedError: it is of another project.
        """
        if event.get("action") not in LEARNS:
            return "ignored"
        project = event.get("project")
        number = project.get("id") if isinstance(project, Mapping) else None
        if number != self.project:
            raise RefusedError(409, f"the event is of project {number}; this server learns from project {self.project}")
        self._asked.set()
        return "learning"

    def close(self) -> None:
        """End a training that is running; what is half done is not kept."""
        self._closed = True
        self._asked.set()
        if self._process is not None:
            self._process.terminate()
        self._thread.join(SECONDS)

    def _run(self) -> None:
        while True:
            self._asked.wait()
            if self._closed:
                return
            self._working = True
            self._asked.clear()
            try:
                self._last = self.learn()
            except Exception as error:  # the next annotations are listened to all the same
                self._last = str(error)
            self._working = False
            _log.warning(self._last)

    def learn(self) -> str:
        """A version from what is annotated now.

        Raises:
            RefusedError: annotations or photos do not come.
            UserError: they cannot be learnt from.
        """
        tasks = self.studio.annotated(self.project)
        if _annotated(tasks).items() <= self._done.items():
            return "nothing new is annotated"
        with tempfile.TemporaryDirectory() as folder:
            local = [self._local(task, number, Path(folder)) for number, task in enumerate(tasks)]
            came = _annotated([task for task, here in zip(tasks, local, strict=True) if here is not None])
            kept = [here for here in local if here is not None]
            left_out = (
                f"; {len(tasks) - len(kept)} of {len(tasks)} photos did not come" if len(kept) < len(tasks) else ""
            )
            if came.items() <= self._done.items():
                return f"nothing new is annotated{left_out}"
            labels = Path(folder) / "annotations.json"
            labels.write_text(json.dumps(kept))
            out = self.base.with_name(f"{self.base.stem}-{max(versions(self.base), default=1) + 1}{self.base.suffix}")
            words = [str(self.base), str(labels), "--photos", folder, "--out", str(out)]
            try:
                ticked = read_labels(labels, folder).classes
                reviewed = names_of(self.reviewed or "")
                there = [name for name in reviewed if name in (*ticked, ALL)]
                self._extend([*words, *(["--reviewed", ",".join(there)] if there else [])])
            except UserError as error:
                raise UserError(str(error).replace(str(labels), f"project {self.project}")) from None
        self._done.update(came)  # what did not come is asked for again
        self.learnt(out)
        waiting = [name for name in reviewed if name not in there]
        return f"{out.name} is learnt from {len(kept)} photos{left_out}" + (
            f"; reviewed, but not ticked on any photo yet: {', '.join(waiting)}" if waiting else ""
        )

    def _local(self, task: Mapping[str, Any], number: int, folder: Path) -> dict[str, Any] | None:
        """The task with its photo in a file of ours; without its photo there is none."""
        addresses = [value for value in task["data"].values() if isinstance(value, str) and value]
        address = task["data"].get("image") or next(iter(addresses), None)
        name = f"photo_{number}"
        try:
            (folder / name).write_bytes(self.studio.image(address, f"the image of task {task.get('id')}"))
        except RefusedError as error:
            _log.warning(f"left out: {error.sentence}")
            return None
        return {"id": number, "data": {"image": name}, "annotations": task.get("annotations")}

    def _extend(self, words: list[str]) -> None:
        command = [sys.executable, "-m", "mlcil", "extend", *words]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        try:
            said, _ = self._process.communicate(timeout=LONGEST)
            code = self._process.returncode
        finally:
            self._process.kill()
            self._process = None
        _log.info(said)
        if code:
            raise UserError(said.strip().splitlines()[-1].removeprefix("mlcil: ") if said.strip() else f"code {code}")
