"""What watches a run: state and stopping, losses that are no number, results, pseudo-labels."""

from __future__ import annotations

import json
import logging
import re
import signal
from collections.abc import Mapping
from typing import Any

import torch
from mmengine.dist import all_reduce, get_rank, get_world_size, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from mlcil.engine.data import log
from mlcil.engine.evaluate import SessionResult
from mlcil.engine.loop import SessionLoop, loop_of
from mlcil.engine.resume import Part, SaveSchedule, capture
from mlcil.engine.run import Run
from mlcil.engine.run_folder import RunFolder
from mlcil.errors import StoppedError, UserError
from mlcil.evaluation.metrics import METRICS
from mlcil.files import write_text
from mlcil.phases import Train
from mlcil.protocols import Session
from mlcil.reporting import log_lines, tables
from mlcil.system.provenance import short_paths
from mlcil.system.signals import StopSignals


class StateHook(Hook):
    """Saves the run's state when it is time, and stops the run when a signal asked for it.

    Args:
        run: the run.
        folder: where the state is written.
        parts: whose state it is.
        signals: what asks the run to stop.
    """

    priority = "LOWEST"

    def __init__(self, run: Run, folder: RunFolder, parts: Mapping[str, Part], signals: StopSignals) -> None:
        self.run, self.folder, self.parts, self.signals = run, folder, parts, signals
        self.schedule = SaveSchedule(run.train.save_interval)

    def between_sessions(self, runner: Runner) -> None:
        """The next session starts from its stage checkpoint and this state."""
        self.save(loop_of(runner))

    def between_phases(self, runner: Runner, at_once: bool) -> None:
        """Save behind a phase when it is time, and at once behind long work."""
        if self.decide(at_once or self.schedule.due_between())[0]:
            with self.schedule.measured():
                self.save(loop_of(runner))

    def between_steps(self, runner: Runner, iteration: int, at_once: bool) -> None:
        """Save when it is time, and stop when a signal asked for it.

        Args:
            runner: the runner.
            iteration: finished iterations of the running epoch; 0 between two epochs.
            at_once: save in any case.
        """
        loop = loop_of(runner)
        due = self.schedule.due(loop.iter) if iteration else self.schedule.due_between()
        due, number = self.decide(due or at_once)
        if due or number:
            with self.schedule.measured():
                self.save(loop)
        if number:
            raise StoppedError(number, self.where(loop, number, iteration))

    def after_sessions(self, runner: Runner) -> None:
        """What saving has cost."""
        del runner
        log(self.schedule.line())

    def decide(self, due: bool) -> tuple[bool, int]:
        """Whether to save, and the signal that asks to stop, or 0.

        The first process decides when, any process that was asked stops all.
        """
        number = self.signals.received or 0
        if get_world_size() > 1:
            flags = torch.tensor([number, int(due and is_main_process())])
            all_reduce(flags, "max")
            number, due = int(flags[0]), bool(flags[1])
        return due, number

    def save(self, loop: SessionLoop) -> None:
        """Every process calls it, the first one writes."""
        state = capture(self.run, loop.position, self.parts, loop.learning)
        if is_main_process():
            state.save(self.folder.resume_file)

    def where(self, loop: SessionLoop, number: int, iteration: int) -> str:
        """The sentence of a run that a signal stopped."""
        phase = loop.phases[loop.position.phase]
        part = "fine-tuning, epoch" if isinstance(phase, Train) and phase.on == "memory" else "epoch"
        epoch = loop.epoch
        place = f"{part} {epoch + 1}, iteration {iteration}" if iteration else f"after {part} {epoch}"
        return (
            f"stopped by {signal.Signals(number).name} in session {loop.position.session}, {place}; everything is "
            "saved, so go on with the same command and --resume"
        )


