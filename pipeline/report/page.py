"""The page: one HTML file with everything inside, and a policy that forbids it to load anything else.

The template engine escapes every value. Style and script are the package's own files, inlined; the content security
policy names their SHA-256 (W3C Content Security Policy Level 3), so that nothing else may style the page or run in it.
"""

import base64
import functools
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.case_pictures import CaseGallery
from pipeline.report.case_quality import QualityPages
from pipeline.report.charts import BarGroup
from pipeline.report.contact_view import ContactView
from pipeline.report.decisions import Decision
from pipeline.report.lesion_pictures import ClassPictures, CopyPair
from pipeline.report.references import cited
from pipeline.report.stage_rows import StageRow
from pipeline.report.tables import TableView, grouped_text, significant_text
from pipeline.report.training_curves import TrainingView
from pipeline.results import Headline, Verdict

STYLES = ("report.css", "contact_sheet.css", "slice_viewer.css", "case_quality.css")
SCRIPTS = ("report.js", "contact_sheet.js", "slice_viewer.js")
"""Files that are inlined, in this order, into the page's one style and one script."""

TRACK_TITLES: Mapping[str, str] = {"lesions": "Synthetic lesions", "mr_to_ct": "MR to pseudo-CT"}


@dataclass(frozen=True)
class DataSection:
    """What ran on what."""

    stages: tuple[StageRow, ...]
    layout: str
    layout_reason: str
    subject_sources: tuple[str, ...]
    tables: tuple[TableView, ...]
    balance: tuple[BarGroup, ...]


@dataclass(frozen=True)
class LesionSection:
    """The lesion track; parts that did not run are None or empty."""

    classes: tuple[ClassPictures, ...]
    copies: tuple[CopyPair, ...]
    training: TrainingView | None
    tables: tuple[TableView, ...]


@dataclass(frozen=True)
class TranslationSection:
    """The MR-to-CT track; parts that did not run are None or empty."""

    gallery: CaseGallery | None
    training: TrainingView | None
    tables: tuple[TableView, ...]
    quality: QualityPages | None = None


@dataclass(frozen=True)
class Method:
    """A paragraph list under a heading."""

    title: str
    paragraphs: tuple[str, ...]


@dataclass(frozen=True)
class Provenance:
    """Settings, versions, hashes."""

    settings_yaml: str
    seed: int
    versions: tuple[tuple[str, str], ...]
    hashes: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Page:
    """Everything that the template shows."""

    title: str
    run_name: str
    tracks: tuple[str, ...]
    decisions: tuple[Decision, ...]
    verdicts: tuple[Verdict, ...]
    headlines: tuple[Headline, ...]
    data: DataSection
    contact: ContactView | None
    lesions: LesionSection | None
    translation: TranslationSection | None
    warnings: tuple[str, ...]
    methods: tuple[Method, ...]
    provenance: Provenance

    @property
    def references(self) -> tuple[tuple[str, str], ...]:
        """Works that the methods and the columns shown cite."""
        tracks = [section.tables for section in (self.lesions, self.translation) if section]
        columns = [heading.source for tables in tracks for table in tables for heading in table.headings]
        return cited([paragraph for method in self.methods for paragraph in method.paragraphs] + columns)

    @property
    def track_titles(self) -> Mapping[str, str]:
        """Titles of the tracks by name."""
        return TRACK_TITLES

    @property
    def sections(self) -> tuple[tuple[str, str], ...]:
        """(anchor, title) of the sections, in order."""
        tracks = [("contact-sheet", "Contact sheet")] if self.contact else []
        tracks += [("lesions", "Lesions")] if self.lesions else []
        tracks += [("pseudo-ct", "MR to pseudo-CT")] if self.translation else []
        return (
            ("summary", "Summary"),
            ("warnings", "Warnings"),
            ("data", "What ran on what"),
            *tracks,
            ("methods", "Methods"),
            ("provenance", "Provenance"),
        )


def render(page: Page) -> str:
    """The page as HTML."""
    style, script = joined_sources(STYLES), joined_sources(SCRIPTS)
    return (
        environment()
        .get_template("report.html")
        .render(
            page=page,
            style=style,
            script=script,
            style_hash=source_hash(style),
            script_hash=source_hash(script),
        )
    )


def joined_sources(names: tuple[str, ...]) -> Markup:
    """Text of the package's own style or script files, one after the other; it is inlined as it is."""
    return Markup("\n".join((_folder() / name).read_text(encoding="utf-8") for name in names))  # noqa: S704


@functools.cache
def template_hash() -> str:
    """SHA-256 over the template, style and script files, which shape the page like sources do."""
    digest = hashlib.sha256()
    for path in sorted(path for path in _folder().iterdir() if path.suffix in {".html", ".css", ".js"}):
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _folder() -> Path:
    return Path(__file__).parent


def environment() -> Environment:
    """The template engine: every value is escaped, a missing one is an error."""
    found = Environment(
        loader=FileSystemLoader(_folder()),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters["significant"] = significant_text
    found.filters["count"] = grouped_text
    return found


def source_hash(text: str) -> str:
    """Hash source expression of an inline element's text: ``sha256-`` and base64."""
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode("ascii")
