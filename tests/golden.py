"""Synthetic batches with known labels, and the network that the tests of methods train on them."""

import torch

BACKBONE = {"name": "tresnet", "layers": [1, 1, 1, 1], "width": 0.25, "abn": "torch"}
ICA = {"type": "ica", "embed_dim": 32, "num_heads": 4}
LINEAR = {"type": "linear"}
VIT = {"name": "vit_tiny_patch16_224", "trunk": {"patch_size": 16, "embed_dim": 32, "depth": 3, "num_heads": 4}}
SIZE, BATCH, STEPS, REPLAYED = 64, 8, 2, 3
SPLITS = ((0, 3), (3, 5), (5, 7))


def batches(index):
    """Noise with a bright square for every label; in later sessions the last images are replayed from session 0."""
    high = SPLITS[index][1]
    generator = torch.Generator().manual_seed(100 + index)
    made = []
    for number in range(STEPS):
        inputs = 0.3 * torch.rand(BATCH, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
        shown = torch.rand(BATCH, SPLITS[-1][1], generator=generator) < 0.3
        targets = torch.zeros(BATCH, high)
        origins = torch.full((BATCH,), index)
        if index:
            origins[-REPLAYED:] = 0
        for image, target, labels, origin in zip(inputs, targets, shown, origins.tolist(), strict=True):
            target[: SPLITS[origin][0]] = -1  # nobody gave these labels
            for c in labels.nonzero().flatten().tolist():
                top, left = 16 * (c // 4) + 8, 16 * (c % 4)
                image[c % 3, top : top + 16, left : left + 16] = 1
                if SPLITS[origin][0] <= c < high:
                    target[c] = 1
        rows = torch.arange(BATCH) + BATCH * number
        rows[origins != index] += 1000 - 5 * index  # rows 1005.. in session 0's memory
        made.append({"inputs": inputs, "targets": targets, "rows": rows, "origins": origins})
    return made
