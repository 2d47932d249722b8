"""Which images a session trains on, replays and predicts, and the loaders that read them."""

from __future__ import annotations

import hashlib
import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from mmengine.dist import all_gather_object, broadcast_object_list, get_dist_info, get_world_size, is_main_process
from mmengine.logging import print_log

from mlcil.datasets.cache import with_cache
from mlcil.datasets.loading import ImageSource, Loader, Readers, SessionSampler, SessionView, find_unreadable
from mlcil.datasets.sampling import PairedSampler, RepeatedAugmentationSampler
from mlcil.datasets.table import ImageTable
from mlcil.datasets.tensor_augment import TensorAugment
from mlcil.engine.run import Run
from mlcil.engine.settings import TestLoader, TrainLoader
from mlcil.errors import UserError
from mlcil.phases import Images
from mlcil.reporting import log_lines


def log(line: str, level: int = 20) -> None:
    """A record in the run's log."""
    print_log(line, logger="current", level=level)


@dataclass(eq=False)
class SessionImages:
    """What a session trains on.

    Attributes:
        training: its new images and those of the memory.
        held_out: images that the method keeps from training, or ``None``.
        counts: ``images`` (new ones), ``labels_per_image`` of these, ``exemplars``.
    """

    training: SessionView
    held_out: SessionView | None = None
    counts: dict[str, Any] = field(default_factory=dict)


