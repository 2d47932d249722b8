"""Schedules, sampler, sharpness-aware step and whole runs with balanced fine-tuning."""

import json
import re
from types import SimpleNamespace

import fault_harness
import pytest
import torch
from phase_calls import phases_of

from mlcil.datasets.digits import build_digit_scenes
from mlcil.datasets.sampling import RepeatedAugmentationSampler
from mlcil.engine.build import build_method, build_run, build_runner, check_run
from mlcil.engine.config import finish_config, load_config
from mlcil.engine.loop import SessionLoop
from mlcil.engine.optim import SharpnessAwareOptimWrapper, build_optimiser
from mlcil.engine.schedules import WarmupCosine
from mlcil.engine.train import train
from mlcil.errors import UserError
from mlcil.memory.exemplars import ExemplarMemory
from mlcil.methods.base import SessionContext
from mlcil.phases import Train
from mlcil.reporting import log_lines

SCENES = {"train_images": 60, "test_images": 30, "size": 32}
RECIPES = [
    f"{name}/{data}" for name in ("dkt", "daformer/s", "daformer/m") for data in ("cifar100_5-5", "imagenet100_10-10")
]
SMALL = {"dim": 16, "depth": 2, "heads": 4}


def test_a_small_session_is_refused_by_repeated_augmentation():
    with pytest.raises(UserError, match="session 2 has 255 training images"):
        RepeatedAugmentationSampler(255, seed=0, session=2)


def test_repeated_augmentation_has_whole_batches_and_other_views_of_an_image():
    sampler = RepeatedAugmentationSampler(1000, seed=0, session=0, batch_size=100)
    entries = list(sampler)
    assert len(entries) == len(sampler) == 700
    assert entries[0][0] == entries[1][0] == entries[2][0]
    assert len({key for _, key in entries[:3]}) == 3


def test_two_warm_up_epochs():
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3)
    schedule = WarmupCosine(optimizer, epochs=10, epoch_length=3)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-6)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-6)
    state = schedule.state_dict()
    again = WarmupCosine(torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=1e-3), epochs=10, epoch_length=3)
    again.load_state_dict(state)
    for scheduler in (schedule, again):
        scheduler.optimizer.step()
        scheduler.step()
    assert schedule.get_last_lr() == again.get_last_lr()


def test_the_sharpness_aware_step_uses_the_gradient_at_the_offset_weights():
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    wrapper = SharpnessAwareOptimWrapper(rho=0.5, optimizer=torch.optim.SGD([weight], lr=0.1), precision="fp32")
    wrapper.update_params(weight.square().sum())  # g = 4, n = 8, up by w^2 g rho / n = 1
    assert weight.item() == pytest.approx(3.0)
    wrapper.update_params(weight.square().sum())  # gradient 6 there, step from 2
    assert weight.item() == pytest.approx(2.0 - 0.6)
    assert weight.grad is None


@pytest.mark.parametrize("bad", [0, 1])
def test_a_batch_that_is_refused_in_one_of_the_two_passes_changes_nothing(bad):
    weight = torch.nn.Parameter(torch.tensor([2.0]))
    wrapper = SharpnessAwareOptimWrapper(rho=0.5, optimizer=torch.optim.SGD([weight], lr=0.1), precision="fp32")
    wrapper.guarded = True
    losses = []

    def train_step(batch, optim_wrapper):
        loss = weight.square().sum() * (float("nan") if len(losses) == bad else 1.0)
        losses.append(loss)
        optim_wrapper.update_params(loss)
        return {"loss": loss}

    loop = SimpleNamespace(
        learning=SimpleNamespace(optimiser=wrapper),
        method=torch.nn.BatchNorm1d(1),
        runner=SimpleNamespace(model=SimpleNamespace(train_step=train_step)),
        run_settings=SimpleNamespace(settings=SimpleNamespace(sync_batch_norm=False)),
    )
    assert SessionLoop.step(loop, {})["loss"].isnan()
    assert len(losses) == bad + 1
    assert weight.item() == 2.0
    SessionLoop.step(loop, {})
    assert weight.item() == pytest.approx(1.4)  # as a first step


def test_a_new_optimiser_finds_no_gradient(tmp_path):
    sections = next(fault_harness.candidates("LwF"))
    run = build_run(fault_harness.config("LwF", tmp_path, sections))
    parameter = next(p for p in run.method.parameters() if p.requires_grad)
    parameter.grad = torch.ones_like(parameter)
    build_optimiser(run, run.method, 4)
    assert parameter.grad is None


