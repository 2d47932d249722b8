"""Schedules of one's own and of mmengine's in a config."""

import pytest
import torch
from engine.test_run import config, scenes  # noqa: F401  (a fixture)
from mmengine.hooks import Hook
from mmengine.registry import HOOKS, PARAM_SCHEDULERS
from torch.optim.lr_scheduler import LambdaLR

from mlcil.engine.train import train
from mlcil.errors import UserError


@PARAM_SCHEDULERS.register_module()
class Falling(LambdaLR):
    """Falls in a line to a share of the first rate, a little every iteration."""

    def __init__(self, optimizer, epochs: int, epoch_length: int, rest: float = 0.0) -> None:
        steps = max(epochs * epoch_length - 1, 1)
        super().__init__(getattr(optimizer, "optimizer", optimizer), lambda step: 1 - (1 - rest) * min(step / steps, 1))


@HOOKS.register_module()
class Rates(Hook):
    seen = {}  # noqa: RUF012

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        rates = self.seen.setdefault(runner.train_loop.position.session, [])
        rates.append(runner.optim_wrapper.param_groups[0]["lr"])


def rates_of(scenes, tmp_path, schedules):  # noqa: F811
    Rates.seen = {}
    optimizer = {"optimizer": {"type": "SGD", "lr": 1e-3}}
    train(
        config(scenes, tmp_path, param_scheduler=schedules, optim_wrapper=optimizer, custom_hooks=[{"type": "Rates"}])
    )
    return Rates.seen


def test_a_schedule_of_ones_own_knows_the_session(scenes, tmp_path):  # noqa: F811
    for rates in rates_of(scenes, tmp_path, [{"type": "Falling", "rest": 0.1}]).values():
        expected = 1e-3 * torch.linspace(1, 0.1, len(rates))
        torch.testing.assert_close(torch.tensor(rates), expected)


def test_mmengines_schedules_span_the_session(scenes, tmp_path):  # noqa: F811
    linear = {"type": "LinearLR", "start_factor": 1.0, "end_factor": 0.5, "by_epoch": False}
    for rates in rates_of(scenes, tmp_path, [linear]).values():
        assert rates[0] == pytest.approx(1e-3)
        assert rates == sorted(rates, reverse=True)
        assert rates[-1] == pytest.approx(0.5e-3, rel=0.1)


@pytest.mark.parametrize(
    ("section", "words"),
    [
        ({"type": "Falling", "rset": 0.1}, "unknown key 'rset' in param_scheduler; did you mean 'rest'"),
        ({"type": "Falling", "rest": "x"}, r"param_scheduler\.rest is 'x'; expected a number"),
        ({"type": "LinearLR", "end_factr": 0.1}, "unknown key 'end_factr' in param_scheduler LinearLR; did you mean"),
        ({"type": "LinearLR", "end_factor": 7}, "param_scheduler LinearLR: "),
        ({"type": "StepLR"}, "param_scheduler StepLR has no 'step_size'"),
    ],
)
def test_bad_settings_are_refused_before_anything_is_read(scenes, tmp_path, section, words):  # noqa: F811
    with pytest.raises(UserError, match=words):
        config(scenes, tmp_path, param_scheduler=[section])
