"""Print the README's table of what a demo measured, from stored figures.

    python docs/demo_table.py docs/results/demo.json

The file is a run's ``report.json``, to which ``conditions`` may be added: a mapping of words to words, e.g. machine and
time. `tests/test_docs.py` checks that the README shows exactly what this prints.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

_TITLES = {"lesions": "Synthetic lesions", "mr_to_ct": "Pseudo-CT from MR"}
_SHOWN = {"utility": ("macro_auc", "auc_difference"), "mr_to_ct_summary": ("mae", "psnr", "ms_ssim")}
"""Tables and their columns that the README repeats."""


def lines(stored: Mapping[str, Any]) -> Iterator[str]:
    """The section, line by line."""
    for name, words in stored.get("conditions", {}).items():
        yield f"- {name}: {words}"
    for track, results in stored["results"].items():
        yield from ("", f"**{_TITLES[track]}**", "", "| figure | value | compare with |", "|---|---:|---|")
        for headline in results["headlines"]:
            reference = f"{_number(headline['reference'])} {headline['reference_text']}".strip()
            yield f"| {headline['text']} | {_number(headline['value'])} | {reference} |"
        yield ""
        yield from (f"- {verdict['sentence']}" for verdict in results["verdicts"])
        for table in results["tables"]:
            if table["key"] in _SHOWN:
                yield from _table(table, _SHOWN[table["key"]])


def _table(table: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    columns = {column["key"]: column for column in table["columns"]}
    titles = [f"{columns[key]['title']} {columns[key]['unit']}".strip() for key in keys]
    first = columns["title"]["title"]
    yield from ("", f"| {first} | {' | '.join(titles)} |", "|---|" + "---:|" * len(keys))
    for row in table["rows"]:
        cells = [_cell(row, columns[key]) for key in keys]
        yield f"| {row['title']} | {' | '.join(cells)} |"


def _cell(row: Mapping[str, Any], column: Mapping[str, Any]) -> str:
    value, digits = row.get(column["key"]), column["digits"]
    if value is None:
        return "–"
    low, high = row.get(column["low_key"]), row.get(column["high_key"])
    span = f" [{low:.{digits}f}, {high:.{digits}f}]" if low is not None and high is not None else ""
    return f"{value:.{digits}f}{span}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"


if __name__ == "__main__":
    sys.stdout.write("\n".join(lines(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")))).strip() + "\n")
