"""Shows a stage that no chain walks: its progress, where its output lies, and what its record is worth knowing."""

import time
from collections.abc import Callable, Mapping

from rich.console import Console

from flows.progress import display_for
from pipeline.records import StageRecord


def displayed(console: Console, title: str, run: Callable[..., StageRecord]) -> StageRecord:
    """Run a stage with its progress on the screen."""
    display = display_for(console)
    display.begin(title, "", 1, 1)
    began = time.monotonic()
    try:
        record = run(progress=display.advance)
        display.end(record.cached, time.monotonic() - began)
    except BaseException:
        display.abandon()
        raise
    finally:
        display.close()
    return record


def show(console: Console, what: str, value: object) -> None:
    """One line."""
    console.print(f"{what:20} {value}", markup=False, highlight=False, soft_wrap=True)


def show_facts(console: Console, record: StageRecord, names: tuple[str, ...]) -> None:
    """The facts of these names that there are."""
    for name in names:
        if record.facts.get(name) is not None:
            show(console, f"  {name}", short(record.facts[name]))


def short(value: object) -> str:
    """A fact of a record on one line."""
    if isinstance(value, Mapping | list | tuple) and not value:
        return "none"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}: {short(item)}" for key, item in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(map(short, value))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
