"""What keeping freed memory in the process is worth: a training step on the CPU with and without it.

    python benchmarks/allocator.py [--backbone tf_efficientnet_lite0] [--batch 16] [--threads 1]

Two child processes run the same step on the same data, one with glibc's own settings; their losses are
compared first, then the medians are printed with their ratio.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time


def child(options: argparse.Namespace) -> None:
    """Time the step in this process and print losses and seconds as json."""
    import torch

    from mlcil.models.network import build_network
    from mlcil.system.allocator import keep_freed_memory

    kept = keep_freed_memory()
    torch.manual_seed(0)
    torch.set_num_threads(options.threads)
    spec = {"backbone": {"name": options.backbone}, "head": {"type": "ica"}, "image_size": 224}
    network = build_network(spec, [10, 10]).to(memory_format=torch.channels_last)
    images = torch.rand(options.batch, 3, 224, 224)
    losses, seconds = [], []
    for step in range(options.steps + 1):
        started = time.perf_counter()
        loss = network(images).logits_BC.square().mean()
        loss.backward()
        if step:  # the first step allocates
            seconds.append(time.perf_counter() - started)
        losses.append(loss.item())
    print(json.dumps({"kept": kept, "losses": losses, "seconds": statistics.median(seconds)}))


def main() -> None:
    """Run both children and print the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backbone", default="tf_efficientnet_lite0")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        child(options)
        return
    results = {}
    for name, setting in (("glibc's settings", "default"), ("freed memory kept", "keep")):
        environment = {**os.environ, "MLCIL_MALLOC": setting}
        command = [sys.executable, *sys.argv, "--child"]
        results[name] = json.loads(subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True).stdout)
    plain, kept = results.values()
    if plain["losses"] != kept["losses"]:
        sys.exit(f"the losses differ: {plain['losses']} and {kept['losses']}")
    print(f"{options.backbone}, batch {options.batch}, 224 px, {options.threads} thread(s); losses equal")
    for name, result in results.items():
        print(f"{name:20} {result['seconds']:7.3f} s a step")
    print(f"{'ratio':20} {plain['seconds'] / kept['seconds']:7.2f}")
    if not kept["kept"]:
        print("(this C library does not take the settings)")


if __name__ == "__main__":
    main()
