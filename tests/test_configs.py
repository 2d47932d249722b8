"""Every method on every data set that fits it plans, published settings stay as they are. No data is needed."""

import hashlib
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny import call

from mlcil.commands.bench_plan import find_bench, load_bench, plan_jobs, tables_of
from mlcil.commands.plan import make_plan, plan_text
from mlcil.configs import compose
from mlcil.configs.published import PUBLISHED
from mlcil.datasets.scenario import Scenario
from mlcil.datasets.table import SingleLabelTable
from mlcil.engine import build
from mlcil.engine.config import DEFAULTS, load_config
from mlcil.errors import UserError
from mlcil.registry import DATASETS, METHODS
from mlcil.reporting.published import PUBLISHED as PUBLISHED_FIGURES
from mlcil.reporting.published import SINGLE_LABEL

CLASSES = {"cifar100": 100, "cifar10": 10, "tiny_imagenet": 200, "imagenet": 100, "coco": 80, "voc": 20, "letters": 24}
SECTIONS = {
    "scenario": ["scenario"],
    "network": ["network", "pretrained"],
    "method": ["method", "memory"],
    "images": ["train_transform", "train_dataloader"],
    "schedule": ["train_cfg", "optim_wrapper", "param_scheduler", "auto_scale_lr", "custom_hooks", "precision", "seed"],
}
#: name of published settings -> hash of each of its sections
DIGESTS = Path(__file__).with_name("published_settings.json")
ABD = ("cifar100_5tasks", "cifar100_10tasks", "cifar100_20tasks", "tinyimagenet_20tasks", "imagenet50_5tasks")
TASKS = ("multi_label", "single_label")
MULTI_LABEL = {
    "krt", "finetune", "joint", "lwf", "bic", "oewc", "agcn", "pod", "tpcil", "derpp", "icarl", "er", "prs", "ocdm",
    "csc", "hcp", "kbk", "frozen_rows", "ridge", "l3a", "kept_features", "multi_lane",
    "rclp",
}  # fmt: skip
SYSTEM = (
    "abd", "finetune", "joint", "lwf", "lwf_mc", "dgr", "deep_inversion", "lwf_synthetic", "rehearsal", "lwf_coreset",
    "e2e", "bic",
)  # fmt: skip


def parts(kind):
    return {name: compose.load_part(kind, name) for name in compose.names(kind)}


FITTING = [
    (method, data)
    for method, part in parts("methods").items()
    for data, other in parts("data").items()
    if other.task in part.recipes and not set(getattr(part, "unfit", ())) & set(getattr(other, "tags", ()))
]


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
    def blank(cfg):
        options = build.as_dict(cfg.scenario)
        return Scenario(dataset=Blank(options.pop("dataset")), **options)

    monkeypatch.setattr(build, "build_scenario", blank)


def planned(cfg):
    with torch.device("meta"):  # no weight is drawn
        plan = make_plan(build.build_run(cfg, files=False))
    assert plan["sessions"]
    assert f"{cfg.method.type} on " in plan_text(plan)
    if cfg.network.head.type == "full_linear":
        assert cfg.network.head.num_classes >= plan["num_classes"]
    return plan


@pytest.mark.parametrize(("method", "data"), FITTING)
def test_a_method_on_data_that_fit_it(method, data):
    usual = compose.load_part("data", data).protocol
    cfg = load_config(method, [f"data={data}", *([] if usual else ["protocol=5-tasks"])])
    assert cfg.name == f"{method}_{data}_{(usual or '5-tasks').lower()}"
    assert set(cfg.to_dict()) == set(DEFAULTS)
    assert all(cfg[key] is not ... for key in DEFAULTS)
    planned(cfg)


@pytest.mark.parametrize(
    ("backbone", "data"),
    [("lite0", "voc"), ("lite0", "coco_format"), ("small", "coco"), ("small", "cifar10"), ("small", "tiny_imagenet")],
)
def test_another_backbone(backbone, data):
    unfit = getattr(compose.load_part("backbones", backbone), "unfit", {})
    for method in [method for method, other in FITTING if other == data]:
        if method in unfit:
            with pytest.raises(UserError, match=f"{method} does not go with backbone={backbone}: "):
                load_config(f"{method} data={data} protocol=5-tasks backbone={backbone}")
            continue
        cfg = load_config(f"{method} data={data} protocol=5-tasks backbone={backbone}")
        assert cfg.name == f"{method}_{data}_5-tasks_{backbone}"
        planned(cfg)


