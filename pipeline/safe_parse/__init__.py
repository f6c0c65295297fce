"""Runs a parser in a child process with limits on memory and time: a crash, a hang or a bomb costs one scan, not a run.

The child is started with ``forkserver`` from a process that holds no data. It limits its memory, its time and its
files, its output goes nowhere, and it serves tasks one after another; when a task kills it or outlasts its time, the
child is replaced. It is sent the next task while its last result is worked on. Arrays in results cross as they are.
"""

from pipeline.safe_parse.parent import Limits, Outcome, parse_all

__all__ = ["Limits", "Outcome", "parse_all"]
