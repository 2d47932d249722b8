"""The walk over sessions: one mmengine train loop that carries out the phases a method asks for."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.runner import BaseLoop, Runner

from mlcil.datasets.loading import Loader
from mlcil.engine.data import Data, log
from mlcil.engine.evaluate import Evaluator
from mlcil.engine.optim import build_optimiser, share_buffers
from mlcil.engine.resume import Learning, Part, Restorer
from mlcil.engine.run import Position, Progress, Run
from mlcil.engine.schedules import build_schedules
from mlcil.engine.update_memory import guess_old_labels, update_memory
from mlcil.errors import UserError
from mlcil.methods.base import SessionContext
from mlcil.models.sync_batch_norm import SynchronisedBatchNorm
from mlcil.phases import Batches, Fit, Invert, Phase, Train, UpdateMemory, chain_of
from mlcil.protocols import Session
from mlcil.reporting import log_lines
from mlcil.system.signals import StopSignals


class SessionLoop(BaseLoop):  # type: ignore[misc]
    """Sessions, in each the phases of the method, and in a training phase the epochs of ordinary mmengine training.

    Hooks are called at mmengine's points and at ``before_session(session)``, ``after_session(session, result)``,
    ``between_sessions()``, ``between_phases(at_once)``, ``between_steps(iteration, at_once)`` and ``after_sessions()``.

    Args:
        runner: for mmengine's hooks, and the wrapper around the method.
        run: what is trained.
        data: its images.
        evaluator: its metrics.
        signals: what asks the run to stop.
        restorer: a saved state to go on from.

    Attributes:
        position: where the run stands.
        progress: counts and time of the running session.
        phases: of the running session.
        learning: of the running training phase, else ``None``.
    """

    dataloader: Loader  # of the running training phase

    def __init__(
        self,
        runner: Runner,
        run: Run,
        data: Data,
        evaluator: Evaluator,
        signals: StopSignals,
        restorer: Restorer | None = None,
    ) -> None:
        super().__init__(runner, None)
        self.hooks = runner.call_hook
        self.run_settings, self.data, self.evaluator, self.signals = run, data, evaluator, signals
        self.method = run.method
        self.position, self.progress = Position(), Progress()
        self.phases: Sequence[Phase] = ()
        self.learning: Learning | None = None
        self.stop_training = False
        self._restorer = restorer
        self._parts: Mapping[str, Part] = {}

    # -- what mmengine's hooks ask for; all counted within the running training phase ------------------

    @property
    def max_epochs(self) -> int:
        """Epochs of the running training phase and of those that share its optimiser."""
        return sum(self._epochs(number) for number in chain_of(self.phases, self.position.phase))

    @property
    def max_iters(self) -> int:
        """Iterations of the same."""
        return self.max_epochs * len(self.dataloader)

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.position.epoch

    @property
    def iter(self) -> int:
        """Finished iterations."""
        return self.position.epoch * len(self.dataloader) + self.position.iteration

    # -- the walk --------------------------------------------------------------------------------------

    def restore(self, parts: Mapping[str, Part]) -> None:
        """Bring the run's parts to the saved state, if there is one."""
        self._parts = parts
        if self._restorer is not None:
            self._restorer.begin(parts)
            self.position = self._restorer.position
            if not self.position.inside:
                self._restorer = None
            log(f"resumed: {self.position}")

    def run(self) -> torch.nn.Module:
        """All sessions that are left; returns the trained method."""
        sessions = self.run_settings.scenario.sessions
        try:
            if self.position == Position():
                self.hooks("between_sessions")
            while self.position.session <= self.run_settings.last_session:
                self.run_session(sessions[self.position.session])
        finally:
            self.data.close()
        self.hooks("after_sessions")
        return self.method

    def run_session(self, session: Session) -> None:
        """One session, from its beginning or from where it was left."""
        self.hooks("before_session", session=session)
        self.begin_session(session)
        for number, phase in self.position.left(self.phases):
            self.run_phase(number, phase)
        result = self.evaluator(self.method, session)
        self.hooks("after_session", session=session, result=result)
        self.position = self.position.next_session()
        self.hooks("between_sessions")

    def begin_session(self, session: Session) -> None:
        """The method takes its teacher and grows; inside a session its weights follow."""
        resumed = self.position.inside
        self.position = self.position.begun()
        guess_old_labels(self.run_settings, self.data, session.index)
        if not resumed:
            self.progress.begin(self.data.session(session.index).counts)
        self.method.begin_session(self.context(session))
        assert self.method.context is not None
        self.phases = self.method.phases(self.method.context)
        if resumed and self._restorer is not None:
            self._restorer.weights(self._parts)

    def run_phase(self, number: int, phase: Phase) -> None:
        """Carry out one phase, or what is left of it."""
        if isinstance(phase, Train):
            self.train(number, phase)
        elif isinstance(phase, Fit):
            phase.function(self.fitting_images(number, phase))
        elif isinstance(phase, Invert):
            phase.function()
        elif isinstance(phase, UpdateMemory):
            session = self.position.session
            self.progress.memory_counts = update_memory(self.run_settings, self.data, session)
        share_buffers(self.method)
        self._restorer = None
        if chain_of(self.phases, number)[-1] == number:
            self.learning = None
        if number + 1 < len(self.phases):
            self.position = self.position.at(number + 1, self._epochs_before(number + 1))
            self.hooks("between_phases", at_once=isinstance(phase, Invert))

    def fitting_images(self, number: int, phase: Fit) -> Batches:
        """The images of a :class:`~mlcil.phases.Fit`, with the draws of the last epoch before it."""
        loader = self.data.loader(phase.on, self.position.session)
        if loader is None:
            return []
        if phase.on == "training":
            epochs = sum(self._epochs(k) for k in range(number) if _trains_on(self.phases[k], "training"))
            loader.sampler.set_epoch(max(epochs - 1, 0))
        return loader

    # -- training --------------------------------------------------------------------------------------

    def train(self, number: int, phase: Train) -> None:
        """Epochs of a phase, or what is left of them."""
        loader = self.data.loader(phase.on, self.position.session, phase.shuffle)
        if loader is None:
            log("fine-tuning: skipped, because there are no exemplars (the config's memory)")
            return
        self.dataloader = loader
        resumed = self.begin_training(number, phase)
        last = self._epochs_before(number) + self._epochs(number)
        self.hooks("before_train")
        if resumed is not None and self.position.epoch and not self.position.iteration:
            self.validate()  # the state was saved before it
        while self.position.epoch < last and not self.stop_training:
            with self.deferring():
                self.run_epoch(phase, resumed)
                resumed = None
                self.hooks("between_steps", iteration=0, at_once=False)
            self.validate()
        self.hooks("after_train")

    def begin_training(self, number: int, phase: Train) -> Restorer | None:
        """Choose what trains; optimiser and schedule, fresh ones or as they were saved.

        Returns:
            The saved state when the phase goes on inside.
        """
        chain = chain_of(self.phases, number)
        first = self.phases[chain[0]]
        assert isinstance(first, Train)
        if self.learning is None or not phase.goes_on:
            self._begin(first)
            self.learning = self.build_learning(first)
        if phase is not first:
            self._begin(phase)
        self._tell(phase, self.learning)
        self.runner.optim_wrapper, self.runner.param_schedulers = self.learning.optimiser, self.learning.schedules
        restorer = self._restorer
        if restorer is None or not restorer.learning(self.learning):
            return None
        return restorer

    def build_learning(self, phase: Train) -> Learning:
        """Fresh optimiser and schedule of a phase."""
        run, session, model = self.run_settings, self.position.session, self.runner.model
        if phase.lr is None:
            lr = run.train.base_lr if session == 0 else None
        else:
            images = run.images_per_step(get_world_size())
            lr = phase.lr * images / phase.lr_images if phase.lr_images else phase.lr
        constant = phase.lr is not None
        optimiser = build_optimiser(run, model, self.max_iters, get_world_size(), lr, constant, phase.rho)
        schedules = [] if constant else build_schedules(run, optimiser, self.max_epochs, len(self.dataloader))
        return Learning(self.method, optimiser, schedules)

    def _begin(self, phase: Train) -> None:
        if phase.begin is not None:
            phase.begin()
        self.runner.wrap()

    def _tell(self, phase: Train, learning: Learning) -> None:
        """The lines of a phase's beginning."""
        steps, epochs = len(self.dataloader), self.max_epochs
        if phase.on == "memory":
            images = len(self.dataloader.dataset)
            rate = learning.optimiser.param_groups[0]["lr"]
            log(f"fine-tuning: {images} exemplars, {epochs} epoch(s), learning rate {rate:.2e}")
        elif not phase.goes_on:
            session = self.run_settings.scenario.sessions[self.position.session]
            trainable = sum(p.numel() for p in self.method.parameters() if p.requires_grad)
            log(log_lines.session_start(session, self.progress.counts, epochs, steps, trainable))

    def run_epoch(self, phase: Train, resumed: Restorer | None) -> None:
        """One pass over the training images, or what is left of it.

        Args:
            phase: the running one.
            resumed: a state that was saved inside this epoch, or at its beginning.
        """
        epoch, index = self.position.epoch, self.position.iteration
        self.hooks("before_train_epoch")
        self.dataloader.sampler.set_epoch(epoch, index * self.dataloader.batch_size)
        self.method.begin_epoch()
        self.runner.model.train()
        batches = iter(self.dataloader)
        batch = self.next_batch(batches)
        if resumed is not None and index:
            resumed.draws()  # the epoch's beginning and the loader's drew when they ran first
        while batch is not None:
            self.hooks("before_train_iter", batch_idx=index, data_batch=batch)
            if phase.change is not None:
                batch = self.method.data_preprocessor(batch, True)
                phase.change(batch, self.key(index))
            outputs = self.step(batch)
            self.hooks("after_train_iter", batch_idx=index, data_batch=batch, outputs=outputs)
            index += 1
            self.position = self.position.at(self.position.phase, epoch, index)
            if index < len(self.dataloader):
                self.hooks("between_steps", iteration=index, at_once=False)
            batch = self.next_batch(batches)
        self.dataloader.sampler.set_epoch(epoch)
        self.hooks("after_train_epoch")
        self.position = self.position.at(self.position.phase, epoch + 1)
        share_buffers(self.method)

    def key(self, index: int) -> tuple[int, ...]:
        """Of the random draws on a whole batch of this process."""
        place = self.position
        on_memory = int(_trains_on(self.phases[place.phase], "memory"))
        return (self.run_settings.settings.seed, place.session, on_memory, place.epoch, index, get_rank())

    def step(self, batch: dict[str, Any]) -> dict[str, torch.Tensor]:
        """Forward, backward and step on one batch."""
        assert self.learning is not None
        wrapper = self.learning.optimiser
        buffers = [buffer.clone() for buffer in self.method.buffers()] if wrapper.guarded else []
        outputs: dict[str, torch.Tensor] = {}
        together = self.run_settings.settings.sync_batch_norm and get_world_size() > 1
        with SynchronisedBatchNorm() if together else nullcontext():
            for _ in range(wrapper.passes):  # 2 with a sharpness-aware wrapper
                outputs = self.runner.model.train_step(batch, optim_wrapper=wrapper)
                if wrapper.refused:
                    break
        if wrapper.refused:
            for buffer, before in zip(self.method.buffers(), buffers, strict=True):
                buffer.copy_(before)  # batch norms have seen what made the loss no number
        return outputs

    def validate(self) -> None:
        """Metrics inside a session, every ``val_interval`` epochs of its training."""
        interval, place = self.run_settings.train.val_interval, self.position
        if not interval or place.epoch % interval or place.epoch >= self.max_epochs:
            return
        if _trains_on(self.phases[place.phase], "training"):
            result = self.evaluator(self.method, self.run_settings.scenario.sessions[place.session])
            for line in log_lines.metrics(result.metrics, f"epoch {place.epoch}"):
                log(line)

    # -- parts -----------------------------------------------------------------------------------------

    @contextmanager
    def deferring(self) -> Iterator[None]:
        """In here a signal waits for the next ``between_steps``."""
        self.signals.deferred = True
        try:
            yield
        finally:
            self.signals.deferred = False

    def next_batch(self, batches: Iterator[Any]) -> dict[str, Any] | None:
        """The next batch of an epoch, or ``None`` behind the last one.

        Raises:
            UserError: a worker process was killed; what was trained so far is saved.
        """
        try:
            return next(batches, None)
        except RuntimeError as error:
            if "DataLoader worker" not in str(error):
                raise
            if get_world_size() == 1 and 0 < self.position.iteration < len(self.dataloader):
                self.hooks("between_steps", iteration=self.position.iteration, at_once=True)
            raise UserError(worker_killed(str(error))) from error

    def context(self, session: Session) -> SessionContext:
        """What the method is told of the session."""
        run, scenario = self.run_settings, self.run_settings.scenario
        return SessionContext(
            index=session.index,
            low=session.low,
            high=session.high,
            step=scenario.increment,
            num_classes=len(scenario.classes),
            label_cardinality=scenario.label_cardinality,
            labels_per_image=self.progress.counts["labels_per_image"],
            batch_size=run.train_loader.batch_size,
            epochs=run.train.epochs(session.index),
            joint=scenario.joint,
            task=scenario.task,
            firsts=scenario.first_labelled(session.index),
        )

    def _epochs(self, number: int) -> int:
        phase = self.phases[number]
        if not isinstance(phase, Train):
            return 0
        return self.run_settings.train.epochs(self.position.session) if phase.epochs is None else phase.epochs

    def _epochs_before(self, number: int) -> int:
        """Epochs of the phases whose optimiser phase ``number`` goes on with."""
        return sum(self._epochs(k) for k in chain_of(self.phases, number) if k < number)


def _trains_on(phase: Phase, images: str) -> bool:
    return isinstance(phase, Train) and phase.on == images


def loop_of(runner: Runner) -> SessionLoop:
    """The running loop."""
    loop = runner.train_loop
    assert isinstance(loop, SessionLoop)
    return loop


def worker_killed(text: str) -> str:
    """The sentence for a loader whose worker process is gone."""
    return (
        f"a process that reads images was killed ({' '.join(text.split())[:160]}); mostly the machine ran out of "
        "memory, so lower train_dataloader.num_workers and test_dataloader.num_workers, and go on with --resume"
    )
