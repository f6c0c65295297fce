"""Siemens mosaics: one sheet holds all slices of a volume as tiles.

N slices lie row by row on a square sheet of ⌈√N⌉ tiles a side. ImagePositionPatient is where the first pixel of a
single image as large as the sheet would be, centered on the slice: the first pixel of a tile is half the difference of
sheet and tile further along rows and columns. Slices follow each other along SliceNormalVector of the CSA header,
SpacingBetweenSlices apart (as in the documentation of SPM, nibabel and dcm2niix).
"""

import math
from collections.abc import Sequence

import numpy as np

from pipeline.errors import QuarantineError
from pipeline.scan_io.dicom.attributes import Attributes
from pipeline.scan_io.dicom.csa import CSAError, csa_values
from pipeline.scan_io.dicom.header import FrameHeader

_WANTED = frozenset({"NumberOfImagesInMosaic", "SliceNormalVector"})
_MAXIMUM_TILES = 1024


def is_mosaic(image_type: Sequence[str]) -> bool:
    """Whether ImageType tells of a mosaic."""
    return "MOSAIC" in image_type


def tiles(sheet: FrameHeader, rows: int, columns: int, attributes: Attributes) -> tuple[int, tuple[FrameHeader, ...]]:
    """Tiles in a row of the sheet, and the slices.

    Args:
        sheet: the frame as if it were one image.
        rows: size of the sheet.
        columns: size of the sheet.
        attributes: the header.

    Raises:
        QuarantineError: MOSAIC_GEOMETRY where number, normal, spacing or size of the tiles are missing or contradict
            each other.
    """
    count, normal = _layout(attributes)
    across = math.ceil(math.sqrt(count))
    if rows % across or columns % across:
        raise _unclear(f"{count} tiles on a sheet of {rows} x {columns}")
    distance = attributes.number("SpacingBetweenSlices")
    if not distance or distance < 0:
        raise _unclear("a mosaic without SpacingBetweenSlices")
    along_row, along_column = np.array(sheet.orientation[:3]), np.array(sheet.orientation[3:])
    if abs(abs(float(np.cross(along_row, along_column) @ normal)) - 1) > 1e-3:
        raise _unclear("a SliceNormalVector that is not normal to the slices")
    between_rows, between_columns = sheet.pixel_spacing
    first = np.array(sheet.position)
    first += along_row * between_columns * (columns - columns // across) / 2
    first += along_column * between_rows * (rows - rows // across) / 2
    exact = np.cross(along_row, along_column) * math.copysign(distance, np.cross(along_row, along_column) @ normal)
    places = (first + number * exact for number in range(count))
    return across, tuple(
        sheet._replace(tile=number, position=(float(x), float(y), float(z))) for number, (x, y, z) in enumerate(places)
    )


def _layout(attributes: Attributes) -> tuple[int, np.ndarray[tuple[int], np.dtype[np.float64]]]:
    """Number of tiles, and the direction in which slices follow each other."""
    content = attributes.private("SIEMENS CSA HEADER", 0x0029, 0x10)
    try:
        values = csa_values(content, _WANTED) if isinstance(content, bytes) else {}
        normal = np.array([float(value) for value in values.get("SliceNormalVector", ())])
        counts = [int(value) for value in values.get("NumberOfImagesInMosaic", ())[:1]]
    except (CSAError, ValueError):
        raise _unclear("a CSA header that cannot be read") from None
    told = attributes.private("SIEMENS MR HEADER", 0x0019, 0x0A)
    counts += [int(told)] if isinstance(told, int) else []
    counts += [int.from_bytes(told, "little")] if isinstance(told, bytes) and len(told) == 2 else []
    if normal.shape != (3,) or not np.isfinite(normal).all():
        raise _unclear("a mosaic without its SliceNormalVector")
    if not counts or len(set(counts)) > 1 or not 1 <= counts[0] <= _MAXIMUM_TILES:
        raise _unclear(f"{len(set(counts))} different numbers of tiles in a mosaic")
    return counts[0], normal


def _unclear(found: str) -> QuarantineError:
    return QuarantineError("MOSAIC_GEOMETRY", found, "Export single slices or enhanced MR, with private elements.")
