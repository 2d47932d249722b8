"""The routes of ``mlcil serve``.

No path and no address that comes from outside is opened: a name of a file is only said back, and photos of tasks are
fetched from the one Label Studio that the server was started with.
"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import math
import secrets
import warnings
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from fastapi import FastAPI, Request
from fastapi.responses import HTMLResponse, JSONResponse
from PIL import Image, UnidentifiedImageError
from python_multipart.exceptions import FormParserError
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException

from mlcil import __version__
from mlcil.errors import UserError
from mlcil.images import DAMAGED, FORMATS, upright_rgb
from mlcil.reporting.html import environment
from mlcil.tagger import outputs
from mlcil.tagger.base import Tagger
from mlcil.tagger.server.limits import Guard, Limits, RefusedError
from mlcil.tagger.server.studio import Learner, Studio, choices_of, prediction

BATCH = 16  # images that go through the network at once
MANY = "Too many files"  # what the parser of multipart bodies says
_log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Served:
    """A tagger and what it is called.

    Attributes:
        tagger: what answers.
        version: the name of its file without the ending.
    """

    tagger: Tagger
    version: str

    @classmethod
    def of(cls, tagger: Tagger, path: Path) -> Served:
        """The tagger of that file."""
        return cls(tagger, path.stem)

    def tag(self, images: Sequence[tuple[str, bytes]], limits: Limits) -> list[tuple[str, dict[str, float]]]:
        """Named image files -> all scores of each.

        Raises:
            RefusedError: one of them is no image, or a larger one than is accepted.
        """
        found: list[tuple[str, dict[str, float]]] = []
        for low in range(0, len(images), BATCH):
            part = images[low : low + BATCH]
            found += self.tagger.score_batch([(name, self._square(name, file, limits)) for name, file in part])
        return found

    def _square(self, name: str, file: bytes, limits: Limits) -> np.ndarray:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the size is looked at here
                with Image.open(io.BytesIO(file), formats=FORMATS) as image:
                    pixels = math.prod(image.size)
                    if pixels > limits.megapixels * 10**6:
                        raise _bomb(name, f"{pixels / 1e6:.0f} million", limits)
                    return np.asarray(self.tagger.fit(upright_rgb(image), self.tagger.image_size))
        except Image.DecompressionBombError:
            raise _bomb(name, "far too many", limits) from None
        except UnidentifiedImageError:
            forms = ", ".join(FORMATS)
            raise RefusedError(415, f"{name} is no image that can be read; expected one of {forms}") from None
        except DAMAGED as error:
            raise RefusedError(
                422, f"{name} is a damaged image ({' '.join(str(error).split())}); send another"
            ) from None

    def named(self, scores: dict[str, float]) -> outputs.Named:
        """The labels of an image, best first."""
        top = 1 if self.tagger.task == "single_label" else None
        return outputs.choose(self.tagger.classes, self.tagger.thresholds, top=top)[0](scores)

    @property
    def labels(self) -> list[dict[str, Any]]:
        """Every label with the score from which on it is named."""
        own = self.tagger.thresholds or [math.nan] * len(self.tagger.classes)
        return [
            {"label": name, "threshold": outputs.THRESHOLD if math.isnan(value) else value}
            for name, value in zip(self.tagger.classes, own, strict=True)
        ]


def _bomb(name: str, found: str, limits: Limits) -> RefusedError:
    return RefusedError(413, f"{name} has {found} pixels; expected at most {limits.megapixels} million, so shrink it")


class Service:
    """The tagger that answers now.

    Args:
        served: the first one.
        limits: of a request.
        studio: the Label Studio whose tasks are answered, or ``None``.
        learner: learns new labels from its annotations, or ``None``.
    """

    def __init__(
        self, served: Served, limits: Limits, studio: Studio | None = None, learner: Learner | None = None
    ) -> None:
        self.served, self.limits, self.studio, self.learner = served, limits, studio, learner
        self._worker = ThreadPoolExecutor(1, "tagging")

    async def work(self, function: Callable[[], T]) -> T:
        """Call it where the tagger computes, after what is asked already."""
        return await asyncio.get_running_loop().run_in_executor(self._worker, function)

    async def tag(self, images: Sequence[tuple[str, bytes]]) -> tuple[Served, list[tuple[str, dict[str, float]]]]:
        """Scores, and the tagger that gave them. Raises as :meth:`Served.tag`."""
        served = self.served
        return served, await self.work(lambda: served.tag(images, self.limits))

    def close(self) -> None:
        """End what is running."""
        if self.learner is not None:
            self.learner.close()
        self._worker.shutdown(cancel_futures=True)


async def uploads(request: Request, limits: Limits) -> list[tuple[str, bytes]]:
    """The images of a request: parts of a form, or the body itself.

    Raises:
        RefusedError: none, or more than is accepted.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        body = await request.body()
        if not body:
            raise RefusedError(400, "the request has no body; expected an image, or a form with image files")
        return [("the image", body)]
    too_many = RefusedError(413, f"there are more than {limits.images} images; send at most {limits.images} at a time")
    try:
        async with request.form(max_files=limits.images, max_fields=limits.images) as form:
            files = [value for _, value in form.multi_items() if isinstance(value, UploadFile)]
            if not files:
                raise RefusedError(400, "the form has no file; expected one or more image files")
            return [(file.filename or f"image {number}", await file.read()) for number, file in enumerate(files, 1)]
    except (HTTPException, FormParserError) as error:  # older Starlette lets the parser's own through
        reason = str(getattr(error, "detail", error))
        if MANY in reason:
            raise too_many from None
        raise RefusedError(400, f"the form cannot be read ({reason}); send it again") from None


