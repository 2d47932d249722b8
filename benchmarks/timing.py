"""Timing shared by the benchmarks: interleaved repeats and medians, so that a ratio comes from one run."""

from __future__ import annotations

import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable

import torch


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU when there is one.

    Products of float32 matrices are exact float32 (no TF32), so that compared outputs are comparable.
    """
    torch.set_float32_matmul_precision("highest")
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cudnn.benchmark = True
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def synchronise(device: torch.device) -> None:
    """Wait for the GPU, if it is one."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def medians(
    candidates: dict[str, Callable[[], object]], device: torch.device, repeats: int, warm_up: int = 2
) -> dict[str, float]:
    """Median seconds of each candidate; they take turns, after ``warm_up`` untimed turns each."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warm_up + repeats):
        for name, function in candidates.items():
            synchronise(device)
            started = time.perf_counter()
            function()
            synchronise(device)
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def header(device: torch.device) -> str:
    """Versions, device, threads, load average and the command, one a line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"torch {torch.__version__} on {name}, {torch.get_num_threads()} thread(s) of {os.cpu_count()} core(s), "
        f"load average {load}\npython {shlex.join(sys.argv)}"
    )
