import numpy as np
import pytest

from pipeline.domain_card import DomainCard, ScanFacts, judge, measure_mr, scope_group

SPACING = (4.0, 2.0, 2.0)
GRID = {"unit": "HU", "spacing_mm": [2.0, 2.0, 4.0]}
HEADER = ScanFacts("T1", "HEAD", 1.0, 4.0, "axial")


@pytest.fixture
def card(subject):
    scans = [measure_mr(*subject(seed), SPACING, HEADER) for seed in range(6)]
    group = scope_group("HEAD", "T1", scans)
    return DomainCard(unit="HU", spacing_mm=(2.0, 2.0, 4.0), groups=(group,), ct=None)


def verdict(card, units, mask, facts=HEADER, grid=GRID):
    return judge(card, measure_mr(units.astype(np.float32), mask, SPACING, facts), grid)


def test_further_subjects_are_in_scope(card, subject):
    verdicts = [verdict(card, *subject(seed)) for seed in range(100, 120)]
    assert all(found.in_scope for found in verdicts)
    assert all(found.nearest < 1 and found.group == "HEAD T1" for found in verdicts)


def cropped(units, mask, *cuts):
    return units[cuts], mask[cuts]


WRONG = {
    "inverted inside the body": lambda u, m: (np.where(m, 0.3 - u, u), m),
    "another contrast": lambda u, m: (np.where(m, np.clip(u * -0.5 + 0.2, -1, 1), -1), m),
    "flat": lambda u, m: (np.where(m, 0.0, -1.0), m),
    "cropped from the left": lambda u, m: cropped(u, m, slice(None), slice(None), slice(20, None)),
    "cropped below": lambda u, m: cropped(u, m, slice(5, None), slice(None), slice(None)),
    "front to back": lambda u, m: (u[:, ::-1], m[:, ::-1]),
    "on its side": lambda u, m: (np.swapaxes(u, 1, 2), np.swapaxes(m, 1, 2)),
}


@pytest.mark.parametrize("kind", WRONG)
def test_wrong_scans_are_refused_with_figures(card, subject, kind):
    for seed in range(200, 204):
        found = verdict(card, *WRONG[kind](*subject(seed)))
        assert not found.in_scope
        assert found.nearest > 1
        assert all(finding.severity > 1 for finding in found.findings)
        assert [f.severity for f in found.findings] == sorted((f.severity for f in found.findings), reverse=True)
        assert any(character.isdigit() for character in found.findings[0].sentence())


def test_a_body_of_another_size_is_refused_by_its_size(card, subject):
    found = verdict(card, *subject(300, size=0.6))
    assert {"width of the body", "front to back of the body"} <= {finding.what for finding in found.findings}
    assert " mm" in found.findings[0].sentence()


@pytest.mark.parametrize(
    ("facts", "what"),
    [
        (ScanFacts("T2", "HEAD", 1.0, 4.0, "axial"), "sequence by its header"),
        (ScanFacts("T1", "PELVIS", 1.0, 4.0, "axial"), "body part by its header"),
        (ScanFacts("T1", "HEAD", 1.0, 4.0, "sagittal"), "plane of its slices"),
        (ScanFacts("T1", "HEAD", 1.0, 12.0, "axial"), "slice distance of the scan"),
        (ScanFacts("T1", "HEAD", 3.0, 4.0, "axial"), "pixel size of the scan"),
    ],
)
def test_headers_that_say_otherwise_are_refused(card, subject, facts, what):
    found = verdict(card, *subject(7), facts)
    assert [finding.what for finding in found.findings] == [what]


def test_headers_that_say_nothing_and_finer_voxels_are_no_reason(card, subject):
    assert verdict(card, *subject(8), ScanFacts()).in_scope
    assert verdict(card, *subject(8), ScanFacts("T1", "HEAD", 0.5, 1.0, None)).in_scope


def test_another_grid_or_unit_is_refused_whatever_the_scan(card, subject):
    assert verdict(card, *subject(9), grid={"unit": "grey", "spacing_mm": None}).findings[0].what == (
        "unit of the prepared set"
    )
    found = verdict(card, *subject(9), grid={"unit": "HU", "spacing_mm": [1.0, 1.0, 4.0]})
    assert found.findings[0].sentence() == "prepared voxel size: 1 x 1 x 4 mm, where 2 x 2 x 4 mm is known"


def test_a_model_of_two_kinds_knows_both_and_nothing_between(card, subject):
    low = [measure_mr(*subject(seed, contrast=(-0.2, 0.5, -0.4)), SPACING) for seed in range(6)]
    both = card.model_copy(update={"groups": (*card.groups, scope_group("PELVIS", "T1", low))})
    assert verdict(both, *subject(20), ScanFacts()).group == "HEAD T1"
    assert verdict(both, *subject(20, contrast=(-0.2, 0.5, -0.4)), ScanFacts()).group == "PELVIS T1"
    assert not verdict(both, *subject(20, contrast=(0.2, -0.1, -0.1)), ScanFacts()).in_scope


def test_a_card_survives_json(card):
    assert DomainCard.model_validate_json(card.model_dump_json()) == card
