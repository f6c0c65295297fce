"""Markup in every text field of scans, in file names and sidecars: pages show it as text or not at all."""

import json
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.datadict import DicomDictionary, dictionary_VR, keyword_for_tag
from pydicom.dataelem import DataElement

from benchmarks.browser import CHROMIUM, Browser
from pipeline.ingest.stage import ingest
from pipeline.report.stage import write_report
from pipeline.scan_io import SeriesIdentity, uid_from, write_dicom_series
from pipeline.scan_io.dicom_write import Acquisition
from pipeline.settings_loading import validate
from pipeline.workspace import Workspace

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
    pytest.mark.filterwarnings("ignore::UserWarning:pydicom"),
]
PAYLOADS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(2)>',
    "'><svg/onload=alert(3)>",
    "</title><script>alert(4)</script>",
    "</style></script><script>alert(5)</script>",
    "<iframe src=javascript:alert(6)>",
    '<a href="javascript:alert(7)" autofocus onfocus=alert(7)>x</a>',
    "{{ 7 * 7 }}{% for x in () %}",
    "&lt;script&gt;alert(8)&lt;/script&gt;",
    "<math><mtext></form><form><mglyph><style></math><img src onerror=alert(9)>",
    "javascript:alert(10)",
    "--><script>alert(11)</script>",
)
NAMES = ("<img src=x onerror=alert(20)>", "'\"><svg onload=alert(21)>", "{{config}}", "plain")
TEXT = ("LO", "SH", "LT", "ST", "PN", "CS", "UC", "UT", "AE")
DECIDING = frozenset(
    {
        "BurnedInAnnotation", "ImageType", "LossyImageCompression", "Modality", "PhotometricInterpretation",
        "PresentationLUTShape", "RecognizableVisualFeatures", "RescaleType", "SpecificCharacterSet",
    }
)  # fmt: skip
"""Fields that decide whether a file can be read at all."""
AFFINE = np.array([[-1.5, 0, 0, 20.0], [0, -1.5, 0, 30.0], [0, 0, 4.0, -50.0], [0, 0, 0, 1]])


def _voxels(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1500, (24, 20, 6)).astype(np.int16)


def _write_dicom(folder: Path) -> int:
    """A series with markup in every text field of the dictionary; returns how many."""
    who = SeriesIdentity("P", uid_from("study"), uid_from("series"), uid_from("frame"))
    paths = write_dicom_series(folder, _voxels(0), AFFINE, "MR", who, Acquisition("T1", body_part="HEAD"))
    fields = [
        (keyword_for_tag(tag), dictionary_VR(tag))
        for tag in sorted(DicomDictionary)
        if 0x0008 <= tag >> 16 < 0x5400 and dictionary_VR(tag) in TEXT
    ]
    planted = [(name, vr) for name, vr in fields if name and name not in DECIDING]
    for path in paths:
        item = pydicom.dcmread(path)
        for (name, vr), payload in zip(planted, cycle(PAYLOADS), strict=False):
            item.add(DataElement(name, vr, payload, validation_mode=pydicom.config.IGNORE))
        item.save_as(path)
    return len(planted)


def _write_nifti(folder: Path) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(NAMES):
        image = nib.Nifti1Image(_voxels(number), AFFINE)
        image.set_sform(AFFINE, 1)
        image.header["descrip"], image.header["aux_file"] = PAYLOADS[number][:79], PAYLOADS[number + 1][:23]
        nib.save(image, folder / f"{name}_CT.nii.gz")
        told = dict(zip(("Modality", "ProtocolName", "SeriesDescription", "BodyPartExamined"), PAYLOADS, strict=False))
        (folder / f"{name}_CT.json").write_text(json.dumps(told), encoding="utf-8")


def _write_images(folder: Path) -> None:
    """Images whose names hold markup; class folders with such names are refused by ingest."""
    rng = np.random.default_rng(7)
    for lesion_class in ("cyst", "glioma"):
        (folder / lesion_class).mkdir(parents=True)
        for number in range(8):
            pixels = rng.integers(0, 256, (40, 36)).astype(np.uint8)
            Image.fromarray(pixels).save(folder / lesion_class / f"{NAMES[number % 4]} {number}.png")


@pytest.fixture
def browser() -> Iterator[Browser]:
    with Browser() as opened:
        opened.resize(1280)
        yield opened


def _pages(root: Path, source: Path) -> list[Path]:
    workspace = Workspace.open(root, identity_key=bytes(32))
    title = "</title>" + PAYLOADS[1]
    settings = validate({"name": "planted", "report": {"title": title}}, "test")
    record = ingest(workspace, settings, source)
    folder = write_report(workspace, settings, {"ingest": record}).path(workspace.root)
    return sorted(folder.glob("*.html"))


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["scans", "images"])
def test_no_page_runs_what_scans_and_names_hold(tmp_path: Path, browser: Browser, kind: str) -> None:
    source = tmp_path / "source"
    previous = pydicom.config.settings.writing_validation_mode
    pydicom.config.settings.writing_validation_mode = pydicom.config.IGNORE
    try:
        if kind == "scans":
            assert _write_dicom(source / "dicom") > 500
            _write_nifti(source / "nifti")
        else:
            _write_images(source)
    finally:
        pydicom.config.settings.writing_validation_mode = previous
    pages = _pages(tmp_path / "workspace", source)
    assert [page.name for page in pages] == ["contact_sheet.html", "report.html"]
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert not any(payload in text for payload in PAYLOADS if payload.startswith(("<", "'", '"', "-")))
        browser.open(page)
        browser.evaluate("document.querySelectorAll('details').forEach((item) => (item.open = true))")
        assert browser.evaluate("document.scripts.length") == 1
        handlers = (
            "[...document.querySelectorAll('*')].filter((e) => [...e.attributes].some((a) => /^on/i.test(a.name)))"
        )
        assert browser.evaluate(f"{handlers}.length") == 0
        assert browser.evaluate("[...document.links].filter((a) => /^javascript/i.test(a.href)).length") == 0
        assert browser.evaluate("document.querySelectorAll('iframe, object, embed, math, form').length") == 0
    assert browser.complaints == []
    assert browser.requests == []
