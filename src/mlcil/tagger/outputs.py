"""What a tagger says of photos, in the forms that other programs read, and which of its scores are labels."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import escape

from mlcil.errors import UserError
from mlcil.files import write_text

#: where a label has no threshold of its own; what the sessions of a run are judged at
THRESHOLD = 0.8
#: who has written a sidecar
MARK = 'x:xmptk="mlcil"'
_SIDECAR = """<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>
<x:xmpmeta xmlns:x="adobe:ns:meta/" {mark}>
 <rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">
  <rdf:Description rdf:about="" xmlns:dc="http://purl.org/dc/elements/1.1/">
   <dc:subject>
    <rdf:Bag>
{items}    </rdf:Bag>
   </dc:subject>
  </rdf:Description>
 </rdf:RDF>
</x:xmpmeta>
<?xpacket end="w"?>
"""

Named = list[tuple[str, float]]


def choose(
    classes: Sequence[str],
    thresholds: Sequence[float | None] | None,
    threshold: float | None = None,
    top: int | None = None,
) -> tuple[Callable[[Mapping[str, float]], Named], int]:
    """How scores become labels.

    Args:
        classes: of the tagger.
        thresholds: one a class, nan or ``None`` where none was chosen.
        threshold: takes the place of all of them.
        top: at most so many labels; without ``threshold`` exactly the best ones, whatever their scores.

    Returns:
        A function from all scores of an image to the labels with theirs, best first; and how many labels have no
        threshold and are judged by :data:`THRESHOLD`.

    Raises:
        UserError: ``top`` below 1, or a threshold outside of [0, 1].
    """
    if top is not None and top < 1:
        raise UserError(f"--top is {top}; expected at least 1")
    if threshold is not None and not 0 <= threshold <= 1:
        raise UserError(f"--threshold is {threshold:g}; expected a score from 0 to 1, such as 0.5")
    own = [None if value is None or math.isnan(value) else value for value in thresholds or [None] * len(classes)]
    least = {
        name: -math.inf if top and threshold is None else THRESHOLD if value is None else value
        for name, value in zip(classes, own if threshold is None else [threshold] * len(own), strict=True)
    }

    def named(scores: Mapping[str, float]) -> Named:
        above = [(name, score) for name, score in scores.items() if score >= least[name]]
        return sorted(above, key=lambda pair: -pair[1])[:top]

    return named, own.count(None) if top is None and threshold is None else 0


def json_line(image: Path, named: Named, scores: Mapping[str, float] | None) -> str:
    """``{"image": ..., "labels": [{"label": ..., "score": ...}]}``, with all ``scores`` as they are if given."""
    labels = [{"label": name, "score": round(score, 6)} for name, score in named]
    return json.dumps({"image": str(image), "labels": labels, **({} if scores is None else {"scores": dict(scores)})})


def csv_line(cells: Sequence[Any]) -> str:
    """A line of a CSV file without its end."""
    text = io.StringIO()
    csv.writer(text, lineterminator="").writerow(cells)
    return text.getvalue()


def studio_task(image: Path, named: Named, model: str) -> dict[str, Any]:
    """A task of Label Studio with a prediction, for ``<Choices name="choice" toName="image">``.

    The image is named as its local files are: ``/data/local-files/?d=`` and the path.
    """
    result = {
        "type": "choices",
        "from_name": "choice",
        "to_name": "image",
        "value": {"choices": [name for name, _ in named]},
    }
    prediction = {
        "model_version": model,
        "score": min((score for _, score in named), default=0.0),
        "result": [result] if named else [],
    }
    place = quote(image.as_posix(), errors="surrogateescape")  # the bytes of its name, whatever they are
    return {"data": {"image": f"/data/local-files/?d={place}"}, "predictions": [prediction]}


def sidecar(image: Path) -> Path:
    """``photo.jpg`` -> ``photo.jpg.xmp``."""
    return image.with_name(f"{image.name}.xmp")


def check_sidecars(images: Sequence[Path]) -> None:
    """Refuse to replace what another program has written.

    Raises:
        UserError: says how many of the sidecars are somebody else's, and the first ones.
    """
    others = [path for path in map(sidecar, images) if path.exists() and not _ours(path)]
    if others:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise UserError(
            f"{', '.join(map(str, others[:3]))}{more}: another program has written there; expected no sidecar or one "
            "of mlcil, so move them away or choose another --format"
        )


def _ours(path: Path) -> bool:
    try:
        return path.is_file() and MARK in path.read_text(encoding="utf-8")[:1000]
    except (OSError, UnicodeDecodeError):
        return False


def write_sidecar(image: Path, named: Named) -> None:
    """Labels as keywords beside a photo, which stays as it is. Raises as :func:`mlcil.files.write_text`."""
    items = "".join(f"     <rdf:li>{escape(name)}</rdf:li>\n" for name, _ in named)
    write_text(sidecar(image), _SIDECAR.format(mark=MARK, items=items))


def find_tagger(word: str | Path) -> Path:
    """The file of a tagger: itself, or the last stage checkpoint of a run's folder or of the run of that name."""
    path = Path(word)
    for folder in (path, "saved_models" / path, Path("saved_models") / path.name) if not path.is_file() else ():
        stages = sorted(folder.glob("session_*.pth"), key=lambda stage: (len(stage.name), stage.name))
        if stages:
            return stages[-1]
    return path
