"""Thousands of damaged files through the parsers of the ingest, in their limited process: each costs itself at most."""

import gzip
import operator
import os
import random
import re
import sys
import time
from collections import Counter
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import highdicom as hd
import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.sr.codedict import codes
from pydicom.uid import DeflatedExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from pipeline.ingest.dicom_volumes import volumes
from pipeline.ingest.isolated import parse_each
from pipeline.ingest.nifti_parsers import ImageTask, read_image_file
from pipeline.ingest.scan_parsers import read_headers, read_planned_volume
from pipeline.ingest.structure_parsers import Drawn, DrawTask, Image, draw_structures, read_references
from pipeline.safe_parse import Limits, parse_all
from pipeline.scan_io import Acquisition, Scan, SeriesIdentity, uid_from, write_dicom_series
from pipeline.scan_io.dicom.grouping import group_headers
from pipeline.scan_io.dicom.volume_plan import DicomPolicy
from pipeline.settings import IngestSettings

DATA = Path(os.environ.get("SCANLOOM_TEST_DATA", "/nonexistent"))
AFFINE = np.array([[-1.5, 0, 0, 20.0], [0, -1.5, 0, 30.0], [0, 0, 4.0, -50.0], [0, 0, 0, 1]])
IMAGE = Image((12, 10, 4), tuple(AFFINE.ravel()), ())
LIMITS = Limits(timeout_s=20, memory_mb=IngestSettings().memory_limit_mb)
LARGEST_RSS_KIB = 1_500_000

REASONS = frozenset(
    """
    BAD_GEOMETRY BAD_ORIENTATION BAD_VALUE CRASHED DECODE_FAILED DERIVED DOSE_REPORT DUPLICATE_POSITION EXPANSION_LIMIT
    FORM_CONFLICT GANTRY_TILT IMPLAUSIBLE_SPACING LOCALIZER MISSING_GEOMETRY MISSING_RESCALE MISSING_SLICE
    MISSING_SYNTAX MIXED_SERIES MODALITY_CONFLICT MOSAIC_GEOMETRY NONUNIFORM_SPACING NON_FINITE NOT_3D NOT_AN_IMAGE
    NOT_DICOM NO_ORIENTATION NO_PIXEL_DATA OUT_OF_MEMORY PIXEL_CLAIM SECONDARY_CAPTURE SFORM_QFORM_CONFLICT
    SINGULAR_AFFINE TIMEOUT TOO_DEEP TOO_LARGE TOO_SMALL TRAILING_BYTES TRUNCATED UNREADABLE UNSUPPORTED_COLOR
    UNSUPPORTED_DTYPE UNSUPPORTED_FORMAT UNSUPPORTED_MODALITY UNSUPPORTED_PIXELS UNSUPPORTED_SYNTAX
    AMBIGUOUS_REFERENCE CONTOUR_OFF_SLICE CONTOUR_SPACING DUPLICATE_STRUCTURE EMPTY_LESION EMPTY_STRUCTURE_SET
    FRAME_COUNT MALFORMED_CONTOUR NO_CLOSED_CONTOUR NO_POSITION NO_SEGMENT OPEN_CONTOUR OUTSIDE_GRID
    REFERENCE_CONFLICT REPEATED_FRAMES UNMAPPED_STRUCTURE UNSUPPORTED_SEGMENTATION
    """.split()  # noqa: SIM905
)
"""Every reason that the readers can give; a new one belongs here and into the documentation."""

pytestmark = pytest.mark.filterwarnings("ignore:::pydicom", "ignore:::highdicom")


