"""The loop over sessions: one mmengine train loop that walks a method through a scenario."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mmengine.dist import all_gather_object, all_reduce, barrier, is_main_process
from mmengine.registry import LOOPS
from mmengine.runner import BaseLoop

from mlcil.engine import resume, run_files
from mlcil.engine.evaluation import audit_pseudo_labels, predict_view, session_metrics, test_rows
from mlcil.engine.images import SessionImages
from mlcil.engine.replay import update_memory
from mlcil.errors import StoppedError, UserError
from mlcil.methods.base import SessionContext
from mlcil.reporting import log_lines

if TYPE_CHECKING:
    from mlcil.engine.runner import IncrementalRunner


@LOOPS.register_module()
class IncrementalTrainLoop(BaseLoop):
    """Sessions, and inside each the epochs of ordinary mmengine training.

    Args:
        runner: the runner; it holds scenario, method and memory.
        dataloader: options of the training loader: ``batch_size`` per process and ``num_workers``.
        max_epochs: epochs of a session.
        base_lr: peak learning rate of session 0; later sessions use the optimiser's ``lr``.
        base_epochs: epochs of session 0 when they differ from ``max_epochs``.
        val_interval: 0 evaluates at the end of a session only; n also every n epochs (official: 1).
        stop_after_session: end the run behind this session index (a shortened run), ``None`` for all.
        save_interval: iterations between two saved states, and the end of every epoch; 0 is the end of every epoch
            alone; ``None`` chooses it so that saving takes less than 2% of the time.
        skip_not_finite: how many steps whose loss is no number are left out, with a warning, before the run stops;
            0 stops at the first.
        repeated_augmentation: views of an image in a batch, see
            :class:`~mlcil.engine.sampling.RepeatedAugmentationSampler`; 1 is ordinary shuffling.
    """

    def __init__(
        self,
        runner: IncrementalRunner,
        dataloader: dict[str, Any],
        max_epochs: int = 20,
        base_lr: float | None = None,
        base_epochs: int | None = None,
        val_interval: int = 0,
        stop_after_session: int | None = None,
        repeated_augmentation: int = 1,
        save_interval: int | None = None,
        skip_not_finite: int = 0,
    ) -> None:
        self._runner: Any = runner
        self.loader_options = dict(dataloader)
        self.dataloader: Any = None
        self.session_epochs, self.base_epochs = int(max_epochs), base_epochs
        self.base_lr, self.val_interval, self.stop_after_session = base_lr, val_interval, stop_after_session
        self.images = SessionImages(runner, self.loader_options, repeated_augmentation)
        self.save_interval, self.skip_not_finite = save_interval, skip_not_finite
        self.counts: dict[str, Any] = {}  # images of the running session
        self.memory_counts: dict[str, Any] = {}  # of its update of the memory
        self._started = 0.0  # clock at the session's beginning
        self.session = 0
        self._phase_epochs: int | None = None  # epochs of balanced fine-tuning, while it runs
        self._epoch = 0
        self._iter = 0
        self.stop_training = False
        self._test_loader: Any = None
        self.audit: dict[str, float] = {}  # of the session's pseudo-labels
        self.scores: tuple[np.ndarray, np.ndarray] | None = None  # test rows and logits of the last evaluation

    # -- what mmengine's hooks ask for; all counted within the running session -------------------------

    @property
    def max_epochs(self) -> int:
        """Epochs of the running session or of its fine-tuning."""
        if self._phase_epochs is not None:
            return self._phase_epochs
        return int(self.base_epochs) if self.session == 0 and self.base_epochs else self.session_epochs

    @property
    def phase(self) -> int:
        """0 in a session's main training, 1 in its balanced fine-tuning."""
        return int(self._phase_epochs is not None)

    @property
    def max_iters(self) -> int:
        """Iterations of the running session."""
        return self.max_epochs * len(self.dataloader)

    @property
    def epoch(self) -> int:
        """Finished epochs of the running session."""
        return self._epoch

    @property
    def iter(self) -> int:
        """Finished iterations of the running session."""
        return self._iter

    # -- the walk --------------------------------------------------------------------------------------

    def run(self) -> torch.nn.Module:
        """All sessions that are left; returns the trained method."""
        runner = self._runner
        sessions = runner.scenario.sessions
        last = len(sessions) - 1 if self.stop_after_session is None else self.stop_after_session
        if not runner.has_state:
            runner.save_resume_state(0, 0.0, inside=False)
        try:
            while self.session <= min(last, len(sessions) - 1):
                self.run_session()
        finally:
            self.images.close()
        runner.finish_run()
        return runner.model

    def run_session(self) -> None:
        """Steps 1 to 9 of a session (docs/architecture.md)."""
        runner, t = self._runner, self.session
        session = runner.scenario.sessions[t]
        resumed = runner.take_resumed_session(t)
        self._started = time.monotonic() - (resumed["seconds"] if resumed else 0.0)
        runner.call_hook("before_session", session=session)

        tuned = resumed if resumed and resumed["phase"] == 1 else None  # its memory is that of the next session
        if tuned:
            self.counts, self.memory_counts = tuned["counts"], tuned["memory_counts"]
            self.begin_session()
        else:
            view, self.counts = self.images.train_view(t)
            self.dataloader = self.images.train_loader(view, t)
            self.images.check_same(view, t)
            self.begin_session()
            self.train_session(resumed)
            runner.call_hook("after_train")
        self.finish_session(tuned)
        result = self.evaluate()
        result.update(
            index=t,
            classes=list(session.classes),
            train=self.counts,
            memory=self.memory_counts,
            report=self.session_report(),
            seconds=round(time.monotonic() - self._started, 1),
        )
        runner.finish_session(session, result)
        self.session += 1
        self._epoch, self.memory_counts = 0, {}
        runner.save_resume_state(0, 0.0, inside=False)
        runner.call_hook("after_session", session=session, result=result)

    def begin_session(self) -> None:
        """The method takes its teacher and grows."""
        runner = self._runner
        context = self.context(self.counts)
        runner.unwrap()
        runner.method.begin_session(context)
        runner.wrap()

    def train_session(self, resumed: dict[str, Any] | None) -> None:
        """The main training, from its beginning or from a saved point of it."""
        runner, method, t = self._runner, self._runner.method, self.session
        base_lr = self.base_lr if t == 0 else None
        runner.build_session_optimizer(base_lr, self.max_epochs, len(self.dataloader), sharp=t > 0)
        trainable = sum(p.numel() for p in method.parameters() if p.requires_grad)
        session, steps = runner.scenario.sessions[t], len(self.dataloader)
        runner.log([log_lines.session_start(session, self.counts, self.max_epochs, steps, trainable)])
        if resumed:
            self.take_up(resumed)
        else:
            self._epoch, self._iter = 0, 0
            self.dataloader.sampler.set_epoch(0)
            method.prepare_session(self.dataloader)
            self.audit = audit_pseudo_labels(method, runner.scenario.train)
            run_files.save_made_images(runner, t)
            if method.costly_preparation and t > 0:  # an inversion is not repeated by a resume
                runner.save_resume_state(0, time.monotonic() - self._started)
        runner.log(log_lines.report(self.session_report()))

        runner.call_hook("before_train")
        runner.model.train()
        if resumed and self._epoch and not resumed["iteration"]:
            self.validate()  # the state was saved before it
        while self._epoch < self.max_epochs and not self.stop_training:
            with self.deferring():
                self.run_epoch(resumed)
                resumed = None
                self.pause(0)
            self.validate()
        # a method's last part may pass over the images once more: those of the last epoch, resumed or not
        self.dataloader.sampler.set_epoch(max(self._epoch - 1, 0))

    def take_up(self, resumed: dict[str, Any]) -> None:
        """Stand where the state was saved; the session, or its fine-tuning, has begun and has its optimiser."""
        self._epoch = resumed["epoch"]
        self._iter = resumed["epoch"] * len(self.dataloader) + resumed["iteration"]
        resume.restore(self._runner, resumed, self._iter)

    def validate(self) -> None:
        """Metrics inside a session, every ``val_interval`` epochs."""
        if self.val_interval and self._epoch % self.val_interval == 0 and self._epoch < self.max_epochs:
            self._runner.log_metrics(self.evaluate(), final=False)

    def run_epoch(self, resumed: dict[str, Any] | None = None) -> None:
        """One pass over the training images, or what is left of it.

        Args:
            resumed: a state that was saved inside this epoch, or at its beginning.
        """
        runner = self._runner
        index = resumed["iteration"] if resumed else 0
        runner.call_hook("before_train_epoch")  # mmengine's own hook sets the sampler's epoch too
        self.dataloader.sampler.set_epoch(self._epoch, index * self.loader_options["batch_size"])
        if runner.method.begin_epoch(self._epoch, self.max_epochs):
            runner.unwrap()
            runner.wrap()
        runner.model.train()
        batches = iter(self.dataloader)
        batch = self.next_batch(batches, index)
        if resumed and index:
            resume.restore_draws(runner, resumed)  # the epoch's beginning and the loader's drew when they ran first
        while batch is not None:
            runner.call_hook("before_train_iter", batch_idx=index, data_batch=batch)
            outputs = self.step(batch)
            runner.check_finite(outputs, batch, index)
            runner.call_hook("after_train_iter", batch_idx=index, data_batch=batch, outputs=outputs)
            self._iter += 1
            index += 1
            if index < len(self.dataloader):
                self.pause(index)
            batch = self.next_batch(batches, index)
        self.dataloader.sampler.set_epoch(self._epoch)
        runner.call_hook("after_train_epoch")
        self._epoch += 1

    def step(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Forward, backward and step on one batch."""
        runner = self._runner
        wrapper = runner.optim_wrapper
        buffers = [buffer.clone() for buffer in runner.method.buffers()] if wrapper.guarded else []
        outputs: dict[str, torch.Tensor] = {}
        for _ in range(wrapper.passes):  # 2 with a sharpness-aware wrapper
            outputs = runner.model.train_step(batch, optim_wrapper=wrapper)
        if wrapper.guarded and not torch.isfinite(outputs["loss"]).all():
            for buffer, before in zip(runner.method.buffers(), buffers, strict=True):
                buffer.copy_(before)  # batch norms have seen what made the loss no number
        return outputs

    # -- saving and stopping -----------------------------------------------------------------------------

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """In here a signal waits for :meth:`pause`."""
        signals = self._runner.signals
        signals.deferred = True
        try:
            yield
        finally:
            signals.deferred = False

    def pause(self, iteration: int) -> None:
        """Between two steps: save when it is time, and stop when a signal asked for it.

        Args:
            iteration: finished iterations of the running epoch; 0 between two epochs.
        """
        runner = self._runner
        number = runner.signals.received or 0
        due = runner.saving.due(self._iter) if iteration else runner.saving.due_between()
        if runner.world_size > 1:  # the first process decides when, any process that was asked stops all
            flags = torch.tensor([number, int(due and is_main_process())])
            all_reduce(flags, "max")
            number, due = flags.tolist()
        if due or number:
            runner.save_resume_state(self._epoch, time.monotonic() - self._started, iteration)
        if number:
            raise StoppedError(number, self.where(number, iteration))

    def where(self, number: int, iteration: int) -> str:
        """The sentence of a run that a signal stopped."""
        part = "fine-tuning, epoch" if self.phase else "epoch"
        place = f"{part} {self._epoch + 1}, iteration {iteration}" if iteration else f"after {part} {self._epoch}"
        return (
            f"stopped by {signal.Signals(number).name} in session {self.session}, {place}; everything is saved, so go "
            "on with the same command and --resume"
        )

    def next_batch(self, batches: Iterator[Any], iteration: int) -> dict[str, Any] | None:
        """The next batch of an epoch, or ``None`` behind the last one.

        Raises:
            UserError: a worker process was killed; what was trained so far is saved.
        """
        try:
            return next(batches, None)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            runner = self._runner
            saved = runner.world_size == 1 and 0 < iteration < len(self.dataloader)
            if saved:
                runner.save_resume_state(self._epoch, time.monotonic() - self._started, iteration)
            if runner.signals.received and saved:  # a signal to the whole group reaches the workers too
                raise StoppedError(runner.signals.received, self.where(runner.signals.received, iteration)) from None
            raise UserError(worker_killed(str(error))) from error

    # -- parts of a session ------------------------------------------------------------------------------

    def finish_session(self, resumed: dict[str, Any] | None) -> None:
        """The method's last part, on what its ``second_stage`` asks for, and the update of the memory.

        Balanced fine-tuning is the second stage that the engine runs itself, after the method's own.

        Args:
            resumed: a state that was saved in the fine-tuning, when all before it is done.
        """
        runner, method, images, t = self._runner, self._runner.method, self.images, self.session
        if resumed is None:
            if method.second_stage == "memory":
                self.memory_counts = update_memory(runner, images, t)
                view = images.augmented_view(*images.exemplars(t))
                method.finish_session(images.second_loader(view, t))
                return
            if method.second_stage == "held_out":
                method.finish_session(images.second_loader(images.held_out, t))
            else:
                method.finish_session(self.dataloader)
            self.memory_counts = update_memory(runner, images, t)
        self.fine_tune(resumed)

    def fine_tune(self, resumed: dict[str, Any] | None = None) -> None:
        """Balanced fine-tuning on the memory, where the method has such a phase.

        Without ``shuffle`` the images come in the memory's order, sorted by class, and what is left behind the
        last whole batch is not used (DKT and DAFormer official behaviour; the newest classes stand last).
        """
        runner, method, memory = self._runner, self._runner.method, self._runner.memory
        phase = method.finetuning
        if phase is None or (self.session == 0 and not runner.scenario.joint):
            return
        if memory is None or not len(memory):
            runner.log(["fine-tuning: skipped, because there are no exemplars (the config's memory)"])
            return
        rows, targets, origins = self.images.exemplars(self.session)
        images = runner.images_per_step
        used = len(rows) if phase.shuffle or len(rows) <= images else len(rows) // images * images
        view = self.images.augmented_view(rows[:used], targets[:used], origins[:used])
        self.dataloader = self.images.second_loader(view, self.session, phase.shuffle)
        self._phase_epochs, self._epoch, self._iter = phase.epochs_of(self.session), 0, 0
        runner.unwrap()
        method.begin_finetuning()
        runner.wrap()
        lr = phase.lr * images / phase.base_batch_size
        runner.build_session_optimizer(lr, self._phase_epochs, len(self.dataloader), sharp=False, constant=True)
        runner.log([f"fine-tuning: {used} exemplars, {self._phase_epochs} epoch(s), learning rate {lr:.2e}"])
        if resumed:
            self.take_up(resumed)
        runner.call_hook("before_train")  # mmengine's timer counts from here
        while self._epoch < self._phase_epochs:
            with self.deferring():
                self.run_epoch(resumed)
                resumed = None
                self.pause(0)
        self._phase_epochs = None

    def context(self, counts: dict[str, Any]) -> SessionContext:
        """What the method is told of the session."""
        runner = self._runner
        scenario = runner.scenario
        session = scenario.sessions[self.session]
        return SessionContext(
            index=self.session,
            low=session.low,
            high=session.high,
            step=scenario.increment,
            num_classes=len(scenario.classes),
            label_cardinality=runner.label_cardinality,
            labels_per_image=counts["labels_per_image"],
            batch_size=self.loader_options["batch_size"],
            task=scenario.task,
            firsts=scenario.first_labelled(self.session),
        )

    def session_report(self) -> dict[str, Any]:
        """What the method tells of the session, its pseudo-labels with what they should have been."""
        report = dict(self._runner.method.session_report())
        if self.audit:
            report["dpl"] = {**report.get("dpl", {}), **self.audit}
        return report

    def evaluate(self) -> dict[str, Any]:
        """Predict every needed test image once and compute all metrics from that score matrix."""
        runner = self._runner
        scenario = runner.scenario
        session = scenario.sessions[self.session]
        rows = test_rows(scenario, session)
        if self._test_loader is None or not np.array_equal(rows, self._test_loader.dataset.rows):
            self._test_loader = self.images.plain_loader(self.images.plain_view(scenario.test, rows))
        started = time.monotonic()
        logits, _ = predict_view(runner.method, self._test_loader, runner.test_dtype, runner.fold)
        unreadable = self._test_loader.unreadable
        readable = ~np.isin(rows, list(unreadable))
        self.scores = (rows[readable], logits[readable])
        result = session_metrics(scenario, session, rows, logits, unreadable, **runner.metric_options)
        for part in all_gather_object(runner.bad_images.state_dict()):
            runner.bad_images.merge(part)
        if len(runner.bad_images):
            result["unreadable_images"] = len(runner.bad_images)
            runner.log([log_lines.skipped(runner.bad_images.found)])
        result["evaluation_seconds"] = round(time.monotonic() - started, 1)
        barrier()
        return result


def worker_killed(text: str) -> str:
    """The sentence for a loader whose worker process is gone."""
    return (
        f"a process that reads images was killed ({' '.join(text.split())[:160]}); mostly the machine ran out of "
        "memory, so lower train_dataloader.num_workers and test_dataloader.num_workers, and go on with --resume"
    )
