"""How fast are predictions, and what is each part worth? A run's and an exported tagger's, against the release.

    python benchmarks/predict.py [--batch 8] [--sessions 8] [--backbone tresnet_m] [--clock cpu --threads 1]

``official`` is fp32, contiguous, attention once a session, batch norms apart. All networks have the same weights;
logits are compared before anything is timed, and the program fails when they differ. Every row adds a part to the one
above, the last two on a CPU are onnxruntime's: fp32 and int8, as ``mlcil export`` writes them. ``ratio`` is that of the
last row. What int8 does to mAP is a question for a trained tagger: ``mlcil export --int8 --on LABELS`` prints it.
"""

from __future__ import annotations

import argparse
import copy
import sys

import torch
from timing import add_options, begin, formulations, header, medians, operations, peaks, print_peaks
from torch import Tensor, nn

from mlcil.inference.export import to_onnx
from mlcil.inference.quantise import quantised
from mlcil.models.data_preprocessor import network_input
from mlcil.models.folding import folded
from mlcil.models.inplace_abn import ABN
from mlcil.models.network import build_network
from mlcil.models.numerics import autocast, resolve_precision
from mlcil.system.onnx_graph import Graph

#: of the largest logit
BARS = {torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02, torch.int8: 0.2}


class Logits(nn.Module):
    """A network's logits alone."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, C)."""
        return self.network(images).logits_BC  # type: ignore[no-any-return]


def main() -> None:
    """Print one table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_options(parser)
    parser.add_argument("--backbone", default="tresnet_m")
    parser.add_argument("--sessions", type=int, default=8)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="side of the images in pixels")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--precision", default="auto", help="of the last row: auto, fp32, bf16 or fp16")
    options = parser.parse_args()
    device = begin(options)
    torch.manual_seed(0)
    spec = {"backbone": {"name": options.backbone}, "head": {"type": "ica"}, "image_size": options.size}
    network = build_network(spec, [10] * options.sessions).to(device).eval().requires_grad_(False)
    for module in network.modules():
        if isinstance(module, (ABN, nn.BatchNorm2d)):  # statistics of a network that has seen something
            nn.init.uniform_(module.weight, 0.3, 0.8)
            module.running_mean.normal_(0, 0.1)  # type: ignore[operator, union-attr]
            module.running_var.uniform_(0.5, 1.5)  # type: ignore[operator, union-attr]
    photos = torch.randint(0, 256, (max(options.batch, 16), options.size, options.size, 3), dtype=torch.uint8)
    images = network_input(photos[: options.batch]).to(device)
    dtype = resolve_precision(options.precision, device)
    last = copy.deepcopy(network).to(memory_format=torch.channels_last)
    candidates: dict[str, tuple[nn.Module, torch.dtype]] = {
        "official": (formulations.PerSession(network).eval(), torch.float32),
        "+ shared attention": (network, torch.float32),
        "+ channels last": (last, torch.float32),
        "+ folded batch norm": (folded(last).to(memory_format=torch.channels_last), torch.float32),
    }
    if dtype != torch.float32:
        name = str(dtype).removeprefix("torch.")
        candidates[f"+ {name}"] = (candidates["+ folded batch norm"][0], dtype)

    graphs: dict[str, Graph] = {}
    if device.type == "cpu":
        content = to_onnx(Logits(folded(network)), options.size, "logits")
        small = quantised(content, iter(photos.numpy()))
        for name, some, kind in (("onnxruntime fp32", content, torch.float32), ("onnxruntime int8", small, torch.int8)):
            graphs[name] = Graph(some, name, options.threads)
            candidates[name] = (network, kind)

    def predict(row: str) -> Tensor:
        module, precision = candidates[row]
        if row in graphs:
            return torch.from_numpy(graphs[row](photos[: options.batch].numpy()))
        with torch.inference_mode(), autocast(device, precision):
            return module(images).logits_BC.float()  # type: ignore[no-any-return]

    print(header(device))
    peak = print_peaks(peaks(device, options.clock))
    print(f"{options.backbone}, {options.sessions} sessions, batch {options.batch}, {options.size} px, {options.clock}")
    expected = predict("official")
    differences = {}
    for row, (_, precision) in candidates.items():
        differences[row] = ((predict(row) - expected).abs().max() / expected.abs().max()).item()
        if not differences[row] <= BARS[precision]:
            sys.exit(f"{row}: logits differ by {differences[row]:.1e}, more than {BARS[precision]:.0e}")
    work = {row: (lambda row=row: predict(row)) for row in candidates}
    seconds = medians(work, device, options.repeats, 0, options.clock)  # type: ignore[arg-type]
    print(f"{'':24}{'images/s':>10}{'ratio':>8}{'GFLOP':>9}{'of peak':>9}{'difference':>12}")
    for row in candidates:
        with torch.no_grad():
            gflop = operations(lambda row=row: candidates[row][0](images))  # type: ignore[misc]
        print(
            f"{row:24}{options.batch / seconds[row]:>10.2f}{seconds['official'] / seconds[row]:>8.2f}"
            f"{gflop:>9.1f}{100 * gflop / seconds[row] / peak:>7.0f} %{differences[row]:>12.1e}"
        )
    print(f"ratio {seconds['official'] / seconds[row]:.2f}")


if __name__ == "__main__":
    main()