@dataclass
class Tally:
    """What became of mutants."""

    outcomes: Counter[str]
    longest_s: float = 0.0
    peak_kib: int = 0

    def __str__(self):
        counts = "\n".join(f"{count:6d} {reason}" for reason, count in self.outcomes.most_common())
        return f"longest answer {self.longest_s:.1f} s, peak of the child {self.peak_kib / 1024:.0f} MiB\n{counts}"

    def all(self, outcomes, kind):
        """Count outcomes, whose results must be of a kind, and the longest wait for one."""
        started = time.monotonic()
        for outcome in outcomes:
            assert isinstance(outcome.result, kind) is (outcome.refusal is None)
            self.outcomes["accepted" if outcome.refusal is None else outcome.refusal.reason] += 1
            self.longest_s = max(self.longest_s, time.monotonic() - started)
            started = time.monotonic()


def _own_seeds(folder):
    """Small sound files of every kind that we can write ourselves."""
    seeds = []
    for number, modality in enumerate(("MR", "CT")):
        values = np.random.default_rng(number).integers(0, 1500, (12, 10, 4)).astype(np.int16)
        who = SeriesIdentity("P", uid_from("study"), uid_from(modality), uid_from("frame"))
        series = write_dicom_series(folder / modality, values, AFFINE, modality, who, Acquisition("AX T1"))
        seeds += [*series, *_other_encodings(series[0])]
    seeds += [_segmentation(series, folder / "seg.dcm"), _structures(series[0], folder / "rtstruct.dcm")]
    image = nib.Nifti1Image(values, AFFINE)
    for name in ("a.nii", "b.nii.gz"):
        nib.save(image, folder / name)
    nib.save(nib.Nifti2Image(values.astype(np.float32), AFFINE), folder / "c.nii")
    nib.save(nib.Nifti1Image(np.stack([values] * 2, -1), AFFINE), folder / "d.nii")
    return seeds + sorted(folder.glob("*.nii*"))


def _other_encodings(path):
    made = []
    for name, syntax in (("implicit", ImplicitVRLittleEndian), ("deflated", DeflatedExplicitVRLittleEndian)):
        item = pydicom.dcmread(path)
        item.file_meta.TransferSyntaxUID = syntax
        item.save_as(path.with_name(f"{name}.dcm"), implicit_vr=name == "implicit", little_endian=True)
        made.append(path.with_name(f"{name}.dcm"))
    item = pydicom.dcmread(path)
    item.compress(RLELossless)
    item.save_as(path.with_name("rle.dcm"))
    return [*made, path.with_name("rle.dcm")]


def _segmentation(paths, target):
    sources = [pydicom.dcmread(path) for path in paths]
    segment = hd.seg.SegmentDescription(
        1,
        "lesion",
        codes.SCT.Tissue,
        codes.SCT.Tissue,
        hd.seg.SegmentAlgorithmTypeValues.MANUAL,
    )
    mask = np.zeros((len(sources), sources[0].Rows, sources[0].Columns), np.uint8)
    mask[1:3, 2:5, 3:7] = 1
    made = hd.seg.Segmentation(
        sources, mask, "BINARY", [segment], uid_from("seg"), 1, uid_from("seg-item"), 1, "M", "M", "1", "1"
    )
    made.save_as(target)
    return target


def _structures(path, target):
    item = pydicom.dcmread(path)
    made = pydicom.Dataset()
    made.file_meta = pydicom.dataset.FileMetaDataset()
    made.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.481.3"
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = uid_from("structures")
    made.Modality, made.PatientID, made.StudyInstanceUID = "RTSTRUCT", "P", item.StudyInstanceUID
    made.SeriesInstanceUID = uid_from("structure series")
    contour = pydicom.Dataset()
    contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", 3
    contour.ContourData = [1.5, 2, 3, 4, 5, 3, 1, 7, 3]
    region, name = pydicom.Dataset(), pydicom.Dataset()
    region.ReferencedROINumber, region.ContourSequence = 1, [contour, contour]
    name.ROINumber, name.ROIName, name.ReferencedFrameOfReferenceUID = 1, "GTV", item.FrameOfReferenceUID
    made.StructureSetROISequence, made.ROIContourSequence = [name], [region]
    made.save_as(target, enforce_file_format=True)
    return target


