"""Trackers get scalars of sessions and classes, and the report: mmengine's backends on stand-ins for their packages."""

import importlib.machinery
import json
import sys
from types import ModuleType, SimpleNamespace

import pytest
from tiny import call, coco_folder, write_config


@pytest.fixture
def packages(monkeypatch):
    """``wandb`` and ``mlflow`` as mmengine calls them, which write down what they are given."""
    kept = {"wandb": [], "mlflow": []}

    def stand_in(name, **functions):
        module = ModuleType(name)
        module.__spec__ = importlib.machinery.ModuleSpec(name, None)
        module.__dict__.update(functions)
        monkeypatch.setitem(sys.modules, name, module)

    def keep(name):
        return lambda *values, **options: kept[name].append((values, options))

    stand_in(
        "wandb", init=lambda **options: None, log=keep("wandb"), log_artifact=keep("wandb"), join=lambda: None,
        config=SimpleNamespace(update=lambda *a, **k: None), run=SimpleNamespace(log_code=lambda name: None),
    )  # fmt: skip
    nothing = lambda *values, **options: None  # noqa: E731
    stand_in(
        "mlflow", set_tracking_uri=keep("mlflow"), get_experiment_by_name=nothing, create_experiment=nothing,
        set_experiment=nothing, log_params=nothing, log_text=nothing, log_metrics=keep("mlflow"), end_run=nothing,
        log_metric=keep("mlflow"), log_artifact=keep("mlflow"),
    )  # fmt: skip
    return kept


def test_trackers_get_scalars_of_every_class_and_the_report(tmp_path, capsys, packages):
    config = write_config(tmp_path, coco_folder(tmp_path / "coco"))
    backends = "[{'type':'WandbVisBackend'},{'type':'MLflowVisBackend'}]"
    code, _, err = call(capsys, "train", config, "--name", "run", f"visualizer.vis_backends={backends}")
    assert code == 0, err
    run = tmp_path / "logs" / "run"
    content = json.loads((run / "results.json").read_text())
    for name, calls in packages.items():
        scalars = [values[0] for values, _ in calls if values and isinstance(values[0], dict)]
        sessions = [found for found in scalars if "mAP/seen" in found]
        assert [found["mAP/seen"] for found in sessions] == [s["mAP"]["seen"] for s in content["sessions"]], name
        last = content["sessions"][-1]["AP"]
        shown = {key.removeprefix("AP/"): value for key, value in sessions[-1].items() if key.startswith("AP/")}
        assert shown == {
            c.replace("'", "_"): ap for c, ap in zip(content["classes"], last, strict=True) if ap is not None
        }
        files = [values[0] for values, _ in calls if values and str(values[0]).endswith(".html")]
        assert files == [str(run / "report.html")]
    local = [json.loads(line) for line in (run / "vis_data" / "scalars.json").read_text().splitlines()]
    assert any("mAP/seen" in line for line in local)  # the report needs them
    assert not list((run / "vis_data").glob("events.out.*"))


@pytest.mark.parametrize(
    ("backends", "says"),
    [
        ("[{'type':'WandVisBackend'}]", "did you mean 'WandbVisBackend'?"),
        ("[{'type':'MLflowVisBackend','exp':1}]", "unknown key 'exp'"),
        ("wandb", "expected a list of dictionaries such as"),
        ("[{'type':'AimVisBackend'}]", "needs the package aim, which is not installed; pip install aim"),
    ],
)
def test_what_is_no_tracker_is_named_before_anything_is_read(capsys, monkeypatch, backends, says):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name == "aim" else find(name, *more))
    code, _, err = call(capsys, "plan", "lwf", "data=digits", f"visualizer.vis_backends={backends}")
    assert code == 2
    assert says in err