class FiniteLossHook(Hook):
    """Looks at the loss of every step; where it is no number, names the images and stops, or counts it.

    Args:
        run: which says how many such steps may be skipped.
        folder: where the images are written down.
    """

    priority = "VERY_HIGH"

    def __init__(self, run: Run, folder: RunFolder) -> None:
        self.run, self.folder = run, folder
        self.count = 0  # steps so far whose loss was no number

    def after_train_iter(  # type: ignore[override]
        self, runner: Runner, batch_idx: int, data_batch: dict[str, Any], outputs: dict[str, torch.Tensor]
    ) -> None:
        """Look at one step.

        Raises:
            UserError: the loss is not finite, and no more such batches may be skipped.
        """
        if torch.isfinite(outputs["loss"]).all():
            return
        table, place = self.run.scenario.train, loop_of(runner).position
        rows = [int(row) for row in data_batch["rows"]]
        ids = [table.ids[row] for row in rows]
        where = f"session {place.session}, epoch {place.epoch + 1}, iteration {batch_idx + 1}"
        content = {
            "session": place.session,
            "epoch": place.epoch + 1,
            "iteration": batch_idx + 1,
            "losses": {name: str(float(value.mean())) for name, value in outputs.items()},
            "images": ids,
            "files": [str(table.files[row]) for row in rows] if table.files else None,
        }
        file = self.folder.run_dir / f"not_finite_rank{get_rank()}.json"
        write_text(file, json.dumps(content, indent=1) + "\n")
        self.count += 1
        limit = self.run.train.skip_not_finite
        if self.count <= limit:
            log(
                f"the loss is {outputs['loss'].item()} in {where}; the step is skipped "
                f"({self.count} of at most {limit}), its images are in {file}",
                logging.WARNING,
            )
            return
        shown = f"{ids[:8]} and {len(ids) - 8} more" if len(ids) > 8 else f"{ids}"
        raise UserError(
            f"the loss is {outputs['loss'].item()} in {where}, on images {shown} (all in {file}); lower the learning "
            "rate, set precision='fp32', or let such steps be skipped by train_cfg.skip_not_finite=LIMIT, and go on "
            "from the last saved state with --resume --accept-changes"
        )

    def state_dict(self) -> dict[str, Any]:
        """The count."""
        return {"count": self.count}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.count = state["count"]


class PseudoLabelAuditHook(Hook):
    """Compares the pseudo-labels that a session starts with to the labels that are hidden from the method.

    For the report only: ``true`` are old-class labels per image that are known to be there, ``precision`` and
    ``recall`` of the pseudo-labels are in [0, 1], or ``None`` of none. A pseudo-label in a cell that nobody labelled is
    not judged; where there are such, ``judged`` is the share of the others. A method that makes none has no such facts.

    Args:
        run: its method and its training images.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.found: dict[str, float | None] = {}

    def before_session(self, runner: Runner, session: Session) -> None:
        """Forget the session before."""
        del runner, session
        self.found = {}

    def between_phases(self, runner: Runner, at_once: bool) -> None:
        """Look at what the method has decided, before the state behind the phase is saved."""
        del runner, at_once
        decided = self.run.method.pseudo_label_decisions()
        if decided is None or self.found:
            return
        rows, fires_NO = decided
        labels_NO = self.run.scenario.train.labels_of(rows, fires_NO.shape[1])
        true_NO, judged_NO = labels_NO == 1, fires_NO & (labels_NO >= 0)
        counts = [len(rows), true_NO.sum(), fires_NO.sum(), judged_NO.sum(), (true_NO & fires_NO).sum()]
        total = torch.tensor(counts, dtype=torch.float64)
        all_reduce(total)
        images, true, made, judged, right = total.tolist()
        self.found = {
            "true": true / max(images, 1),
            "precision": right / judged if judged else None,
            "recall": right / true if true else None,
        }
        if judged < made:
            self.found["judged"] = judged / made

    def report(self) -> dict[str, Any]:
        """What the method tells of the session, its pseudo-labels with what they should have been."""
        told = dict(self.run.method.session_report())
        if self.found:
            told["dpl"] = {**told.get("dpl", {}), **self.found}
        return told

    def state_dict(self) -> dict[str, Any]:
        """What was found."""
        return dict(self.found)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.found = dict(state)


#: trackers that keep files, and how they want a file called
ARTIFACTS: dict[str, dict[str, str]] = {"WandbVisBackend": {"name": "report", "type": "report"}, "MLflowVisBackend": {}}


def tracked(runner: Runner, name: str) -> bool:
    """Whether a backend is among the run's trackers."""
    return name in runner.visualizer._vis_backends


