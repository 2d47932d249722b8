"""Which images a session trains on, replays and predicts, and the loaders that read them."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np
from mmengine.dist import all_gather_object, get_dist_info

from mlcil.datasets.loading import ImageSource, Loader, Readers, SessionSampler, SessionView
from mlcil.datasets.tensor_augment import TensorAugment
from mlcil.datasets.transforms import TrainTransform
from mlcil.engine.sampling import RepeatedAugmentationSampler
from mlcil.errors import UserError
from mlcil.memory.coreset import hold_out

if TYPE_CHECKING:
    from mlcil.datasets.table import ImageTable
    from mlcil.engine.runner import IncrementalRunner


class SessionImages:
    """Views of a run's images and their loaders; owns the worker processes, which all sessions share.

    Args:
        runner: the run; its tables do not change from the first loader on.
        options: of the training loader: ``batch_size`` per process, ``num_workers``, ``drop_last``.
        repeated_augmentation: views of an image in a batch.

    Attributes:
        held_out: images of the running session that are kept from training for the method's second stage.
    """

    def __init__(self, runner: IncrementalRunner, options: dict[str, Any], repeated_augmentation: int = 1) -> None:
        self._runner = runner
        self.options, self.repeated_augmentation = options, repeated_augmentation
        self.transform = TrainTransform(runner.image_size, **runner.train_transform)
        if self.transform.on_device:
            runner.method.data_preprocessor.augment = TensorAugment(self.transform)
        self.held_out: SessionView | None = None
        self._readers: dict[int, Readers] = {}  # by the number of processes

    def close(self) -> None:
        """End the worker processes."""
        for readers in self._readers.values():
            readers.close()

    # -- views -----------------------------------------------------------------------------------------

    def train_view(self, t: int) -> tuple[SessionView, dict[str, Any]]:
        """New images of session ``t`` and the memory's images, with the labels that may be seen, and their counts."""
        runner = self._runner
        scenario, memory = runner.scenario, runner.memory
        session = scenario.sessions[t]
        rows = scenario.train_rows(t)
        targets = scenario.train_targets(rows, scenario.first_class(t), session.high)
        sessions = np.full(len(rows), t, np.int64)
        counts: dict[str, Any] = {
            "images": len(rows),
            "labels_per_image": float((targets == 1).sum() / max(len(rows), 1)),
            "exemplars": 0,
        }
        self.held_out = None
        if memory is not None and len(memory):
            memory.begin_session()
            old_rows, old_targets, origins = self.exemplars(t)
            again = memory.replayed(t, len(rows))
            parts = ((rows, old_rows), (targets, old_targets), (sessions, origins))
            everything = [np.concatenate([new, old[again]]) for new, old in parts]
            kept = np.ones(len(everything[0]), bool)
            if runner.method.second_stage == "held_out":
                masks = hold_out(targets.argmax(1), old_targets[again].argmax(1), session.low)
                kept = ~np.concatenate(masks)
                self.held_out = self.augmented_view(*(part[~kept] for part in everything))
            rows, targets, sessions = (part[kept] for part in everything)
            counts["exemplars"] = len(again)
        return self.augmented_view(rows, targets, sessions), counts

    def check_same(self, view: SessionView, t: int) -> None:
        """All processes train on the same images with the same labels.

        Raises:
            UserError: they do not; names the sessions' hashes.
        """
        memory = self._runner.memory
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
            self._runner.log([f"exemplars and images of the session: {found[0]} in all {len(found)} processes"])

    def exemplars(self, t: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Rows (M,) of the memory, the labels (M, C_seen) they show in session ``t``, and their sessions (M,)."""
        scenario, memory = self._runner.scenario, self._runner.memory
        assert memory is not None
        high = scenario.sessions[t].high
        rows, origins = memory.contents()
        if memory.labels == "propagate":
            return rows, memory.propagated_targets(rows, high), origins
        targets = np.zeros((len(rows), high), np.int8)
        for origin in np.unique(origins):
            low, above = scenario.exemplar_range(int(origin), t)
            picked = origins == origin
            targets[picked, :above] = scenario.train_targets(rows[picked], low, above)
        return rows, targets, origins

    def augmented_view(self, rows: np.ndarray, targets: np.ndarray, origins: np.ndarray) -> SessionView:
        """Training images under the config's augmentation."""
        runner = self._runner
        augment = self.transform if self.transform.steps else None
        return SessionView(runner.scenario.train, rows, targets, runner.image_size, augment, origins)

    def plain_view(self, table: ImageTable, rows: np.ndarray) -> SessionView:
        """Images of a prediction pass."""
        return SessionView(table, rows, no_labels(rows), self._runner.image_size)

    # -- loaders ---------------------------------------------------------------------------------------

    def train_loader(self, view: SessionView, t: int) -> Loader:
        """Shuffled loader of this process's share."""
        rank, world_size = get_dist_info()
        seed = self._runner.seed
        sampler: SessionSampler
        if self.repeated_augmentation > 1:
            images = self.options["batch_size"] * self._runner.accumulated  # whole updates
            sampler = RepeatedAugmentationSampler(
                len(view), seed, t, images, self.repeated_augmentation, rank, world_size
            )
        else:
            sampler = SessionSampler(len(view), seed, t, True, rank, world_size)
        return self._loader(view, sampler, self.options)

    def second_loader(self, view: SessionView | None, t: int, shuffle: bool = True) -> Any:
        """Loader of this process's share, with other draws than those of any session; empty without images."""
        if view is None or not len(view):
            return []
        rank, world_size = get_dist_info()
        draws = len(self._runner.scenario.sessions) + t
        sampler = SessionSampler(len(view), self._runner.seed, draws, shuffle, rank, world_size)
        return self._loader(view, sampler, self.options)

    def plain_loader(self, view: SessionView) -> Loader:
        """Unshuffled loader of this process's share, every image exactly once over all processes."""
        rank, world_size = get_dist_info()
        sampler = SessionSampler(len(view), 0, 0, shuffle=False, rank=rank, world_size=world_size)
        return self._loader(view, sampler, self._runner.test_options)

    def _loader(self, view: SessionView, sampler: SessionSampler, options: dict[str, Any]) -> Loader:
        """A loader whose images are read by the run's worker processes; maps in memory need none."""
        if view.source.table.maps is not None and view.source.augment is None:
            options = {**options, "num_workers": 0}
        number, runner = options.get("num_workers", 0), self._runner
        if number and number not in self._readers:
            scenario = runner.scenario
            images = ((scenario.train, self.transform), (scenario.train, None), (scenario.test, None))
            sources = [ImageSource(table, runner.image_size, augment) for table, augment in images]
            self._readers[number] = Readers(number, sources)
        return Loader(view, sampler, **options, readers=self._readers.get(number))


def no_labels(rows: np.ndarray) -> np.ndarray:
    """Targets of a view that is only predicted."""
    return np.zeros((len(rows), 0), np.int8)
