"""What the benchmarks share: interleaved repeats and medians, so that a ratio comes from one run; the peak.

``--clock cpu`` counts the seconds that the process was computing instead of those that passed: with one thread that is
nearly the time on an idle machine, however many others share the cores.
"""

from __future__ import annotations

import argparse
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
import formulations as formulations  # the straightforward ones, which the tests know too

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--device``, ``--threads`` and ``--clock``."""
    parser.add_argument("--device", default="auto", choices=("auto", "cpu", "cuda"))
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="of the arithmetic")
    parser.add_argument("--clock", default="wall", choices=tuple(CLOCKS), help="cpu: on a machine with other work")


def begin(options: argparse.Namespace) -> torch.device:
    """Threads, device and memory settings as a run has them."""
    torch.set_num_threads(options.threads)
    device = pick_device(options.device)
    if device.type == "cpu":
        from mlcil.system.allocator import keep_freed_memory

        keep_freed_memory()
    return device


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
    candidates: dict[str, Callable[[], object]],
    device: torch.device,
    repeats: int,
    warm_up: int = 2,
    clock: str = "wall",
) -> dict[str, float]:
    """Median seconds of each candidate; they take turns, after ``warm_up`` untimed turns each."""
    seconds = timed(candidates, device, repeats, warm_up, clock)
    return {name: statistics.median(values) for name, values in seconds.items()}


def timed(
    candidates: dict[str, Callable[[], object]], device: torch.device, repeats: int, warm_up: int, clock: str
) -> dict[str, list[float]]:
    """The seconds of every turn, see :func:`medians`."""
    now = CLOCKS[clock]
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for turn in range(warm_up + repeats):
        for name, function in candidates.items():
            synchronise(device)
            started = now()
            function()
            synchronise(device)
            if turn >= warm_up:
                seconds[name].append(now() - started)
    return seconds


def header(device: torch.device) -> str:
    """Versions, device, threads, load average and the command, one a line."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
    load = " ".join(f"{value:.2f}" for value in os.getloadavg())
    return (
        f"torch {torch.__version__} on {name}, {torch.get_num_threads()} thread(s) of {os.cpu_count()} core(s), "
        f"load average {load}\npython {shlex.join(sys.argv)}"
    )


def peaks(device: torch.device, clock: str = "wall", repeats: int = 40) -> dict[str, float]:
    """GFLOP/s of the machine's best case: a large matrix product and a 3x3 convolution of 256 channels.

    The best of some turns, because what disturbs a turn makes it slower and never faster. float32, and bfloat16 where
    the hardware multiplies it; a GPU's too. Two operations a multiply-add.
    """
    from mlcil.models.numerics import resolve_precision

    side, batch = (4096, 32) if device.type == "cuda" else (1024, 4)
    found = {}
    for dtype in dict.fromkeys((torch.float32, resolve_precision("auto", device))):
        matrix = torch.rand(side, side, device=device, dtype=dtype)
        conv = nn.Conv2d(256, 256, 3, padding=1, bias=False, device=device, dtype=dtype)
        conv = conv.to(memory_format=torch.channels_last)
        maps = torch.rand(batch, 256, 28, 28, device=device, dtype=dtype).to(memory_format=torch.channels_last)
        with torch.inference_mode():
            work = {"product": lambda m=matrix: m @ m, "convolution": lambda c=conv, m=maps: c(m)}
            turns = timed(work, device, repeats, 2, clock)  # type: ignore[arg-type]
            seconds = {name: min(values) for name, values in turns.items()}
        name = str(dtype).removeprefix("torch.")
        found[f"{name} product"] = 2e-9 * side**3 / seconds["product"]
        found[f"{name} convolution"] = 2e-9 * batch * 28 * 28 * 9 * 256 * 256 / seconds["convolution"]
    return found


def print_peaks(found: dict[str, float]) -> float:
    """Print them; returns the highest."""
    print("peak, GFLOP/s: " + ", ".join(f"{name} {value:.0f}" for name, value in found.items()))
    return max(found.values())


def operations(function: Callable[[], object]) -> float:
    """GFLOP that a call takes in products and convolutions, forward and backward."""
    counter = FlopCounterMode(display=False)
    with counter:
        function()
    return counter.get_total_flops() / 1e9


def kept_for_backward(forward: Callable[[], object], *without: nn.Module | torch.Tensor) -> int:
    """Bytes that autograd holds between forward and backward.

    Args:
        forward: computes what would be differentiated.
        without: tensors, and modules whose parameters, are there anyway and not counted.
    """
    tensors = [x for part in without for x in (part.parameters() if isinstance(part, nn.Module) else [part])]
    known = {x.untyped_storage()._cdata for x in tensors}
    kept: dict[int, torch.Tensor] = {}

    def keep(x: torch.Tensor) -> torch.Tensor:
        if x.untyped_storage()._cdata not in known:
            kept[x.untyped_storage()._cdata] = x  # the tensor itself, so that no other takes its place
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        result = forward()
    del result
    return sum(x.untyped_storage().nbytes() for x in kept.values())
