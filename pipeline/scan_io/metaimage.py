"""Read MetaImage (.mha, .mhd) and NRRD (.nrrd, .nhdr) files of one volume, through SimpleITK.

What the header claims is checked first (`pipeline.scan_io.text_headers`); then ITK reads, and its LPS+ place becomes a
RAS+ affine. ITK's convention for the two formats holds: TransformMatrix and Offset of a MetaImage are in LPS+, whatever
AnatomicalOrientation says. Modality and facts are told by `pipeline.scan_io.sidecar`.
"""

import math
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK
from numpy.typing import NDArray

from pipeline.errors import InputError, QuarantineError
from pipeline.geometry import Geometry, lps_to_ras
from pipeline.scan_io.byte_stream import InflatedBytes, check_claim, drain, skip
from pipeline.scan_io.image_policy import STRICT, ImagePolicy
from pipeline.scan_io.nifti import is_nifti, read_nifti
from pipeline.scan_io.scan import Scan
from pipeline.scan_io.sidecar import facts_beside
from pipeline.scan_io.text_headers import Claims, read_claims
from pipeline.scan_io.voxel_values import VoxelValues

METAIMAGE_SUFFIXES = frozenset({".mha", ".mhd"})
NRRD_SUFFIXES = frozenset({".nrrd", ".nhdr"})
_PIECE_VOXELS = 1 << 17


def is_metaimage(path: Path) -> bool:
    """Tell whether a file name ends in .mha, .mhd, .nrrd or .nhdr."""
    return path.suffix.lower() in METAIMAGE_SUFFIXES | NRRD_SUFFIXES


def read_image(path: Path, policy: ImagePolicy = STRICT, modality: str | None = None) -> Scan:
    """Read a volume in any of the file formats that hold one: see `read_nifti`, `read_metaimage`.

    Raises:
        QuarantineError: UNSUPPORTED_FORMAT for names with other endings, and what the readers raise.
    """
    if is_nifti(path):
        return read_nifti(path, policy, modality)
    if is_metaimage(path):
        return read_metaimage(path, policy, modality)
    raise QuarantineError("UNSUPPORTED_FORMAT", "a file of another format", "Convert it to NIfTI (.nii.gz).")


def read_metaimage(path: Path, policy: ImagePolicy = STRICT, modality: str | None = None) -> Scan:
    """Read a MetaImage or NRRD file of one 3-D scalar volume.

    Args:
        path: header, with its voxels or with the name of the one file beside it that holds them.
        policy: ``max_non_finite`` is used.
        modality: MR or CT where the place of the file tells it.

    Returns:
        Voxels in the order of the file; flag NON_FINITE_REPLACED.

    Raises:
        QuarantineError: TRUNCATED, EXPANSION_LIMIT, NON_FINITE, BAD_SIDECAR, UNSUPPORTED_MODALITY, MODALITY_CONFLICT,
            and what `read_claims` raises.
    """
    modality, facts = facts_beside(path, modality)
    try:
        claims = read_claims(path)
        _check_data(claims)
    except (EOFError, OSError, zlib.error) as error:
        raise QuarantineError("TRUNCATED", type(error).__name__, "Copy the file again from its source.") from error
    image = _read(path, claims)
    geometry = _geometry(image)
    stored = SimpleITK.GetArrayViewFromImage(image).reshape(-1)
    values = VoxelValues(stored.size, in_hounsfield=modality == "CT")
    for start in range(0, stored.size, _PIECE_VOXELS):
        values.add(stored[start : start + _PIECE_VOXELS])
    voxels: NDArray[Any] = values.finish(policy.max_non_finite).reshape(claims.shape, order="F")
    flags = ("NON_FINITE_REPLACED",) if values.non_finite else ()
    return Scan(voxels, geometry, modality, replace(facts, flags=flags))


def _check_data(claims: Claims) -> None:
    """Refuse data that is too short, or inflates to more than the header tells, before anything is allocated."""
    size = math.prod(claims.shape) * claims.voxel_bytes
    held = claims.data.stat().st_size - max(claims.offset, 0)
    check_claim(size, held, compressed=claims.window is not None)
    if claims.window is not None:
        with claims.data.open("rb") as file:
            file.seek(claims.offset)
            stream = InflatedBytes(file, claims.window)
            skip(stream, size)
            drain(stream)


def _read(path: Path, claims: Claims) -> SimpleITK.Image:
    reader = SimpleITK.ImageFileReader()
    reader.SetImageIO("MetaImageIO" if path.suffix.lower() in METAIMAGE_SUFFIXES else "NrrdImageIO")
    reader.SetFileName(str(path))
    try:
        image = reader.Execute()
    except RuntimeError as error:  # its text quotes the path
        if "alloc" in str(error).lower():
            raise MemoryError from error
        raise QuarantineError("UNREADABLE", "ITK refuses it", "Write the image again.") from error
    if image.GetSize() != claims.shape or image.GetNumberOfComponentsPerPixel() != 1:
        found = f"ITK reads shape {image.GetSize()}, the header says {claims.shape}"
        raise QuarantineError("UNREADABLE", found, "Write the image again.")
    return image


def _geometry(image: SimpleITK.Image) -> Geometry:
    """The grid of an ITK image, whose place is in LPS+."""
    affine = np.eye(4)
    affine[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    affine[:3, 3] = image.GetOrigin()
    try:
        return Geometry(image.GetSize(), lps_to_ras(affine))
    except InputError as error:
        raise QuarantineError("SINGULAR_AFFINE", error.found, "Write the image again with its orientation.") from error
