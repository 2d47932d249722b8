"""ABD's networks, inversion, training steps and baselines against the numbers of its authors' code."""

import copy
import functools
import re

import numpy as np
import pytest
import torch
from dfcil_fixtures import (
    FORWARD,
    GRADIENT,
    LATER,
    LAYERS,
    SETS,
    learning_rates,
    load_into,
    norm,
    scalar,
    targets,
    with_precisions,
)
from fixture_sets import DTYPES, one_hot, over
from method_calls import losses_of, place, predictions_of, session
from torch import nn

from mlcil.engine.schedules import Steps
from mlcil.interop.official import from_abd
from mlcil.losses.classification import inverse_frequencies, share_weights, weighted_cross_entropy
from mlcil.losses.distillation import soft_cross_entropy, soft_target_kd
from mlcil.memory.coreset import CoresetMemory
from mlcil.methods import (
    ABD,
    DGR,
    E2E,
    DeepInversion,
    Finetune,
    LwF,
    LwFMC,
    LwFSynthetic,
    SingleLabelBiC,
)
from mlcil.methods.bic import correction_table, held_out
from mlcil.methods.dgr import reconstruction_loss, variational_loss
from mlcil.models.generators import VAE, Generator
from mlcil.models.inversion import BatchNormStatistics, Inversion, InversionSettings
from mlcil.models.network import IncrementalNetwork, NetworkOutput
from mlcil.models.numerics import corrected

BACKBONES = {"resnet32": "resnet32_abd", "resnet18": "resnet18_abd"}
each = functools.partial(over, SETS["abd"])


def ours(name):
    """Our name of an official parameter."""
    state, unknown = from_abd({name: torch.zeros(())})
    assert not unknown
    return next(iter(state))


def filled(Z, name, outputs, seen, image_size, dtype, seed=None, last=None):
    """A network whose weights follow the rule, with a given last layer where there is one."""
    network = IncrementalNetwork({"name": BACKBONES[name]}, {"type": "full_linear", "num_classes": outputs}, image_size)
    for classes in seen:
        network.grow(classes)
    width = network.backbone.out_channels
    shapes = {**Z.shapes[name], "last.weight": [outputs, width], "last.bias": [outputs]}
    state, unknown = from_abd(Z.weights(shapes, seed))
    assert not unknown
    network.to(dtype)
    load_into(network, state)
    if last is not None:
        network.head.linear.weight.data = torch.from_numpy(last).to(dtype)
    return network


def backbone_of(Z, width):
    """The classifier with so many features: those of its last, widest stage."""
    widest = {name: max(s[0] for k, s in Z.shapes[name].items() if s and "last" not in k) for name in BACKBONES}
    return next(name for name, features in widest.items() if features == width)


# -- networks ----------------------------------------------------------------------------------------------------


def networks(Z):
    """Tag, classifier, number and shape of the input, outputs."""
    return [
        (tag, name, index, shape, outputs)
        for tag, name, inputs, outputs in Z.cases("model.<tag>")
        for index, shape in enumerate(inputs)
    ]


@pytest.mark.parametrize("precision", DTYPES)
@each("tag name index shape outputs", networks)
def test_classifier(Z, tag, name, index, shape, outputs, precision):
    dtype = DTYPES[precision]
    network = filled(Z, name, outputs, [outputs], shape[-1], dtype)
    images = Z.x(f"abd.{tag}.x{index}", shape).to(dtype)
    key = f"model.{tag}.in{index}"
    network.eval()
    with torch.no_grad():
        output = network(images)
        Z.close(f"{key}.eval.pen", output.features_BK, FORWARD)
        Z.close(f"{key}.eval.logits", output.logits_BC, FORWARD)
        network.train()
        Z.close(f"{key}.train.pen", network(images).features_BK, FORWARD)
    state = network.state_dict()
    statistics = Z.keys(f"{key}.train.after.")
    assert statistics
    for stored in statistics:
        Z.close(stored, state[ours(stored.removeprefix(f"{key}.train.after."))], FORWARD)


def generator_of(Z, constructor, dtype):
    """A generator whose weights follow the rule."""
    shapes = Z.shapes[f"generator.{constructor}"]
    side = Z[f"generator.{constructor}.eval.img"].shape[-1]
    generator = Generator(side, latent=shapes["l1.0.weight"][1])
    state, unknown = from_abd(Z.weights(shapes))
    assert not unknown
    load_into(generator, state)
    return generator.to(dtype)


