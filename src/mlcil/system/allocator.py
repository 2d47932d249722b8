"""Keep freed memory in the process when training on the CPU.

Every training step allocates and frees the same few hundred megabytes of feature maps. glibc returns such
blocks to the kernel at once and gets them back page by page, zeroed, in the next step; on small machines
that costs more than the arithmetic. Telling malloc to keep them is safe and changes no number.
"""

from __future__ import annotations

import ctypes
import os
import sys

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def keep_freed_memory() -> bool:
    """Switch off malloc's trimming and its use of mmap; True when the C library took both settings.

    Does nothing outside glibc, or when ``MLCIL_MALLOC=default`` is set in the environment.
    """
    if not sys.platform.startswith("linux") or os.environ.get("MLCIL_MALLOC") == "default":
        return False
    try:
        libc = ctypes.CDLL("libc.so.6")
    except OSError:  # another C library
        return False
    return bool(libc.mallopt(_M_MMAP_MAX, 0) and libc.mallopt(_M_TRIM_THRESHOLD, 2**31 - 1))
