import io

import pytest
from rich.console import Console

from flows.progress import BarDisplay, LineDisplay, display_for, duration


class Clock:
    """Seconds that pass only when told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def _console(terminal: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=120, color_system=None), stream


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s"), (7800, "2 h 10 min")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_lines_come_no_more_often_than_the_interval() -> None:
    console, stream = _console(terminal=False)
    clock = Clock()
    display = LineDisplay(console, interval_s=10, clock=clock)
    display.begin("train_lesions", "train the lesion GAN", 3, 11)
    for done in range(100):
        clock.now += 1
        display.advance("training images", 1000 * done, 100_000)
    display.end(found=False, seconds=100)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "(3/11) train_lesions train the lesion GAN"
    assert lines[1] == "(3/11) train_lesions training images 9,000/100,000 (9 %)"
    assert len(lines) == 1 + 10 + 1
    assert lines[-1] == "(3/11) train_lesions done in 1 min 40 s"


def test_unknown_total_shows_no_share() -> None:
    console, stream = _console(terminal=False)
    display = LineDisplay(console, interval_s=0, clock=Clock())
    display.begin("ingest", "read", 1, 1)
    display.advance("series", 3, 0)
    assert stream.getvalue().splitlines()[-1] == "(1/1) ingest 3 series"


def test_found_step_is_told_apart_from_a_made_one() -> None:
    console, stream = _console(terminal=False)
    display = LineDisplay(console)
    display.begin("ingest", "read", 1, 2)
    display.end(found=True, seconds=0.1)
    assert "found, already done" in stream.getvalue()


def test_bars_leave_one_line_a_step() -> None:
    console, stream = _console(terminal=True)
    display = BarDisplay(console)
    display.begin("ingest", "read", 1, 1)
    display.advance("series", 1, 4)
    display.end(found=False, seconds=2)
    display.close()
    assert "(1/1) ingest done in 2.0 s" in stream.getvalue()


def test_abandoned_bar_gives_the_terminal_back() -> None:
    console, stream = _console(terminal=True)
    display = BarDisplay(console)
    display.begin("ingest", "read", 1, 1)
    display.abandon()
    display.advance("series", 1, 4)
    console.print("error: told after the bar")
    assert stream.getvalue().rstrip().endswith("error: told after the bar")


def test_a_terminal_gets_bars_and_a_pipe_gets_lines() -> None:
    assert isinstance(display_for(_console(terminal=True)[0]), BarDisplay)
    assert isinstance(display_for(_console(terminal=False)[0]), LineDisplay)
