"""How much faster several processes train than one; ``train_step.py --what processes``.

Every process has ``--batch`` images, as in a run, and ``--threads`` threads, or a GPU of its own where there are
enough. The step is KRT's of the last of ``--sessions`` sessions, wrapped as the runner wraps it. First the gradients of
all processes together are compared with the mean of those that each process has alone. The groups of processes take
turns; ``ratio`` is the speed of the last group over that of the first one, ``efficiency`` the same a process. On two
cores that share their memory two processes cannot be quite twice as fast as one that had the memory to itself.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import sys
import time
from multiprocessing import Queue
from typing import Any

import torch
import torch.multiprocessing as mp
from krt_step import batch_of, trained
from mmengine.model import MMDistributedDataParallel
from timing import synchronise
from torch import Tensor

TURNS = 2  # of every group


def gradients(method: torch.nn.Module) -> Tensor:
    """All of them as one vector."""
    return torch.cat([p.grad.flatten() for p in method.parameters() if p.grad is not None])


def work(rank: int, count: int, port: int, options: argparse.Namespace, found: Queue[Any]) -> None:
    """A process of the group: the seconds of its steps, and how far its gradients are from the mean."""
    torch.set_num_threads(options.threads)
    on_gpus = torch.cuda.device_count() >= count
    device = torch.device("cuda", rank) if on_gpus else torch.device("cpu")
    torch.distributed.init_process_group(
        "nccl" if on_gpus else "gloo", f"tcp://127.0.0.1:{port}", rank=rank, world_size=count
    )
    method, wrapper = trained(options, device, default=True)
    batch = batch_of(options, seed=rank)
    data = method.data_preprocessor(batch)
    outputs = method(**data, mode="loss")
    sum(outputs.values()).backward()
    alone = gradients(method)
    torch.distributed.all_reduce(alone)
    method.zero_grad()
    model = MMDistributedDataParallel(method, device_ids=[rank] if on_gpus else None)
    model.train()
    outputs = model(**data, mode="loss")
    sum(outputs.values()).backward()
    difference = ((gradients(method) - alone / count).norm() / (alone / count).norm()).item()
    method.zero_grad()
    seconds = []
    for _ in range(options.steps + 1):
        synchronise(device)
        torch.distributed.barrier()
        started = time.perf_counter()
        model.train_step(batch, wrapper)
        synchronise(device)
        seconds.append(time.perf_counter() - started)
    found.put((rank, difference, seconds[1:]))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def free_port() -> int:
    """A port that nobody listens at."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def measure(options: argparse.Namespace, device: torch.device) -> float:
    """Print one table; the speed of the last group over that of the first."""
    del device  # each process has its own
    options.sessions = options.sessions[-1]
    context = mp.get_context("spawn")
    steps: dict[int, list[float]] = {count: [] for count in options.processes}
    for _ in range(TURNS):
        for count in options.processes:
            found: Queue[Any] = context.Queue()
            mp.spawn(work, (count, free_port(), options, found), nprocs=count)
            results = [found.get() for _ in range(count)]
            worst = max(difference for _, difference, _ in results)
            if not worst <= 1e-3:
                sys.exit(f"{count} processes: the gradients differ by {worst:.1e}")
            steps[count] += [max(times) for times in zip(*(times for _, _, times in results), strict=True)]
    first = options.processes[0]
    speeds = {count: count * options.batch / statistics.median(times) for count, times in steps.items()}
    print(f"{options.backbone}, batch {options.batch} a process; the gradients are the means of the processes'")
    print(f"{'processes':>10}{'images/s':>10}{'ratio':>8}{'efficiency':>12}")
    for count, speed in speeds.items():
        ratio = speed / speeds[first]
        print(f"{count:>10}{speed:>10.2f}{ratio:>8.2f}{100 * ratio * first / count:>10.0f} %")
    return ratio
