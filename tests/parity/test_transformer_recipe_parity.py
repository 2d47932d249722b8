"""What DKT and DAFormer train with: herding, memory, repeated augmentation, learning rates."""

import numpy as np
import torch
from fixture_sets import over
from PIL import Image
from transformer_fixtures import SETS

from mlcil.datasets.augment import Hole
from mlcil.datasets.sampling import RepeatedAugmentationSampler
from mlcil.engine.schedules import WarmupCosine
from mlcil.evaluation.singlelabel import evaluate_session, summarise
from mlcil.memory.exemplars import ExemplarMemory
from mlcil.memory.selection import herding

EVERY = [*SETS["dkt"], *SETS["daformer"]]


class Legacy:
    """NumPy's old generator where a new one is expected."""

    def __init__(self, seed):
        self.integers = np.random.RandomState(seed).randint


def cases(prefix):
    return lambda Z: Z.parts(prefix)


@over(EVERY, "case", cases("herd/"))
def test_herding(Z, case):
    count = int(case.split("_")[-1])
    assert herding(Z[f"herd/{case}/features"], count, fill=True) == Z[f"herd/{case}/icarl"].tolist()


@over(SETS["dkt"])
def test_balanced_memory(Z):
    memory = ExemplarMemory(total=Z.params["mem_size"], quota="floor")
    low = 0
    for task in range(len(Z.parts("memory/t"))):
        labels = Z[f"memory/t{task}/in_y"]
        high = int(labels.max()) + 1
        targets = labels[:, None] == np.arange(high)
        memory.begin_session()
        rows = 1000 * task + np.arange(len(labels))
        memory.update(task, low, high, rows, Z[f"memory/t{task}/in_feats"], targets)
        found_rows, found_tasks = memory.contents()
        classes = [c for c in sorted(memory.rows_of_class) for _ in memory.rows_of_class[c]]
        np.testing.assert_array_equal(found_rows, Z[f"memory/t{task}/x"])
        np.testing.assert_array_equal(classes, Z[f"memory/t{task}/y"])
        np.testing.assert_array_equal(found_tasks, Z[f"memory/t{task}/t"])
        assert {len(kept) for kept in memory.rows_of_class.values()} == {int(Z[f"memory/t{task}/per_class"])}
        low = high


@over(SETS["dkt"], "case", cases("rasampler/"))
def test_repeated_augmentation(Z, case):
    length, world_size, rank, epoch = (int(part.lstrip("nwsrep")) for part in case.split("_"))
    sampler = RepeatedAugmentationSampler(length, seed=5, session=2, rank=rank, world_size=world_size)
    sampler.set_epoch(epoch)
    positions = [position for position, _ in sampler]
    assert positions == Z[f"rasampler/{case}"].tolist()
    assert len(positions) == len(sampler)
    assert len({key for _, key in sampler}) == len(sampler)


@over(EVERY, "case", cases("lr_schedule/"))
def test_learning_rates(Z, case):
    epochs, peak = (float(part) for part in case.removeprefix("epochs").split("_lr"))
    optimizer = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=peak)
    schedule = WarmupCosine(optimizer, epochs=int(epochs), epoch_length=1)
    found = []
    for _ in range(int(epochs)):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(found, Z[f"lr_schedule/{case}"], rtol=1e-9)


@over(SETS["dkt"], "case", cases("cutout/"))
def test_cutout(Z, case):
    kept = Z[f"cutout/{case}"]
    side = int(kept.shape[0] // 2)
    white = Image.new("RGB", kept.shape[::-1], (255, 255, 255))
    cut = np.asarray(Hole(side)(white, Legacy(int(case.removeprefix("seed")))))
    np.testing.assert_array_equal(cut, 255 * kept[:, :, None].repeat(3, 2))


@over(SETS["dkt"])
def test_metrics(Z):
    """Accuracy, average incremental accuracy, and the library's forgetting and transfer, cumulative over sessions."""
    keys = [key.removesuffix("/out") for key in Z.keys("metrics/") if key.endswith("/out")]
    results, edges = [], []
    for t, key in enumerate(keys):
        predicted, right, session = (Z[f"{key}/{name}"] for name in ("pred", "target", "task"))
        new = right[session == t]
        edges.append((int(new.min()), int(new.max()) + 1))
        scores = np.eye(edges[-1][1])[predicted]
        results.append(evaluate_session(scores, right, edges, edges[0][1]))
        found = summarise(results)
        names = ("last_accuracy", "average_accuracy", "continuum_forgetting", "continuum_backward_transfer")
        ours = [found[name] / 100 for name in (*names, "continuum_forward_transfer")]
        np.testing.assert_allclose(ours, Z[f"{key}/out"], rtol=0, atol=1e-9, err_msg=key)
