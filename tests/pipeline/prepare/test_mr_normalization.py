import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.intensity import MR_UNIT_AT_HIGH, from_int16
from pipeline.prepare.mr_normalization import StandardHistogram, knots_of, landmarks_of, z_score_scale
from pipeline.prepare.mr_to_ct import prepare_volume_set
from pipeline.prepared_set import from_slices, read_volume_set
from pipeline.records import silent
from pipeline.settings import PrepareMRToCTSettings

PERCENTILES = (1.0, 99.0)
SHAPE = (24, 28, 6)
AFFINE = np.diag([4.0, 4.0, 6.0, 1.0])


def scan(seed, gamma=1.0, gain=1.0):
    """Three tissues of a body, seen by a scanner whose response is bent by ``gamma``."""
    rng = np.random.default_rng(seed)
    tissue = rng.choice([0.3, 0.55, 0.9], p=[0.3, 0.5, 0.2], size=SHAPE) + rng.normal(0, 0.02, SHAPE)
    return (gain * 1000 * np.clip(tissue, 0.01, 1.2) ** gamma).astype(np.float32)


INSIDE = np.ones(SHAPE, bool)


def fitted(*scans):
    return StandardHistogram.fit([("T1", landmarks_of(one, INSIDE, PERCENTILES)) for one in scans], PERCENTILES)


def test_landmarks_of_one_training_scan_map_it_as_two_percentiles_would():
    one = scan(0)
    mapped = fitted(one).map(landmarks_of(one, INSIDE, PERCENTILES), "T1").encode(one)
    low, high = np.percentile(one, PERCENTILES)
    np.testing.assert_allclose(mapped, np.clip((one - low) / (high - low) * 1.6 - 1, -1, 1), atol=1e-4)


def test_a_bent_response_is_straightened_by_landmarks_and_not_by_percentiles():
    standard = fitted(scan(1), scan(2))
    plain, bent = scan(3), scan(3, gamma=1.7, gain=3.0)
    by_landmarks = [standard.map(landmarks_of(one, INSIDE, PERCENTILES), "T1").encode(one) for one in (plain, bent)]
    assert np.abs(by_landmarks[0] - by_landmarks[1]).mean() < 0.02

    def two_percentiles(one):
        low, high = np.percentile(one, PERCENTILES)
        return (one - low) / (high - low) * 1.6 - 1

    assert np.abs(two_percentiles(plain) - two_percentiles(bent)).mean() > 0.08


def test_the_map_by_landmarks_has_an_inverse_and_goes_on_above_the_upper_percentile():
    one = scan(4, gamma=0.8)
    mapping = fitted(scan(1)).map(landmarks_of(one, INSIDE, PERCENTILES), "T1")
    inside = (one > mapping.knots_hu[0]) & (one < mapping.knots_hu[-1])
    np.testing.assert_allclose(mapping.decode(mapping.encode(one))[inside], one[inside], atol=0.05)
    assert mapping.knots_unit[-1] == 1
    assert float(mapping.encode(np.percentile(one, 99))) == pytest.approx(MR_UNIT_AT_HIGH, abs=1e-4)
    assert mapping.encode(one.max()) > MR_UNIT_AT_HIGH


def test_landmarks_that_coincide_count_as_one():
    flat = np.where(np.arange(INSIDE.size).reshape(SHAPE) % 10 < 7, 100, scan(5)).astype(np.float32)
    mapping = fitted(scan(1)).map(landmarks_of(flat, INSIDE, PERCENTILES), "T1")
    assert len(mapping.knots_hu) < 12
    assert np.all(np.diff(mapping.knots_hu) > 0)


def test_a_sequence_that_no_training_scan_has_is_refused_by_name():
    with pytest.raises(InputError, match="come from training subjects") as caught:
        fitted(scan(1)).map(landmarks_of(scan(2), INSIDE, PERCENTILES), "T2")
    assert caught.value.found.startswith("T2")
    assert caught.value.allowed == "T1"


