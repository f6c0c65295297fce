import numpy as np
import pandera.errors
import pytest

from pipeline.catalog import LESION_SCHEMA, QUARANTINE_SCHEMA, SERIES_SCHEMA, read_catalog, write_catalog

SERIES = {
    "series_id": "ser-1", "subject_id": "sub-1", "subject_source": "case", "kind": "image", "source": "slice_pairs",
    "modality": "MR", "body_part": None, "sequence": None, "volume_label": None, "study_date": None, "flags": [],
    "tilt_degrees": None, "unit": "grey", "shape": [2, 3], "spacing_mm": None,
    "affine": None, "study_uid": None, "series_uid": None, "frame_of_reference_uid": None, "sop_instance_uids": None,
    "patient_position": None, "path": "stacks/2x3-uint8.npy", "stack_index": 1, "slice_index": 4, "pair_key": None,
    "published_split": None, "content_sha256": "00",
}  # fmt: skip
LESION = {
    "lesion_id": "les-1", "subject_id": "sub-1", "series_id": "ser-1", "lesion_class": "cyst", "mask_path": None,
    "mask_value": -1, "volume_mm3": None,
}  # fmt: skip
REFUSAL = {"path_hash": "ab", "files": 2, "reason": "TRUNCATED", "found": "1 of 2 bytes", "advice": "copy again"}


def test_rows_are_read_back_as_written_and_sorted(tmp_path):
    write_catalog(tmp_path, [SERIES | {"series_id": "ser-2"}, SERIES], [LESION], [REFUSAL])
    catalog = read_catalog(tmp_path)
    assert catalog.series.to_dicts() == [SERIES, SERIES | {"series_id": "ser-2"}]
    assert catalog.lesions.to_dicts() == [LESION]
    assert catalog.quarantine.to_dicts() == [REFUSAL]


def test_equal_rows_in_any_order_give_equal_bytes(tmp_path):
    rows = [SERIES | {"series_id": f"ser-{number}"} for number in range(5)]
    for name, order in (("a", rows), ("b", rows[::-1])):
        (tmp_path / name).mkdir()
        write_catalog(tmp_path / name, order, [], [])
    assert (tmp_path / "a/series.parquet").read_bytes() == (tmp_path / "b/series.parquet").read_bytes()


def test_empty_tables_keep_their_columns(tmp_path):
    catalog = write_catalog(tmp_path, [], [], [])
    assert catalog.series.columns == list(SERIES_SCHEMA)
    assert catalog.lesions.columns == list(LESION_SCHEMA)
    assert catalog.quarantine.columns == list(QUARANTINE_SCHEMA)


@pytest.mark.parametrize("wrong", [{"subject_id": None}, {"unit": "mGy"}, {"kind": "movie"}, {"source": "fax"}])
def test_rows_against_the_schema_are_refused(tmp_path, wrong):
    with pytest.raises(pandera.errors.SchemaError):
        write_catalog(tmp_path, [SERIES | wrong], [], [])


def test_an_image_row_leads_to_its_pixels(tmp_path):
    stack = np.arange(12, dtype=np.uint8).reshape(2, 2, 3)
    (tmp_path / "stacks").mkdir()
    np.save(tmp_path / "stacks/2x3-uint8.npy", stack)
    catalog = write_catalog(tmp_path, [SERIES], [], [])
    np.testing.assert_array_equal(catalog.image(catalog.series.row(0, named=True)), stack[1])
