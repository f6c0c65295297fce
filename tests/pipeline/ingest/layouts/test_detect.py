import pytest

from pipeline.errors import InputError
from pipeline.ingest.layouts import LAYOUTS, detect
from pipeline.ingest.source_tree import walk
from pipeline.settings import IngestSettings

IMAGES = {
    "class_folders": ["glioma/1.png", "healthy/2.jpg"],
    "slice_pairs": ["MR/2001.png", "CT/2001.png"],
}


def _fill(root, names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"\0" * 128 + b"DICM...." if name.endswith("dcm-by-content") else b"")


@pytest.mark.parametrize(
    ("names", "layout", "reason"),
    [
        (IMAGES["class_folders"], "class_folders", "2 images in 2 class folders"),
        (["Training/a/1.png", "Testing/a/2.png", "valid/b/3.png"], "class_folders", "split test / train / validation"),
        (["MR/1.png", "CT/1.png"], "class_folders", "2 images in 2 class folders"),
        (IMAGES["slice_pairs"], "slice_pairs", "1 images in MR/ and 1 in CT/, 1 of equal name"),
        (["a/mr.nii.gz", "a/ct.nii.gz", "b/ct.nii.gz"], "synthrad", "1 folders with mr and ct, 1 with one of them"),
        (["a/mr.nii.gz", "b/ct.nii.gz"], "scans", "0 DICOM files by content, 2 NIfTI files"),
        (["set.npz", "README.md"], "medmnist_npz", "1 .npz file"),
        (
            ["x/y/scan.dcm-by-content", "a_T1w.nii.gz", "lesions.csv"],
            "scans",
            "1 DICOM files by content, 1 NIfTI files, with",
        ),
    ],
)
def test_a_layout_is_told_by_what_lies_where(tmp_path, names, layout, reason):
    _fill(tmp_path, [name.replace("scan.dcm-by-content", "1.2.3/dcm-by-content") for name in names])
    found, why = detect(walk(tmp_path))
    assert found == layout
    assert reason in why


def test_two_layouts_at_once_are_refused_with_what_was_found(tmp_path):
    _fill(tmp_path, [*IMAGES["class_folders"], "set.npz", "a_T1w.nii"])
    with pytest.raises(InputError) as caught:
        detect(walk(tmp_path))
    for name in ("scans", "class_folders", "medmnist_npz"):
        assert f"{name}: " in caught.value.found
    assert "ingest.layout=" in caught.value.change


def test_images_without_folders_are_refused_with_their_number(tmp_path):
    _fill(tmp_path, ["Jane-Roe.png", "2.png", "x.unknown-ending"])
    with pytest.raises(InputError) as caught:
        detect(walk(tmp_path))
    assert caught.value.found == "3 files (2 .png, 1 other) of no known layout"
    assert "one folder for each class" in caught.value.change


def test_every_layout_of_the_settings_is_registered():
    allowed = IngestSettings.model_json_schema()["properties"]["layout"]["enum"]
    assert set(allowed) == {"auto", *LAYOUTS}