@pytest.mark.parametrize("precision", DTYPES)
@each("constructor count", lambda Z: [tuple(case[1:]) for case in Z.cases("generator.<CTOR>")])
def test_generator(Z, constructor, count, precision):
    dtype = DTYPES[precision]
    generator = generator_of(Z, constructor, dtype).eval()
    latents = Z.x(f"abd.gen.{constructor}.z", (count, generator.latent)).to(dtype)
    with torch.no_grad():
        Z.close(f"generator.{constructor}.eval.img", generator(latents), FORWARD)
        Z.close(f"generator.{constructor}.train.img", generator.train()(latents), FORWARD)


def vae_of(Z, dtype):
    """The auto-encoder whose weights follow the rule."""
    shapes = Z.shapes["autoencoder.CIFAR_GEN"]
    vae = VAE(Z["autoencoder.recon_eval"].shape[-1], latent=shapes["q_mean.bias"][0])
    state, unknown = from_abd(Z.weights(shapes))
    assert not unknown
    load_into(vae, state)
    return vae.to(dtype)


@pytest.mark.parametrize("precision", DTYPES)
@each()
def test_autoencoder(Z, precision):
    dtype = DTYPES[precision]
    vae = vae_of(Z, dtype)
    shape = Z["autoencoder.recon_eval"].shape
    images = torch.sigmoid(Z.xo("abd.ae.x", shape)).to(dtype)
    weights = torch.linspace(0.25, 1, shape[0], dtype=dtype)
    with torch.no_grad():
        reconstruction, mean, log_variance = vae(images)
        Z.close("autoencoder.mu", mean, FORWARD)
        Z.close("autoencoder.logvar", log_variance, FORWARD)
        Z.close("autoencoder.decode_z", vae.decode(Z.x("abd.ae.z", mean.shape).to(dtype)), FORWARD)
        Z.close("autoencoder.recon_eval", reconstruction, FORWARD)
        cost = reconstruction_loss(reconstruction, images, weights)
        Z.close("autoencoder.loss_recon_dw_linspace_.25_1", cost, FORWARD)
        values = images[0].numel()
        Z.close("autoencoder.loss_variational", variational_loss(mean, log_variance, values), FORWARD)


@each("precision", lambda Z: Z.precisions("dgr"))
def test_autoencoder_steps(Z, precision):
    dtype = DTYPES[precision]
    shape = Z["autoencoder.recon_eval"].shape
    small = IncrementalNetwork({"name": "resnet18_abd"}, {"type": "linear"}, shape[-1])
    method = DGR(small)
    method.vae = vae_of(Z, dtype)
    optimizer = torch.optim.SGD(method.vae.parameters(), lr=0.1, momentum=0.9)
    steps = sum(f"dgr.step{k}.loss_total" in Z for k in range(100))
    assert steps
    for k in range(steps):
        images = torch.sigmoid(Z.xo(f"abd.dgr.x{k}", shape)).to(dtype)
        noise = Z.x(f"abd.dgr.eps{k}", (shape[0], method.vae.latent)).to(dtype)
        weights = torch.linspace(0.25, 1, shape[0], dtype=dtype)
        loss = method.vae_loss(images, noise, weights)
        Z.close(f"dgr.step{k}.loss_total", loss, FORWARD if k == 0 else LATER)
        optimizer.zero_grad()
        loss.backward()
        check_gradients(Z, f"dgr.step{k}", method.vae, dtype, GRADIENT if k == 0 else LATER)
        optimizer.step()
        after = np.asarray(norm(method.vae.parameters()), scalar(dtype))
        Z.close(f"dgr.step{k}.param_norm_after", after, LATER)


def check_gradients(Z, key, module, dtype, bar):
    """The stored norms, of single parameters and of all."""
    parameters = dict(module.named_parameters())
    keys = Z.keys(f"{key}.gradnorm.")
    assert keys
    for stored in keys:
        name = stored.removeprefix(f"{key}.gradnorm.")
        chosen = list(parameters.values()) if name == "global" else [parameters[ours(name)]]
        found = np.asarray(norm([p.grad for p in chosen if p.grad is not None]), scalar(dtype))
        Z.close(stored, found, bar)