async def _tasks(request: Request, service: Service) -> dict[str, Any]:
    """The answer to Label Studio's tasks."""
    if service.studio is None:
        raise RefusedError(
            403, "tasks are not answered, since no Label Studio is named; start the server with --label-studio ADDRESS"
        )
    body = await _json(request)
    tasks, config = body.get("tasks"), body.get("label_config")
    if not isinstance(tasks, list) or not isinstance(config, str) or not all(isinstance(task, dict) for task in tasks):
        raise RefusedError(400, "the request has no tasks and label_config; expected those that Label Studio sends")
    control, studio = choices_of(config), service.studio
    served, results, refused = service.served, [], []
    for task in tasks:
        name = f"the image of task {task.get('id')}"
        try:
            data = task.get("data")
            address = data.get(control.key) if isinstance(data, dict) else None
            file = await asyncio.to_thread(studio.image, address, name)
            served, ((_, scores),) = await service.tag([(name, file)])
            results.append(prediction(control, served.named(scores), served.version))
        except RefusedError as error:  # the other tasks are answered all the same
            _log.warning(error.sentence)
            refused.append(error)
            results.append({**prediction(control, [], served.version), "error": error.sentence})
    if refused and len(refused) == len(tasks):
        raise refused[0]
    return {"results": results, "model_version": served.version}


async def _json(request: Request) -> dict[str, Any]:
    try:
        body = json.loads(await request.body())
    except (ValueError, RecursionError):
        body = None
    if not isinstance(body, dict):
        raise RefusedError(400, "the body is no json object; expected what Label Studio sends")
    return body


def create_app(service: Service) -> FastAPI:
    """The application; it closes the service when it ends."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        service.close()

    app = FastAPI(
        title="mlcil", version=__version__, lifespan=lifespan, docs_url=None, redoc_url=None, openapi_url=None
    )
    app.add_middleware(Guard, limits=service.limits)

    @app.exception_handler(RefusedError)
    def refused(_: Request, error: RefusedError) -> JSONResponse:
        return JSONResponse({"error": error.sentence}, error.status, error.headers)

    @app.exception_handler(UserError)
    def failed(_: Request, error: UserError) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 500)

    @app.exception_handler(HTTPException)
    def other(request: Request, error: HTTPException) -> JSONResponse:
        sentence = f"{request.method} {request.url.path}: {error.detail}; expected POST /predict, GET /labels or GET /"
        return JSONResponse({"error": sentence}, error.status_code)

    @app.get("/", response_class=HTMLResponse)
    def page() -> HTMLResponse:
        nonce = secrets.token_urlsafe(16)
        served = service.served
        html = environment().get_template("serve.html.j2").render(
            served=served, limits=service.limits, nonce=nonce, mlcil=__version__
        )  # fmt: skip
        policy = (
            f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'unsafe-inline'; img-src blob: data:; "
            "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
        )
        return HTMLResponse(html, headers={"content-security-policy": policy})

    @app.get("/health")
    async def health() -> dict[str, Any]:
        learns = {} if service.learner is None else {"learning": service.learner.state()}
        return {"status": "UP", "model_version": service.served.version, "mlcil": __version__, **learns}

    @app.get("/labels")
    async def labels() -> dict[str, Any]:
        served = service.served
        return {"model_version": served.version, "task": served.tagger.task, "labels": served.labels}

    @app.post("/predict")
    async def predict(request: Request, scores: bool = False) -> dict[str, Any]:
        if request.headers.get("content-type", "").startswith("application/json"):
            return await _tasks(request, service)
        served, tagged = await service.tag(await uploads(request, service.limits))
        images = []
        for name, found in tagged:
            given = [{"label": label, "score": score} for label, score in served.named(found)]
            images.append({"image": name, "labels": given, **({"scores": found} if scores else {})})
        return {"model_version": served.version, "images": images}

    @app.post("/setup")
    async def setup(request: Request) -> dict[str, Any]:
        config = (await _json(request)).get("schema")
        if config:  # a project that has none yet is only asked for the version
            choices_of(str(config))
        return {"model_version": service.served.version}

    @app.post("/webhook", status_code=202)
    async def webhook(request: Request) -> dict[str, Any]:
        body = await _json(request)
        if service.learner is None:
            raise RefusedError(403, "this server does not learn; start it with --label-studio ADDRESS --project NUMBER")
        return {"status": service.learner.hear(body)}

    return app
