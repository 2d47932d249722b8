"""Golden losses of the single-label methods: float64, a fixed seed, a few steps. A refactor must not change them.

Regenerate after a deliberate change: python tests/methods/test_golden_single_label.py
"""

import io

import pytest
import torch
from phase_calls import after_training, before_training, epochs

from mlcil.engine.checkpoint import plain
from mlcil.methods import (
    ABD,
    DGR,
    E2E,
    RDFCIL,
    DeepInversion,
    Finetune,
    LwF,
    LwFMC,
    LwFSynthetic,
    SingleLabelBiC,
)
from mlcil.methods.base import SessionContext
from mlcil.models.inversion import Inversion
from mlcil.models.network import IncrementalNetwork

SIZE, IMAGES, STEPS = 16, 6, 3
SESSIONS = ((0, 3), (3, 5), (5, 7))
DREAM = {"inversion": {"iterations": 2}}
SECOND = {"second": {"epochs": 2, "milestones": [1], "lr": 0.1}}
METHODS = {
    "RDFCIL": (RDFCIL, {**DREAM, "finetune_epochs": 1}),
    "ABD": (ABD, DREAM),
    "SingleLabelDeepInversion": (DeepInversion, DREAM),
    "SingleLabelLwFSynthetic": (LwFSynthetic, DREAM),
    "SingleLabelDGR": (DGR, {}),
    "SingleLabelFinetune": (Finetune, {}),
    "SingleLabelLwF": (LwF, {}),
    "SingleLabelLwFMC": (LwFMC, {}),
    "SingleLabelLwFMC softmax": (LwFMC, {"variant": "softmax"}),
    "SingleLabelE2E": (E2E, SECOND),
    "SingleLabelE2E intended": (E2E, {**SECOND, "current_target": "intended"}),
    "SingleLabelBiC": (SingleLabelBiC, SECOND),
}
#: methods whose second stage has its images among the batch
REPLAYED = ("SingleLabelE2E", "SingleLabelE2E intended", "SingleLabelBiC")
# losses of three steps in each of three sessions
GOLDEN = {
    "RDFCIL": [
        1.09914417,
        1.09711319,
        1.09333529,
        0.63269753,
        0.60883467,
        0.79185351,
        0.49566251,
        0.48620016,
        0.97228575,
    ],
    "ABD": [2.4722298, 2.32557387, 2.07303922, 1.25773207, 1.15360869, 0.99350498, 1.96585027, 1.92025535, 1.8159644],
    "SingleLabelDeepInversion": [
        1.57797108,
        1.43810565,
        1.22959775,
        3.76941899,
        3.44940632,
        3.0974511,
        9.39454116,
        7.68960482,
        6.26634216,
    ],
    "SingleLabelLwFSynthetic": [
        1.57797108,
        1.43810565,
        1.22959775,
        1.15065578,
        0.82675468,
        0.46533891,
        6.28099374,
        4.66694763,
        3.14255468,
    ],
    "SingleLabelDGR": [
        2.29860433,
        2.14108045,
        1.91433205,
        2.20666914,
        2.16161654,
        2.08450353,
        3.19659047,
        3.13238917,
        3.03163155,
    ],
    "SingleLabelFinetune": [
        1.57797108,
        1.43810565,
        1.22959775,
        1.02147687,
        0.88364257,
        0.66319004,
        4.35486907,
        3.94296734,
        3.3029008,
    ],
    "SingleLabelLwF": [
        1.57797108,
        1.43810565,
        1.22959775,
        2.12065171,
        1.98230916,
        1.76139385,
        5.89011622,
        5.47453271,
        4.83837902,
    ],
    "SingleLabelLwFMC": [
        2.4610409,
        2.34155005,
        2.14840356,
        3.03581284,
        2.95130217,
        2.81058193,
        5.90813332,
        5.76197212,
        5.51754155,
    ],
    "SingleLabelLwFMC softmax": [
        1.57797108,
        1.43810565,
        1.22959775,
        2.82684156,
        2.78041578,
        2.71287183,
        5.61868195,
        5.3446452,
        4.92860107,
    ],
    "SingleLabelE2E": [
        1.57797108,
        1.43810565,
        1.22959775,
        2.74005584,
        2.6781083,
        2.57389912,
        3.98214534,
        3.87698032,
        3.6928906,
    ],
    "SingleLabelE2E intended": [
        1.57797108,
        1.43810565,
        1.22959775,
        2.74005584,
        2.6781083,
        2.57389912,
        3.98169935,
        3.87655699,
        3.69250121,
    ],
    "SingleLabelBiC": [
        1.57797108,
        1.43810565,
        1.22959775,
        1.3158573,
        1.30589324,
        1.28772054,
        2.01525278,
        2.0063245,
        1.9899356,
    ],
}