def test_the_sharpness_aware_step_refuses_accumulation():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(UserError, match=r"remove optim_wrapper\.accumulative_counts"):
        SharpnessAwareOptimWrapper(optimizer=optimizer, precision="fp32", accumulative_counts=2)


def test_unknown_quota_and_views_of_the_memory():
    with pytest.raises(UserError, match="quota 'round' is unknown"):
        ExemplarMemory(total=5, quota="round")
    with pytest.raises(UserError, match="views 'both' is unknown"):
        ExemplarMemory(total=5, views="both")


@pytest.fixture(scope="module")
def scenes(tmp_path_factory):
    return build_digit_scenes(tmp_path_factory.mktemp("cache"), **SCENES).parent


def config(scenes, folder, kind, name="run", **changes):
    head = {"type": kind, "num_heads": 4}
    cfg = {
        "name": name,
        "scenario": {"dataset": {"type": "digits", "cache_dir": str(scenes), **SCENES}, "base": 4, "increment": 3},
        "network": {"backbone": {"name": kind, **SMALL}, "head": head, "image_size": 32},
        "method": {
            "type": {"dkt": "DKT", "daformer": "DAFormer"}[kind],
            "finetuning": {"epochs": 2, "early_epochs": 1, "early_sessions": 2},
        },
        "memory": {"total": 33, "quota": "floor", "views": "train"},
        "train_cfg": {"max_epochs": 2},
        "train_dataloader": {"batch_size": 8, "num_workers": 0},
        "test_dataloader": {"batch_size": 16, "num_workers": 0},
        "optim_wrapper": {"optimizer": {"type": "AdamW", "lr": 5e-4, "weight_decay": 1e-6}},
        "param_scheduler": [{"type": "WarmupCosine"}],
        "auto_scale_lr": {"base_batch_size": 256},
        "precision": "fp32",
        "log_root": str(folder / "logs"),
        "checkpoint_root": str(folder / "saved"),
    }
    if kind == "daformer":
        cfg["method"] = {**cfg["method"], "rho": 3.0, "mixup": {}}
    return finish_config({**cfg, **changes}, name)


def weights(path):
    return torch.load(path, weights_only=True)["state_dict"]


@pytest.mark.parametrize("kind", ["dkt", "daformer"])
def test_a_run_fine_tunes_and_resumes(scenes, tmp_path, kind):
    results = train(config(scenes, tmp_path, kind))
    assert len(results) == 3
    text = (tmp_path / "logs" / "run" / "log" / "log.txt").read_text()
    # 33 // 7 = 4 of 7 classes and 33 // 10 = 3 of 10, then whole batches of 8
    assert re.findall(r"fine-tuning: (\d+) exemplars, (\d+) epoch", text) == [("24", "1"), ("24", "2")]
    assert "learning rate 1.56e-06" in text  # 5e-5 * 8 / 256

    again = config(scenes, tmp_path, kind, "again")
    again.train_cfg["stop_after_session"] = 1
    train(again)
    state = torch.load(tmp_path / "saved" / "again" / "resume.pth", weights_only=True)
    assert state["session"] == 2
    train(config(scenes, tmp_path, kind, "again"), resume=True)
    ours, theirs = (weights(tmp_path / "saved" / name / "session_2.pth") for name in ("run", "again"))
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=0, msg=name)


@pytest.mark.parametrize("kind", ["dkt", "daformer"])
def test_two_processes_train_and_fine_tune(scenes, tmp_path, kind):
    """Every trainable parameter gets a gradient in every phase, else data-parallel training would stop."""
    cfg = config(scenes, tmp_path, kind, train_cfg={"max_epochs": 1}, launcher="pytorch")

    def work(rank):
        runner = build_runner(check_run(cfg))
        runner.train()
        rows, sessions = runner.run_settings.memory.contents()
        (tmp_path / f"memory{rank}.json").write_text(json.dumps([rows.tolist(), sessions.tolist()]))

    codes = fault_harness.both(work, tmp_path)
    assert codes == [0, 0], (tmp_path / "rank0.txt").read_text()[-3000:]
    # 33 // 7 = 4 of 7 classes and 33 // 10 = 3 of 10, then whole steps of 2 x 8
    text = (tmp_path / "logs" / "run" / "log" / "log.txt").read_text()
    assert re.findall(r"fine-tuning: (\d+) exemplars", text) == ["16", "16"]
    # the erratum of DyTox: every process chose its own exemplars there, so the runs had twice the memory
    memories = [json.loads((tmp_path / f"memory{rank}.json").read_text()) for rank in (0, 1)]
    assert memories[0] == memories[1]
    assert len(memories[0][0]) == 3 * 10 <= cfg.memory.total


