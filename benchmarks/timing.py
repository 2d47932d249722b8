"""Timing shared by the benchmarks: interleaved repeats and medians, so that a ratio comes from one run."""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable

import torch


def synchronise(device: torch.device) -> None:
    """Wait for the GPU, if it is one."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def medians(candidates: dict[str, Callable[[], object]], device: torch.device, repeats: int) -> dict[str, float]:
    """Median seconds of each candidate; they take turns, after one untimed turn each."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for repeat in range(repeats + 1):
        for name, function in candidates.items():
            synchronise(device)
            started = time.perf_counter()
            function()
            synchronise(device)
            if repeat:
                seconds[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in seconds.items()}


def header(device: torch.device) -> str:
    """Versions, device, threads, load and the command."""
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"cpu, {torch.get_num_threads()} thread(s)"
    load = os.getloadavg()[0]
    return f"torch {torch.__version__}, {name}, load {load:.1f}; python {' '.join(sys.argv)}"


def pick_device(name: str) -> torch.device:
    """``auto`` is the GPU when there is one."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)