class Data:
    """Views of a run's images and their loaders; owns the worker processes, which all sessions share.

    Args:
        run: the run; its tables do not change from the first loader on.

    Attributes:
        unreadable: by split, rows whose image cannot be read and why; they are left out of the run.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.unreadable: dict[str, dict[int, str]] = {}
        if run.transform.on_device:
            run.method.data_preprocessor.augment = TensorAugment(run.transform)
        self._session: tuple[int, SessionImages, Loader] | None = None
        self._readers: dict[int, Readers] = {}  # by the number of processes

    def open(self, sessions: range | None) -> None:
        """Let the scenario's tables look into the image cache, and leave out what cannot be read, if that is asked for.

        A training transform that crops the whole image itself wants more than the cache keeps. A resumed run leaves
        out what it left out before.

        Args:
            sessions: that will be trained: their images are wanted too, and images that the cache lacks are decoded
                into it; ``None`` for a test.

        Raises:
            UserError: too few images can be read.
        """
        run, scenario, training = self.run, self.run.scenario, sessions is not None
        workers = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        if not run.train_loader.num_workers:
            workers = 0
        if training and not run.transform.whole:
            scenario.train = with_cache(scenario.train, run.image_size, run.cache, log, workers)
        scenario.test = with_cache(scenario.test, run.image_size, run.cache, log, workers, build=training)
        if run.settings.on_bad_image != "skip":
            return
        if not self.unreadable:
            found: list[Any] = [{}, {}]
            if is_main_process():
                found = [find_unreadable(scenario.train, workers) if training else {}]
                found.append(find_unreadable(scenario.test, workers))
            broadcast_object_list(found)
            self.unreadable = {"train": found[0], "test": found[1]}
            for line in log_lines.skipped(self.unreadable):
                log(line, logging.WARNING)
        scenario.leave_out(self.unreadable["train"], self.unreadable["test"])
        scenario.refuse_empty_sessions(sessions or ())

    def state_dict(self) -> dict[str, Any]:
        """What is left out."""
        return {split: dict(rows) for split, rows in self.unreadable.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take back what :meth:`state_dict` gave."""
        self.unreadable = {split: {int(row): str(why) for row, why in rows.items()} for split, rows in state.items()}

    def close(self) -> None:
        """End the worker processes."""
        for readers in self._readers.values():
            readers.close()

    # -- views -----------------------------------------------------------------------------------------

    def session(self, t: int) -> SessionImages:
        """The images of session ``t`` with the labels that may be seen, as the memory stands when first asked for.

        Raises:
            UserError: several processes hold different images; names their hashes.
        """
        if self._session is None or self._session[0] != t:
            images = self._collect(t)
            self._session = (t, images, self._training_loader(images.training, t))
            self._check_same(images.training, t)
        return self._session[1]

    def _collect(self, t: int) -> SessionImages:
        scenario, memory, method = self.run.scenario, self.run.memory, self.run.method
        session = scenario.sessions[t]
        rows = scenario.train_rows(t)
        targets = scenario.train_targets(rows, scenario.first_class(t), session.high)
        if memory is not None:
            trained = ~memory.set_aside(t, targets)
            rows, targets = rows[trained], targets[trained]
        origins = np.full(len(rows), t, np.int64)
        counts: dict[str, Any] = {
            "images": len(rows),
            "labels_per_image": float((targets == 1).sum() / max(len(rows), 1)),
            "exemplars": 0,
        }
        held_out = None
        if memory is not None:
            targets = memory.new_targets(rows, targets)
        if memory is not None and len(memory):
            memory.begin_session()
            old_rows, old_targets, old_origins = self.exemplars(t)
            again = memory.replayed(t, len(rows))
            kept_out = method.hold_out(targets, old_targets[again], session.low)
            parts = ((rows, old_rows), (targets, old_targets), (origins, old_origins))
            rows, targets, origins = (np.concatenate([new, old[again]]) for new, old in parts)
            counts["exemplars"] = len(again)
            if kept_out is not None:
                held_out = self.augmented_view(rows[kept_out], targets[kept_out], origins[kept_out])
                rows, targets, origins = rows[~kept_out], targets[~kept_out], origins[~kept_out]
        return SessionImages(self.augmented_view(rows, targets, origins), held_out, counts)

    def _check_same(self, view: SessionView, t: int) -> None:
        """All processes train on the same images with the same labels."""
        memory = self.run.memory
        kept = [] if memory is None else [part.tolist() for part in memory.contents()]
        digest = hashlib.sha256(repr(kept).encode())
        digest.update(np.ascontiguousarray(view.rows).tobytes() + np.ascontiguousarray(view.targets).tobytes())
        found = all_gather_object(digest.hexdigest()[:12])
        if len(set(found)) > 1:
            raise UserError(
                f"the processes hold different exemplars in session {t} (hashes {', '.join(found)}); "
                "expected the same in all, so check that they read the same data and start the run again"
            )
        if len(found) > 1:
            log(f"exemplars and images of the session: {found[0]} in all {len(found)} processes")

    def exemplars(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (M,) of the memory, the labels (M, C_seen) they show in session ``t``, and their sessions (M,)."""
        scenario, memory = self.run.scenario, self.run.memory
        assert memory is not None
        high = scenario.sessions[t].high
        rows, origins = memory.contents()
        if memory.propagates:
            return rows, memory.propagated_targets(rows, high), origins
        targets = np.zeros((len(rows), high), np.int8)
        for origin in np.unique(origins):
            low, above = scenario.exemplar_range(int(origin), t)
            picked = origins == origin
            targets[picked, :above] = scenario.train_targets(rows[picked], low, above)
        return rows, targets, origins

    def augmented_view(self, rows: np.ndarray, targets: np.ndarray, origins: np.ndarray) -> SessionView:
        """Training images under the run's augmentation."""
        run = self.run
        augment = run.transform if run.transform.steps else None
        table = run.scenario.train
        return SessionView(table, rows, targets, run.image_size, augment, origins)

    def plain_view(self, table: ImageTable, rows: np.ndarray) -> SessionView:
        """Images of a prediction pass."""
        return SessionView(table, rows, no_labels(rows), self.run.image_size)

    # -- loaders ---------------------------------------------------------------------------------------

    def loader(self, on: Images, t: int, shuffle: bool = True) -> Loader | None:
        """Share of this process in the images that a phase of session ``t`` asks for; ``None`` when there are none.

        Args:
            on: see :data:`mlcil.phases.Images`.
            t: the session.
            shuffle: false takes the memory's images in stored order, and of these whole updates only.
        """
        if on == "training":
            self.session(t)
            assert self._session is not None
            return self._session[2]
        if on == "clean":
            kept = self.session(t).training
            table, size = kept.source.table, self.run.image_size
            return self.plain_loader(SessionView(table, kept.rows, kept.targets, size, origins=kept.origins))
        view = self.session(t).held_out if on == "held_out" else self._stored_view(t, shuffle)
        if view is None or not len(view):
            return None
        rank, world_size = get_dist_info()
        draws = len(self.run.scenario.sessions) + t  # other ones than those of any session
        sampler = SessionSampler(len(view), self.run.settings.seed, draws, shuffle, rank, world_size)
        return self._loader(view, sampler, self.run.train_loader)

    def _stored_view(self, t: int, shuffle: bool) -> SessionView | None:
        if self.run.memory is None:
            return None
        rows, targets, origins = self.exemplars(t)
        update = self.run.images_per_step(get_world_size())
        used = len(rows) if shuffle or len(rows) <= update else len(rows) // update * update
        return self.augmented_view(rows[:used], targets[:used], origins[:used])

    def plain_loader(self, view: SessionView) -> Loader:
        """Unshuffled loader of this process's share, every image exactly once over all processes."""
        rank, world_size = get_dist_info()
        sampler = SessionSampler(len(view), 0, 0, shuffle=False, rank=rank, world_size=world_size)
        return self._loader(view, sampler, self.run.test_loader)

    def _training_loader(self, view: SessionView, t: int) -> Loader:
        run, (rank, world_size) = self.run, get_dist_info()
        seed, settings, views = run.settings.seed, run.train_loader, run.train.repeated_augmentation
        stored = np.flatnonzero(view.origins < t)
        sampler: SessionSampler
        if views > 1:
            images = settings.batch_size * run.optimiser.accumulative_counts  # whole updates
            sampler = RepeatedAugmentationSampler(len(view), seed, t, images, views, rank, world_size)
        elif run.memory is not None and run.memory.beside and len(stored):
            new = np.flatnonzero(view.origins == t)
            sampler = PairedSampler(new, stored, settings.batch_size, seed, t, rank, world_size)
            settings = replace(settings, batch_size=2 * settings.batch_size)
        else:
            sampler = SessionSampler(len(view), seed, t, True, rank, world_size)
        return self._loader(view, sampler, settings)

    def _loader(self, view: SessionView, sampler: SessionSampler, settings: TrainLoader | TestLoader) -> Loader:
        """A loader whose images are read by the run's worker processes; maps in memory need none."""
        number, run = settings.num_workers, self.run
        if view.source.kind == "maps":
            number = 0
        if number and number not in self._readers:
            scenario = run.scenario
            images = ((scenario.train, run.transform), (scenario.train, None), (scenario.test, None))
            sources = [ImageSource(table, run.image_size, augment) for table, augment in images]
            self._readers[number] = Readers(number, sources)
        readers = self._readers.get(number)
        drop_last = isinstance(settings, TrainLoader) and settings.drop_last
        return Loader(view, sampler, settings.batch_size, number, drop_last, readers)


def no_labels(rows: np.ndarray) -> np.ndarray:
    """Targets of a view that is only predicted."""
    return np.zeros((len(rows), 0), np.int8)
