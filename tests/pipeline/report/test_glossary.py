"""Every column that a table may show is defined, every measure has its source, every citation its reference."""

import ast
import re
from pathlib import Path
from typing import get_args

import pytest

from pipeline.report.glossary import OWN, SOURCES, definition_of, source_of
from pipeline.report.methods import lesion_methods, mr_to_ct_methods
from pipeline.report.references import REFERENCES, cited
from pipeline.settings import TrainLesionsSettings
from pipeline.settings_loading import validate

PIPELINE = Path(__file__).resolve().parents[3] / "pipeline"


def columns() -> list[tuple[str, str, bool]]:
    """(file, key, whether it states a definition) of every column whose key is written out."""
    found = []
    for path in sorted(PIPELINE.rglob("*.py")):
        source = path.read_text(encoding="utf-8")
        for node in ast.walk(ast.parse(source)) if "Column(" in source else ():
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Column":
                given = {keyword.arg: keyword.value for keyword in node.keywords}
                key = given["key"]
                if isinstance(key, ast.Constant):
                    found.append((path.name, str(key.value), "definition" in given))
    return found


def test_every_column_says_what_it_is() -> None:
    found = columns()
    assert len(found) > 60
    silent = [(file, key) for file, key, stated in found if not stated and not definition_of("", key)]
    assert not silent, "state a definition in the Column, or in pipeline/report/glossary.py"


@pytest.mark.parametrize(
    ("column", "source"),
    [
        ("kid", "Bińkowski 2018"),
        ("mae_bone", "Huijben 2024"),
        ("wepl_p95_abs", "ICRU 44"),
        ("dice_air", "Dice 1945"),
        ("kid_relative", OWN),
        ("images", OWN),
        ("ssim", "Wang 2004"),
        ("ms_ssim", "Wang 2003"),
    ],
)
def test_a_measure_names_the_work_that_defines_it(column: str, source: str) -> None:
    assert source_of("any", column) == source


def test_every_source_and_every_citation_has_its_reference() -> None:
    texts = list(SOURCES.values())
    for objective in get_args(TrainLesionsSettings.model_fields["objective"].annotation):
        settings = validate({"train": {"lesions": {"objective": objective}}}, "test")
        texts += [*lesion_methods(settings), *mr_to_ct_methods(settings)]
    name = r"[A-ZÀ-Ž][\w-]+(?: and [A-ZÀ-Ž]\w+)? (?:19|20)\d\d"
    named = set(re.findall(name, "\n".join(texts)))
    assert len(named) > 20
    assert named <= set(REFERENCES)


def test_only_what_is_named_is_cited() -> None:
    assert cited(["as Dice 1945 has it", "and Naeem 2020"]) == (
        ("Dice 1945", REFERENCES["Dice 1945"]),
        ("Naeem 2020", REFERENCES["Naeem 2020"]),
    )
    assert cited([]) == ()


def test_references_are_in_order_and_end_with_a_stop() -> None:
    assert all(full.endswith(".") and name.split()[-1].strip("()") in full + "44" for name, full in REFERENCES.items())
