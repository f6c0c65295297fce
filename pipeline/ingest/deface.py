"""Blank the face of head scans, in patient coordinates, so that no surface rendering shows it.

Profile option 113102 of PS3.16 CID 7050. No face model and no registration: the cut follows the forehead, which every
head scan shows, and nothing below it, so that it carries no trace of eyes, nose or mouth. Below the brow everything in
front of the forehead's outline, moved back by a depth that grows downward, becomes air:

    depth(h) = 7 mm + max(0, h − 6 mm), at most 40 mm, h mm below the brow

Scalp and frontal bone together are thicker than 7 mm (about 5 and 6 mm in adults, Lynnerup 2005), and the skull base
rises forward, so that the cut passes in front of the brain. The brow lies 0.48 head lengths below the vertex.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from pipeline.body_mask import ct_body_mask, mr_body_mask
from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry, to_canonical
from pipeline.ingest import allow_list
from pipeline.scan_io import AIR_HU, Scan

DEFACED, FACE_OUT_OF_VIEW = "DEFACED", "FACE_OUT_OF_VIEW"
"""Flags of a head whose face was blanked, or lies below the scan."""

HEAD_PARTS = allow_list.terms(
    """
    BRAIN CEREBELLUM CIRCLEOFWILLIS EAR EYE EYELID FACE HEAD IAC MAXILLA NOSE ORBIT SCALP SELLA SKULL TMJ ZYGOMA
    """
)
MIXED_PARTS = allow_list.terms(
    """
    CAROTID CHEEK HEADNECK JAW LARYNX MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV PAROTID PHARYNX
    SUBMANDIBULAR TONGUE WHOLEBODY
    """
)
"""Body parts that show a face, but no whole head from which its place could be told."""

BROW_SHARE = 0.48
_DEPTH_MM, _HELD_MM, _SLOPE, _DEEPEST_MM = 7.0, 6.0, 1.0, 40.0
_FOREHEAD_MM = 12.0  # height of the band in which the forehead's outline is taken
_BIN_MM = 4.0
_WIDTH_SHARE = 0.85  # of the forehead's half width; beyond it the cut would run along the temples
_HEAD_LENGTH_MM = (110.0, 260.0)
_CUT_VERTEX_SHARE = 0.15

Volume = NDArray[np.generic]
Mask = NDArray[np.bool_]
Vector = NDArray[np.float64]


def deface(scan: Scan) -> Scan:
    """The scan with its face blanked and flagged, or as it is where its body part has no face.

    Args:
        scan: CT faces become −1000 HU, MR faces 0; the grid stays.

    Raises:
        QuarantineError: NOT_DEFACED: body part unknown, or no whole head to tell the face's place from.
    """
    part = allow_list.body_part(scan.facts.body_part)
    if part is None or part in MIXED_PARTS:
        found = "no body part that is a defined term" if part is None else f"body part {part}"
        raise _refused(found, "Say BodyPartExamined, e.g. HEAD, in the header or in a JSON beside a NIfTI file")
    if part not in HEAD_PARTS:
        return scan
    head, affine, reordering = to_canonical(scan.voxels, scan.geometry.affine)
    front = face_region(head, affine, scan.modality or "MR")
    if not front.any():
        return _flagged(scan, FACE_OUT_OF_VIEW)
    blanked = np.where(front, AIR_HU if scan.modality == "CT" else 0, head).astype(scan.voxels.dtype)
    return _flagged(replace(scan, voxels=reordering.restore(blanked)), DEFACED)


def face_region(head: Volume, affine: Vector, modality: str) -> Mask:
    """What is to be blanked.

    Args:
        head: (i, j, k), axes nearest to right, anterior, superior.
        affine: voxel index → RAS+ mm; may be oblique.
        modality: MR or CT.

    Returns:
        (i, j, k) bool; all false where the scan ends above the brow.

    Raises:
        QuarantineError: NOT_DEFACED.
    """
    spacing = Geometry(head.shape, affine).spacing_mm
    find = ct_body_mask if modality == "CT" else mr_body_mask
    body = find(head if modality == "CT" else np.maximum(head, 0), spacing)
    _vertex, brow = _vertex_and_brow(body, affine)
    centers, forehead = _forehead(body, affine, brow)
    front = np.zeros(head.shape, dtype=bool)
    for k in range(head.shape[2]):
        x, y, z = _slice_coordinates(head.shape, affine, k)
        below = brow - z
        if below.max() <= 0:
            continue
        depth = np.minimum(_DEPTH_MM + _SLOPE * np.maximum(below - _HELD_MM, 0), _DEEPEST_MM)
        line = np.interp(x, centers, forehead, left=np.inf, right=np.inf)
        front[:, :, k] = (below > 0) & (y > line - depth)
    return front


def _vertex_and_brow(body: Mask, affine: Vector) -> tuple[float, float]:
    """Heights of vertex and brow in mm."""
    if not body.any():
        raise _refused("no head stands out from the air", _REPAIR)
    top = int(np.flatnonzero(body.any(axis=(0, 1))).max())
    area = body.sum(axis=(0, 1))
    if top == body.shape[2] - 1 and area[top] > _CUT_VERTEX_SHARE * area.max():
        raise _refused("a head whose vertex lies outside the scan", _REPAIR)
    places = _places(body[:, :, : top + 1], affine)
    vertex = float(places[2].max())
    crown = (places[2] < vertex - 25) & (places[2] > vertex - 95)
    if not crown.any():
        return vertex, -np.inf
    length = float(np.ptp(np.percentile(places[1][crown], [0.1, 99.9])))
    if not _HEAD_LENGTH_MM[0] <= length <= _HEAD_LENGTH_MM[1]:
        raise _refused(f"a head {length:.0f} mm long from front to back", _REPAIR)
    return vertex, vertex - BROW_SHARE * length


def _forehead(body: Mask, affine: Vector, brow: float) -> tuple[Vector, Vector]:
    """The forehead's outline just above the brow: right-left positions and the skin's anterior positions, mm."""
    x, y, z = _places(body, affine)
    band = (z >= brow) & (z <= brow + _FOREHEAD_MM)
    if not band.any():
        return np.array([0.0]), np.array([np.inf])
    x, y = x[band], y[band]
    edges = np.arange(x.min(), x.max() + _BIN_MM, _BIN_MM)
    bins = np.digitize(x, edges) - 1
    outline = np.full(len(edges), -np.inf)
    np.maximum.at(outline, bins, y)
    centers = edges + _BIN_MM / 2
    middle, half = (x.max() + x.min()) / 2, (x.max() - x.min()) / 2
    kept = np.isfinite(outline) & (np.abs(centers - middle) <= _WIDTH_SHARE * half)
    smooth = ndimage.median_filter(outline[kept], size=5, mode="nearest")
    return centers[kept], ndimage.uniform_filter1d(smooth, size=3, mode="nearest")


def _places(mask: Mask, affine: Vector) -> Vector:
    """World coordinates (3, n) of the voxels in a mask."""
    index = np.array(np.nonzero(mask), dtype=np.float64)
    return np.asarray(affine[:3, :3] @ index + affine[:3, 3:])


def _slice_coordinates(shape: tuple[int, ...], affine: Vector, k: int) -> list[Vector]:
    i, j = np.arange(shape[0])[:, None], np.arange(shape[1])[None, :]
    return [affine[axis, 0] * i + affine[axis, 1] * j + affine[axis, 2] * k + affine[axis, 3] for axis in range(3)]


def _flagged(scan: Scan, flag: str) -> Scan:
    return replace(scan, facts=replace(scan.facts, flags=(*scan.facts.flags, flag)))


def _refused(found: str, change: str) -> QuarantineError:
    advice = f"{change}; or set ingest.deface=false and treat the scan as one that shows a face."
    return QuarantineError("NOT_DEFACED", found, advice)


_REPAIR = "Use a scan of the whole head"
