from collections import Counter

import pytest

from pipeline.errors import SettingsError
from pipeline.settings import SplitSettings
from pipeline.splits import assign_splits
from pipeline.workspace import Workspace

SHARES = SplitSettings(train=0.6, validation=0.15, test=0.25)


@pytest.fixture
def workspace(tmp_path):
    return Workspace.open(tmp_path / "w", bytes(32))


def subjects(count, stratum="a", start=0):
    return {f"sub-{number:04d}": stratum for number in range(start, start + count)}


def test_shares_are_met_to_one_subject_in_every_stratum(workspace):
    strata = subjects(40, "a") | subjects(20, "b", 100)
    splits = assign_splits(workspace, strata, {}, SHARES)
    for stratum, count in (("a", 40), ("b", 20)):
        held = Counter(splits[name] for name, own in strata.items() if own == stratum)
        for split, share in SHARES.model_dump().items():
            assert abs(held[split] - share * count) <= 1.5


def test_nobody_changes_sides_when_others_arrive(workspace):
    first = assign_splits(workspace, subjects(30), {}, SHARES)
    grown = assign_splits(workspace, subjects(400), {}, SHARES)
    assert all(grown[name] == split for name, split in first.items())
    late = Counter(split for name, split in grown.items() if name not in first)
    assert abs(late["test"] / 370 - 0.25) < 0.08


def test_arrival_order_of_late_subjects_does_not_matter(tmp_path):
    results = []
    for name, batches in (("a", [range(10, 20), range(20, 30)]), ("b", [range(20, 30), range(10, 20)])):
        workspace = Workspace.open(tmp_path / name, bytes(32))
        assign_splits(workspace, subjects(10), {}, SHARES)
        for batch in batches:
            assign_splits(workspace, subjects(len(batch), "a", batch.start), {}, SHARES)
        results.append(assign_splits(workspace, subjects(30), {}, SHARES))
    assert results[0] == results[1]


def test_a_published_split_is_kept_and_the_strictest_wins(workspace):
    published = {"sub-0000": {"test"}, "sub-0001": {"train", "test"}, "sub-0002": {"train", "validation"}}
    splits = assign_splits(workspace, subjects(3), published, SHARES)
    assert splits == {"sub-0000": "test", "sub-0001": "test", "sub-0002": "validation"}


def test_other_shares_are_refused_once_the_split_is_made(workspace):
    assign_splits(workspace, subjects(5), {}, SHARES)
    with pytest.raises(SettingsError, match="made once"):
        assign_splits(workspace, subjects(5), {}, SplitSettings(train=0.5, validation=0.25, test=0.25))


def test_other_keys_give_other_splits(tmp_path):
    splits = [
        assign_splits(Workspace.open(tmp_path / str(k), bytes([k] * 32)), subjects(40), {}, SHARES) for k in (1, 2)
    ]
    assert splits[0] != splits[1]


def test_subjects_that_show_the_same_stay_on_one_side(workspace):
    names = [f"sub-{number}" for number in range(30)]
    groups = [{"sub-0", "sub-7", "sub-21"}, {"sub-3", "sub-4"}]
    splits = assign_splits(workspace, dict.fromkeys(names, "x"), {}, SplitSettings(), groups)
    assert all(len({splits[name] for name in group}) == 1 for group in groups)
    assert set(splits.values()) == {"train", "validation", "test"}


def test_a_late_subject_follows_the_one_it_looks_like_and_nobody_changes_sides(workspace):
    names = [f"sub-{number}" for number in range(30)]
    first = assign_splits(workspace, dict.fromkeys(names, "x"), {}, SplitSettings())
    late = {f"late-{number}": names[number] for number in range(30)}
    groups = [{new, old} for new, old in late.items()]
    second = assign_splits(workspace, dict.fromkeys([*names, *late], "x"), {}, SplitSettings(), groups)
    assert {name: second[name] for name in names} == first
    assert all(second[new] == first[old] for new, old in late.items())
