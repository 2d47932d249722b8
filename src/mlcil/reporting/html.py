"""A report of one or more runs as a single HTML file that needs nothing else: no network, no script."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mlcil import __version__
from mlcil.errors import UserError
from mlcil.files import write_text
from mlcil.reporting.contact_sheet import PER_KIND, contact_sheets
from mlcil.reporting.made_images import made_images
from mlcil.reporting.markup import Markup, element
from mlcil.reporting.report_details import LEVELS, glossary, heat_maps, other_reports, provenance, pseudo_labels
from mlcil.reporting.report_runs import ReportRun, read_runs
from mlcil.reporting.report_tables import Section, cost_section, forgetting_section, measure_section, summary
from mlcil.reporting.stylesheet import style_sheet

IMAGES = 150  # about as many thumbnails a report may hold; keeps it near a megabyte
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"


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
    title = f"Report: {runs[0].name}" if len(runs) == 1 else f"Report: {len(runs)} runs"
    protocols = dict.fromkeys(run.protocol for run in runs)
    sections: list[Section | None] = [
        summary(runs),
        measure_section(runs),
        heat_maps(runs),
        forgetting_section(runs),
        pseudo_labels(runs),
        other_reports(runs),
        made_images(runs),
        cost_section(runs),
        contact_sheets(runs, max(1, min(PER_KIND, IMAGES // (6 * len(runs))))),
        provenance(runs),
        glossary(runs),
    ]
    shown = [part for part in sections if part is not None]
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name_="viewport", content_="width=device-width, initial-scale=1"),
        element("meta", http_equiv="Content-Security-Policy", content_=POLICY),
        element("title", title),
        Markup(f"<style>{style_sheet(LEVELS)}</style>"),
    )
    body = element(
        "body",
        element(
            "header",
            element("h1", title),
            element("p", "; ".join(protocols), f" · mlcil {__version__}", class_="muted"),
            element("nav", [element("a", s.heading, href=f"#{s.anchor}") for s in shown], aria_label="Sections"),
        ),
        element("main", [element("section", element("h2", s.heading), s.content, id=s.anchor) for s in shown]),
    )
    return f"<!DOCTYPE html>\n{element('html', head, body, lang='en')}\n"
