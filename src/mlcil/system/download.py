"""Files from the web: checked, gone on with after an interruption, unpacked inside their folder only."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlcil.errors import UserError
from mlcil.system.bar import bar

BLOCK = 1 << 20
TIMEOUT = 60  # seconds without a byte


@dataclass(frozen=True)
class Remote:
    """A file on the web.

    Attributes:
        url: of the file; redirects are followed.
        name: what it is called here.
        size: bytes, about, for the look at the free space before anything is asked.
        checksum: ``md5:...`` or ``sha256:...``; ``None`` takes the SHA-256 that a model hub's server names.
    """

    url: str
    name: str
    size: int
    checksum: str | None = None


def fetch(remote: Remote, folder: Path) -> Path:
    """The file in the folder: as it is when its checksum is right, else downloaded.

    What a broken connection or Ctrl-C leaves is ``.NAME.part``, with which the next call goes on.

    Raises:
        UserError: another file of that name is there, the disk is too full, the server cannot be reached, refuses or
            breaks off, or the checksum is another one.
    """
    target, part = folder / remote.name, folder / f".{remote.name}.part"
    if target.exists():
        if target.is_file() and (remote.checksum is None or _digest(target, remote.checksum) == remote.checksum):
            return target
        raise UserError(
            f"{target} is there and is not the file of {remote.url}; nothing is overwritten, so move it away"
        )
    folder.mkdir(parents=True, exist_ok=True)
    check_space(folder, remote.size - (part.stat().st_size if part.exists() else 0), remote.name)
    checksum = remote.checksum
    try:
        named = _download(remote, part)
        checksum = checksum or named
    except urllib.error.HTTPError as error:
        raise UserError(
            f"{remote.url} answers {error.code} {error.reason}; expected the file, so look whether the address still "
            "holds, or fetch it by hand as docs/data.md says"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, OSError) and error.errno == 28:
            raise UserError(
                f"no space is left in {folder} for {remote.name}; make room and repeat the command"
            ) from error
        reason = getattr(error, "reason", error)
        raise UserError(
            f"{remote.url} could not be read ({reason}); check the network (behind a proxy set https_proxy and "
            "http_proxy) and repeat the command, which goes on where it stopped"
        ) from error
    if checksum is None:
        raise UserError(f"{remote.url} names no checksum to compare with; fetch the file by hand as docs/data.md says")
    found = _digest(part, checksum)
    if found != checksum:
        part.unlink()
        raise UserError(
            f"{remote.url} gave a file with {found}, expected {checksum}; it is removed, so repeat the command, or "
            "when that does not help, fetch the file by hand as docs/data.md says"
        )
    part.rename(target)
    return target


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Remembers the checksum that a model hub names in its first answer."""

    def __init__(self) -> None:
        self.linked: str | None = None

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self.linked = self.linked or headers.get("X-Linked-ETag")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _download(remote: Remote, part: Path) -> str | None:
    """Fill ``part``; returns the checksum that the server names, if it does."""
    begun = part.stat().st_size if part.exists() else 0
    redirects = _Redirects()
    request = urllib.request.Request(remote.url, headers={"User-Agent": "mlcil"})
    if begun:
        request.add_header("Range", f"bytes={begun}-")
    try:
        response = urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing is left to ask for
            return _sha256(redirects.linked)
        raise
    with response:
        goes_on = response.status == 206
        begun = begun if goes_on else 0
        length = response.headers.get("Content-Length")
        total = begun + int(length) if length and length.isdigit() else None
        megabytes = (total or remote.size) // BLOCK
        with open(part, "ab" if goes_on else "wb") as file, bar(f"{remote.name} (MB)", megabytes) as show:
            done = begun
            while block := response.read(BLOCK):
                file.write(block)
                done += len(block)
                show(done // BLOCK)
        if total is not None and done < total:
            raise http.client.IncompleteRead(b"", total - done)
        return _sha256(redirects.linked or response.headers.get("X-Linked-ETag"))


def _sha256(etag: str | None) -> str | None:
    text = (etag or "").strip('"')
    return f"sha256:{text}" if len(text) == 64 else None


def _digest(path: Path, like: str) -> str:
    """The file's checksum of the same kind."""
    kind = like.partition(":")[0]
    digest = hashlib.new(kind, usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return f"{kind}:{digest.hexdigest()}"


def check_space(folder: Path, wanted: int, what: str) -> None:
    """Refuse what does not fit on the disk.

    Raises:
        UserError: says how much is wanted and free.
    """
    free = shutil.disk_usage(folder).free
    if free < wanted:
        raise UserError(
            f"{what} needs {wanted / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are free; make room or name "
            "another place with --root"
        )


# -- archives -------------------------------------------------------------------------------------------------


def unpack(archive: Path, folder: Path, strip: str = "") -> None:
    """Put an archive's files into a folder; those that are there already stay as they are.

    Everything is unpacked beside its place first, so that a file of the folder is a whole one.

    Args:
        archive: ``.tar``, ``.tar.gz`` or ``.zip``.
        folder: which no path of the archive may leave.
        strip: first folder of the archive's paths that is left out.

    Raises:
        UserError: a path that leaves the folder, a link, a damaged archive, or no space.
    """
    place = unpacking(archive, folder)
    shutil.rmtree(place, ignore_errors=True)
    try:
        with _opened(archive) as (names, size, extract):
            for name in names:
                if name.startswith("/") or ".." in name.split("/") or "\\" in name:
                    raise UserError(f"{archive} holds the path {name!r}, which leaves its folder; it is not unpacked")
            check_space(folder, size, f"what {archive.name} holds")
            place.mkdir(parents=True)
            extract(place)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError, OSError) as error:
        shutil.rmtree(place, ignore_errors=True)
        raise UserError(f"{archive} could not be unpacked ({error}); remove it and repeat the command") from error
    base = place / strip if strip and (place / strip).is_dir() else place
    for path in sorted(base.rglob("*")):
        target = folder / path.relative_to(base)
        if path.is_file() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
    shutil.rmtree(place)


def unpacking(archive: Path, folder: Path) -> Path:
    """Where an archive is unpacked first; it is there while, and after, that was interrupted."""
    return folder / f".{archive.name}.unpacked"


@contextlib.contextmanager
def _opened(archive: Path) -> Iterator[tuple[list[str], int, Any]]:
    """Names of the members, their bytes, and a function that extracts them into a folder."""
    if archive.suffix == ".zip":
        with zipfile.ZipFile(archive) as file:
            infos = file.infolist()
            yield [info.filename for info in infos], sum(info.file_size for info in infos), file.extractall
    else:
        with tarfile.open(archive) as tar:
            members = tar.getmembers()
            for member in members:
                if not (member.isfile() or member.isdir()):
                    raise UserError(
                        f"{archive} holds {member.name!r}, which is neither file nor folder; it is not unpacked"
                    )
            yield [m.name for m in members], sum(m.size for m in members), lambda to: tar.extractall(to, filter="data")