# -- inversion ---------------------------------------------------------------------------------------------------


@each("tag name constructor count side outputs seen steps precision", with_precisions("inv.<tag>"))
def test_inversion(Z, tag, name, constructor, count, side, outputs, seen, steps, precision):
    dtype = DTYPES[precision]
    key = f"inv.{tag}"
    teacher = filled(Z, name, outputs, [seen], side, dtype, last=Z[f"{key}.last.weight"]).eval().requires_grad_(False)
    settings = InversionSettings()
    inversion = Inversion(teacher, settings)
    generator = inversion.generator
    generator.load_state_dict(generator_of(Z, constructor, dtype).state_dict())

    generator.eval()
    with torch.no_grad():
        _, images = inversion.images(Z.x(f"abd.{key}.zs", (count, generator.latent)).to(dtype))
        output = teacher(images)
        scores = output.logits_BC
        # the stored rows are long and nearly orthogonal to the features, so a score is a small sum of large
        # products and float32 is good for a share of those
        products = output.features_BK.norm(dim=1).max() * teacher.head.linear.weight[:seen].norm(dim=1).max()
    Z.close(f"{key}.sample.scores", scores, FORWARD, scale=float(products))
    sure = Z[f"{key}.sample.top2_gap"] > 0.02
    np.testing.assert_array_equal(scores.argmax(1)[sure], Z[f"{key}.sample.labels"][sure])

    latents = [Z.x(f"abd.{key}.z{k}", (count, generator.latent)).to(dtype) for k in range(steps)]
    before = {name: value.clone() for name, value in generator.state_dict().items()}
    generator.train()
    with torch.no_grad(), BatchNormStatistics(teacher).watch() as divergences:
        logits = teacher(inversion.images(latents[0])[1]).logits_BC
    Z.close(f"{key}.step0.rf_layers", torch.stack(divergences), LAYERS)
    Z.close(f"{key}.step0.logits_sliced", logits, FORWARD)
    generator.load_state_dict(before)

    for k in range(steps):
        bar = FORWARD if k == 0 else LATER
        losses = inversion.step(teacher, latents[k])
        Z.close(f"{key}.step{k}.ce", losses["content"], bar)
        Z.close(f"{key}.step{k}.cb", losses["balance"], bar)
        Z.close(f"{key}.step{k}.rf_unweighted_mean", losses["statistics"] / settings.statistics, bar)
        Z.close(f"{key}.step{k}.pr_unweighted", losses["smoothness"] / settings.smoothness, bar)
        Z.close(f"{key}.step{k}.total", sum(losses.values()), bar)
        if k == 0:
            parameters = dict(generator.named_parameters())
            names = [ours(str(stored)) for stored in Z[f"{key}.step0.grad_total.names"]]
            norms = np.array([norm([parameters[one].grad]) for one in names], scalar(dtype))
            expected = Z[f"{key}.step0.grad_total.norms"]
            floor = 1e-4 * expected.max()
            assert (np.abs(norms - expected) <= np.maximum(GRADIENT * expected, floor)).all()
            everything = np.asarray(norm([p.grad for p in parameters.values()]), scalar(dtype))
            Z.close(f"{key}.step0.grad_total.global", everything, GRADIENT)
    Z.close(f"{key}.final.param_norm", np.asarray(norm(generator.parameters()), scalar(dtype)), LATER)


# -- training steps of the data-free methods -----------------------------------------------------------------------

# In float32 a change of the images by 2e-7 moves gradient norms of the second step by 1.4 %; a float64 run keeps
# the bar of later quantities.
NOISY = 3e-2
LEARNERS = {
    "AlwaysBeDreaming": ABD,
    "DeepInversionGenBN": DeepInversion,
    "DeepInversionLWF": LwFSynthetic,
}