def test_every_method_has_a_config():
    fitting = {task: {name for name, part in parts("methods").items() if task in part.recipes} for task in TASKS}
    assert fitting["multi_label"] == MULTI_LABEL
    assert len(fitting["single_label"]) == 14
    types = {load_config(method, [f"data={data}", "protocol=5-tasks"]).method.type for method, data in FITTING}
    used = [METHODS.get(name) for name in types]
    for cls in METHODS.module_dict.values():  # an alias is a class of its own
        assert any(issubclass(cls, other) or issubclass(other, cls) for other in used)


@pytest.mark.parametrize(
    ("protocol", "sessions"),
    [
        ("B40-C10", {"base": 40, "increment": 10}),
        ("10-tasks", {"num_sessions": 10}),
        ("B50-10-tasks", {"base": 50, "num_sessions": 11}),
        ("joint", {"base": 0, "increment": 4, "joint": True}),
    ],
)
def test_protocols(protocol, sessions):
    cfg = load_config("lwf", ["data=voc", f"protocol={protocol}"])
    assert {key: value for key, value in cfg.scenario.items() if key not in ("dataset", "class_order")} == sessions


@pytest.mark.parametrize("protocol", ["C10", "B10", "10", "B10-C", "x-tasks", ""])
def test_no_protocols(protocol):
    with pytest.raises(UserError, match="expected one such as B40-C10"):
        compose.sessions(protocol)


def test_the_words_of_a_run():
    cfg = load_config("lwf", ["data=coco", "protocol=B40-C10", "memory.per_class=20", "seed=2"])
    assert (cfg.name, cfg.seed, cfg.method.type) == ("lwf_coco_b40-c10", 2, "LwF")
    assert cfg.memory.to_dict() == {"per_class": 20}
    assert load_config("lwf data=coco protocol=B40-C10", ["memory.per_class=20", "seed=2"]).to_dict() == cfg.to_dict()
    assert load_config("krt/coco_b0c10", ["protocol=B40-C10"]).name == "krt_coco_b0c10_b40-c10"
    apart = load_config("krt data=voc protocol=B0-C4-disjoint")
    assert (apart.scenario.base, apart.scenario.increment, apart.scenario.disjoint) == (0, 4, True)
    assert load_config("krt data=coco").auto_scale_lr.to_dict() == {"published_batch_size": 128}  # rates not scaled
    assert load_config("icarl data=coco", ["memory.total=5"]).memory.to_dict() == {"total": 5}


