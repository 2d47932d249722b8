"""Reading a PyTorch file that anybody may have written.

``torch.load(weights_only=True)`` runs no code, but it believes what a file says of its own sizes. Before it is
asked, the file's table of contents and its pickle are looked at without executing them; afterwards every tensor
is compared with the bytes that are really there.
"""

from __future__ import annotations

import contextlib
import io
import pickletools
import re
import stat
import warnings
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from mlcil.errors import UserError

#: allowed by ``weights_only`` and able to ask for any amount of memory, or to make something that is no plain tensor
REFUSED = re.compile(r"\bbytearray\b|_rebuild_(sparse|meta|device_tensor|wrapper|nested|qtensor)")
CONTAINERS = (dict, list, tuple, set)
DEEPEST, MOST_ENTRIES = 64, 50_000_000  # of containers in each other
EXPECTED = (
    "expected an intact PyTorch file of tensors and plain values, so download it again or re-save its state dict "
    "with torch.save"
)


class _RefusedError(Exception):
    """Why a file is not read; becomes part of a sentence."""


def load_tensors(path: Path) -> Any:
    """``torch.load`` restricted to tensors and builtins, on the CPU; needs about as much memory as the file has bytes.

    A name that ends with ``.safetensors`` is read as such a file.

    Raises:
        UserError: no such file, no regular file, or not a file of tensors that are really in it.
    """
    try:
        status = path.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise UserError(f"{path} does not exist; expected a PyTorch weight file there") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({reason}); expected a PyTorch weight file there") from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is a folder; expected a PyTorch weight file")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is no regular file; expected a PyTorch weight file")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with open(path, "rb") as file:
            _check_claims(file, status.st_size)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # remarks on how a file that is refused was pickled
            content = torch.load(path, map_location="cpu", weights_only=True)
        check_size(content)
        check_tensors(content)
    except Exception as error:  # torch raises many kinds with many lines; the user needs one sentence
        raise UserError(f"{path} cannot be read as tensors ({_reason(error)}); {EXPECTED}") from error
    return content


def _reason(error: Exception) -> str:
    if isinstance(error, _RefusedError):
        return str(error)
    named = re.search(r"GLOBAL (\S+)", str(error))
    if named:
        return f"it holds the python object {named[1]}, which was not run"
    return getattr(error, "strerror", None) or "cut off or another format"


def check_size(content: Any) -> None:
    """Refuse containers that lie deep in each other, or that are named so often that a walk never ends.

    Raises:
        _RefusedError: says which.
    """
    entries: dict[int, int] = {}  # of a container and of all inside it, each counted as often as it is named
    open_: set[int] = set()
    left = [content]
    while left:
        value = left[-1]
        inside = [item for item in _items(value) if isinstance(item, CONTAINERS)]
        if id(value) in entries or not isinstance(value, CONTAINERS):
            left.pop()
        elif id(value) in open_:
            open_.remove(id(left.pop()))
            entries[id(value)] = len(value) + sum(entries.get(id(item), 0) for item in inside)
            if entries[id(value)] > MOST_ENTRIES:
                raise _RefusedError(f"its lists would have more than {MOST_ENTRIES} entries")
        elif len(open_) == DEEPEST or any(item is value or id(item) in open_ for item in inside):
            raise _RefusedError(f"its lists lie more than {DEEPEST} deep in each other")
        else:
            open_.add(id(value))
            left.extend(inside)


def _items(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, CONTAINERS) else ()


def check_tensors(content: Any) -> None:
    """Every tensor is dense and lies wholly in its own storage."""
    for tensor in tensors_in(content):
        # a shape can be any claim where a stride is 0
        if tensor.layout != torch.strided or tensor.device.type != "cpu" or tensor.is_quantized:
            raise _RefusedError("it holds a tensor that is not dense")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise _RefusedError(
                f"it holds a tensor of shape {str(tuple(tensor.shape))[:80]} with "
                f"{tensor.untyped_storage().nbytes()} bytes of values"
            )


def tensors_in(content: Any) -> Iterator[Tensor]:
    """All tensors in nested dictionaries, lists and tuples, each container once (a file may name one often)."""
    seen: set[int] = set()
    left = [content]
    while left:
        value = left.pop()
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, CONTAINERS) and id(value) not in seen:
            seen.add(id(value))
            left.extend(_items(value))


def first_not_finite(state: dict[str, Any]) -> str | None:
    """Name of the first floating-point tensor of a flat state with an infinite value or one that is no number."""
    for name, value in state.items():
        if isinstance(value, Tensor) and value.is_floating_point() and not bool(torch.isfinite(value).all()):
            return str(name)
    return None


def _check_claims(file: IO[bytes], size: int) -> None:
    """Refuse what would make the reader ask for more memory than the file has bytes.

    Raises:
        _RefusedError: says what the file claims.
    """
    if file.read(4) == b"PK\x03\x04":
        file.seek(0)
        with zipfile.ZipFile(file) as archive:
            entries = archive.infolist()
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
                raise _RefusedError("it is a compressed archive, which torch.save never writes")
            claimed = sum(entry.file_size for entry in entries)
            if claimed > size:
                raise _RefusedError(f"its contents claim {claimed} bytes, but the file has {size}")
            for entry in entries:
                if entry.filename.endswith("data.pkl"):
                    _check_pickle(io.BytesIO(archive.read(entry)), None)
        return
    # the older layout: four pickles (a magic number, a version, the system, the object), then storages
    file.seek(0)
    with contextlib.suppress(ValueError):  # no further pickle; the reader says what is missing
        for _ in range(4):
            _check_pickle(file, size)


def _check_pickle(file: IO[bytes], size: int | None) -> None:
    """Look at a pickle's opcodes: refused names, and with ``size`` the lengths of the storages that it names.

    Raises:
        _RefusedError: says what was found.
        ValueError: it is no pickle, or cut off.
    """
    claimed, last = 0, 0
    for opcode, argument, _ in pickletools.genops(file):
        if opcode.name == "GLOBAL":
            found = REFUSED.search(str(argument))
            if found:
                raise _RefusedError(f"it uses {found[0]}, which no checkpoint needs")
        elif type(argument) is int and ("INT" in opcode.name or "LONG" in opcode.name):
            last = argument
        elif opcode.name == "BINPERSID" and size is not None:
            claimed += max(last, 0)
            if claimed > size:
                raise _RefusedError(f"its storages claim {claimed} values, but the file has {size} bytes")
