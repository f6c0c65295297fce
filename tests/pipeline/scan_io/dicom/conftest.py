"""Series of a few small slices, written by us and changed by the tests."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.typing import NDArray

from pipeline.errors import QuarantineError
from pipeline.scan_io import Acquisition, SeriesIdentity, read_dicom_volumes, uid_from, write_dicom_series

AXIAL = np.array([[-0.7, 0, 0, 20.0], [0, -1.1, 0, 30.0], [0, 0, 3.0, -50.0], [0, 0, 0, 1]])


class SeriesFiles:
    """Writes and changes series below ``root``."""

    affine = AXIAL
    shape = (7, 5, 6)

    def __init__(self, root: Path) -> None:
        self.root = root

    def voxels(self, seed: int = 1, shape: tuple[int, ...] | None = None) -> NDArray[np.int16]:
        return np.random.default_rng(seed).integers(0, 2000, shape or self.shape).astype(np.int16)

    def write(
        self, folder: str, voxels: NDArray[Any] | None = None, modality: str = "MR", series: str = "series", **item: Any
    ) -> list[Path]:
        """A series; equal ``series`` are one series whose files have SOPInstanceUIDs of their folder.

        ``item`` holds attributes, or functions of the slice number that give them.
        """
        identity = SeriesIdentity("P", uid_from("study"), uid_from(series), uid_from("frame"))
        chosen = self.voxels() if voxels is None else voxels
        affine = item.pop("affine", self.affine)
        paths = write_dicom_series(self.root / folder, chosen, affine, modality, identity, Acquisition())
        for number, path in enumerate(paths):
            values = {name: value(number) if callable(value) else value for name, value in item.items()}
            self.change(path, SOPInstanceUID=uid_from(folder, str(number)), **values)
        return paths

    def change(self, path: Path, **values: Any) -> None:
        """Set attributes; None deletes one."""
        item = pydicom.dcmread(path)
        for name, value in values.items():
            if value is None:
                delattr(item, name)
            else:
                setattr(item, name, value)
        item.file_meta.MediaStorageSOPInstanceUID = item.SOPInstanceUID
        item.save_as(path)

    def edit(self, paths: Sequence[Path], change: Callable[[pydicom.Dataset], None]) -> None:
        for path in paths:
            item = pydicom.dcmread(path)
            change(item)
            item.save_as(path)


@pytest.fixture
def files(tmp_path: Path) -> SeriesFiles:
    return SeriesFiles(tmp_path)


@pytest.fixture
def refusal() -> Callable[..., QuarantineError]:
    def raised(paths: Sequence[Path], *policy: Any) -> QuarantineError:
        with pytest.raises(QuarantineError) as caught:
            read_dicom_volumes(paths, *policy)
        return caught.value

    return raised