@pytest.mark.parametrize("precision", DTYPES)
@pytest.mark.parametrize("learner", LEARNERS)
@each("tag count side outputs low high steps", lambda Z: map(tuple, Z.cases("df.<tag>")))
def test_data_free_steps(Z, tag, count, side, outputs, low, high, steps, learner, precision):
    dtype = DTYPES[precision]
    last = Z[f"df.{tag}.teacher.last.weight"]
    name = backbone_of(Z, last.shape[1])
    method = LEARNERS[learner](filled(Z, name, outputs, [low, high - low], side, dtype))
    teacher = filled(Z, name, outputs, [low], side, dtype, Z.seed + 1, last)
    place(method, session(1, low, high, classes=outputs, task="single_label"), teacher)
    optimizer = torch.optim.SGD(method.parameters(), lr=0.1, momentum=0.9, weight_decay=2e-4)
    for k in range(steps):
        key = f"df.{tag}.{learner}.step{k}"
        shape = (count, 3, side, side)
        images, made = (Z.xo(f"abd.df.{tag}.{kind}{k}", shape).to(dtype) for kind in ("x", "syn"))
        labels = targets(count, low, high, 7, 3 + k)
        first, second = method.teacher_output(made).logits_BC.topk(2, 1).values.unbind(1)
        if k == 0:
            Z.close(f"{key}.syn_top2_gap", first - second, FORWARD, scale=float(first.abs().max()))
        made_labels = method.teacher_output(made).logits_BC.argmax(1)
        sure = first - second > 0.02
        np.testing.assert_array_equal(made_labels[sure], Z[f"{key}.syn_labels"][sure])
        if f"{key}.logits_returned" in Z:
            twin = copy.deepcopy(method.network)
            features = twin(torch.cat([images, made])).features_BK
            logits = twin.head.classify(features)[:, : Z[f"{key}.logits_returned"].shape[1]]
            Z.close(f"{key}.logits_returned", logits, FORWARD if k == 0 else LATER)

        losses = method.session_loss(images, labels, made)
        bar = FORWARD if k == 0 else LATER
        classification = [v for name, v in losses.items() if not name.startswith("loss_kd")]
        distillation = [v for name, v in losses.items() if name.startswith("loss_kd")]
        Z.close(f"{key}.loss_class", sum(classification), bar)
        Z.close(f"{key}.loss_kd", sum(distillation), bar)
        Z.close(f"{key}.total", sum(losses.values()), bar)
        for index, value in enumerate(classification):
            Z.close(f"{key}.criterion_call{index}", value, bar)
        if learner != "AlwaysBeDreaming":
            for index, value in enumerate(distillation):
                Z.close(f"{key}.kd_call{index}_unweighted", value / method.mu, bar)
        optimizer.zero_grad()
        sum(losses.values()).backward()
        later = LATER if precision == "f64" else NOISY
        check_gradients(Z, key, method.network, dtype, GRADIENT if k == 0 else later)
        optimizer.step()
        after = np.asarray(norm(method.network.parameters()), scalar(dtype))
        Z.close(f"{key}.param_norm_after", after, LATER)
        state = method.network.state_dict()
        for stored in Z.keys(f"{key}.after."):
            found = state[ours(stored.removeprefix(f"{key}.after."))]
            if stored.endswith("num_batches_tracked"):
                assert int(found) == int(Z[stored])
            else:
                Z.close(stored, found, bar)


def first_sessions(Z):
    return [
        (*case, learner, precision)
        for case in Z.cases("df.<tag>")
        for learner in ("AlwaysBeDreaming", "NormalNN")
        for precision in Z.precisions(f"df.{case[0]}.{learner}.task0")
    ]


@each("tag count side outputs low high steps learner precision", first_sessions)
def test_first_session(Z, tag, count, side, outputs, low, high, steps, learner, precision):
    dtype = DTYPES[precision]
    key = f"df.{tag}.{learner}.task0"
    labels = torch.from_numpy(Z[f"df.{tag}.AlwaysBeDreaming.task0.targets"])
    seen = int(Z[f"df.{tag}.AlwaysBeDreaming.task0.valid_out_dim"])
    method_class = {"AlwaysBeDreaming": ABD, "NormalNN": Finetune}[learner]
    name = backbone_of(Z, Z[f"df.{tag}.teacher.last.weight"].shape[1])
    method = method_class(filled(Z, name, outputs, [seen], side, dtype))
    place(method, session(0, 0, seen, classes=outputs, task="single_label"))
    images = Z.xo(f"abd.df.{tag}.x0", (count, 3, side, side)).to(dtype)
    losses = losses_of(method, images, one_hot(labels, seen, dtype))
    Z.close(f"{key}.total", sum(losses.values()), FORWARD)
    sum(losses.values()).backward()
    check_gradients(Z, key, method.network, dtype, GRADIENT)
    rows = method.network.head.linear.weight.grad.abs().sum(1) > 0
    assert int(rows.sum()) == int(Z[f"{key}.logits_dim"])