def test_a_file_that_is_based_on_words(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text('based_on = "krt data=voc"\nmethod = dict(token_weight=9.0)\nmemory = dict(per_class=1)\n')
    cfg = load_config(path, ["seed=5"])
    assert cfg.method.to_dict() == {"type": "KRT", "token_weight": 9.0}
    assert (cfg.seed, cfg.memory.per_class, cfg.scenario.increment) == (5, 1, 4)
    assert cfg.name == f"{tmp_path.name}_mine"
    (tmp_path / "config.py").write_text(cfg.pretty_text)
    assert load_config(tmp_path / "config.py").to_dict() == cfg.to_dict()


def test_merge_leaves_its_arguments_alone():
    base, more = {"a": {"b": [1], "c": 2}}, {"a": {"_delete_": True, "d": {"e": 3}}}
    merged = compose.merge(base, more)
    assert merged == {"a": {"d": {"e": 3}}}
    merged["a"]["d"]["e"] = 4
    assert more["a"] == {"_delete_": True, "d": {"e": 3}}
    compose.merge(base, {})["a"]["b"].append(2)
    assert base == {"a": {"b": [1], "c": 2}}


def digests():
    """Hashes of the published settings as they are now."""
    found = {}
    for name in PUBLISHED:
        cfg = load_config(name).to_dict()
        texts = {section: json.dumps([cfg[key] for key in keys], sort_keys=True) for section, keys in SECTIONS.items()}
        found[name] = {section: hashlib.sha256(text.encode()).hexdigest()[:8] for section, text in texts.items()}
    return found


def test_published_settings_stay_as_they_are():
    """After a change that is meant: ``PYTHONPATH=src:tests python tests/test_configs.py``, and say why."""
    known = json.loads(DIGESTS.read_text())
    assert digests() == known


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_settings_plan(name):
    cfg = load_config(name)
    assert cfg.name == name.replace("/", "_")
    planned(cfg)


@pytest.mark.parametrize("method", SYSTEM)
def test_abds_experiments_by_name(method):
    for stem in ABD:
        name = f"{method}/{stem}"
        if name == "dgr/imagenet50_5tasks":
            assert name not in PUBLISHED  # 224 pixels are too many for its auto-encoder
            continue
        cfg = load_config(name)
        epochs, milestones = cfg.train_cfg.max_epochs, cfg.param_scheduler[0]["milestones"]
        assert (epochs, milestones) == ((100, [30, 60, 80, 90]) if "imagenet50" in name else (250, [100, 150, 200]))
        assert cfg.optim_wrapper.optimizer.lr == 0.1
        assert cfg.train_dataloader.drop_last
        plan = planned(cfg)
        new = {len(session["classes"]) for session in plan["sessions"]}
        assert len(plan["sessions"]) == int(stem.split("_")[1].removesuffix("tasks"))
        assert new == {10 if "net" in stem else 100 // len(plan["sessions"])}
        second = cfg.method.get("second")
        assert second is None or second["epochs"] == epochs


def test_class_orders_of_the_papers_and_the_first_fifty_of_imagenet():
    order = list(range(100))
    random.Random(0).shuffle(order)
    plan = planned(load_config("lwf/cifar100_5tasks"))
    assert [int(name) for session in plan["sessions"] for name in session["classes"]] == order
    order = list(range(1000))
    np.random.RandomState(1993).shuffle(order)
    plan = planned(load_config("lwf/imagenet50_5tasks"))
    assert [int(name) for session in plan["sessions"] for name in session["classes"]] == order[:50]
    assert plan["unused_training_images"] == 2 * 950


@pytest.mark.parametrize("name", compose.names("bench"))
def test_a_bench_finds_its_runs(name):
    path = find_bench(name)
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
        trials = plan_jobs(path, table, trials=True)[1]
        tries = {sum(job.label == run["label"] for job in trials) for run in bench["runs"] if run.get("choices")}
        assert len(tries) <= 1  # as many for every method
        for job in trials:
            assert load_config(job.config, job.overrides).scenario.validation == bench["validation"]
        labels = {run["label"] for run in bench["runs"]}
        assert set(PUBLISHED_FIGURES.get(table["published"], {})) <= labels
        if table["published"] in SINGLE_LABEL:
            assert set(SINGLE_LABEL[table["published"]]) & labels


def test_the_published_tables_are_complete():
    labels = {
        run["label"]
        for name in ("abd_cifar100", "abd_cifar100_coreset")
        for run in load_bench(find_bench(name))["runs"]
    }
    for tasks in (5, 10, 20):
        assert set(SINGLE_LABEL[f"abd_cifar100_{tasks}tasks"]) <= labels


def test_bench_names():
    assert find_bench("demo").is_file()
    with pytest.raises(UserError, match="its name is 'demo' now"):
        find_bench("configs/bench/demo.py")
    with pytest.raises(UserError, match="expected a python file or one of abd_cifar100, "):
        find_bench("dem")


def test_the_list_of_names(capsys):
    code, out, err = call(capsys, "config")
    assert (code, err) == (0, "")
    for name in (*compose.names("methods"), *compose.names("data"), *PUBLISHED, *compose.names("bench")):
        assert f"  {name}" in out
    assert "B40-C10 (40 classes first and then 10 a session)" in out


def test_few_files():
    assert len(list(compose.FOLDER.rglob("*.py"))) < 80


if __name__ == "__main__":
    DIGESTS.write_text(json.dumps(digests(), indent=0).replace(',\n"', ', "').replace('{\n"scen', '{"scen') + "\n")