def test_z_scores_are_mean_and_deviation_and_invert():
    one = scan(6)
    scale = z_score_scale(one, INSIDE)
    wanted = (one.astype(np.float64) - one.mean(dtype=np.float64)) / one.std(dtype=np.float64) / 2.5
    np.testing.assert_allclose(scale.encode(one), np.clip(wanted, -1, 1), atol=1e-5)
    np.testing.assert_allclose(scale.decode(scale.encode(one))[np.abs(wanted) < 1], one[np.abs(wanted) < 1], atol=0.01)


def test_what_has_no_contrast_is_refused_by_every_choice():
    flat = np.full(SHAPE, 7, np.float32)
    for choice in (z_score_scale, lambda v, m: landmarks_of(v, m, PERCENTILES)):
        with pytest.raises(InputError, match="high > low"):
            choice(flat, INSIDE)


def body(values):
    """The values inside a cylinder, air around."""
    x, y = np.indices(SHAPE)[:2]
    return np.where(((x - 11.5) / 9) ** 2 + ((y - 13.5) / 11) ** 2 < 1, values, 0).astype(np.int16)


def prepared(maker, folder, splits, method="landmarks"):
    settings = {"spacing_mm": (4.0, 4.0, 6.0), "n4": {"enabled": False}, "mr_normalization": method}
    catalog = maker.write()
    facts = prepare_volume_set(catalog, splits, PrepareMRToCTSettings.model_validate(settings), folder, silent)
    return facts, read_volume_set(folder)


def fill(maker, bent):
    for number, (subject, gamma) in enumerate((("s0", 1.0), ("s1", 1.0), ("s2", bent))):
        maker.volume(subject, "MR", body(scan(number, gamma)), AFFINE, sequence="T1")
        maker.volume(subject, "CT", np.where(body(scan(9)) > 0, 40, -1000).astype(np.int16), AFFINE)


SPLITS = {"s0": "train", "s1": "train", "s2": "test"}


def test_test_subjects_have_no_say_in_the_landmarks_and_are_mapped_by_them(maker, tmp_path):
    fill(maker, 1.0)
    first, _ = prepared(maker, tmp_path / "a", SPLITS)
    again = type(maker)(tmp_path / "again")
    fill(again, 2.0)
    second, volumes = prepared(again, tmp_path / "b", SPLITS)
    assert first["mr_normalization"] == second["mr_normalization"] == volumes.facts["mr_normalization"]
    assert second["mr_normalization"]["method"] == "landmarks"
    assert second["mr_normalization"]["landmarks"]["percentiles"] == [1, 10, 20, 30, 40, 50, 60, 70, 80, 90, 99]
    assert not (tmp_path / "b" / "corrected").exists()
    (row,) = volumes.volumes("MR", ["test"])
    units = from_slices(from_int16(volumes.voxels(row)))
    values = body(scan(2, 2.0))
    known = np.interp(values, row["mr_knots"], row["mr_knots_unit"])
    np.testing.assert_allclose(units, known, atol=1e-4)


@pytest.mark.parametrize("method", ["percentiles", "z_score"])
def test_a_linear_normalization_is_stored_by_its_two_ends(maker, tmp_path, method):
    fill(maker, 1.3)
    facts, volumes = prepared(maker, tmp_path / "a", SPLITS, method)
    assert facts["mr_normalization"] == {"method": method}
    for row in volumes.volumes("MR", ["train", "test"]):
        values = body(scan(int(row["subject_id"][1]), 1.3 if row["subject_id"] == "s2" else 1.0))
        units = (values - row["mr_low"]) / (row["mr_high"] - row["mr_low"]) * 1.6 - 1
        found = from_slices(from_int16(volumes.voxels(row)))
        np.testing.assert_allclose(found, np.clip(units, -1, 1), atol=1e-4)
        assert row["mr_knots"] is None


def test_what_is_stored_of_a_map_is_where_its_upper_percentile_lies():
    one = scan(4)
    stored = knots_of(fitted(scan(1)).map(landmarks_of(one, INSIDE, PERCENTILES), "T1"))
    assert stored["mr_high"] == pytest.approx(np.percentile(one, 99), abs=0.01)
    assert len(stored["mr_knots"]) == len(stored["mr_knots_unit"])
