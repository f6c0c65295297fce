"""One contestant of `benchmarks.ingest` in a process of its own: reads a DICOM tree, writes volumes, prints figures.

python -m benchmarks.ingest_sides NAME INPUT OUTPUT; it says "ready" and works when a line comes from standard input.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

Work = Callable[[Path, Path], int]
"""(input, output) → voxels."""


def scanloom() -> Work:
    """Index, grouping and volumes through the isolated parser, each volume written as .nii: what ingest reads with."""
    from pipeline.ingest.found import Reading
    from pipeline.ingest.layouts.dicom_names import may_be_dicom
    from pipeline.ingest.layouts.dicom_series import DicomReading
    from pipeline.ingest.source_tree import looks_dicom, walk
    from pipeline.records import silent
    from pipeline.scan_io import write_nifti
    from pipeline.settings import IngestSettings

    def work(folder: Path, output: Path) -> int:
        tree, voxels = walk(folder), 0
        files = [file for file in tree.files if may_be_dicom(file) and looks_dicom(file)]
        for number, outcome in enumerate(DicomReading(Reading(tree, IngestSettings(), silent), files).outcomes()):
            if outcome.result is None:
                raise SystemExit(f"refused: {outcome.refusal}")
            scan = outcome.result
            write_nifti(output / f"{number}.nii", scan.voxels, scan.geometry.affine, scan.voxels.dtype)
            voxels += scan.voxels.size
        return voxels

    return work


def scanloom_stage() -> Work:
    """The whole ingest stage: hashes, de-identification, checks for text in the pixels, catalog, manifest."""
    from pipeline.catalog import read_catalog
    from pipeline.ingest.stage import ingest
    from pipeline.settings import RunSettings
    from pipeline.workspace import Workspace

    def work(folder: Path, output: Path) -> int:
        workspace = Workspace.open(output / "workspace")
        catalog = read_catalog(ingest(workspace, RunSettings(), folder).path(workspace.root))
        return int(sum(int(np.prod(shape)) for shape in catalog.series["shape"].to_list()))

    return work


def simpleitk() -> Work:
    """SimpleITK: the series of each folder by GDCM, read and written as .nii."""
    import SimpleITK

    def work(folder: Path, output: Path) -> int:
        voxels = 0
        for place in _folders(folder):
            for uid in SimpleITK.ImageSeriesReader.GetGDCMSeriesIDs(str(place)):
                reader = SimpleITK.ImageSeriesReader()
                reader.SetFileNames(SimpleITK.ImageSeriesReader.GetGDCMSeriesFileNames(str(place), uid))
                image = reader.Execute()
                SimpleITK.WriteImage(image, str(output / f"{place.name}.nii"))
                voxels += image.GetNumberOfPixels()
        return voxels

    return work


def monai() -> Work:
    """MONAI's PydicomReader: each folder one series, saved as .nii."""
    import nibabel as nib
    from monai.data import PydicomReader

    def work(folder: Path, output: Path) -> int:
        reader, voxels = PydicomReader(), 0
        for place in _folders(folder):
            array, meta = reader.get_data(reader.read(str(place)))
            nib.save(nib.Nifti1Image(array, meta["affine"]), output / f"{place.name}.nii")
            voxels += array.size
        return voxels

    return work


def dicom2nifti() -> Work:
    """dicom2nifti with its checks on, no compression."""
    from dicom2nifti import convert_directory

    def work(folder: Path, output: Path) -> int:
        convert_directory(str(folder), str(output), compression=False, reorient=False)
        return 0

    return work


SIDES: dict[str, Callable[[], Work]] = {
    "scanloom": scanloom,
    "scanloom_stage": scanloom_stage,
    "simpleitk": simpleitk,
    "monai": monai,
    "dicom2nifti": dicom2nifti,
}


def _folders(folder: Path) -> Iterator[Path]:
    return iter(sorted(path for path in folder.iterdir() if path.is_dir()))


def main() -> None:
    name, folder, output = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
    work = SIDES[name]()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    sys.stdin.readline()
    imported, began = _cpu(), time.monotonic()
    voxels = work(folder, output)
    figures: dict[str, Any] = {"imports_cpu": imported, "wall": time.monotonic() - began, "voxels": voxels}
    sys.stdout.write(json.dumps(figures) + "\n")
    sys.stdout.flush()
    os._exit(0)  # taking its modules apart is no part of the work, as importing them is none


def _cpu() -> float:
    used = os.times()
    return used.user + used.system


if __name__ == "__main__":
    main()