# -- losses on given logits ------------------------------------------------------------------------------------------


class Given(nn.Module):
    """A network whose logits are given."""

    def __init__(self, logits, sizes):
        super().__init__()
        self.logits = nn.Parameter(logits.clone())
        self.classes_per_session = list(sizes)
        self.spec = {"image_size": 8}

    def forward(self, images):
        return NetworkOutput(self.logits[:, : sum(self.classes_per_session)], None, [images])


class Case:
    """Logits, labels and sizes of a ``logit.<tag>`` case."""

    def __init__(self, Z, tag, count, outputs, sizes, dtype):
        self.Z = Z
        self.key, self.sizes, self.dtype = f"logit.{tag}", sizes, dtype
        self.low, self.high = sum(sizes[:-1]), sum(sizes)
        assert [self.low, self.high] == list(Z[f"{self.key}.last_valid"])
        self.logits, self.old, self.current = (
            2 * Z.x(f"abd.logit.{tag}.{kind}", (count, outputs)).to(dtype)
            for kind in ("student", "teacher", "current_teacher")
        )
        self.labels = targets(count, 0, self.high, 5, 1)
        np.testing.assert_array_equal(self.labels, Z[f"{self.key}.targets"])
        self.images = torch.zeros(count, 3, 8, 8, dtype=dtype)
        self.pair_of = {
            i: torch.from_numpy(np.array([Z.weight(f"bic{i}.alpha", [1])[0], Z.weight(f"bic{i}.beta", [1])[0]])).to(
                dtype
            )
            for i in range(1, len(sizes))
        }

    def method(self, kind, teacher=True, **options):
        """A method around the given logits."""
        method = kind(Given(self.logits, self.sizes), **options)
        old = Given(self.old, self.sizes[:-1]) if teacher else None
        return place(method, session(len(self.sizes) - 1, self.low, self.high, task="single_label"), old)

    def check(self, name, total, logits=None):
        """Total and gradient of a learner."""
        self.Z.close(f"{self.key}.{name}.total", total, FORWARD)
        if logits is not None:
            (gradient,) = torch.autograd.grad(total, logits, retain_graph=True)
            self.Z.close(f"{self.key}.{name}.grad_logits", gradient, GRADIENT)

    def run(self, name, method):
        """Loss of a method, its total and gradient checked."""
        losses = losses_of(method, self.images, one_hot(self.labels, self.high, self.dtype))
        self.check(name, sum(losses.values()), method.network.logits)
        return losses


on_logits = each(
    "case precision",
    lambda Z: [(case, one) for case in Z.cases("logit.<tag>") for one in Z.precisions(f"logit.{case[0]}")],
)


@on_logits
def test_plain_training(Z, case, precision):
    case = Case(Z, *case, DTYPES[precision])
    case.run("NormalNN", case.method(Finetune))


@on_logits
def test_lwf(Z, case, precision):
    case = Case(Z, *case, DTYPES[precision])
    losses = case.run("LWF", case.method(LwF))
    Z.close(f"{case.key}.LWF.kd_call0_unweighted", losses["loss_kd"], FORWARD)
    case.run("LWF.nokd", case.method(LwF, teacher=False))


@on_logits
def test_lwf_with_data_weights(Z, case, precision):
    case = Case(Z, *case, DTYPES[precision])
    counts = torch.from_numpy(Z[f"{case.key}.data_weighting.counts"]).to(case.dtype)
    weights = inverse_frequencies(counts)
    Z.close(f"{case.key}.data_weighting.dw_k", torch.cat([weights, weights.new_ones(1)]), FORWARD)
    logits = case.logits.requires_grad_(True)
    kept = soft_target_kd(logits[:, : case.low], case.old[:, : case.low])
    total = weighted_cross_entropy(logits[:, : case.high], case.labels, weights[case.labels]) + kept
    case.check("LWF.DW", total, logits)
    Z.close(f"{case.key}.LWF.DW.kd_call0_unweighted", kept, FORWARD)


