"""How fast is a training step, and against what? The default step against straightforward formulations.

    python benchmarks/train_step.py [--device auto|cpu|cuda] [--backbone tresnet_m] [--sessions 8] [--batch 16]
    python benchmarks/train_step.py --what ica|dkt|daformer [--network] [--sessions 1 8 16 40] [--classes 25]
    python benchmarks/train_step.py --what inversion [--precision bf16]
    python benchmarks/train_step.py --what memory [--batch 4] [--steps 3]
    python benchmarks/train_step.py --what processes [--processes 1 2] [--threads 1]
    python benchmarks/train_step.py --what counts [--machine NAME GFLOP/s GB/s]

``krt``, the default, makes KRT steps of the last of ``--sessions`` sessions (teacher forward, forward, asymmetric and
token loss, backward, Adam) from the same weights on the same images, the way of the released code (fp32, contiguous
layout, attention once a session) and ours: channels-last, the precision that ``auto`` picks on the device, attention
shared by the sessions, the teacher's batch norms inside its convolutions, the fused optimiser. The losses of the first
step, before any update, are compared first, and the program fails when they disagree. On the CPU freed memory is kept
for both, as a run does. Printed are the shares of the machine's peak too, and where the time of our step goes.

The other kinds: ``heads_step.py`` (one more session in the heads), ``inversion_step.py`` (ABD, R-DFCIL), ``memory.py``
(what a step keeps), ``processes.py`` (several of them), ``counts.py`` (operations and bytes of a step, computed on no
device). ``ratio`` is straightforward over ours, where the kind does not say otherwise.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from typing import Any

import counts
import heads_step
import inversion_step
import memory
import processes
import torch
from krt_step import BARS, CLASSES, batch_of, step_of, trained
from timing import CLOCKS, add_options, begin, header, medians, operations, peaks, print_peaks, synchronise

from mlcil.engine.optim import AutocastOptimWrapper
from mlcil.methods import KRT

#: what is not given on the command line
TRESNET = {"backbone": "tresnet_m", "sessions": [8], "batch": 16, "size": 224, "classes": CLASSES, "precision": "auto"}
TRANSFORMER = {"sessions": [1, 5, 10, 20], "batch": 32, "size": 32, "classes": 5}
USUAL: dict[str, dict[str, Any]] = {
    "krt": TRESNET,
    "ica": {**TRESNET, "sessions": [1, 4, 8, 16]},
    "dkt": TRANSFORMER,
    "daformer": TRANSFORMER,
    "inversion": {"backbone": "resnet32_abd", "batch": 64, "size": 32, "classes": 20, "precision": "fp32"},
    "memory": {**TRESNET, "batch": 4},
    "processes": {**TRESNET, "sessions": [4], "batch": 4},
    "counts": {**TRESNET, "batch": 64},
}
KINDS = {"krt": None, "inversion": inversion_step, "memory": memory, "processes": processes, "counts": counts}


def shares(
    step: Callable[[], object], method: KRT, wrapper: AutocastOptimWrapper, device: torch.device, turns: int, clock: str
) -> dict[str, float]:
    """Shares of a step's time by part, in [0, 1]: medians over some turns."""
    now, spent = CLOCKS[clock], dict.fromkeys(("teacher", "network", "optimiser"), 0.0)

    def timed(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            synchronise(device)
            started = now()
            result = function(*args, **kwargs)
            synchronise(device)
            spent[name] += now() - started
            return result

        return call

    method.teacher_output = timed("teacher", method.teacher_output)  # type: ignore[method-assign]
    method.network.forward = timed("network", method.network.forward)  # type: ignore[method-assign]
    wrapper.optimizer.step = timed("optimiser", wrapper.optimizer.step)  # type: ignore[method-assign]
    found: dict[str, list[float]] = {}
    for _ in range(turns):
        spent.update(dict.fromkeys(spent, 0.0))
        total = now()
        step()
        synchronise(device)
        total = now() - total
        parts = {
            "teacher's forward": spent["teacher"],
            "forward": spent["network"],
            "optimiser": spent["optimiser"],
            "backward and losses": total - sum(spent.values()),
        }
        for name, value in parts.items():
            found.setdefault(name, []).append(value / total)
    return {name: statistics.median(values) for name, values in found.items()}


def measure(options: argparse.Namespace, device: torch.device) -> float:
    """Print images per second of a KRT step; ours over the official formulation's."""
    options.sessions = options.sessions[-1]
    batch = {name: value.to(device) for name, value in batch_of(options).items()}
    reference = step_of(*trained(options, device, default=False), batch)
    method, wrapper = trained(options, device, default=True)
    default = step_of(method, wrapper, batch)
    dtype = wrapper.dtype
    precision = str(dtype).removeprefix("torch.")
    peak = print_peaks(peaks(device, options.clock))
    print(f"{options.backbone}, session {options.sessions}, batch {options.batch}, {options.size} px")
    expected, found = reference(), default()
    for name, value in expected.items():
        difference = abs(found[name] - value) / max(abs(value), 1e-6)
        print(f"{name:12}{value:12.5f}{found[name]:12.5f}   differ by {difference:.1e}")
        if not difference <= BARS[dtype]:
            sys.exit(f"{name} differs by {difference:.1e}, more than {BARS[dtype]:.0e}")
    steps = {"official": reference, "default": default}
    seconds = medians(steps, device, options.steps, 0, options.clock)  # type: ignore[arg-type]
    for name, row in (("official formulation", "official"), (f"default ({precision})", "default")):
        work = operations(steps[row])
        print(
            f"{name:24}{options.batch / seconds[row]:10.2f} images/s{work:10.0f} GFLOP a step"
            f"{100 * work / seconds[row] / peak:8.0f} % of the peak"
        )
    found_parts = shares(default, method, wrapper, device, min(options.steps, 3), options.clock)
    print("default step: " + ", ".join(f"{name} {100 * share:.0f} %" for name, share in found_parts.items()))
    return seconds["official"] / seconds["default"]


def main() -> None:
    """Print the tables of one kind and their ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--what", default="krt", choices=tuple(USUAL))
    parser.add_argument("--backbone", help="of all kinds but dkt and daformer")
    parser.add_argument("--sessions", type=int, nargs="+", help="numbers of sessions; ica, dkt, daformer; others: last")
    parser.add_argument("--classes", type=int, help="of a session; krt has 10")
    parser.add_argument("--batch", type=int)
    parser.add_argument("--size", type=int, help="side of the images in pixels")
    parser.add_argument("--steps", type=int, default=5, help="timed steps of each")
    parser.add_argument("--precision", help="of our step in krt, inversion and processes: auto, fp32 or bf16")
    parser.add_argument("--processes", type=int, nargs="+", default=[1, 2], help="sizes of the groups")
    parser.add_argument("--network", action="store_true", help="the heads with their backbones in front")
    parser.add_argument(
        "--machine", nargs=3, action="append", metavar=("NAME", "GFLOP/s", "GB/s"), help="peaks for counts"
    )
    options = parser.parse_args()
    for name, value in USUAL[options.what].items():
        if getattr(options, name) is None:
            setattr(options, name, value)
    device = begin(options)
    torch.manual_seed(0)
    print(header(device))
    kind = KINDS.get(options.what, heads_step)
    ratio = (kind.measure if kind else measure)(options, device)
    print(f"ratio {ratio:.2f}")


if __name__ == "__main__":
    main()
