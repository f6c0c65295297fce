import pytest

from pipeline.prepare.outside_matching import match


def row(series, subject, frame=None):
    return {"series_id": series, "subject_id": subject, "frame_of_reference_uid": frame}


def names(found):
    return {(pair["ct"]["series_id"], pair["pseudo_ct"]["series_id"]) for pair in found.pairs}


def test_one_volume_of_each_kind_and_case():
    found = match({"ct": [row("c1", "a"), row("c2", "b")], "pseudo_ct": [row("p2", "b"), row("p1", "a")]})
    assert names(found) == {("c1", "p1"), ("c2", "p2")}
    assert found.unmatched == ()


def test_frame_of_reference_tells_the_volumes_of_a_subject_apart():
    cts = [row("c1", "a", "f1"), row("c2", "a", "f2")]
    found = match({"ct": cts, "pseudo_ct": [row("p2", "a", "f2"), row("p1", "a", "f1")]})
    assert names(found) == {("c1", "p1"), ("c2", "p2")}


def test_frame_of_reference_alone_pairs_what_has_other_patient_ids():
    found = match({"ct": [row("c1", "a", "f1")], "pseudo_ct": [row("p1", "z", "f1")]})
    assert names(found) == {("c1", "p1")}


def test_the_subject_alone_pairs_what_has_another_frame():
    found = match({"ct": [row("c1", "a", "f1")], "pseudo_ct": [row("p1", "a", "f9")]})
    assert names(found) == {("c1", "p1")}


def test_unknown_frames_are_not_equal_frames():
    found = match({"ct": [row("c1", "a")], "pseudo_ct": [row("p1", "b")]})
    assert found.pairs == ()
    assert {(left["role"], left["subject_id"]) for left in found.unmatched} == {("CT", "a"), ("pseudo-CT", "b")}


def test_what_cannot_be_told_apart_is_not_guessed():
    found = match({"ct": [row("c1", "a")], "pseudo_ct": [row("p1", "a"), row("p2", "a")]})
    assert found.pairs == ()
    assert "several" in found.unmatched[0]["why"]


@pytest.mark.parametrize("role", ["mr", "mask"])
def test_companions_follow_their_subject_or_are_listed(role):
    tables = {"ct": [row("c1", "a"), row("c2", "b")], "pseudo_ct": [row("p1", "a"), row("p2", "b")]}
    found = match(tables | {role: [row("m1", "a"), row("m2", "z"), row("m3", "b"), row("m4", "b")]})
    assert [pair.get(role, {}).get("series_id") for pair in found.pairs] == ["m1", None]
    assert {left["subject_id"] for left in found.unmatched} == {"z", "b"}
