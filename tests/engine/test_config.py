import inspect
from pathlib import Path
from types import UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import pytest
import tiny

from mlcil.engine.config import DEFAULTS, finish_config, load_config, run_name
from mlcil.errors import UserError
from mlcil.models.heads import HEADS
from mlcil.registry import DATASETS, METHODS


def tiny_config(**more: Any) -> dict[str, Any]:
    return {
        "scenario": {"dataset": {"type": "digits"}, "base": 0, "increment": 2},
        "network": {"backbone": dict(tiny.BACKBONE), "head": {"type": "linear"}, "image_size": tiny.SIZE},
        "method": {"type": "Finetune"},
        **more,
    }


def test_defaults_are_filled_in() -> None:
    cfg = finish_config(tiny_config(train_dataloader={"batch_size": 3}), "run")
    assert cfg.name == "run"
    assert cfg.train_dataloader.to_dict() == {"batch_size": 3, "num_workers": 8}
    assert cfg.optim_wrapper.optimizer.type == "Adam"
    assert cfg.memory is None


def test_overrides(tmp_path: Path) -> None:
    path = tiny.write_config(tmp_path, tmp_path)
    words = ["seed=7", "pretrained=none", "deterministic=TRUE", "optim_wrapper.optimizer.lr=2e-3", "log_interval=1"]
    words += ["memory.per_class=2", "scenario.class_order=['a','b']", "log_interval=2", "log_root=some/where=1"]
    cfg = load_config(path, words)
    assert (cfg.seed, cfg.pretrained, cfg.deterministic, cfg.log_interval) == (7, None, True, 2)
    assert cfg.optim_wrapper.optimizer.to_dict() == {**DEFAULTS["optim_wrapper"]["optimizer"], "lr": 2e-3}
    assert cfg.memory.to_dict() == {"per_class": 2}
    assert cfg.scenario.class_order == ["a", "b"]
    assert cfg.log_root == "some/where=1"


def test_overrides_do_not_reach_the_next_config(tmp_path: Path) -> None:
    path = tiny.write_config(tmp_path, tmp_path)
    load_config(path, ["optim_wrapper.optimizer.lr=5", "test_dataloader.precision=bf16"])
    cfg = load_config(path)
    assert cfg.optim_wrapper.optimizer.lr == 1e-4
    assert cfg.test_dataloader.precision == "fp32"


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"sceanrio": {}}, "unknown key 'sceanrio' in the config; did you mean 'scenario'"),
        ({"zzz": {}}, "unknown key 'zzz' in the config; known: allow_leaky_weights, "),
        ({"train_cfg": {"max_epoch": 1}}, "unknown key 'max_epoch' in train_cfg; did you mean 'max_epochs'"),
        ({"train_cfg": {"runner": 1}}, "unknown key 'runner' in train_cfg"),
        ({"train_transform": {"cutuot": 1}}, "did you mean 'cutout'"),
        ({"memory": {"perclass": 1}}, "did you mean 'per_class'"),
        ({"optim_wrapper": {"optimizer": {"type": "Adam", "Lr": 1}}}, "did you mean 'lr'"),
        ({"param_scheduler": [{"type": "OneCycle", "pct": 1}]}, "unknown key 'pct' in param_scheduler"),
        ({"method": {"type": "KRT", "token_wieght": 1}}, "did you mean 'token_weight'"),
        ({"method": {"type": "KRT", "network": 1}}, "unknown key 'network' in method"),
        ({"method": {}}, "method needs a 'type'; known:"),
    ],
)
def test_unknown_keys_name_the_near_one(more: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as caught:
        finish_config(tiny_config(**more), "run")
    assert message in str(caught.value)


def test_arguments_of_every_registered_class_are_named_and_typed() -> None:
    for registry in (DATASETS, METHODS):
        for cls in [cls for cls in registry.module_dict.values() if cls.__module__.startswith("mlcil.")]:
            parameters = inspect.signature(cls).parameters.values()
            assert all(p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL) for p in parameters)
            assert all(p.annotation is not p.empty for p in parameters)


