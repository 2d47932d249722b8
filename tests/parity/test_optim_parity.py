"""Cases m and n: the one-cycle schedule and the parameter groups."""

import numpy as np
import torch
from krt_fixtures import each

from mlcil.engine.optim import decay_groups
from mlcil.engine.schedules import OneCycle
from mlcil.interop.official import to_official
from mlcil.methods import KRT


@each("case", lambda Z: Z.parts("m/"))
def test_one_cycle(Z, case):
    epochs, steps, peak = Z[f"m/{case}/epochs_steps_maxlr"]
    optimizer = torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=float(peak))
    schedule = OneCycle(optimizer, epochs=int(epochs), epoch_length=int(steps))
    rates, betas = [], []
    for _ in Z[f"m/{case}/lr"]:
        rates.append(optimizer.param_groups[0]["lr"])
        betas.append(optimizer.param_groups[0]["betas"][0])
        optimizer.step()
        schedule.step()
    np.testing.assert_allclose(rates, Z[f"m/{case}/lr"], rtol=1e-9)
    np.testing.assert_allclose(betas, Z[f"m/{case}/beta1"], rtol=1e-9)


@each("case", lambda Z: ["base", "session2"])
def test_parameter_groups(Z, case):
    """What decays and what does not, and what is frozen, under the official names."""
    sessions = 1 if case == "base" else 2
    network = Z.network("thin_ica", Z.seeds[0], sessions)
    method = KRT(network)
    if case != "base":
        method.freeze()
    names = dict(zip(to_official(dict(network.named_parameters())), network.parameters(), strict=True))
    found = {id(p): name for name, p in names.items()}
    plain, decayed = decay_groups(network, 1e-4)
    assert plain["weight_decay"] == 0
    assert decayed["weight_decay"] == 1e-4
    assert {found[id(p)] for p in plain["params"]} == set(map(str, Z[f"n/{case}_no_decay"]))
    assert {found[id(p)] for p in decayed["params"]} == set(map(str, Z[f"n/{case}_decay"]))
    if f"n/{case}_frozen" in Z:
        assert {n for n, p in names.items() if not p.requires_grad} == set(map(str, Z[f"n/{case}_frozen"]))