def method_of(name):
    """A small network and the method around it."""
    method_class, options = METHODS[name]
    torch.manual_seed(7)
    rdfcil = method_class is RDFCIL
    backbone = {"name": "resnet32_rdfcil" if rdfcil else "resnet32_abd", "blocks": (1, 1), "widths": (4, 8)}
    backbone.update(mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))
    if method_class is DGR:
        backbone.update(mean=(0, 0, 0), std=(1, 1, 1))
    head = {"type": "session_linear"} if rdfcil else {"type": "full_linear", "num_classes": 9}
    return method_class(IncrementalNetwork(backbone, head, SIZE), **options).double()


def batches(low, high, generator, replay):
    """Images and one-hot rows of a session, with old classes where the method has a memory."""
    images = torch.rand(IMAGES, 3, SIZE, SIZE, generator=generator, dtype=torch.float64)
    labels = torch.randint(0 if replay else low, high, (IMAGES,), generator=generator)
    return {"inputs": images, "targets": torch.nn.functional.one_hot(labels, high).double()}


def run(name, interrupt=None):
    """Total loss of every step.

    In session ``interrupt`` the run stops behind its first step, and a new method goes on from what a file held.
    """
    method = method_of(name)
    generator = torch.Generator().manual_seed(11)
    found = []
    for index, (low, high) in enumerate(SESSIONS):
        batch = batches(low, high, generator, replay=name in REPLAYED)
        context = SessionContext(
            index, low, high, 2, 7, None, 1.0, batch_size=IMAGES, epochs=STEPS, task="single_label"
        )
        before = through_a_file(method.network.state_dict())
        method.begin_session(context)
        before_training(method, [batch])
        optimizer = optimizer_of(method)
        steps = epochs(method)
        for step in range(STEPS):
            if interrupt == index and step == 1:
                method, optimizer = resumed(name, method, optimizer, before, context)
                steps = epochs(method, first=1)
            next(steps)
            method.train()
            total = sum(method(**batch, mode="loss").values())
            optimizer.zero_grad()
            total.backward()
            optimizer.step()
            found.append(total.item())
        after_training(method, [batch])
    return found


def optimizer_of(method):
    return torch.optim.SGD(method.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)


def through_a_file(state):
    """What is read back from a checkpoint."""
    file = io.BytesIO()
    torch.save(plain(state), file)
    file.seek(0)
    return torch.load(file, weights_only=True)


def resumed(name, method, optimizer, before, context):
    """A new method in the place of one that stopped inside a session, by the steps of the runner."""
    saved = through_a_file(
        {"network": method.network.state_dict(), "method": method.method_state(), "optimizer": optimizer.state_dict()}
    )
    random = torch.get_rng_state()
    method = method_of(name)
    for low, high in SESSIONS[: context.index]:
        method.network.grow(high - low)
    method.network.load_state_dict(before)
    method.load_method_state(saved["method"])
    method.begin_session(context)
    optimizer = optimizer_of(method)
    method.network.load_state_dict(saved["network"])
    method.load_method_state(saved["method"])
    optimizer.load_state_dict(saved["optimizer"])
    torch.set_rng_state(random)
    return method, optimizer


@pytest.mark.parametrize("name", METHODS)
def test_golden_losses(name):
    assert run(name) == pytest.approx(GOLDEN[name], rel=1e-6)


@pytest.mark.parametrize("name", METHODS)
def test_a_resumed_session_goes_on_as_if_it_had_not_stopped(name):
    assert run(name, interrupt=2) == pytest.approx(GOLDEN[name], rel=1e-6)


def test_a_resumed_session_does_not_invert_again(monkeypatch):
    fits = []
    fit = Inversion.fit
    monkeypatch.setattr(Inversion, "fit", lambda self, *arguments: fits.append(self) or fit(self, *arguments))
    run("ABD", interrupt=2)
    assert len(fits) == len(SESSIONS) - 1


if __name__ == "__main__":
    for key in METHODS:
        print(f'    "{key}": {[round(value, 8) for value in run(key)]},')
