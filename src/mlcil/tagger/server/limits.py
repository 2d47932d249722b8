"""What a request may cost: bytes, time, and how many are worked on at once."""

from __future__ import annotations

import json
from dataclasses import dataclass

import anyio
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LINGER = 0.5  # seconds between a refusal and the end of the connection, in which a client that still sends can read it


@dataclass(frozen=True)
class Limits:
    """What is accepted.

    Attributes:
        images: in one request.
        megabytes: of one request, all images together.
        megapixels: of one image.
        seconds: from the beginning of a request to its answer.
        at_once: requests that are read and answered at the same time; the others wait.
    """

    images: int = 32
    megabytes: int = 100
    megapixels: int = 50
    seconds: float = 60.0
    at_once: int = 8


class RefusedError(Exception):
    """A request that is not answered as asked.

    Args:
        status: of HTTP.
        sentence: for the client.
    """

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status, self.sentence = status, sentence

    @property
    def headers(self) -> dict[str, str]:
        """The connection ends where the rest of a body is not wanted."""
        return {"connection": "close"} if self.status in (408, 413) else {}


class Guard:
    """ASGI middleware that holds requests with a body to the :class:`Limits`.

    A body that says itself that it is too large is refused before any of it is read, another one as soon as it is.
    """

    def __init__(self, app: ASGIApp, limits: Limits) -> None:
        self.app, self.limits = app, limits
        self._room = anyio.Semaphore(limits.at_once)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        claimed = dict(scope["headers"]).get(b"content-length", b"0")
        if not claimed.isdigit() or int(claimed) > self.limits.megabytes * 10**6:
            await refuse(send, self._too_large(f"{int(claimed) / 1e6:.0f} MB" if claimed.isdigit() else "more"))
            return
        waits, read, started, total = True, False, False, 0

        async def counted() -> Message:
            nonlocal read, total
            message = await receive()
            total += len(message.get("body", b""))
            if total > self.limits.megabytes * 10**6:
                raise self._too_large("more")
            read = not message.get("more_body", False)
            return message

        async def noted(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        with anyio.move_on_after(self.limits.seconds) as time:
            async with self._room:
                waits = False
                await self.app(scope, counted, noted)
        if time.cancelled_caught and not started:
            seconds = f"{self.limits.seconds:g} seconds"
            late = RefusedError(503, f"no answer within {seconds}, since others are waiting too; try again later")
            slow = RefusedError(408, f"the images did not arrive within {seconds}; send fewer or smaller ones")
            await refuse(send, late if waits or read else slow)

    def _too_large(self, found: str) -> RefusedError:
        most = self.limits.megabytes
        return RefusedError(
            413, f"the request has {found}; expected at most {most} MB, so send fewer or smaller images"
        )


async def refuse(send: Send, error: RefusedError) -> None:
    """Answer, and leave a client that is still sending a moment to read the answer."""
    body = json.dumps({"error": error.sentence}).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **error.headers}
    pairs = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": error.status, "headers": pairs})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    if error.headers:
        await anyio.sleep(LINGER)
    await send({"type": "http.response.body", "body": b""})
