"""What a person sees while a run works: bars in a terminal, a line every few seconds elsewhere.

A display is told when a step begins, advances and ends. It never shows more than step names, counts and times.
"""

import time
from collections.abc import Callable
from typing import Protocol

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

PLAIN_INTERVAL_S = 10.0
"""Seconds between two progress lines where there is no terminal."""


class Display(Protocol):
    """Shows the progress of a run."""

    def begin(self, step: str, title: str, number: int, total: int) -> None:
        """Step ``number`` of ``total`` begins."""

    def advance(self, what: str, done: int, total: int) -> None:
        """The step has done ``done`` of ``total`` ``what``, 0 where nobody knows; a `ProgressCallback`."""

    def end(self, found: bool, seconds: float) -> None:
        """The step ended; ``found`` where its output existed already."""

    def abandon(self) -> None:
        """The step failed or was stopped."""

    def close(self) -> None:
        """Nothing more will come."""


def display_for(console: Console) -> Display:
    """Bars for a terminal, lines for anything else."""
    return BarDisplay(console) if console.is_terminal else LineDisplay(console)


class BarDisplay:
    """One rich progress bar for the step at work; a line stays for each finished step.

    Args:
        console: where to draw.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=28),
            MofNCompleteColumn(),
            TextColumn("{task.fields[what]}"),
            TimeRemainingColumn(compact=True, elapsed_when_finished=True),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._heading = ""

    def begin(self, step: str, title: str, number: int, total: int) -> None:
        """Draw an empty bar."""
        self._heading = _heading(step, number, total)
        self._progress.start()
        self._task = self._progress.add_task(f"{self._heading} [dim]{title}[/]", total=None, what="")

    def advance(self, what: str, done: int, total: int) -> None:
        """Move the bar."""
        if self._task is not None:
            self._progress.update(self._task, completed=done, total=total or None, what=what)

    def end(self, found: bool, seconds: float) -> None:
        """Replace the bar by a line."""
        self.abandon()
        self._console.print(f"{self._heading} {_outcome(found, seconds)}", highlight=False)

    def abandon(self) -> None:
        """Take the bar away."""
        if self._task is not None:
            self._progress.remove_task(self._task)
            self._task = None
        self._progress.stop()

    def close(self) -> None:
        """Give the terminal back."""
        self._progress.stop()


class LineDisplay:
    """Plain lines for logs and pipes.

    Args:
        console: where to write.
        interval_s: seconds between two lines of one step.
        clock: monotonic seconds.
    """

    def __init__(
        self, console: Console, interval_s: float = PLAIN_INTERVAL_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._console, self._interval, self._clock = console, interval_s, clock
        self._heading = ""
        self._spoke_at = 0.0

    def begin(self, step: str, title: str, number: int, total: int) -> None:
        """Write which step begins."""
        self._heading = _heading(step, number, total)
        self._spoke_at = self._clock()
        self._write(title)

    def advance(self, what: str, done: int, total: int) -> None:
        """Write a line when the last one is old enough."""
        now = self._clock()
        if now - self._spoke_at >= self._interval:
            self._spoke_at = now
            share = f" ({100 * done // total} %)" if total else ""
            self._write(f"{what} {done:,}/{total:,}{share}" if total else f"{done:,} {what}")

    def end(self, found: bool, seconds: float) -> None:
        """Write how the step ended."""
        self._write(_outcome(found, seconds))

    def abandon(self) -> None:
        """Lines need no clearing."""

    def close(self) -> None:
        """Lines need no closing."""

    def _write(self, text: str) -> None:
        self._console.print(f"{self._heading} {text}", highlight=False, markup=False, soft_wrap=True)


def duration(seconds: float) -> str:
    """Seconds as people say them: ``0.4 s``, ``12 s``, ``3 min 05 s``, ``2 h 10 min``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _heading(step: str, number: int, total: int) -> str:
    return f"({number}/{total}) {step}"


def _outcome(found: bool, seconds: float) -> str:
    return "found, already done" if found else f"done in {duration(seconds)}"