def test_the_learning_rate_follows_the_batch(scenes, tmp_path):
    run = build_run(config(scenes, tmp_path, "dkt", param_scheduler=[]))
    run.method.network.grow(4)
    optimiser = build_optimiser(run, run.method, 1)
    assert optimiser.param_groups[0]["lr"] == pytest.approx(5e-4 * 8 / 256)


def test_accumulated_batches_make_the_update_of_one_large_batch(scenes, tmp_path):
    """The same images, learning rate and weights; without batch norm and drop-path, up to rounding."""
    changes = {
        "network": {
            "backbone": {"name": "daformer", **SMALL, "drop_path": 0.0},
            "head": {"type": "daformer", "num_heads": 4, "drop_path": 0.0},
            "image_size": 32,
        },
        "method": {"type": "DAFormer", "finetuning": {"epochs": 2, "early_epochs": 1, "early_sessions": 2}},
        "optim_wrapper": {"optimizer": {"type": "SGD", "lr": 8.0}},
        "train_transform": {"cutout": 0.0, "randaugment": False},
    }
    for name, batch, count in (("large", 16, 1), ("small", 4, 4)):
        wrapper = {**changes["optim_wrapper"], "accumulative_counts": count}
        loader = {"batch_size": batch, "num_workers": 0}
        cfg = config(scenes, tmp_path, "daformer", name, **{**changes, "optim_wrapper": wrapper})
        cfg.train_dataloader = loader
        cfg.train_cfg.stop_after_session = 1
        cfg.seed = 1
        train(cfg)
    log = [(tmp_path / "logs" / name / "log" / "log.txt").read_text() for name in ("large", "small")]
    rates = [re.findall(r"fine-tuning: (\d+) exemplars.*learning rate (\S+)", text) for text in log]
    assert rates[0] == rates[1] != []
    for session in (0, 1):
        large, small = (weights(tmp_path / "saved" / name / f"session_{session}.pth") for name in ("large", "small"))
        for name, value in large.items():
            torch.testing.assert_close(small[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["8 images x 1 process(es) x 1 accumulated = 8 an update", "from 512", "scaled by 8/256", "counts=64"]),
        ({"optim_wrapper.accumulative_counts": 64}, []),
        ({"train_dataloader.batch_size": 512}, []),
        ({"train_dataloader.batch_size": 1024}, ["= 1024 an update", "batch_size=512"]),
    ],
)
def test_another_batch_than_the_published_one_is_explained(changes, expected):
    batch, count = changes.get("train_dataloader.batch_size", 8), changes.get("optim_wrapper.accumulative_counts", 1)
    lines = log_lines.batch(batch, 1, count, 512, 256)
    assert len(lines) == bool(expected)
    for word in expected:
        assert word in lines[0]
    assert log_lines.batch(3, 2, 1, None, None) == []
    assert "use fewer processes" in log_lines.batch(1, 16, 1, 8, None)[0]


def test_plain_steps_where_sharpness_is_not_wanted(scenes, tmp_path):
    run = build_run(config(scenes, tmp_path, "daformer"))
    run.method.network.grow(4)
    assert [build_optimiser(run, run.method, 3, rho=rho).passes for rho in (3.0, None)] == [2, 1]
    radii = []
    for session in (0, 1):
        run.method.context = SessionContext(session, 4 * session, 4 + session, 3, 10, None, 1.0, 8)
        radii.append([phase.rho for phase in phases_of(run.method) if isinstance(phase, Train)])
    assert radii == [[None], [3.0, None]]


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_recipes_build_their_method(recipe):
    cfg = load_config(recipe)
    method = build_method(cfg)
    method.network.grow(2)
    side = cfg.network.image_size
    assert method.eval().network(torch.rand(1, 3, side, side)).logits_BC.shape == (1, 2)
    assert cfg.memory.total == 2000


def test_repeated_augmentation_reaches_the_loader(scenes, tmp_path):
    cfg = config(scenes, tmp_path, "dkt", train_cfg={"max_epochs": 1, "repeated_augmentation": 3})
    with pytest.raises(UserError, match=r"set train_cfg\.repeated_augmentation=1"):
        train(cfg)
