"""Batch norms over two processes: outputs, gradients and running statistics of the whole batch, in double precision."""

from __future__ import annotations

from pathlib import Path

import fault_harness as harness
import pytest
import torch
from torch import Tensor, nn

from mlcil.models.inplace_abn import ABN
from mlcil.models.sync_batch_norm import SynchronisedBatchNorm
from mlcil.models.transformer_blocks import SingleSafeBatchNorm
from mlcil.models.tresnet import TResNet

SHARES = (slice(0, 3), slice(3, 8))  # the processes' batches differ in size
NETWORKS = {
    "batch norm": lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5), nn.ReLU(), nn.Conv2d(5, 2, 3)),
    "no weights": lambda: nn.Sequential(nn.Conv2d(3, 5, 3), nn.BatchNorm2d(5, affine=False, momentum=None)),
    "vectors": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 4), nn.BatchNorm1d(4)),
    "ABN": lambda: nn.Sequential(nn.Conv2d(3, 5, 3), ABN(5, slope=0.01)),
    "TResNet": lambda: TResNet([1, 1, 1, 1], 0.125),
    "TResNet, recomputed": lambda: TResNet([1, 1, 1, 1], 0.125, recompute=True),
}


def images() -> Tensor:
    generator = torch.Generator().manual_seed(4)
    return 2 + 3 * torch.randn(8, 3, 8, 8, generator=generator, dtype=torch.float64)


def network(name: str) -> nn.Module:
    torch.manual_seed(5)
    model = NETWORKS[name]().double().train()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))  # zero weights let no gradient through
    return model


def step(model: nn.Module, x: Tensor) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """Outputs, gradients and buffers of a step whose loss is a sum over images."""
    size = 32 if isinstance(model, TResNet) else 8
    outputs = model(nn.functional.interpolate(x, size=(size, size)))
    output = outputs[-1] if isinstance(outputs, list) else outputs
    weights = torch.linspace(-1, 1, output[0].numel(), dtype=torch.float64).view_as(output[0])
    (weights * output.sin()).sum().backward()
    return output.detach(), [p.grad for p in model.parameters()], list(model.buffers())


def in_two_processes(name: str, folder: Path) -> list[tuple[Tensor, list[Tensor], list[Tensor]]]:
    def work(rank: int) -> None:
        torch.set_num_threads(1)
        torch.distributed.init_process_group("gloo")
        with SynchronisedBatchNorm():
            found = step(network(name), images()[SHARES[rank]])
        assert not SynchronisedBatchNorm.active
        torch.save(found, folder / f"{rank}.pth")
        torch.distributed.destroy_process_group()

    assert harness.both(work, folder) == [0, 0], (folder / "rank0.txt").read_text()[-3000:]
    return [torch.load(folder / f"{rank}.pth") for rank in range(2)]


@pytest.mark.parametrize("name", NETWORKS)
def test_two_processes_are_as_one_batch(name: str, tmp_path: Path) -> None:
    output, gradients, buffers = step(network(name), images())
    parts = in_two_processes(name, tmp_path)
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), output, rtol=1e-9, atol=1e-9)
    for whole, one, two in zip(gradients, parts[0][1], parts[1][1], strict=True):
        torch.testing.assert_close(one + two, whole, rtol=1e-8, atol=1e-8)
    for whole, one, two in zip(buffers, parts[0][2], parts[1][2], strict=True):
        torch.testing.assert_close(one, whole, rtol=1e-9, atol=1e-9)
        assert torch.equal(one, two)


def test_one_process_and_evaluation_are_torchs_own() -> None:
    layer = nn.BatchNorm2d(3).double()
    x = images()
    with SynchronisedBatchNorm():
        trained = layer(x)
        moved = [buffer.clone() for buffer in layer.buffers()]
        judged = layer.eval()(x)
    other = nn.BatchNorm2d(3).double()
    torch.testing.assert_close(trained, other(x))
    for one, two in zip(moved, other.buffers(), strict=True):
        torch.testing.assert_close(one, two)
    assert torch.equal(judged, other.eval()(x)) or torch.allclose(judged, other(x), rtol=1e-12)


def test_half_precision_keeps_its_dtype_and_sums_in_float32() -> None:
    x = (1000 + torch.arange(4096.0)).view(64, 1, 8, 8).to(torch.bfloat16)
    with SynchronisedBatchNorm():
        y = nn.BatchNorm2d(1)(x).detach()
    assert y.dtype == torch.bfloat16
    assert y.float().mean().abs() < 1e-2
    assert y.float().std() == pytest.approx(1, abs=1e-2)


def test_a_single_image_waits_for_the_others_statistics() -> None:
    layer, x = SingleSafeBatchNorm(3), images()[:1, :, :1, :1].float()
    with SynchronisedBatchNorm():
        assert torch.equal(layer(x), torch.zeros_like(x))  # alone it is its own mean
    assert not torch.equal(SingleSafeBatchNorm(3)(x), torch.zeros_like(x))
