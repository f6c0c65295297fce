"""CSV cells that a spreadsheet shows instead of running.

A cell that begins with ``=``, ``+``, ``-``, ``@``, a tab or a carriage return may be taken for a formula; a leading
apostrophe makes it text. Source: OWASP, CSV Injection.
"""

_FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n")


def inert_cell(text: str) -> str:
    """``text`` with an apostrophe in front where a spreadsheet might run it."""
    return "'" + text if text.startswith(_FORMULA_STARTS) else text
