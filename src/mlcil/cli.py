"""The command line. Heavy imports happen inside the commands, so that ``--help`` answers at once."""

from __future__ import annotations

import argparse
import atexit
import errno
import gc
import importlib
import io
import logging
import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mlcil import __version__
from mlcil.configs import compose
from mlcil.configs.published import PUBLISHED
from mlcil.errors import StoppedError, UserError
from mlcil.system.imports import quick_imports


def parser() -> argparse.ArgumentParser:
    """The argument parser of ``python -m mlcil``."""
    top = argparse.ArgumentParser(
        prog="python -m mlcil", description="Class-incremental learning for images with many labels."
    )
    top.add_argument("--version", action="version", version=f"mlcil {__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def command(name: str, text: str) -> argparse.ArgumentParser:
        return commands.add_parser(name, help=text, description=text)

    def listing(sub: argparse.ArgumentParser) -> None:
        sub.add_argument(
            "--photos", type=Path, metavar="FOLDER", help="where the photos are (default: beside the list)"
        )
        sub.add_argument(
            "--reviewed", metavar="LABELS", help="looked for on every photo: cat,dog or all; the rest is unknown"
        )
        sub.add_argument("--form", choices=("folders", "keywords"), help="of a folder that could be both")

    sub = command("train", "Train all sessions of a config.")
    sub.add_argument("config", help="a method (krt data=coco protocol=B0-C10), published settings, or a python file")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="such as train_cfg.max_epochs=2; the last wins")
    sub.add_argument("--name", help="run name: logs/NAME and saved_models/NAME (default: from the words)")
    again = sub.add_mutually_exclusive_group()
    again.add_argument("--resume", action="store_true", help="go on where this run was saved last")
    again.add_argument("--overwrite", action="store_true", help="replace an existing run of this name")
    again.add_argument("--auto-resume", action="store_true", help="go on with the run when there is one, else start it")
    sub.add_argument("--accept-changes", action="store_true", help="resume also with another config, code or machine")
    sub.add_argument("--check", action="store_true", help="check config, data and weights, train nothing")
    sub.add_argument(
        "--download", action="store_true", help="fetch the data set and weights first where they are missing"
    )
    sub.add_argument("--full-paths", action="store_true", help="results.json names folders in full, not from here or ~")
    sub.add_argument("--launcher", choices=("none", "pytorch", "slurm"), default="none", help="pytorch: under torchrun")

    sub = command("download", "Fetch a data set or weights from their official address; without a name: list them.")
    sub.add_argument("name", nargs="?", help="such as cifar100 or weights:tresnet_m_21k")
    sub.add_argument("--root", type=Path, metavar="FOLDER", help="default: where configs look for it")

    sub = command("demo", "Train a few methods on embedded digits, without a download, and compare them.")
    which = sub.add_mutually_exclusive_group()
    which.add_argument("--transformers", action="store_true", help="DKT and DAFormer on handwritten digits instead")
    kind = "single digits with Finetune, LwF, ABD, R-DFCIL, rehearsal and joint training instead"
    which.add_argument("--single-label", action="store_true", help=kind)
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="for every run, such as seed=1")

    sub = command("plan", "Show what a config would train, without training.")
    sub.add_argument("config")
    sub.add_argument("overrides", nargs="*", metavar="key=value")
    sub.add_argument("--json", action="store_true", help="print json instead of tables")

    sub = command("config", "Print what a config resolves to, as a python file to train from; or all names.")
    sub.add_argument("config", nargs="?", help="default: list the names")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="such as seed=1; the last wins")
    sub.add_argument("--output", type=Path, metavar="FILE.py", help="write it to a file instead")

    sub = command("bench", "Train methods x seeds x class orders and write one table.")
    sub.add_argument("config", help="a name of `mlcil config`, such as demo, or a python file")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="for every run")
    sub.add_argument("--jobs", type=int, help="runs at the same time (default: what the bench config says)")
    sub.add_argument("--table", action="store_true", help="train nothing, write the table of the finished runs")

    sub = command("compare", "Put finished runs of one protocol into a table.")
    sub.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory, or its name under logs/")
    sub.add_argument("--output", type=Path, help="folder for table.md, .csv, .tex and .json")
    sub.add_argument("--published", action="store_true", help="say what stands between each row and a published number")

    sub = command("report", "Write one HTML file about finished runs that opens without a network.")
    sub.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory, or its name under logs/")
    sub.add_argument("--output", type=Path, metavar="FILE.html", help="default: RUN/report.html, several: report.html")

    sub = command("results", "Write the results of runs as one table: a row a run, session and class.")
    sub.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a run directory, or its name under logs/")
    sub.add_argument("--to", type=Path, required=True, metavar="FILE", help="FILE.csv or FILE.parquet")

    sub = command("test", "Evaluate a stage checkpoint on the test images of a config.")
    sub.add_argument("checkpoint", type=Path)
    sub.add_argument("config")
    sub.add_argument("overrides", nargs="*", metavar="key=value")

    sub = command("data", "Show what is understood of labels in any form, before anything is trained with them.")
    sub.add_argument("path", type=Path, metavar="PATH", help="a CSV, TSV, JSON or JSON-lines file, or a folder")
    listing(sub)
    sub.add_argument("--json", action="store_true", help="print json instead of tables")

    sub = command("predict", "Tag images with a tagger.")
    sub.add_argument("checkpoint", metavar="TAGGER", help="its file, or a run by its folder or name (its last session)")
    sub.add_argument("images", type=Path, nargs="+", metavar="IMAGES", help="images and folders")
    sub.add_argument(
        "--format", choices=("jsonl", "csv", "label-studio", "xmp"), default="jsonl", help="default: jsonl"
    )
    sub.add_argument("--output", type=Path, metavar="FILE", help="instead of standard output; whole or not at all")
    sub.add_argument("--scores", action="store_true", help="the scores of all labels, too")
    sub.add_argument("--threshold", type=float, help="lowest score of a label (default: the tagger's own, else 0.8)")
    sub.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...")
    sub.add_argument("--precision", default="auto", help="auto (bf16 where the device has it), fp32, bf16 or fp16")
    sub.add_argument(
        "--engine", default="auto", help="auto: onnxruntime for an .onnx file, else torch; or one of these"
    )
    sub.add_argument("--top", type=int, help="the best TOP labels, of all or of those from --threshold on")
    sub.add_argument(
        "--on-bad-image",
        choices=("raise", "skip"),
        default="raise",
        help="stop at an image that cannot be read (default), or name it and go on",
    )

    sub = command("export", "Write a tagger as an ONNX file, or its weights as safetensors, and check what it gives.")
    sub.add_argument("tagger", type=Path, help="such as saved_models/NAME/session_3.pth")
    sub.add_argument("target", type=Path, metavar="FILE", help="ends in .onnx or .safetensors")
    sub.add_argument("--int8", action="store_true", help="ONNX in whole numbers of 8 bits: faster, scores a little off")
    sub.add_argument(
        "--calibrate", type=Path, metavar="FOLDER", help="photos that int8 is fitted to: like those to come"
    )
    sub.add_argument("--on", type=Path, metavar="LABELS", help="labelled photos: mAP of both, and a bound on its loss")
    listing(sub)
    sub.add_argument("--max-drop", type=float, default=0.5, help="points of mAP that 8 bits may cost (default 0.5)")

    sub = command("convert", "Convert a released checkpoint of KRT, DKT or DAFormer, or back; of R-DFCIL or ABD.")
    sub.add_argument("source", type=Path)
    sub.add_argument("target", type=Path)
    sub.add_argument("--classes", help="'coco', 'voc', or a text file with one class name per line, in index order")
    sub.add_argument("--heads", type=int, help="attention heads of the released model (default: KRT 8, DKT 12)")
    sub.add_argument("--size", type=int, help="image side of an R-DFCIL or ABD model (default: CIFAR-100's 32)")

    def learning(sub: argparse.ArgumentParser) -> None:
        listing(sub)
        sub.add_argument("--out", type=Path, required=True, help="the new file; no file is ever replaced")
        sub.add_argument("--unlabelled", type=Path, metavar="FOLDER", help="photos that nobody has looked at")
        sub.add_argument("--backbone", help="a timm model, for tag a file.onnx too (default: EfficientNet-Lite0)")

    sub = command("tag", "A first tagger from your own photos: minutes on a CPU.")
    sub.add_argument("labels", type=Path, help="labels of photos, in any form")
    learning(sub)
    sub.add_argument("--weights", help="a file with the weights of another --backbone")
    sub.add_argument("--method", help="a method of rows on frozen features (default: ridge)")
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the method")

    sub = command("extend", "Add labels to a tagger; the old scores stay the same to the bit.")
    sub.add_argument("tagger", type=Path, help="a tagger, a stage checkpoint, or with --classes another checkpoint")
    sub.add_argument("labels", type=Path, help="labels of photos, in any form")
    learning(sub)
    sub.add_argument("--keep", type=Path, metavar="OLD_LABELS", help="photos with old labels, in any form")
    sub.add_argument(
        "--refine", action="append", default=[], metavar="LABEL", help="learn more of a label that is there"
    )
    sub.add_argument("--method", help="instead of the default: krt, lwf, ... (old scores change then)")
    sub.add_argument(
        "--classes", type=Path, metavar="FILE", help="names of the outputs of a timm or torchvision checkpoint"
    )
    sub.add_argument("overrides", nargs="*", metavar="key=value", help="settings of the method")

    sub = command("check", "Compare two taggers on labelled photos; exit code 1 when a label got worse.")
    sub.add_argument("old", type=Path)
    sub.add_argument("new", type=Path)
    sub.add_argument("--on", type=Path, required=True, metavar="LABELS", help="labels of photos, in any form")
    listing(sub)
    sub.add_argument("--max-drop", type=float, default=1.0, help="points of AP that a label may lose (default 1.0)")
    sub.add_argument("--html", type=Path, metavar="FILE.html", help="write a page with the photos to look at")
    sub.add_argument("--json", type=Path, metavar="FILE.json", help="write all numbers")
    sub.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...")

    sub = command("serve", "Tag images over HTTP: for programs, for a browser, and for Label Studio.")
    sub.add_argument("tagger", metavar="TAGGER", help="its file, or a run by its folder or name (its last session)")
    sub.add_argument("--host", default="127.0.0.1", help="0.0.0.0 lets other machines in (default: this one only)")
    sub.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: 8000)")
    sub.add_argument("--device", default="auto", help="auto (a GPU if there is one), cpu, cuda, cuda:1, ...")
    sub.add_argument("--engine", default="auto", help="as for predict")
    sub.add_argument("--max-images", type=int, default=32, help="of a request (default: 32)")
    sub.add_argument("--max-megabytes", type=int, default=100, help="of a request (default: 100)")
    sub.add_argument("--max-megapixels", type=int, default=50, help="of an image (default: 50)")
    sub.add_argument("--timeout", type=float, default=60.0, help="seconds until an answer (default: 60)")
    sub.add_argument("--label-studio", metavar="URL", help="answer its tasks; its token is in LABEL_STUDIO_API_KEY")
    sub.add_argument("--project", type=int, help="learn the labels that are annotated in this project of it")
    sub.add_argument("--reviewed", help="labels that annotators looked for on every photo, with commas, or 'all'")

    sub = command("info", "Print what a tagger's file says of itself: labels, thresholds, parents, what is kept.")
    sub.add_argument("tagger", type=Path)
    sub.add_argument("--json", action="store_true", help="print json instead of lines")

    sub = command("rename", "Give labels other names, in a new file.")
    sub.add_argument("tagger", type=Path)
    sub.add_argument("names", nargs="+", metavar="OLD=NEW", help="a label and its new name")
    sub.add_argument("--out", type=Path, required=True)

    sub = command("drop", "Take labels out of a tagger, in a new file.")
    sub.add_argument("tagger", type=Path)
    sub.add_argument("labels", nargs="+", metavar="LABEL")
    sub.add_argument("--out", type=Path, required=True)

    sub = command("merge", "Merge two extensions of one tagger into a new file.")
    sub.add_argument("first", type=Path)
    sub.add_argument("second", type=Path)
    sub.add_argument("--out", type=Path, required=True)
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 on success, 2 for a mistake of the user, 130 after Ctrl-C."""
    for stream in (sys.stdout, sys.stderr):  # names that a terminal or a pipe has no signs for are escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.raiseExceptions = False  # a full disk is reported once, by the run, and not by every log line that it
    threading.excepthook = _thread_failed  # does not take, or by TensorBoard's thread
    command = ""
    try:
        try:
            options = _parse(arguments)
            command = options.command
            if command in CONFIGS:
                _check_name(options)
            with quick_imports():
                module = importlib.import_module(f"mlcil.commands.{command}")
            return int(module.main(options))
        finally:
            sys.stdout.flush()
    except UserError as error:
        print(f"mlcil: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        _drop_output()
        return 141
    except OSError as error:
        if error.errno not in PLACES:
            raise
        if error.filename is None:
            _drop_output()
        place = "standard output" if error.filename is None else str(error.filename)
        print(f"mlcil: {place} cannot be used ({error.strerror}); make room or name another", file=sys.stderr)
        return 2
    except StoppedError as stop:
        print(f"mlcil: {stop}", file=sys.stderr)
        return 128 + stop.number
    except KeyboardInterrupt:
        trains = command in ("train", "demo", "bench")
        print(f"mlcil: interrupted{'; a run goes on with the same command and --resume' * trains}", file=sys.stderr)
        return 130
    finally:
        if multiprocessing.active_children():
            gc.collect()  # loaders of a failed run end their processes, before Python's exit kills them noisily


@atexit.register
def _end_quickly() -> None:
    """Leave out the search for garbage at Python's end, which takes most of a second with torch."""
    library = sys.modules.get("triton._C.libtriton")
    if not type(getattr(library, "get_cache_invalidating_env_vars", None)).__module__.startswith("nanobind"):
        gc.freeze()  # nanobind tells on standard error what was not collected: it is left to Python's end


#: commands whose config is a method or published settings
CONFIGS = ("train", "plan", "config", "test")


def _check_name(options: argparse.Namespace) -> None:
    """Say that a config's name is wrong before torch is imported; of several configs of ``train`` the last counts."""
    words = [options.config, *(options.overrides if options.command == "train" else ())]
    configs = [word for word in words if word and word.strip() and "=" not in word]
    if configs and not compose.is_file(configs[-1]):
        compose.check_name(configs[-1].split()[0], PUBLISHED)


#: what is wrong with a place that the user has named, or with the disk that it is on
PLACES = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENAMETOOLONG, errno.ELOOP, errno.EACCES, errno.EROFS}


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """The words of the command line; key=value may stand before and behind options, which argparse does not take."""
    top = parser()
    options, rest = top.parse_known_args(arguments)
    if any(word.startswith("-") or not hasattr(options, "overrides") for word in rest):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        options.overrides = [*options.overrides, *rest]
    return options


def _drop_output() -> None:
    """What is still to be written goes nowhere, so that Python's end does not fail on it."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _thread_failed(arguments: Any) -> None:
    if not isinstance(arguments.exc_value, OSError):
        threading.__excepthook__(arguments)