@on_logits
def test_lwf_mc(Z, case, precision):
    case = Case(Z, *case, DTYPES[precision])
    case.run("LWF_MC", case.method(LwFMC))
    case.run("LWF_MC.nokd", case.method(LwFMC, teacher=False))


@on_logits
def test_e2e(Z, case, precision):
    case = Case(Z, *case, DTYPES[precision])
    method = case.method(E2E)
    case.run("ETE", method)
    low = 0
    for index, size in enumerate(case.sizes[:-1]):
        part = slice(low, low + size)
        kd = soft_target_kd(case.logits[:, part], case.old[:, part], method.temperature)
        Z.close(f"{case.key}.ETE.kd_call{index}_unweighted", kd, FORWARD)
        Z.close(f"{case.key}.ETE.stage2_official.kd_call{index}_unweighted", kd, FORWARD)
        low += size
    total = method.balanced_loss(case.images, case.labels)
    case.check("ETE.stage2_official", total, method.network.logits)
    new = case.high - case.low
    columns = case.logits[:, case.low : case.high]
    official = soft_target_kd(columns, case.old[:, :new], method.temperature)
    Z.close(f"{case.key}.ETE.stage2_official.kd_call{len(case.sizes) - 1}_unweighted", official, FORWARD)
    intended = soft_target_kd(columns, case.current[:, case.low : case.high], method.temperature)
    Z.close(f"{case.key}.ETE.stage2_intended.kd_current_unweighted", intended, FORWARD)
    method._first_stage = [Given(case.current, case.sizes)]
    difference = (intended - official) * new / case.high
    torch.testing.assert_close(method.balanced_loss(case.images, case.labels), total + difference)


@on_logits
def test_bic(Z, case, precision):
    case = Case(Z, *case, DTYPES[precision])
    method = case.method(SingleLabelBiC)
    losses = case.run("BIC", method)
    kept = losses["loss_kd"] * case.high / case.low
    Z.close(f"{case.key}.BIC.kd_call0_unweighted", kept, FORWARD)

    past = [case.pair_of[i] for i in range(1, len(case.sizes) - 1)]
    method.corrections = past
    logits = method.network.logits
    biased = method.correct(logits[:, : case.high])
    losses = method.first_stage_loss(biased, one_hot(case.labels, case.high, case.dtype), case.old[:, : case.low])
    case.check("BIC.with_past_bias", sum(losses.values()), logits)
    kept = losses["loss_kd"] * case.high / case.low
    Z.close(f"{case.key}.BIC.with_past_bias.kd_call0_unweighted", kept, FORWARD)

    newest = nn.Parameter(case.pair_of[len(case.sizes) - 1])
    method.corrections = [*past, newest]
    Z.close(f"{case.key}.BIC.forward_biased", method.correct(logits[:, : case.high]), FORWARD)
    scores = corrected(case.logits[:, : case.low], correction_table(method.corrections, case.sizes[:-1]))
    Z.close(f"{case.key}.BIC.teacher_scores", scores, FORWARD)

    Z.close(f"{case.key}.BIC.stage2.lr", np.float64(method.second.lr), 1e-12)
    optimizer = method.second.optimizer([newest])
    steps = sum(f"{case.key}.BIC.stage2.step{k}.loss" in Z for k in range(100))
    assert steps
    for k in range(steps):
        key = f"{case.key}.BIC.stage2.step{k}"
        loss = method.corrected_loss(case.images, case.labels)
        Z.close(f"{key}.loss", loss, FORWARD if k == 0 else LATER)
        optimizer.zero_grad()
        loss.backward()
        Z.close(f"{key}.grad_alpha_beta", newest.grad, GRADIENT if k == 0 else LATER)
        optimizer.step()
        Z.close(f"{key}.alpha_beta", newest, LATER)


@on_logits
def test_predictions_are_uncorrected_unless_asked_for(Z, case, precision):
    case = Case(Z, *case, DTYPES[precision])
    count = len(case.labels)
    labels = targets(count, case.low, case.high, 1, 0)
    np.testing.assert_array_equal(labels, Z[f"{case.key}.validation.targets"])
    even = torch.arange(0, count, 2)
    case.logits[even, labels[even]] += 8
    method = case.method(SingleLabelBiC)
    method.corrections = list(case.pair_of.values())
    with torch.no_grad():
        logits = predictions_of(method, case.images)
        accuracy = 100 * (logits.argmax(1) == labels).double().mean()
        assert float(accuracy) == pytest.approx(float(Z[f"{case.key}.validation.global_acc"]))
        method.correct_predictions = True
        biased = predictions_of(method, case.images)
    assert not torch.equal(biased, logits)


