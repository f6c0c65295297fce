"""Stamped text is found, anatomy is not taken for it; shares are measured, not hoped for."""

import itertools
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw, ImageFont

from pipeline.geometry import Geometry
from pipeline.ingest.burned_in_text import looks_stamped, suspicious_text
from pipeline.ingest.found import FoundImage, FoundVolume
from pipeline.phantom import phantom_subject
from pipeline.scan_io import Scan, ScanFacts
from pipeline.settings import RunSettings

DATA = Path(os.environ.get("SCANLOOM_TEST_DATA", "/nonexistent"))
TEXTS = ("DOE^JANE", "Miller 1961-03-04", "ID 447-19 F", "ST. MARY HOSPITAL")
FONT_FILES = ("DejaVuSans.ttf", "DejaVuSansMono.ttf", "DejaVuSans-Bold.ttf", "DejaVuSerif.ttf")


def _font(name, size):
    matplotlib = pytest.importorskip("matplotlib")
    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/{name}", size)


def _stamped(volume, text, font, place, slices, value, *, smooth):
    """Draw a text into slices (rows along j), at a corner, an edge or the center."""
    canvas = Image.new("L", volume.shape[:2])
    draw = ImageDraw.Draw(canvas)
    left, top, right, bottom = draw.textbbox((0, 0), text, font=font)
    room = volume.shape[0] - (right - left), volume.shape[1] - (bottom - top)
    i, j = {
        "corner": (2, 2), "far corner": (room[0] - 2, room[1] - 2),
        "edge": (room[0] // 2, 2), "center": (room[0] // 2, room[1] // 2),
    }[place]  # fmt: skip
    draw.text((i - left, j - top), text, font=font, fill=255)
    cover = np.asarray(canvas).T / 255.0
    cover = cover if smooth else (cover > 0.5).astype(float)
    result = volume.copy()
    for k in slices:
        result[:, :, k] = np.rint(result[:, :, k] * (1 - cover) + value * cover)
    return result


@pytest.fixture(scope="module")
def phantoms():
    made = [phantom_subject(5, index, part, "T1") for part in ("HEAD", "PELVIS") for index in (1, 2)]
    return [("mr", each.mr) for each in made] + [("ct", each.ct_hu) for each in made]


def _cases(phantoms, places, count):
    """A seeded sample of every combination of phantom, text, font, size, place, extent, value and smoothing."""
    every = list(
        itertools.product(
            phantoms, TEXTS, FONT_FILES, (12, 14, 18, 22), places, (True, False), (True, False), (True, False)
        )
    )
    for (kind, volume), text, name, size, place, alone, top, smooth in random.Random(7).sample(every, count):  # noqa: S311
        font = _font(name, size)
        if font.getlength(text) > volume.shape[0] - 6:
            continue
        middle = volume.shape[2] // 2
        slices = [middle] if alone else range(volume.shape[2])
        highest = {"mr": 4095, "ct": 3071}[kind]
        yield _stamped(volume, text, font, place, slices, highest if top else volume.max(), smooth=smooth)


@pytest.mark.parametrize(("places", "least"), [(("corner", "far corner", "edge"), 0.97), (("center",), 0.8)])
def test_stamped_text_is_found(phantoms, places, least):
    found = [looks_stamped(volume) is not None for volume in _cases(phantoms, places, 220)]
    assert len(found) > 80
    assert np.mean(found) >= least


def test_stamped_text_is_found_at_all_places_together(phantoms):
    found = [
        looks_stamped(each) is not None for each in _cases(phantoms, ("corner", "far corner", "edge", "center"), 320)
    ]
    assert np.mean(found) >= 0.95


@pytest.mark.parametrize("part", ["HEAD", "PELVIS"])
@pytest.mark.parametrize("sequence", ["T1", "T2"])
@pytest.mark.parametrize("index", range(4))
def test_phantoms_hold_no_text(part, sequence, index):
    subject = phantom_subject(9, index, part, sequence)
    assert looks_stamped(subject.mr) is None
    assert looks_stamped(subject.ct_hu) is None


def test_text_is_found_in_any_orientation(phantoms):
    _, volume = phantoms[0]
    stamped = _stamped(volume, "MILLER 1961", _font("DejaVuSans.ttf", 16), "corner", [4], 4095, smooth=True)
    for turned in (stamped, stamped.transpose(1, 0, 2), stamped[::-1], stamped[:, ::-1], stamped / 7.0):
        stamp = looks_stamped(turned)
        assert stamp is not None
        assert stamp.slice_index == 4
        assert 8 <= stamp.height_px <= 16
        assert stamp.glyphs >= 4


def test_a_side_marker_is_no_text(phantoms):
    _, volume = phantoms[0]
    assert looks_stamped(_stamped(volume, "L", _font("DejaVuSans.ttf", 18), "edge", [4], 4095, smooth=True)) is None


@pytest.mark.parametrize("volume", [np.zeros((40, 40, 4)), np.full((40, 40, 4), 7, np.int16), np.ones((8, 8, 2))])
def test_volumes_without_contrast_or_size_hold_no_text(volume):
    assert looks_stamped(volume) is None


@pytest.mark.parametrize("seed", range(5))
def test_noise_bars_and_checkerboards_are_no_text(seed):
    rng = np.random.default_rng(seed)
    noise = rng.integers(0, 4096, (128, 128, 2))
    bars = np.zeros((128, 128, 1), np.int16)
    bars[:: 4 + seed] = 4095
    checks = (np.indices((128, 128)).sum(axis=0) // (6 + seed) % 2 * 255).astype(np.uint8)[:, :, None]
    specks = (rng.random((128, 128, 1)) > 0.995) * 255
    assert [looks_stamped(each) for each in (noise, bars, checks, specks)] == [None] * 4


def _volume(voxels, spacing=(1.0, 1.0, 4.0), **facts):
    scan = Scan(voxels, Geometry(voxels.shape, np.diag([*spacing, 1.0])), "MR", ScanFacts(**facts))
    return FoundVolume(scan, "nifti", "word", "subject", "file", ("a.nii",))


def test_slices_are_looked_through_across_the_coarsest_axis(phantoms):
    _, volume = phantoms[0]
    stamped = _stamped(volume, "MILLER 1961", _font("DejaVuSans.ttf", 16), "corner", [4], 4095, smooth=True)
    sagittal = np.moveaxis(stamped, 2, 0)
    refusal = suspicious_text(_volume(sagittal, spacing=(4.0, 1.0, 1.0)))
    assert refusal.reason == "BURNED_IN_TEXT"
    assert "slice 5 of 40" in refusal.found


def test_a_header_that_admits_text_is_believed(phantoms):
    assert suspicious_text(_volume(phantoms[0][1], burned_in_annotation="YES")).found == "BurnedInAnnotation is YES"
    assert suspicious_text(_volume(phantoms[0][1], burned_in_annotation="NO")) is None


def test_color_images_are_looked_at_by_their_brightest_channel(phantoms):
    _, volume = phantoms[0]
    grey = (np.clip(volume[:, :, 20] / 1500, 0, 1) * 200).astype(np.uint8)[:, :, None]
    stamped = _stamped(grey, "MILLER 1961", _font("DejaVuSans.ttf", 16), "corner", [0], 255, smooth=True)
    colored = np.concatenate([stamped, grey, grey], axis=2)
    assert suspicious_text(FoundImage(colored, "class_folders", "a", ("a.png",))).reason == "BURNED_IN_TEXT"
    assert suspicious_text(FoundImage(np.repeat(grey, 3, axis=2), "class_folders", "a", ("a.png",))) is None


def test_it_costs_little_beside_reading(phantoms):
    """Under 0.6 ms for a slice of 512 × 512; reading, hashing and writing one takes some milliseconds."""
    rng = np.random.default_rng(0)
    volume = np.asfortranarray(np.kron(phantoms[-1][1][:100, :100], np.ones((5, 5, 1), np.int16)))
    volume = volume + rng.integers(-20, 20, volume.shape, dtype=np.int16)
    times = []
    for _ in range(5):
        began = time.process_time()
        looks_stamped(volume)
        times.append(time.process_time() - began)
    assert min(times) / volume.shape[2] < 0.004  # generous: shared machines


def test_ingest_quarantines_stamped_scans_or_flags_them_as_asked(inputs, run_ingest):
    subject = phantom_subject(5, 1, "HEAD", "T1")
    stamped = _stamped(subject.mr, "MILLER 1961", _font("DejaVuSans.ttf", 16), "corner", [4], 4095, smooth=True)
    inputs.nifti("sub-1/sub-1_T1w.nii", stamped, subject.geometry.affine)
    inputs.nifti("sub-2/sub-2_T1w.nii", subject.mr, subject.geometry.affine)
    refused, kept = run_ingest(), run_ingest(workspace="second", burned_in_text="keep")
    assert (refused.catalog.series.height, refused.reasons()) == (1, ["BURNED_IN_TEXT"])
    assert (kept.catalog.series.height, kept.reasons()) == (2, [])
    assert sorted(flag for flags in kept.catalog.series["flags"] for flag in flags) == ["BURNED_IN_TEXT"]


def test_the_masks_of_a_refused_scan_go_with_it(inputs, run_ingest):
    subject = phantom_subject(5, 1, "HEAD", "T1")
    stamped = _stamped(subject.mr, "MILLER 1961", _font("DejaVuSans.ttf", 16), "corner", [4], 4095, smooth=True)
    mask = np.zeros(stamped.shape, np.int16)
    mask[60:70, 60:70, 15:20] = 1
    for name, voxels in (("a_T1w.nii", stamped), ("b_T1w.nii", subject.mr), ("a_mask.nii", mask), ("b_mask.nii", mask)):
        inputs.nifti(name, voxels, subject.geometry.affine)
    lines = [
        "mask_path,image_path,mask_value,lesion_class",
        *(f"{each}_mask.nii,{each}_T1w.nii,1,cyst" for each in "ab"),
    ]
    inputs.text("lesions.csv", "\n".join(lines) + "\n")
    result = run_ingest(layout="scans")
    assert result.reasons() == ["BURNED_IN_TEXT"]
    assert result.catalog.lesions["series_id"].to_list() == result.catalog.series["series_id"].to_list()
    assert len(list((result.catalog.folder / "masks").iterdir())) == 1


def test_the_default_is_to_quarantine():
    assert RunSettings().ingest.burned_in_text == "quarantine"
    assert replace(ScanFacts(), flags=("X",)).burned_in_annotation is None


needs_data = pytest.mark.skipif(not DATA.is_dir(), reason="SCANLOOM_TEST_DATA names no folder of real data")


@needs_data
@pytest.mark.real_data
def test_a_real_stamped_ultrasound_is_found():
    pixels = pydicom.dcmread(DATA / "deidentify/ultrasounds/GREYSCALE_IMAGE.dcm").pixel_array
    grey = pixels if pixels.ndim == 2 else pixels.max(axis=-1)
    assert looks_stamped(grey.T[:, :, None]) is not None


@needs_data
@pytest.mark.real_data
@pytest.mark.slow
@pytest.mark.parametrize(
    ("folder", "most"),
    [("mr_ct_head_pairs/MR", 0), ("mr_ct_head_pairs/CT", 0), ("ct_slices/real", 0), ("ct_slices/model", 0)],
)
def test_real_slices_are_not_taken_for_text(folder, most):
    flagged, count = [], 0
    for path in sorted((DATA / folder).rglob("*.png")):
        try:
            pixels = np.asarray(Image.open(path).convert("L"))
        except OSError:  # seven are broken as published
            continue
        count += 1
        flagged += [path.name] if looks_stamped(pixels.T[:, :, None]) else []
    assert count > 100
    assert len(flagged) <= most


@needs_data
@pytest.mark.real_data
def test_real_series_are_not_taken_for_text():
    import nibabel as nib

    count = 0
    for path in sorted((DATA / "dicom_reference").rglob("*.nii*")):
        voxels = np.asanyarray(nib.load(path).dataobj)
        if voxels.dtype.names:
            continue
        first = voxels.reshape(*voxels.shape[:3], -1)[..., 0]
        assert looks_stamped(first) is None, path.name
        count += 1
    assert count > 30
