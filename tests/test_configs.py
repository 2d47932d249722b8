"""Every config of ``configs/`` resolves and plans with its classes, every bench finds its runs. No data is needed."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mlcil.commands.bench import load_bench, plan_jobs, tables_of
from mlcil.commands.plan import make_plan, plan_text
from mlcil.datasets.scenario import Scenario
from mlcil.datasets.table import SingleLabelTable
from mlcil.engine import train
from mlcil.engine.config import load_config
from mlcil.registry import DATASETS
from mlcil.reporting.published import PUBLISHED, SINGLE_LABEL

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
#: an experiment is a file that others are not made of
EXPERIMENTS = sorted(
    str(path.relative_to(CONFIGS))
    for path in CONFIGS.rglob("*.py")
    if path.parent.name not in ("_base_", "bench") and not path.name.startswith("_")
)
BENCHES = sorted(path.name for path in (CONFIGS / "bench").glob("*.py"))
CLASSES = {"cifar100": 100, "cifar10": 10, "tiny_imagenet": 200, "imagenet": 100, "coco": 80, "voc": 20, "letters": 24}
ABD = ("cifar100_5tasks", "cifar100_10tasks", "cifar100_20tasks", "tinyimagenet_20tasks", "imagenet50_5tasks")
SYSTEM = (
    "abd", "finetune", "joint", "lwf", "lwf_mc", "dgr", "deep_inversion", "lwf_synthetic", "rehearsal", "lwf_coreset",
    "e2e", "bic",
)  # fmt: skip


class Blank:
    """As many classes as the data set of a config has, two blank images each."""

    label_cardinality = 2.0

    def __init__(self, options):
        count = CLASSES.get(options["type"], 10)
        self.name = options.get("name") or options["type"]
        self.task = getattr(DATASETS.get(options["type"]), "task", "multi_label")
        self.classes = [f"{index:04}" for index in range(1000 if self.name == "imagenet1000" else count)]

    def train(self):
        labels_N = np.repeat(np.arange(len(self.classes)), 2)
        pixels = np.zeros((len(labels_N), 1, 1, 3), np.uint8)
        return SingleLabelTable("train", tuple(self.classes), labels_N, pixels=pixels)

    test = train


@pytest.fixture(autouse=True)
def blank_data(monkeypatch):
    def build(cfg):
        options = train.as_dict(cfg.scenario)
        return Scenario(dataset=Blank(options.pop("dataset")), **options)

    monkeypatch.setattr("mlcil.commands.plan.build_scenario", build)


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_a_config_resolves_and_plans(name):
    cfg = load_config(CONFIGS / name)
    with torch.device("meta"):  # no weight is drawn
        plan = make_plan(cfg)
    assert plan["sessions"]
    assert f"{cfg.method.type} on " in plan_text(plan)
    if cfg.network.head.type == "full_linear":
        assert cfg.network.head.num_classes == plan["num_classes"]


@pytest.mark.parametrize("method", SYSTEM)
def test_abds_experiments_by_name(method):
    for name in ABD:
        path = CONFIGS / method / f"{name}.py"
        if (method, name) == ("dgr", "imagenet50_5tasks"):
            assert not path.exists()  # 224 pixels are too many for its auto-encoder
            continue
        cfg = load_config(path)
        epochs, milestones = cfg.train_cfg.max_epochs, cfg.param_scheduler[0]["milestones"]
        assert (epochs, milestones) == ((100, [30, 60, 80, 90]) if "imagenet50" in name else (250, [100, 150, 200]))
        assert cfg.optim_wrapper.optimizer.lr == 0.1
        assert cfg.train_dataloader.drop_last
        with torch.device("meta"):
            plan = make_plan(cfg)
        new = {len(session["classes"]) for session in plan["sessions"]}
        assert len(plan["sessions"]) == int(name.split("_")[1].removesuffix("tasks"))
        assert new == {10 if "net" in name else 100 // len(plan["sessions"])}
        second = cfg.method.get("second")
        assert second is None or second["epochs"] == epochs


def test_class_orders_of_the_papers_and_the_first_fifty_of_imagenet():
    order = list(range(100))
    random.Random(0).shuffle(order)
    plan = make_plan(load_config(CONFIGS / "lwf" / "cifar100_5tasks.py"))
    assert [int(name) for session in plan["sessions"] for name in session["classes"]] == order
    order = list(range(1000))
    np.random.RandomState(1993).shuffle(order)
    plan = make_plan(load_config(CONFIGS / "lwf" / "imagenet50_5tasks.py"))
    assert [int(name) for session in plan["sessions"] for name in session["classes"]] == order[:50]
    assert plan["unused_training_images"] == 2 * 950


@pytest.mark.parametrize("name", BENCHES)
def test_a_bench_finds_its_runs(name):
    path = CONFIGS / "bench" / name
    bench = load_bench(path)
    folders = set()
    for table in tables_of(bench):
        first, jobs = plan_jobs(path, table)
        orders = 1 if bench["paired"] else len(bench["class_orders"] or [None])
        assert len(jobs) == len(bench["runs"]) * len(bench["seeds"]) * orders
        assert not folders & {job.run_dir for job in jobs}
        folders |= {job.run_dir for job in jobs}
        sessions = set()
        for job in [*first, *jobs]:
            cfg = load_config(job.config, job.overrides)
            if job.label is not None and not cfg.scenario.get("joint") and "num_sessions" in cfg.scenario:
                sessions.add((cfg.scenario.num_sessions, cfg.scenario.get("base", 0)))
        assert len(sessions) <= 1  # one protocol a table
        labels = {run["label"] for run in bench["runs"]}
        assert set(PUBLISHED.get(table["published"], {})) <= labels
        if table["published"] in SINGLE_LABEL:
            assert set(SINGLE_LABEL[table["published"]]) & labels


def test_the_published_tables_are_complete():
    labels = {
        run["label"]
        for name in ("abd_cifar100", "abd_cifar100_coreset")
        for run in Config.fromfile(CONFIGS / "bench" / f"{name}.py").runs
    }
    for tasks in (5, 10, 20):
        assert set(SINGLE_LABEL[f"abd_cifar100_{tasks}tasks"]) <= labels
