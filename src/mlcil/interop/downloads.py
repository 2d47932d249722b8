"""What `mlcil download` fetches: official addresses, checksums, licences, and where the files go."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mlcil.errors import UserError
from mlcil.interop.pretrained import find_leak
from mlcil.interop.tensor_files import load_tensors
from mlcil.system.download import Remote, fetch, unpack, unpacking


@dataclass(frozen=True)
class Part:
    """A file of a download.

    Attributes:
        remote: the file.
        holds: path that is there once it is unpacked; empty for a file that stays as it is.
        strip: first folder of an archive's paths that is left out.
    """

    remote: Remote
    holds: str = ""
    strip: str = ""


@dataclass(frozen=True)
class Download:
    """A data set or weights.

    Attributes:
        root: usual folder.
        parts: files.
        licence: in a sentence.
        dataset: type of the data set in a config, if it is one.
    """

    root: str
    parts: tuple[Part, ...]
    licence: str
    dataset: str = ""


_COCO, _VOC = "http://images.cocodataset.org", "https://thor.robots.ox.ac.uk/pascal/VOC/voc2007"
_LISTS = "VOCdevkit/VOC2007/ImageSets/Main"
TRESNET = "weights:tresnet_m_21k"
DOWNLOADS: Mapping[str, Download] = {
    "cifar100": Download(
        "datasets/cifar100",
        (Part(Remote("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz", "cifar-100-python.tar.gz", 169_001_437,
                     "md5:eb9058c3a382ffc7106e4002c42a8d85")),),
        "no licence stated; the authors ask to cite their report (Krizhevsky, 2009)",
        "cifar100",
    ),
    "cifar10": Download(
        "datasets/cifar10",
        (Part(Remote("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz", "cifar-10-python.tar.gz", 170_498_071,
                     "md5:c58f30108f718f92721af3b95e74349a")),),
        "no licence stated; the authors ask to cite their report (Krizhevsky, 2009)",
        "cifar10",
    ),
    "tiny-imagenet-200": Download(
        "datasets/tiny-imagenet-200",
        (Part(Remote("http://cs231n.stanford.edu/tiny-imagenet-200.zip", "tiny-imagenet-200.zip", 248_100_043,
                     "md5:90528d7ca1a48142e341f4ef8d21d0de"), "wnids.txt", "tiny-imagenet-200"),),
        "ImageNet's terms: research and education, not for commercial use",
        "tiny_imagenet",
    ),
    "voc2007": Download(
        "datasets/voc2007",
        (Part(Remote(f"{_VOC}/VOCtrainval_06-Nov-2007.tar", "VOCtrainval_06-Nov-2007.tar", 460_032_000,
                     "md5:c52e279531787c972589f7e41ab4ae64"), f"{_LISTS}/trainval.txt"),
         Part(Remote(f"{_VOC}/VOCtest_06-Nov-2007.tar", "VOCtest_06-Nov-2007.tar", 451_020_800,
                     "md5:b6e924de25625d8de591ea690078ad9f"), f"{_LISTS}/test.txt")),
        "photos from Flickr under its terms of use",
        "voc",
    ),
    "coco2014": Download(
        "datasets/coco2014",
        (Part(Remote(f"{_COCO}/annotations/annotations_trainval2014.zip", "annotations_trainval2014.zip", 252_872_794,
                     "md5:0a379cfc70b0e71301e0f377548639bd"), "annotations/instances_val2014.json"),
         Part(Remote(f"{_COCO}/zips/val2014.zip", "val2014.zip", 6_645_013_297,
                     "md5:a3d79f5ed8d289b7a7554ce06a5782b3"), "val2014"),
         Part(Remote(f"{_COCO}/zips/train2014.zip", "train2014.zip", 13_510_573_713,
                     "md5:0da8c0bd3d6becc4dcb32757491aca88"), "train2014")),
        "annotations CC BY 4.0; photos from Flickr under its terms of use",
        "coco",
    ),
    TRESNET: Download(
        "pretrained_models",
        (Part(Remote("https://huggingface.co/timm/tresnet_m.miil_in21k/resolve/main/pytorch_model.bin",
                     "tresnet_m_224_21k.pth", 166_000_000)),),
        "Apache 2.0 (timm); trained on ImageNet-21K-P, whose images have ImageNet's terms",
    ),
}  # fmt: skip


def download(name: str, root: Path | None = None) -> list[str]:
    """Fetch and unpack what is missing of a download; returns lines of what was done.

    Raises:
        UserError: an unknown name, what :func:`~mlcil.system.download.fetch` and ``unpack`` refuse, or weights that
            were trained on the labels that later sessions bring.
    """
    if name not in DOWNLOADS:
        raise UserError(f"download {name!r} is unknown; expected one of {', '.join(DOWNLOADS)}")
    wanted = DOWNLOADS[name]
    folder = Path(wanted.root) if root is None else root
    lines = []
    for part in wanted.parts:
        archive = folder / part.remote.name
        if part.holds and (folder / part.holds).exists() and not unpacking(archive, folder).exists():
            lines.append(f"{folder / part.holds} is there already")
            continue
        there = archive.exists()
        fetch(part.remote, folder)
        if part.holds:
            unpack(archive, folder, part.strip)
            archive.unlink()
            lines.append(f"{archive.name} is unpacked in {folder}")
        else:
            lines.append(f"{archive} is {'there already' if there else 'complete'}")
        if name == TRESNET and not there:
            refuse_leak(archive)
    return [*lines, f"licence: {wanted.licence}"]


def refuse_leak(path: Path) -> None:
    """Remove downloaded weights that have seen COCO's or VOC's labels.

    Raises:
        UserError: they have.
    """
    content = load_tensors(path)
    state = content.get("state_dict", content.get("model", content)) if isinstance(content, Mapping) else {}
    leak = find_leak(path, content, state if isinstance(state, Mapping) else {}, ())
    if leak:
        path.unlink()
        raise UserError(f"{path} is not the file that was asked for: {leak}; it is removed, so fetch it by hand")


def command_for(path: Path) -> str:
    """`` `mlcil download ...` fetches it`` for the usual place of a download, or nothing."""
    for name, known in DOWNLOADS.items():
        if path in (Path(known.root), *(Path(known.root) / part.remote.name for part in known.parts)):
            return f"; `mlcil download {name}` fetches it"
    return ""


def of_dataset(kind: str) -> str | None:
    """The name of the download of a type of data set, if there is one."""
    return next((name for name, known in DOWNLOADS.items() if known.dataset == kind), None)
