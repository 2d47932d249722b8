"""W&B offline and MLflow's file store keep what a run says: scalars of sessions and classes, and the report."""

import importlib.util
import json

import mlflow
import pytest
import wandb
from tiny import call, coco_folder, write_config
from wandb.proto.wandb_internal_pb2 import Record

BLOCK = 32768  # bytes; a W&B file is a log of LevelDB behind a header of 7 bytes


@pytest.fixture(autouse=True)
def without_network(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    yield
    wandb.teardown()  # both remember in the process what they were told first
    mlflow.set_tracking_uri(None)


def wandb_records(file):
    """The records of an offline run, each a chain of parts with checksum, length and kind (1 whole, 4 the last)."""
    content, position, parts = file.read_bytes(), 7, b""
    while position + 7 <= len(content):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        length, kind = int.from_bytes(content[position + 4 : position + 6], "little"), content[position + 6]
        parts += content[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):
            yield Record.FromString(parts)
            parts = b""


def kept_by_wandb(folder):
    """Scalars, step by step, and the files of artifacts."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    records = list(wandb_records(file))
    steps = [
        {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        for record in records
        if record.WhichOneof("record_type") == "history"
    ]
    saved = [record.request.log_artifact.artifact for record in records if record.request.HasField("log_artifact")]
    saved += [record.artifact for record in records if record.HasField("artifact")]
    return steps, {entry.path for artifact in saved for entry in artifact.manifest.contents}


def kept_by_mlflow(folder):
    """The same; a step of MLflow is the number of seen classes."""
    client = mlflow.MlflowClient(folder.as_uri())
    (run,) = client.search_runs([client.get_experiment_by_name("cil").experiment_id])
    assert run.info.status == "FINISHED"
    steps = {}
    for key in run.data.metrics:
        for metric in client.get_metric_history(run.info.run_id, key):
            steps.setdefault(metric.step, {})[key] = metric.value
    return [steps[step] for step in sorted(steps)], {file.path for file in client.list_artifacts(run.info.run_id)}


def test_trackers_keep_scalars_of_every_class_and_the_report(tmp_path, capsys):
    config = write_config(tmp_path, coco_folder(tmp_path / "coco"))
    stores = tmp_path / "wandb_store", tmp_path / "mlflow_store"
    stores[0].mkdir()
    backends = [
        {"type": "WandbVisBackend", "init_kwargs": {"project": "cil", "dir": str(stores[0])}},
        {"type": "MLflowVisBackend", "exp_name": "cil", "tracking_uri": stores[1].as_uri()},
    ]
    code, _, err = call(capsys, "train", config, "--name", "run", f"visualizer.vis_backends={backends}")
    assert code == 0, err
    run = tmp_path / "logs" / "run"
    content = json.loads((run / "results.json").read_text())
    for steps, files in (kept_by_wandb(stores[0]), kept_by_mlflow(stores[1])):
        assert any("loss_cls" in step for step in steps)
        sessions = [step for step in steps if "mAP/seen" in step]
        assert len(sessions) == 2
        for step, session in zip(sessions, content["sessions"], strict=True):
            assert step["mAP/seen"] == pytest.approx(session["mAP"]["seen"])
            shown = {key: value for key, value in step.items() if key.startswith("AP/")}
            expected = zip(content["classes"], session["AP"], strict=False)
            assert shown == pytest.approx({f"AP/{name}": ap for name, ap in expected if ap is not None})
        assert "report.html" in files
    assert (run / "report.html").is_file()
    local = [json.loads(line) for line in (run / "vis_data" / "scalars.json").read_text().splitlines()]
    assert any("mAP/seen" in line for line in local)  # the report needs them
    assert not list((run / "vis_data").glob("events.out.*"))


@pytest.mark.parametrize(
    ("kind", "variable"), [("WandbVisBackend", "WANDB_MODE"), ("MLflowVisBackend", "MLFLOW_ALLOW_FILE_STORE")]
)
def test_a_tracker_that_cannot_begin_is_a_sentence(tmp_path, capsys, monkeypatch, kind, variable):
    monkeypatch.delenv(variable)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))  # no key lies there
    config = write_config(tmp_path, coco_folder(tmp_path / "coco"))
    code, _, err = call(capsys, "train", config, "--name", "run", f"visualizer.vis_backends=[{{'type':'{kind}'}}]")
    assert code == 2
    assert err.count("\n") == 1
    assert f"{kind} cannot begin (" in err
    assert "WANDB_MODE=offline" in err if kind == "WandbVisBackend" else "MLFLOW_ALLOW_FILE_STORE=true" in err
    assert call(capsys, "train", config, "--name", "run")[0] == 0  # nothing was begun


@pytest.mark.parametrize(
    ("backends", "says"),
    [
        ("[{'type':'WandVisBackend'}]", "did you mean 'WandbVisBackend'?"),
        ("[{'type':'MLflowVisBackend','exp':1}]", "unknown key 'exp'"),
        ("wandb", "expected a list of dictionaries such as"),
        ("[{'type':'AimVisBackend'}]", "needs the package aim, which is not installed; pip install aim"),
        ("[{'type':'WandbVisBackend'}]", "needs the package wandb, which is not installed; pip install wandb"),
        ("[{'type':'MLflowVisBackend'}]", "needs the package mlflow, which is not installed; pip install mlflow"),
    ],
)
def test_what_is_no_tracker_is_named_before_anything_is_read(capsys, monkeypatch, backends, says):
    find, absent = importlib.util.find_spec, ("aim", "wandb", "mlflow")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: None if name in absent else find(name, *more))
    code, _, err = call(capsys, "plan", "lwf", "data=digits", f"visualizer.vis_backends={backends}")
    assert code == 2
    assert says in err
