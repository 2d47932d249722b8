"""A stand-in for Label Studio on this machine that speaks the part of its protocol that a backend needs."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import numpy as np
from PIL import Image


def png(seed: int = 0, size: tuple[int, int] = (32, 24)) -> bytes:
    """A noise image."""
    width, height = size
    file = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)).save(file, "PNG")
    return file.getvalue()


class LabelStudio(BaseHTTPRequestHandler):
    """Photos under /data/upload/, the export of project 7, and what leads away."""

    tasks: ClassVar[list[Any]] = []
    asked: ClassVar[list[Any]] = []

    def do_GET(self) -> None:
        """A photo, the annotations, or somewhere else."""
        self.asked.append((self.path, self.headers.get("Authorization")))
        if self.path == "/data/away":
            self.send_response(302)
            self.send_header("Location", "http://127.0.0.1:9/")
            self.end_headers()
            return
        body = png() if self.path.startswith("/data/upload/") else json.dumps(self.tasks).encode()
        self.send_response(200 if self.path.startswith(("/data/upload/", "/api/projects/7/export")) else 404)
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self) -> None:
        """A short token."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"access": "short"}')

    def log_message(self, *words: Any) -> None:
        """Nothing."""


@contextmanager
def label_studio() -> Iterator[str]:
    """Its address, while it runs."""
    LabelStudio.tasks, LabelStudio.asked = [], []
    server = ThreadingHTTPServer(("127.0.0.1", 0), LabelStudio)
    threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
