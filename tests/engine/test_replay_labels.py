"""Replayed images really reach the loss, with the labels that the memory's policy promises."""

import copy

import numpy as np
import pytest
from engine.test_run import assert_same_weights, config, scenes, weights  # noqa: F401  (a fixture)
from tiny import run_until, runner_of

from mlcil.engine.train import train


@pytest.fixture(params=["oracle", "frozen", "propagate", "rclp"])
def replayed(request, scenes, tmp_path):  # noqa: F811
    """A run of ER; for every replayed image of a batch (session, row, its session, target (C,)), and the runner."""
    cfg = config(
        scenes,
        tmp_path,
        method={"type": "ER"},
        network={"head": {"type": "linear"}},
        memory={"total": 12, "selection": "reservoir", "labels": request.param},
        train_cfg={"max_epochs": 1},
    )
    runner = runner_of(cfg)
    method, memory = runner.run_settings.method, runner.run_settings.memory
    original, found, guesses = method.classify, [], {}
    loss = method.loss
    batches = []

    def spy(logits, targets):
        session, batch = method.context.index, batches[-1]
        guesses.setdefault(session, copy.deepcopy(memory.given))
        found.extend(
            (session, int(row), int(origin), target.numpy())
            for row, origin, target in zip(batch.rows, batch.origins, targets, strict=True)
            if origin != session
        )
        return original(logits, targets)

    method.loss = lambda batch: batches.append(batch) or loss(batch)
    method.classify = spy
    runner.train()
    return request.param, found, guesses, runner.run_settings.scenario


def test_labels_of_replayed_images(replayed):
    policy, found, guesses, scenario = replayed
    assert {session for session, *_ in found} == {1, 2}
    assert {origin for _, _, origin, _ in found} == {0, 1}
    truth_NC = scenario.train.labels_NC == 1
    differ = 0
    for session, row, origin, target_C in found:
        own, high = scenario.sessions[origin], scenario.sessions[session].high
        classes = np.arange(high)
        truth_C = truth_NC[row, :high]
        if policy == "oracle":
            expected = truth_C & (classes >= own.low)
        elif policy == "frozen":
            expected = truth_C & (classes >= own.low) & (classes < own.high)
        else:
            known = scenario.sessions[session].low
            expected = np.full(high, -1)
            expected[:known] = guesses[session][row]
            np.testing.assert_array_equal(expected[own.low : own.high], truth_C[own.low : own.high])
        np.testing.assert_array_equal(target_C, expected)
        differ += int((target_C != truth_C).any())
    assert differ or policy == "oracle"


def rclp(scenes, folder):  # noqa: F811
    return config(
        scenes,
        folder,
        method={"type": "ER"},
        network={"head": {"type": "linear"}},
        memory={"total": 12, "selection": "reservoir", "labels": "rclp"},
        train_cfg={"max_epochs": 2},
    )


def test_new_images_carry_old_labels_and_a_stopped_run_goes_on(scenes, tmp_path):  # noqa: F811
    runner = runner_of(rclp(scenes, tmp_path / "whole"))
    run = runner.run_settings
    seen, loss = [], run.method.loss

    def spy(batch):
        seen.append((run.method.context.index, dict(run.memory.guessed), batch))
        return loss(batch)

    run.method.loss = spy
    runner.train()
    trained = {0: set(), 1: set(), 2: set()}
    for session, guessed, batch in seen:
        low = run.scenario.sessions[session].low
        for row, origin, target_C in zip(batch.rows.tolist(), batch.origins.tolist(), batch.targets, strict=True):
            if origin == session:
                trained[session].add(row)
                if session:
                    assert target_C[:low].tolist() == guessed[row].tolist()
                own_C = run.scenario.train.labels_of(np.array([row]), len(target_C))[0]
                assert target_C[low:].tolist() == own_C[low:].tolist()
    for session, rows in trained.items():
        images = run.scenario.train_rows(session)
        assert rows < set(images.tolist())
        assert len(rows) == len(images) - round(0.1 * len(images))
    run_until(rclp(scenes, tmp_path / "stopped"), session=1, epoch=1)
    train(rclp(scenes, tmp_path / "stopped"), resume=True)
    one, other = (weights(tmp_path / name / "saved" / "run" / "session_2.pth") for name in ("whole", "stopped"))
    assert_same_weights(one, other)
