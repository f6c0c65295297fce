"""The report: one self-contained HTML page about a run, and the same numbers as JSON."""