@on_logits
def test_dgr_classifier(Z, case, precision):
    case = Case(Z, *case, DTYPES[precision])
    method = case.method(DGR)
    half = len(case.labels) // 2
    logits = method.network.logits
    weights = share_weights(case.labels, case.low, case.high)
    old = case.old[half:, : case.low]
    losses = method.classifier_loss(logits[:, : case.high], case.labels, old, weights)
    case.check("DGR.solver", sum(losses.values()), logits)


@on_logits
def test_deep_inversion_distillations(Z, case, precision):
    case = Case(Z, *case, DTYPES[precision])
    old = case.old[:, : case.low]
    Z.close(f"{case.key}.GenBN.kd_old", soft_target_kd(case.logits[:, : case.low], old), FORWARD)
    soft = torch.nn.functional.pad((old / 2).softmax(1), (0, case.high - case.low))
    Z.close(f"{case.key}.GenBN.kd_soft_all", soft_cross_entropy(case.logits[:, : case.high], soft, 2.0), FORWARD)


# -- schedule ------------------------------------------------------------------------------------------------------

MILESTONES = {"cifar_tiny": (100, 150, 200, 250), "imnet": (30, 60, 80, 90, 100)}


@each("key", lambda Z: Z.keys("lr."))
def test_learning_rates(Z, key):
    expected = Z[key]
    milestones = MILESTONES[key.removeprefix("lr.").removesuffix("__exact")]
    found = learning_rates(Steps, len(expected), milestones=milestones)
    np.testing.assert_allclose(found, expected, rtol=1e-12)


# -- memory --------------------------------------------------------------------------------------------------------


class Coreset:
    """The classes, features and sessions of the ``coreset`` cases."""

    def __init__(self, Z):
        self.order = Z["coreset.class_order"]
        self.labels = np.argsort(self.order)[Z["coreset.raw_targets"]]
        self.features, self.total = Z["coreset.features__exact"], int(Z["coreset.size"])
        self.seed = int(re.search(r"run seed (\d+)", Z.bullet("coreset."))[1])
        ends = np.cumsum(Z["coreset.task_sizes"])
        self.sessions = list(enumerate(zip([0, *ends[:-1]], ends, strict=True)))

    def rows(self, low, high):
        """The images of a session."""
        return np.flatnonzero((self.labels >= low) & (self.labels < high))

    def end(self, memory, session, low, high):
        """The memory takes in a session."""
        rows = self.rows(low, high)
        targets_NC = np.eye(high, dtype=np.int8)[self.labels[rows]]
        memory.update(session, low, high, rows, self.features[rows], targets_NC)


CORESET_KINDS = {"random": "random_coreset", "e2e": "nearest_coreset", "bic": "herding_coreset"}


@pytest.mark.parametrize("kind", CORESET_KINDS)
@each()
def test_coreset(Z, kind):
    case = Coreset(Z)
    memory = CoresetMemory(case.total, CORESET_KINDS[kind], seed=case.seed)
    for t, (low, high) in case.sessions:
        rows = case.rows(low, high)
        key = f"coreset.{kind}.t{t}"
        replayed = memory.contents()[0][memory.replayed(t, len(rows))] if len(memory) else np.zeros(0, int)
        if f"{key}.train_ids" in Z:
            np.testing.assert_array_equal(np.concatenate([rows, replayed]), Z[f"{key}.train_ids"])
        if f"{key}.stage1_ids" in Z:
            new, old = held_out(case.labels[rows], case.labels[replayed], low)
            np.testing.assert_array_equal(np.concatenate([rows[new], replayed[old]]), Z[f"{key}.stage2_ids"])
            np.testing.assert_array_equal(np.concatenate([rows[~new], replayed[~old]]), Z[f"{key}.stage1_ids"])
        case.end(memory, t, low, high)
        np.testing.assert_array_equal(memory.contents()[0], Z[f"{key}.coreset_ids"])
        np.testing.assert_array_equal(memory.classes(), case.labels[memory.contents()[0]])
