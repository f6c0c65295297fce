"""A written phantom cohort, in DICOM and BIDS: what ingest finds equals the truth that wrote it."""

import nibabel as nib
import numpy as np
import polars as pl
import pytest

from pipeline.catalog import read_catalog
from pipeline.ingest.stage import ingest
from pipeline.phantom import PhantomSubject, write_cohort
from pipeline.settings import RunSettings
from pipeline.workspace import Workspace

PLAN = (
    PhantomSubject("sub-01", "HEAD", format="dicom"),
    PhantomSubject("sub-02", "HEAD", format="nifti"),
    PhantomSubject("sub-03", "PELVIS", has_ct=False, format="nifti"),
)


@pytest.fixture(scope="module")
def cohort(tmp_path_factory):
    root = tmp_path_factory.mktemp("cohort")
    truth = write_cohort(root / "input", 0, PLAN)
    workspace = Workspace.open(root / "workspace", bytes(range(32)))
    record = ingest(workspace, RunSettings(), root / "input")
    return truth, record, read_catalog(record.path(workspace.root))


def test_every_subject_image_and_lesion_is_found(cohort):
    truth, record, catalog = cohort
    assert record.facts["quarantined"] == 0
    assert record.facts["subjects"] == 3
    assert record.facts["modalities"] == {"CT": 2, "MR": 3}
    assert set(catalog.series["body_part"]) == {"HEAD", "PELVIS"}
    assert set(catalog.series.filter(pl.col("modality") == "MR")["sequence"]) == {"T1"}
    found = sorted(catalog.lesions["lesion_class"])
    assert found == sorted(lesion.lesion_class for lesion in truth.lesions)


def test_mr_and_ct_of_a_subject_share_a_pseudonym(cohort):
    _, _, catalog = cohort
    counts = catalog.series.group_by("subject_id").agg(pl.col("modality").sort())["modality"].to_list()
    assert sorted(counts) == [["CT", "MR"], ["CT", "MR"], ["MR"]]


def _subject(row):
    return {("dicom", "HEAD"): "sub-01", ("nifti", "HEAD"): "sub-02", ("nifti", "PELVIS"): "sub-03"}[
        row["source"], row["body_part"]
    ]


def _lesion_points(path, value, affine=None):
    """Sorted RAS+ positions of a lesion's voxels, in mm."""
    image = nib.load(path)
    index = np.argwhere(np.asarray(image.dataobj) == value)
    affine = image.affine if affine is None else affine
    points = index @ affine[:3, :3].T + affine[:3, 3]
    return points[np.lexsort(np.rint(points * 10).T)]


def test_lesions_have_their_class_and_every_voxel_where_it_was(cohort):
    truth, _, catalog = cohort
    series = catalog.series.select("series_id", "affine", "source", "body_part")
    rows = {
        (_subject(row), row["mask_value"]): row
        for row in catalog.lesions.join(series, on="series_id").iter_rows(named=True)
    }
    assert rows.keys() == {(lesion.subject, lesion.mask_value) for lesion in truth.lesions}
    for lesion in truth.lesions:
        row = rows[lesion.subject, lesion.mask_value]
        assert row["lesion_class"] == lesion.lesion_class
        found = _lesion_points(catalog.folder / row["mask_path"], lesion.mask_value, np.reshape(row["affine"], (4, 4)))
        expected = _lesion_points(truth.root / lesion.mask_path, lesion.mask_value)
        np.testing.assert_allclose(found, expected, atol=1e-3)
        assert np.linalg.norm(found.mean(axis=0) - lesion.center_mm) < lesion.radius_mm / 2


def test_the_left_marker_is_bright_on_the_left_and_not_on_the_right(cohort):
    truth, _, catalog = cohort
    for row in catalog.series.filter(pl.col("modality") == "MR").iter_rows(named=True):
        image = nib.load(catalog.folder / row["path"])
        voxels, inverse = np.asarray(image.dataobj), np.linalg.inv(np.reshape(row["affine"], (4, 4)))
        marker = np.array([*truth.markers_mm[_subject(row)], 1])
        assert marker[0] < 0  # RAS+: negative is left
        left, right = (np.rint((inverse @ (marker * [side, 1, 1, 1]))[:3]).astype(int) for side in (1, -1))
        assert voxels[tuple(left)] > 1.2 * voxels[tuple(np.clip(right, 0, np.array(voxels.shape) - 1))]