def _public_seeds():
    """Small public files of many vendors and encodings, where they are."""
    odd = [path for path in sorted((DATA / "dicom_odd").rglob("*.dcm")) if path.stat().st_size < 80_000]
    reference = sorted((DATA / "dicom_reference").rglob("*.dcm"))[::25]
    return odd[:: max(1, len(odd) // 30)] + [path for path in reference if path.stat().st_size < 150_000][:12]


def _mutants(seeds, folder, number, mutant, seed):
    """Mutants of all seeds in turn, as files."""
    rng = random.Random(seed)  # noqa: S311
    contents = [(path.name, path.read_bytes()) for path in seeds]
    for count in range(number):
        name, content = contents[count % len(contents)]
        if name.endswith(".gz") and rng.random() < 0.5:
            damaged = gzip.compress(mutant(gzip.decompress(content), rng)[1], 1)
        else:
            damaged = mutant(content, rng)[1]
        path = folder / f"{count}_{name}"
        path.write_bytes(damaged)
        yield path


def _read_all(paths):
    """Every file through the passes that ingest makes: headers, then volumes or structures; images at once."""
    tally = Tally(Counter())
    images = [path for path in paths if ".nii" in path.suffixes]
    tally.all(parse_all(read_image_file, [ImageTask(path) for path in images], LIMITS), Scan)
    plans, structures = [], []
    for outcome in parse_each(read_headers, [path for path in paths if path not in set(images)], LIMITS):
        if outcome.result is None:
            tally.outcomes[outcome.refusal.reason] += 1
            continue
        grouping = group_headers([(outcome.task, outcome.result)], DicomPolicy())
        if grouping.plans:
            plans += grouping.plans[:1]
        elif grouping.structures:
            structures.append(outcome.task)
        else:
            tally.outcomes[grouping.refused[0].error.reason] += 1
    tally.all(volumes(plans, LIMITS), Scan)
    drawn = [DrawTask(path, (IMAGE,), True, {"*": "lesion"}) for path in structures]
    tally.all(parse_all(draw_structures, drawn, LIMITS), Drawn)
    assert all(outcome.result or outcome.refusal for outcome in parse_all(read_references, structures, LIMITS))
    tally.peak_kib = _peak([partial(read_planned_volume, plan) for plan in plans[-200:]])
    return tally


def _peak(tasks):
    """Largest resident memory of the process that does the tasks, in KiB, at the end of them."""
    *_, last = parse_all(operator.call, [*tasks, partial(Path.read_text, Path("/proc/self/status"))], LIMITS)
    found = re.search(r"VmHWM:\s+(\d+) kB", last.result or "")
    return int(found[1]) if found else 0


@pytest.fixture(scope="module")
def seeds(tmp_path_factory):
    return _own_seeds(tmp_path_factory.mktemp("seeds"))


def test_the_seeds_themselves_are_read(seeds):
    outcomes = _read_all(seeds).outcomes
    assert outcomes == {"accepted": len(seeds) - 1, "NOT_3D": 1}


def test_mutants_of_our_own_files_are_read_or_refused(seeds, tmp_path, mutant):
    tally = _read_all(list(_mutants(seeds, tmp_path, 150, mutant, 1)))
    assert tally.outcomes.total() == 150
    assert set(tally.outcomes) <= REASONS | {"accepted"}
    assert tally.longest_s < LIMITS.timeout_s + 5


@pytest.mark.slow
def test_four_thousand_mutants_are_read_or_refused(seeds, tmp_path, mutant, capsys):
    everything = [*seeds, *_public_seeds()]
    started = time.monotonic()
    tally = _read_all(list(_mutants(everything, tmp_path, 4000, mutant, 2)))
    with capsys.disabled():
        sys.stdout.write(f"\n4000 mutants of {len(everything)} files in {time.monotonic() - started:.0f} s\n{tally}\n")
    assert tally.outcomes.total() == 4000
    assert set(tally.outcomes) <= REASONS | {"accepted"}
    assert tally.longest_s < LIMITS.timeout_s + 10
    assert tally.peak_kib < LARGEST_RSS_KIB