def test_keys_left_by_the_type_that_a_config_is_based_on(tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "from mlcil.methods.finetune import Finetune\nfrom mlcil.registry import METHODS\n"
        "@METHODS.register_module(force=True)\nclass OwnOnConfigBase(Finetune):\n    pass\n"
    )
    path, text = tmp_path / "mine.py", 'based_on = "krt data=voc"\nplugins = ["own.py"]\nmemory = None\n'
    path.write_text(f'{text}method = dict(type="OwnOnConfigBase", token_weight=1.0)\n')
    with pytest.raises(UserError, match=r"'token_weight' in method; .*the config's base gives it.*_delete_=True$"):
        load_config(path)
    path.write_text(f'{text}method = dict(_delete_=True, type="OwnOnConfigBase")\n')
    assert load_config(path).method.to_dict() == {"type": "OwnOnConfigBase"}


@pytest.mark.parametrize("section", ["method", "dataset"])
def test_an_unknown_type_may_be_in_a_plugin(section: str) -> None:
    cfg = tiny_config()
    {"method": cfg["method"], "dataset": cfg["scenario"]["dataset"]}[section]["type"] = "Mine"
    with pytest.raises(UserError, match=r"type 'Mine' is unknown; a class of your own needs its file in plugins; "):
        finish_config(cfg, "run")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["data=coco", "protocl=B0-C4"], "unknown key 'protocl' in 'protocl=B0-C4'; did you mean 'protocol'"),
        (["dta=coco"], "unknown key 'dta' in 'dta=coco'; did you mean 'data'"),
        (["data=coco", "sceanrio.base=4"], "unknown key 'sceanrio' in .*did you mean 'scenario'"),
        (["data=coco", "param_scheduler.0.end_factor=1"], r"a list; expected .* param_scheduler=\[...\], .*--output"),
        (["data=coco", "optim_wrapper.optimizer.betas.0=1"], r"whole list as optim_wrapper.optimizer.betas=\[...\]"),
    ],
)
def test_words_beside_a_name(words: list[str], message: str) -> None:
    betas = ["optim_wrapper.optimizer.betas=(0.9,0.999)"] if "betas" in message else []
    with pytest.raises(UserError, match=message):
        load_config("krt", [*betas, *words])


def test_words_inside_a_name() -> None:
    with pytest.raises(UserError, match=r"'protocl=B0-C4' in 'krt data=coco .* did you mean 'protocol'"):
        load_config("krt data=coco protocl=B0-C4")


@pytest.mark.parametrize("words", [[], ["data=cifar100"]])
def test_only_data_that_a_method_takes_are_offered(words: list[str]) -> None:
    with pytest.raises(UserError, match=r"one of coco, coco_format, digits, letters, photos, voc, voc_format$"):
        load_config("krt", words)


@pytest.mark.parametrize(("path", "name"), [("photos/a.py", "photos_a"), ("a.py", "a"), ("/x/y/z.py", "y_z")])
def test_run_name(path: str, name: str) -> None:
    assert run_name(Path(path)) == name


def test_numbers_of_methods_and_heads_have_a_range() -> None:
    """So that a weight below zero or a temperature of zero is refused before anything is trained."""
    given = {"in_channels", "middle_channels", "blocks"}  # by the network
    ours = {name: cls for name, cls in {**METHODS.module_dict, **HEADS}.items() if cls.__module__.startswith("mlcil.")}
    assert len(ours) > 30
    for name, cls in ours.items():
        for key, hint in get_type_hints(cls.__init__, include_extras=True).items():
            plain = {int, float} & {hint, *(get_args(hint) if get_origin(hint) in (UnionType, Union) else ())}
            assert key in given or not plain, f"{name}.{key} is {hint}; expected bounds as mlcil.schema has them"
