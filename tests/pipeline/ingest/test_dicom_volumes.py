"""Volumes whose plain pixels are copied in this process: what the parsing process would give, and nothing else."""

from dataclasses import replace

import numpy as np
import pydicom
import pytest
from pydicom.uid import RLELossless

from pipeline.ingest import dicom_volumes
from pipeline.ingest.dicom_volumes import volumes
from pipeline.ingest.scan_parsers import read_headers
from pipeline.safe_parse import Limits
from pipeline.scan_io.dicom.grouping import group_headers
from pipeline.scan_io.dicom.read_volume import DamagedFileError, may_be_plain, read_plain_volume, read_volume
from pipeline.scan_io.dicom.volume_plan import DicomPolicy

LIMITS = Limits(30, 3000)


def _plans(paths):
    return group_headers(list(zip(paths, read_headers(tuple(paths)), strict=True)), DicomPolicy()).plans


def _refuse(*_):
    raise AssertionError("a child was asked")


@pytest.mark.parametrize("modality", ["CT", "MR"])
def test_a_plain_series_is_read_without_a_child_and_equals_what_was_written(inputs, modality, monkeypatch):
    paths, written = inputs.dicom("series", modality=modality)
    monkeypatch.setattr(dicom_volumes, "read_planned_volume", _refuse)
    (outcome,) = volumes(_plans(paths), LIMITS)
    np.testing.assert_array_equal(outcome.result.voxels, written)
    np.testing.assert_allclose(outcome.result.geometry.affine, inputs.affine)


def test_it_equals_the_reading_in_a_child_in_every_field(inputs, monkeypatch):
    plans = [_plans(inputs.dicom(name, seed)[0])[0] for seed, name in enumerate("abc")]
    here = list(volumes(plans, LIMITS))
    monkeypatch.setattr(dicom_volumes, "PLAIN_BYTES", 0)
    for ours, childs, plan in zip(here, volumes(plans, LIMITS), plans, strict=True):
        for other in (childs.result, read_volume(plan)):
            assert ours.result.facts == other.facts
            assert ours.result.modality == other.modality
            assert ours.result.voxels.dtype == other.voxels.dtype
            assert ours.result.voxels.strides == other.voxels.strides
            np.testing.assert_array_equal(ours.result.voxels, other.voxels)
            np.testing.assert_array_equal(ours.result.geometry.affine, other.geometry.affine)


def test_order_is_kept_where_some_series_have_to_be_decoded(inputs):
    plans, written = [], []
    for seed, name in enumerate(("plain", "packed", "more", "last")):
        paths, voxels = inputs.dicom(name, seed)
        if name in ("packed", "last"):
            for path in paths:
                dataset = pydicom.dcmread(path)
                dataset.compress(RLELossless)
                dataset.save_as(path)
        plans.append(_plans(paths)[0])
        written.append(voxels)
    assert [may_be_plain(plan) for plan in plans] == [True, False, True, False]
    outcomes = list(volumes(plans, LIMITS))
    assert [outcome.task for outcome in outcomes] == plans
    for outcome, voxels in zip(outcomes, written, strict=True):
        np.testing.assert_array_equal(outcome.result.voxels, voxels)


def test_a_file_cut_short_since_its_header_was_read_is_refused_by_name(inputs):
    paths, _ = inputs.dicom("series")
    plan = _plans(paths)[0]
    paths[2].write_bytes(paths[2].read_bytes()[:-50])
    assert read_plain_volume(plan) is None
    (outcome,) = volumes([plan], LIMITS)
    assert isinstance(outcome.refusal, DamagedFileError)
    assert plan.paths[outcome.refusal.file] == paths[2]


def test_values_beyond_int16_are_left_to_the_child(inputs):
    paths, written = inputs.dicom("series", modality="MR")
    dataset = pydicom.dcmread(paths[1])
    pixels = dataset.pixel_array.astype(np.uint16)
    pixels[0, 0] = 40_000
    dataset.PixelRepresentation = 0
    dataset.PixelData = pixels.tobytes()
    dataset.save_as(paths[1])
    plan = _plans(paths)[0]
    assert may_be_plain(plan)
    assert read_plain_volume(plan) is None
    (outcome,) = volumes([plan], LIMITS)
    assert outcome.result.voxels.dtype == np.float32
    assert outcome.result.voxels[0, 0].max() == 40_000
    np.testing.assert_array_equal(outcome.result.voxels[1:], written[1:])


def test_two_images_at_one_position_are_left_to_the_child(inputs):
    paths, _ = inputs.dicom("series")
    dataset = pydicom.dcmread(paths[1])
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = dataset.SOPInstanceUID + ".1"
    again = paths[1].with_name("again.dcm")
    dataset.save_as(again)
    plan = _plans([*paths, again])[0]
    assert read_plain_volume(plan) is None
    (outcome,) = volumes([plan], LIMITS)
    np.testing.assert_array_equal(outcome.result.voxels, read_volume(_plans(paths)[0]).voxels)


@pytest.mark.parametrize("offset", [-2, 1 << 70, "12"])
def test_places_that_no_header_can_hold_are_no_crash(inputs, offset):
    plan = _plans(inputs.dicom("series")[0])[0]
    odd = replace(plan, headers=tuple(header._replace(pixel_offset=offset) for header in plan.headers))
    (outcome,) = volumes([odd], LIMITS)
    assert outcome.result is None or outcome.result.voxels.size


def test_many_volumes_stay_whole_however_many_are_held(inputs):
    cases = [inputs.dicom(f"{seed}", seed) for seed in range(7)]
    held = [outcome.result.voxels for outcome in volumes([_plans(paths)[0] for paths, _ in cases], LIMITS)]
    for voxels, (_, written) in zip(held, cases, strict=True):
        np.testing.assert_array_equal(voxels, written)
