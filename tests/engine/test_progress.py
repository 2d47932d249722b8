"""The time that is left: of the running session and of the run."""

import re
from typing import ClassVar

import pytest
from engine.test_run import config, scenes  # noqa: F401  (a fixture)
from mmengine.hooks import Hook
from mmengine.registry import HOOKS

from mlcil.engine.progress import steps_left
from mlcil.engine.train import train


@HOOKS.register_module()
class Clock(Hook):
    """Every step takes a second, by the timer's own clock; notes the estimates and the steps that are left."""

    priority = "VERY_LOW"
    seen: ClassVar[list[tuple[float, ...]]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        hub, loop = runner.message_hub, runner.train_loop
        values = (loop.position.session, loop.max_iters - loop.iter - 1, steps_left(loop) - 1)
        self.seen.append((*values, hub.get_info("eta"), hub.get_info("eta_run")))


def test_estimates_are_those_of_the_running_session(scenes, tmp_path, monkeypatch):  # noqa: F811
    ticks = iter(range(100_000))
    monkeypatch.setattr("mmengine.hooks.iter_timer_hook.time.time", lambda: float(next(ticks)) / 2)
    Clock.seen = []
    train(config(scenes, tmp_path, custom_hooks=[{"type": "Clock"}]))
    assert {session for session, *_ in Clock.seen} == {0, 1, 2}
    for session, here, everywhere, eta, eta_run in Clock.seen:
        assert here <= everywhere
        assert (here == everywhere) == (session == 2)
        if here:  # a step takes the same time in every session, so the estimate is in proportion to the steps
            assert eta / here == pytest.approx(Clock.seen[0][3] / Clock.seen[0][1], rel=0.5)
            assert eta_run / everywhere == pytest.approx(eta / here)
    last = [row for row in Clock.seen if row[0] == 2][-1]
    assert last[3] == last[4] == 0


def test_the_log_gives_both(scenes, tmp_path):  # noqa: F811
    train(config(scenes, tmp_path, log_interval=1, train_cfg={"max_epochs": 1}))
    text = (tmp_path / "logs" / "run" / "log" / "log.txt").read_text()
    assert re.search(r"eta: 0:00:\d\d \(run 0:00:\d\d\)  time: ", text)


def test_the_losses_in_the_log_are_those_of_the_session(scenes, tmp_path):  # noqa: F811
    """The mean behind ``loss`` is that of the losses beside it, also in a session's first steps."""
    train(config(scenes, tmp_path, log_interval=1, train_cfg={"max_epochs": 1}))
    text = (tmp_path / "logs" / "run" / "log" / "log.txt").read_text()
    lines = re.findall(r"  loss: ([\d.]+)  loss_cls: ([\d.]+)(?:  loss_token: ([\d.]+))?", text)
    assert any(token for _, _, token in lines)
    for total, *parts in lines:
        assert float(total) == pytest.approx(sum(float(part) for part in parts if part), rel=1e-3)
