"""Why a task has no result, where its parser did not say so itself."""

import signal

from pipeline.errors import QuarantineError

_TIMERS = (signal.SIGALRM, signal.SIGXCPU)


def out_of_memory() -> QuarantineError:
    """The parser ran into its memory limit."""
    advice = "Raise ingest.memory_limit_mb if the file is merely large."
    return QuarantineError("OUT_OF_MEMORY", "the parser ran into its memory limit", advice)


def timeout(seconds: float) -> QuarantineError:
    """The parser outlasted its time."""
    advice = "Raise ingest.timeout_s if the file is merely large."
    return QuarantineError("TIMEOUT", f"no result after {seconds:g} s", advice)


def unreadable(error: BaseException) -> QuarantineError:
    """The parser raised; told by type only, for the texts of errors may quote headers."""
    advice = "Open the file in a viewer; if it is sound, report which writer made it."
    return QuarantineError("UNREADABLE", f"{type(error).__name__} while parsing", advice)


def died(exit_code: int | None, seconds: float) -> QuarantineError:
    """The parsing process ended: by a timer of its own, by another signal, or by itself.

    Args:
        exit_code: negative number of a signal, or the code.
        seconds: the time limit.
    """
    if exit_code is not None and -exit_code in _TIMERS:
        return timeout(seconds)
    killed = exit_code is not None and exit_code < 0
    found = f"the parser died of {signal.Signals(-exit_code).name}" if killed and exit_code else "the parser died"
    return _hostile(found)


def untrusted() -> QuarantineError:
    """The parsing process sent something that no parser of ours returns."""
    return _hostile("the parser sent an answer that cannot be trusted")


def _hostile(found: str) -> QuarantineError:
    return QuarantineError(
        "CRASHED", found, "Treat the file as hostile or damaged; do not open it elsewhere unchecked."
    )