class ResultsHook(Hook):
    """Log, results, stage checkpoint and scores of every session.

    Args:
        run: the run.
        folder: where they go.
        audit: adds to what the method tells of a session.
        provenance: where the numbers come from.

    Attributes:
        results: of the sessions so far, as in results.json.
    """

    priority = "VERY_HIGH"

    def __init__(self, run: Run, folder: RunFolder, audit: PseudoLabelAuditHook, provenance: Mapping[str, Any]) -> None:
        self.run, self.folder, self.audit, self.provenance = run, folder, audit, provenance
        self.results: list[dict[str, Any]] = []

    def before_train(self, runner: Runner) -> None:
        """What the method found out before the first step, and the images it has made."""
        loop = loop_of(runner)
        phase = loop.phases[loop.position.phase]
        if isinstance(phase, Train) and phase.on == "training" and not phase.goes_on:
            self.audit.before_train(runner)
            if is_main_process():
                self.folder.write_made_images(loop.position.session, self.run.method.made_images())
            for line in log_lines.report(self.audit.report()):
                log(line)

    def after_session(self, runner: Runner, session: Session, result: SessionResult) -> None:
        """Log the metrics, write stage checkpoint, scores, results.json and results.csv."""
        facts = result.metrics
        facts.update(loop_of(runner).progress.facts(session), report=self.audit.report())
        self.results.append(facts)
        metrics = METRICS[self.run.scenario.task]
        headline = metrics.headline
        average = metrics.summarise(self.results)[f"average_{headline}"]
        for line in log_lines.metrics(facts, "session"):
            log(line)
        log(f"session average_{headline} = {log_lines.number(average)} over {len(self.results)} session(s)")
        scalars = {f"{headline}/{split}": value for split, value in facts[headline].items() if value is not None}
        if average is not None:
            scalars[f"{headline}/average"] = average
        for name, value in zip(self.run.scenario.classes, facts[metrics.per_class], strict=False):
            if value is not None:  # trackers take few signs
                scalars[f"{metrics.per_class}/{re.sub(r'[^0-9A-Za-z_. -]', '_', name)}"] = value
        runner.visualizer.add_scalars(scalars, step=len(facts[metrics.per_class]))
        if is_main_process():
            self.folder.write_scores(session.index, result, self.run.scenario)
            self.folder.write_stage(self.run, session.index, facts)
            self.write("running")
            self.folder.write_test_images(self.run.scenario)

    def after_sessions(self, runner: Runner) -> None:
        """Final table in the log, curves, results.json with status ``done``, the report for trackers of files."""
        if is_main_process() and self.results:
            self.write("done" if len(self.results) == len(self.run.scenario.sessions) else "stopped")
            from mlcil.reporting import plots  # matplotlib: only at the end
            from mlcil.reporting.html import write_report

            plots.draw_run(self.folder.run_dir, self.results, self.run.scenario.classes)
            trackers = [(name, runner.visualizer.get_backend(name)) for name in ARTIFACTS if tracked(runner, name)]
            if trackers:
                report = write_report([self.folder.run_dir])
            for name, backend in trackers:
                backend.experiment.log_artifact(str(report), **ARTIFACTS[name])
        log("\n" + tables.session_table({self.run.name: self.results}))
        log(f"results: {self.folder.run_dir / 'results.json'}; checkpoints: {self.folder.checkpoint_dir}")

    def write(self, status: str) -> None:
        """``results.json`` and ``results.csv`` with that status."""
        places = (self.provenance, str(self.run.config.pretty_text))
        provenance, text = places if self.run.settings.full_paths else short_paths(places)
        self.folder.write_results(self.run, self.results, status, provenance, text)

    def state_dict(self) -> dict[str, Any]:
        """The results so far."""
        return {"results": list(self.results)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.results = list(state["results"])
