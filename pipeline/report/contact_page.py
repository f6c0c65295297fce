"""The contact sheet as pages of its own beside the report, and its flags as numbers for ``report.json``."""

from collections.abc import Iterator, Sequence
from typing import Any

from pipeline.report.contact_stage import ContactSheet
from pipeline.report.contact_view import ContactView
from pipeline.report.page import SCRIPTS, STYLES, environment, joined_sources, source_hash


def render_sheet(run_name: str, views: Sequence[tuple[str, ContactView]]) -> Iterator[tuple[str, str]]:
    """(file name, HTML) of each page of the whole sheet; pages link to each other.

    Args:
        run_name: the run's name.
        views: (file name, what it shows) in order.
    """
    style, script = joined_sources(STYLES), joined_sources(SCRIPTS)
    template = environment().get_template("contact_sheet.html")
    names = [name for name, _ in views]
    for name, view in views:
        yield (
            name,
            template.render(
                run_name=run_name,
                view=view,
                name=name,
                names=names,
                style=style,
                script=script,
                style_hash=source_hash(style),
                script_hash=source_hash(script),
            ),
        )


def quality_numbers(sheet: ContactSheet) -> dict[str, Any]:
    """Flags by series and in all, for machines."""
    return {
        "series": len(sheet.cards),
        "flags": dict(sorted(sheet.flag_counts.items())),
        "flagged": {
            card.series_id: [{"code": flag.code, "found": flag.found} for flag in card.flags]
            for card in sheet.cards
            if card.flags
        },
    }
