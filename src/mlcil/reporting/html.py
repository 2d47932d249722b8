"""A report of one or more runs as a single HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from jinja2 import Environment, PackageLoader, StrictUndefined

from mlcil import __version__
from mlcil.errors import UserError
from mlcil.files import write_text
from mlcil.reporting import diagnosis, formats, sections
from mlcil.reporting.contact_sheet import PER_KIND, contact_sheet
from mlcil.reporting.made_images import made_images
from mlcil.reporting.plots import swatch
from mlcil.reporting.report_runs import ReportRun, group, notes, read_runs

IMAGES = 150  # about as many thumbnails a report may hold; keeps it near a megabyte
FOLDED = 3  # with more runs, what is said of each run alone is folded


def write_report(folders: Sequence[Path], output: Path | None = None) -> Path:
    """The command ``report``.

    Args:
        folders: run directories, or their names under ``logs/``.
        output: the file to write; default: ``report.html`` in the run directory for one run, in the current
            folder for several.

    Returns:
        The file.

    Raises:
        UserError: a run is missing, damaged or without a finished session, or the file cannot be written.
    """
    if output is not None and output.is_dir():
        raise UserError(f"--output {output} is a folder, expected a file; use {output / 'report.html'}")
    runs = read_runs(folders)
    path = output or (runs[0].folder / "report.html" if len(runs) == 1 else Path("report.html"))
    write_text(path, page(runs))
    return path


def page(runs: Sequence[ReportRun]) -> str:
    """The whole file as text.

    Args:
        runs: at least one.
    """
    measure = " / ".join(sorted({run.measure.name for run in runs}))
    per_class = " / ".join(sorted({run.measure.class_name for run in runs}))
    labelled = [run for run in runs if any(sections.dpl(run))]
    reports = sections.other_reports(runs)
    made = [(run, images) for run in runs if (images := made_images(run))]
    groups = group(runs)
    per_kind = max(1, min(PER_KIND, IMAGES // (8 * len(runs))))
    sheets = [(run, contact_sheet(run, per_kind)) for run in runs]
    losses = [(run, charts) for run in runs if (charts := diagnosis.loss_charts(run))]
    headings = {
        "worse": "What got worse",
        "summary": "Summary",
        "sessions": f"{measure} per session",
        "classes": f"{per_class} of every class",
        "detail": "Classes in detail",
        "forgetting": "Forgetting and plasticity",
        "pseudo-labels": "Pseudo-labels" if labelled else "",
        "methods": "Reports of the methods" if reports else "",
        "made": "Made images" if made else "",
        "losses": "Losses" if losses else "",
        "cost": "Memory and time",
        "images": "Test images",
        "provenance": "Where the numbers come from",
        "glossary": "Glossary",
    }
    return environment().get_template("report.html.j2").render(
        title=f"Report: {runs[0].name}" if len(runs) == 1 else f"Report: {len(runs)} runs",
        version=__version__,
        runs=runs,
        groups=groups,
        headings={anchor: formats.sentence_case(heading) for anchor, heading in headings.items() if heading},
        notes=notes(runs),
        measure=measure,
        all_fixed=all(run.measure.fixed for run in runs),
        labelled=labelled,
        reports=reports,
        made=made,
        kinds=sections.memory_kinds(runs),
        sheets=sheets,
        losses=losses,
        data=sections,
        diagnosis=diagnosis,
        FOLDED=FOLDED,
    )  # fmt: skip


@cache
def environment() -> Environment:
    """The templates, which escape whatever is not markup of their own."""
    found = Environment(
        loader=PackageLoader("mlcil.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters.update(
        number=formats.number,
        bytes=formats.bytes_text,
        shorten=formats.shorten,
        sentence_case=formats.sentence_case,
        level=sections.level,
        swatch=cache(swatch),
        file_name=lambda path: Path(path).name,
    )
    found.tests["run"] = lambda value: isinstance(value, ReportRun)
    return found
