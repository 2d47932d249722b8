"""Which images and which labels each session may see.

KRT official behaviour: an image belongs to every session that owns one of its classes, and shows the labels
of that session's classes only, those of earlier classes being unknown (-1); a replayed image shows ground truth for its
own and all later classes; test sets hold the images of the test split that show a class of the range. Where every image
shows exactly one class the same rules give each session the images of its classes and rows with a single 1.
N images, C classes of the scenario.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, replace
from typing import Any, Protocol

import numpy as np

from mlcil.datasets.table import ImageTable, SingleLabelTable
from mlcil.errors import UserError
from mlcil.images import SQUARE
from mlcil.protocols import (
    Session,
    check_option,
    order_classes,
    protocol_hash,
    protocol_name,
    sessions_of,
    split_evenly,
    split_sessions,
)

TASKS = ("multi_label", "single_label")
#: what labels a replayed image carries, see :class:`mlcil.memory.Memory`; the latter two are :data:`PROPAGATED`
REPLAY_LABELS = ("oracle", "frozen", "propagate", "rclp")
PROPAGATED = ("propagate", "rclp")


class Dataset(Protocol):
    """What a scenario needs of a data set.

    It may have a ``task``, else it is ``multi_label``, and a ``label_cardinality``: the labels an image shows on
    average over all classes, else ``None``.
    """

    @property
    def name(self) -> str:
        """For logs and hashes."""

    def train(self) -> ImageTable:
        """The training split."""

    def test(self) -> ImageTable:
        """The test split; the same classes."""


class Scenario:
    """A data set, a class order and a protocol.

    Args:
        dataset: has ``name``, ``train()`` and ``test()``, see :class:`Dataset`.
        base: classes of session 0; 0 means ``increment``.
        increment: classes of every later session; or else ``num_sessions`` or ``sizes``.
        class_order: see :func:`mlcil.protocols.order_classes`.
        joint: train on all classes in a single session (the upper bound); ``base_high`` stays the base of
            the protocol, so that base metrics compare.
        fixed_test_images: images of the fixed test set, the same in every session: ``all`` of the test
            split, or ``shown``, those that some class selects (multi-label only).
        replay_labels: labels of a replayed image: ``oracle`` (KRT official behaviour: ground truth for its
            own session's classes and all later ones), ``frozen`` (its own session's classes only), ``propagate``
            (what the networks of other sessions said of it; the memory keeps them) or ``rclp`` (new images too).
        name: for logs; ``None`` takes the data set's name.
        allow_empty_classes: accept classes that no training image shows.
        num_sessions: how many sessions the classes are divided into, see :func:`mlcil.protocols.split_evenly`.
        cumulative: every session trains on the images of all classes so far (the upper bound session by session).
        max_sessions: only the first sessions are run; the scenario keeps all classes (ABD's ImageNet-50).
        validation: share of the training images that no session trains on and that stand in for the test split, which
            is not read then: for choosing settings. The same images for all seeds and methods.
        sizes: classes of every session, where they follow no rule.
        disjoint: an image belongs to one session only (as in Split-VOC and Split-COCO), see :func:`in_one_session`;
            else to every session that owns one of its classes (KRT official behaviour).

    Attributes:
        task: ``multi_label``, or ``single_label`` when every image shows exactly one class; the data set's. It
            chooses the metrics.
        classes: C names in class order.
        sessions: the sessions that are run; a single one with ``joint``.
        base_high: number of base classes.
        increment: classes of every later session.
        train, test: tables with columns in class order.
        protocol: ``B0-C10``, with ``joint-`` before it for joint training and ``-validation`` behind it without the
            test images.
        hash: 12 hexadecimal digits; equal for equal data, order, protocol and options.
        comparison_hash: the same without ``joint``, ``cumulative`` and ``replay_labels``, which differ between
            methods; runs with equal ones may stand in one table.
        data_hash: the same without the class order too; a table may average over runs with equal ones.
        label_cardinality: the data set's, or ``None``.

    Raises:
        UserError: the protocol does not fit the classes, an option is unknown, the data set lacks a part, the splits
            have different classes, a split has no image, or a class has no training image.
    """

    def __init__(
        self,
        dataset: Dataset,
        base: int = 0,
        increment: int | None = None,
        class_order: str | Sequence[str] | Sequence[int] = "as_given",
        joint: bool = False,
        fixed_test_images: str = "all",
        replay_labels: str = "oracle",
        name: str | None = None,
        allow_empty_classes: bool = False,
        num_sessions: int | None = None,
        cumulative: bool = False,
        max_sessions: int | None = None,
        validation: float = 0.0,
        sizes: Sequence[int] | None = None,
        disjoint: bool = False,
    ) -> None:
        if (increment, num_sessions, sizes).count(None) != 2:
            raise UserError(
                "scenario needs exactly one of increment, the classes of a session, and num_sessions; set "
                "scenario.increment=10 or scenario.num_sessions=10"
            )
        if joint and cumulative:
            raise UserError("scenario.joint and scenario.cumulative are both set; choose one kind of upper bound")
        check_option("fixed_test_images", fixed_test_images, ("all", "shown"))
        check_option("replay_labels", replay_labels, REPLAY_LABELS)
        if isinstance(validation, bool) or not isinstance(validation, (int, float)) or not 0 <= validation < 1:
            raise UserError(f"scenario.validation is {validation!r}; expected a share of the training images below 1")
        self.task = check_dataset(dataset)
        train = _table(dataset, "train")
        if validation:
            train, test = train.divided(validation)
        else:
            test = _table(dataset, "test")
        self.name = dataset.name if name is None else name
        for split, table in (("training", train), ("test", test)):
            if not len(table):
                raise UserError(
                    f"{self.name}: the {split} split has no image; expected at least one, so choose another split"
                )
        if set(train.classes) != set(test.classes):
            odd = sorted(set(train.classes) ^ set(test.classes))[0]
            raise UserError(
                f"{self.name}: the class {odd!r} is in only one of the training and test splits; expected the same "
                "classes in both, so use matching annotation files"
            )
        self.classes = order_classes(train.classes, class_order)
        if num_sessions is not None:
            base, increment = split_evenly(len(self.classes), num_sessions, base)
        if sizes is not None:
            sessions = sessions_of(self.classes, sizes)
            base, increment = sizes[0], sizes[-1]
        else:
            assert increment is not None
            sessions = split_sessions(self.classes, base, increment)
        self.base_high, self.increment, self.joint = sessions[0].high, increment, joint
        if max_sessions is not None:
            if isinstance(max_sessions, bool) or not isinstance(max_sessions, int) or max_sessions < 1:
                raise UserError(f"scenario.max_sessions is {max_sessions!r}; expected a whole number of at least 1")
            sessions = sessions[:max_sessions]
        high = sessions[-1].high
        self.sessions = (Session(0, 0, high, self.classes[:high]),) if joint else sessions
        self.cumulative = cumulative
        kind = "joint-" if joint else "cumulative-" if cumulative else ""
        lots = protocol_name(base, increment) if sizes is None else "+".join(map(str, sizes))
        self.protocol = kind + lots + ("-disjoint" if disjoint else "") + ("-validation" if validation else "")
        self.train, self.test = train.reorder(self.classes), test.reorder(self.classes)
        if disjoint:
            self.train = in_one_session(self.train, sessions)
        self.fixed_test_images, self.replay_labels = fixed_test_images, replay_labels
        self.label_cardinality: float | None = getattr(dataset, "label_cardinality", None)
        self.allow_empty_classes = allow_empty_classes
        self._refuse_empty_classes()
        compared = {
            "dataset": dataset.name,
            "classes": list(self.classes),
            "base": self.base_high,
            "increment": increment,
            "crowd": getattr(dataset, "crowd", None),
            "difficult": getattr(dataset, "difficult", None),
            "fixed_test_images": fixed_test_images,
            "train": {"rows": len(self.train), "sha256": self.train.digest()},
            "test": {"rows": len(self.test), "sha256": self.test.digest()},
            **({"fit": asdict(self.test.fit)} if self.test.fit != SQUARE else {}),
            **({"max_sessions": max_sessions} if max_sessions is not None else {}),
            **({"validation": validation} if validation else {}),
            **({"sizes": list(sizes)} if sizes is not None else {}),
            **({"disjoint": True} if disjoint else {}),
        }
        kind_of = {"cumulative": True} if cumulative else {}
        self.comparison_hash = protocol_hash(compared)
        names = sorted(self.classes)
        tables = {split: table.reorder(names).digest() for split, table in (("train", train), ("test", test))}
        self.data_hash = protocol_hash({**compared, "classes": names, **tables})
        self.hash = protocol_hash({**compared, "joint": joint, "replay_labels": replay_labels, **kind_of})

    def leave_out(self, train: Collection[int], test: Collection[int]) -> None:
        """Go on without images that cannot be read; rows keep their numbers, and hashes what they say of the data.

        Args:
            train, test: rows of the tables.

        Raises:
            UserError: a class loses its last training image, or the test split its last one.
        """
        self.train, self.test = self.train.without(train), self.test.without(test)
        if not len(self.test.readable_rows()):
            raise UserError(
                f"{self.name}: none of the {len(self.test)} images of the test split {self.test.name!r} can be read; "
                "expected at least one, so replace the files"
            )
        self._refuse_empty_classes()

    def _refuse_empty_classes(self) -> None:
        shown_C = self.train.selected()
        empty = [name for column, name in enumerate(self.classes) if not shown_C[column]]
        if empty and not self.allow_empty_classes:
            more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
            raise UserError(
                f"{self.name}: no image of the training split {self.train.name!r} shows "
                f"{', '.join(map(repr, empty[:3]))}"
                f"{more}; expected at least one image a class, so remove the class from the data set's classes, add "
                "images, or set scenario.allow_empty_classes=True"
            )

    def refuse_empty_sessions(self, numbers: Iterable[int]) -> None:
        """Refuse to train those of the sessions that have no image.

        Raises:
            UserError: names the first one and its classes.
        """
        for t in numbers:
            session = self.sessions[t]
            if not len(self.train_rows(t)):
                more = ", ..." if len(session.classes) > 3 else ""
                raise UserError(
                    f"{self.name}: session {t} ({', '.join(session.classes[:3])}{more}) "
                    f"has no image in the training split {self.train.name!r}; expected at least one a session, so add "
                    "images, or change the protocol or scenario.class_order so that its classes come beside others"
                )

    # -- training ------------------------------------------------------------------------------------------

    def train_rows(self, t: int) -> np.ndarray:
        """Rows of session ``t``'s images in ``train``: int64, table order, each once.

        KRT official behaviour: every image that a class of the session selects, also when an earlier session
        had it.
        """
        return self.train.rows_of(self.first_class(t), self.sessions[t].high)

    def first_class(self, t: int) -> int:
        """First class that session ``t`` is trained on: its own first one, or 0 with ``cumulative``."""
        return 0 if self.cumulative else self.sessions[t].low

    def first_labelled(self, t: int) -> tuple[int, ...]:
        """First class that images come with labels of in session ``t``, by the session they were stored in.

        The last one is that of new images. A replayed image with labels of :data:`PROPAGATED` comes with those of all
        old classes.
        """
        replayed = (0 if self.replay_labels in PROPAGATED else session.low for session in self.sessions[:t])
        return (*replayed, self.first_class(t))

    def train_targets(self, rows: np.ndarray, low: int | np.ndarray, high: int) -> np.ndarray:
        """Targets of training rows when the classes [low, high) may be seen.

        Args:
            rows: (R,) rows of ``train``.
            low: first class that may be seen; one number or one a row, (R,).
            high: one past the last.

        Returns:
            (R, high) int8; 1 given label, 0 absent, -1 unknown (below ``low``: nobody gives the label) or not judged.
        """
        targets = self.train.labels_of(rows, high)
        hidden = np.arange(high)[None, :] < np.broadcast_to(np.asarray(low), (len(rows),))[:, None]
        targets[hidden] = -1
        return targets

    def exemplar_range(self, origin_session: int, t: int) -> tuple[int, int]:
        """Classes [low, high) whose labels an exemplar shows in session ``t``.

        Args:
            origin_session: index of the session the image was stored in, at most ``t``.
            t: index of the session that replays it.
        """
        origin = self.sessions[origin_session]
        assert origin_session <= t
        return origin.low, (self.sessions[t].high if self.replay_labels == "oracle" else origin.high)

    # -- testing -------------------------------------------------------------------------------------------

    def test_rows(self, low: int, high: int) -> np.ndarray:
        """Rows of ``test`` that a class of [low, high) selects: int64, table order.

        KRT official behaviour: base is [0, base), seen [0, high) and new [low, high) of the session.
        """
        return self.test.rows_of(low, high)

    def fixed_test_rows(self) -> np.ndarray:
        """Rows of the fixed test set: int64, table order."""
        if self.fixed_test_images == "all":
            return self.test.readable_rows()
        return self.test.rows_of(0, len(self.classes))

    # -- plan ----------------------------------------------------------------------------------------------

    def plan(
        self, batch_size: int | None = None, epochs: Sequence[int] | None = None, drop_last: bool = False
    ) -> dict[str, Any]:
        """What each session holds, without exemplars; builtins only.

        Args:
            batch_size: images a step, for ``steps``.
            epochs: of every session, for ``steps``.
            drop_last: a last, smaller batch is left out, as :func:`mlcil.datasets.loading.Loader` does.

        Returns:
            ``name``, ``task``, ``protocol``, ``hash``, ``num_classes``; ``sessions``, see below;
            ``training_images`` used by any session and ``unused_training_images``;
            ``exposures_per_image``, sessions an image of the former is in, on average;
            ``fixed_test_images``, how many; ``test_positives_minimum``, the ``class`` with the fewest
            positives in the test split and their number ``positives``; ``classes_without_train_positives``
            and ``classes_without_test_positives``, names.

            A session is ``index``, ``low``, ``high``, ``classes`` (names), ``images``, ``labels_given``
            (positives of its own classes), ``labels_hidden`` (positives of other classes on its images) =
            ``hidden_old`` + ``hidden_future``, ``unknown`` (labels of classes seen so far that nobody gave, present or
            absent), ``images_seen_before`` (an earlier session had them) with
            ``share_seen_before`` in [0, 1], ``test_images`` as ``base``, ``seen``, ``new``, ``fixed``, and
            ``steps`` (all epochs; ``None`` without ``batch_size`` and ``epochs``).
        """
        exposures_N = np.zeros(len(self.train), np.int64)
        rows_of_sessions = []
        for session in self.sessions:
            rows = self.train_rows(session.index)
            before = int((exposures_N[rows] > 0).sum())
            exposures_N[rows] += 1
            length = (batch_size, epochs[session.index] if epochs else None, drop_last)
            rows_of_sessions.append(self._plan_session(session, rows, before, length))
        train_positives, test_positives = self.train.positives(), self.test.positives()
        rarest = int(test_positives.argmin())
        used = int((exposures_N > 0).sum())
        return {
            "name": self.name,
            "task": self.task,
            "protocol": self.protocol,
            "hash": self.hash,
            "num_classes": len(self.classes),
            "sessions": rows_of_sessions,
            "training_images": used,
            "unused_training_images": len(self.train) - used,
            "exposures_per_image": float(exposures_N.sum() / max(used, 1)),
            "fixed_test_images": len(self.fixed_test_rows()),
            "test_positives_minimum": {"class": self.classes[rarest], "positives": int(test_positives[rarest])},
            "classes_without_train_positives": [self.classes[c] for c in np.flatnonzero(train_positives == 0)],
            "classes_without_test_positives": [self.classes[c] for c in np.flatnonzero(test_positives == 0)],
        }

    def _plan_session(
        self, session: Session, rows: np.ndarray, before: int, length: tuple[int | None, int | None, bool]
    ) -> dict[str, Any]:
        batch_size, epochs, drop_last = length
        batches = -(-len(rows) // batch_size) if batch_size else 0
        if drop_last and batches > 1 and batch_size:
            batches = len(rows) // batch_size
        positives_C = self.train.positives(rows)
        old, future = int(positives_C[: session.low].sum()), int(positives_C[session.high :].sum())
        return {
            "index": session.index,
            "low": session.low,
            "high": session.high,
            "classes": list(session.classes),
            "images": len(rows),
            "labels_given": int(positives_C[session.low : session.high].sum()),
            "labels_hidden": old + future,
            "hidden_old": old,
            "hidden_future": future,
            "unknown": int((self.train_targets(rows, self.first_class(session.index), session.high) < 0).sum()),
            "images_seen_before": before,
            "share_seen_before": before / max(len(rows), 1),
            "test_images": {
                "base": len(self.test_rows(0, self.base_high)),
                "seen": len(self.test_rows(0, session.high)),
                "new": len(self.test_rows(session.low, session.high)),
                "fixed": len(self.fixed_test_rows()),
            },
            "steps": batches * epochs if batch_size and epochs else None,
        }


def in_one_session(table: ImageTable, sessions: Sequence[Session]) -> ImageTable:
    """The table with every image selected by the classes of one session only.

    Of the sessions that own one of its classes the image's id says which, each as likely; a class that would be left
    without any image keeps one.
    """
    if isinstance(table, SingleLabelTable):
        return table
    lots = [slice(session.low, session.high) for session in sessions]
    owns_NT = np.stack([table.selects_NC[:, lot].any(1) for lot in lots], 1)
    digests = [int(hashlib.sha256(str(name).encode()).hexdigest()[:12], 16) for name in table.ids]
    owner_N = np.full(len(table), -1)
    for row in np.flatnonzero(owns_NT.any(1)):
        choices = np.flatnonzero(owns_NT[row])
        owner_N[row] = choices[digests[row] % len(choices)]
    for t, session in enumerate(sessions):
        for c in range(session.low, session.high):
            rows = np.flatnonzero(table.selects_NC[:, c])
            if len(rows) and not (owner_N[rows] == t).any():
                owner_N[min(rows, key=digests.__getitem__)] = t
    selects_NC = np.zeros_like(table.selects_NC)
    for t, lot in enumerate(lots):
        mine = owner_N == t
        selects_NC[mine, lot] = table.selects_NC[mine, lot]
    return replace(table, selects_NC=selects_NC)


def check_dataset(dataset: Any) -> str:
    """The task of a data set that has the parts that a scenario needs.

    Raises:
        UserError: one of them is missing, or no such task.
    """
    where = f"data set class {type(dataset).__name__}"
    parts = {"name": isinstance(getattr(dataset, "name", None), str)}
    parts.update({f"{split}()": callable(getattr(dataset, split, None)) for split in ("train", "test")})
    missing = [part for part, there in parts.items() if not there]
    if missing:
        raise UserError(
            f"{where} has no {' and no '.join(missing)}; expected a text name and the methods train() and test(), with "
            "label_cardinality and task as one likes, so add what is missing"
        )
    task = getattr(dataset, "task", TASKS[0])
    check_option(f"{where}: task", task, TASKS)
    return str(task)


def _table(dataset: Any, split: str) -> ImageTable:
    table = getattr(dataset, split)()
    if not isinstance(table, ImageTable):
        raise UserError(
            f"data set class {type(dataset).__name__}: {split}() returns a {type(table).__name__}; expected an "
            "ImageTable or a SingleLabelTable of mlcil.datasets.table, so return one"
        )
    return table
