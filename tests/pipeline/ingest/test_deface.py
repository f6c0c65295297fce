"""Phantom truth: the face goes, brain and lesions stay, whatever the orientation; what cannot be told is refused."""

import itertools
from dataclasses import replace

import numpy as np
import pytest

from pipeline.errors import QuarantineError
from pipeline.geometry import Geometry, to_canonical
from pipeline.ingest.deface import DEFACED, FACE_OUT_OF_VIEW, HEAD_PARTS, MIXED_PARTS, deface, face_region
from pipeline.phantom import Tissue, phantom_subject
from pipeline.scan_io import Scan, ScanFacts

BRAIN = (Tissue.GRAY_MATTER, Tissue.WHITE_MATTER)
FACTS = ScanFacts(body_part="HEAD")


def _scan(truth, modality, facts=FACTS):
    return Scan(truth.mr if modality == "MR" else truth.ct_hu, truth.geometry, modality, facts)


def _face_skin(truth):
    """Skin of eyes, nose and mouth: in front, below the orbits' upper rim, near the middle."""
    skin = truth.anatomy.tissue == Tissue.SKIN
    x, y, z = truth.geometry.to_world(np.argwhere(skin)).T
    face = np.zeros(skin.shape, bool)
    face[tuple(np.argwhere(skin)[(y > 60) & (z < -30) & (np.abs(x) < 40)].T)] = True
    return face


@pytest.fixture(scope="module")
def heads():
    return [phantom_subject(3, index, "HEAD", "T1" if index % 2 else "T2") for index in range(8)]


@pytest.mark.parametrize("modality", ["MR", "CT"])
@pytest.mark.parametrize("index", range(8))
def test_the_face_goes_and_brain_and_lesions_stay(heads, index, modality):
    truth = heads[index]
    scan = _scan(truth, modality)
    done = deface(scan)
    assert done.facts.flags == (DEFACED,)
    assert done.geometry == scan.geometry
    assert done.voxels.dtype == scan.voxels.dtype
    blank = face_region(scan.voxels, scan.geometry.affine, modality)
    np.testing.assert_array_equal(done.voxels, np.where(blank, -1000 if modality == "CT" else 0, scan.voxels))
    assert not (np.isin(truth.anatomy.tissue, BRAIN) & blank).any()
    assert not ((truth.lesion_mask > 0) & blank).any()
    assert blank[_face_skin(truth)].mean() > 0.99
    assert blank[truth.anatomy.tissue > 0].mean() < 0.15


def _profile(voxels, geometry, threshold):
    """How far forward the surface reaches, mm, at each height and position right to left: what a rendering shows."""
    canonical, affine, _ = to_canonical(voxels, geometry.affine)
    inside = canonical > threshold
    reach = np.where(inside.any(axis=1), canonical.shape[1] - 1 - inside[:, ::-1].argmax(axis=1), -1)
    heights = affine[2, 2] * np.arange(canonical.shape[2]) + affine[2, 3]
    return reach * affine[1, 1] + affine[1, 3], heights


def test_a_nose_leaves_no_mark_on_the_surface(heads):
    """Two heads that differ by a nose, lips and brows alone look alike once they are defaced."""
    truth = heads[0]
    plain = truth.ct_hu
    nosed = plain.copy()
    x, y, z = np.moveaxis(truth.geometry.to_world(np.stack(np.indices(plain.shape), axis=-1).reshape(-1, 3)), -1, 0)
    for center, radius in (((0, 96, -52), 14), ((0, 92, -72), 9), ((30, 86, -36), 9), ((-30, 86, -36), 9)):
        near = ((x - center[0]) ** 2 + (y - center[1]) ** 2 + (z - center[2]) ** 2 < radius**2).reshape(plain.shape)
        nosed[near & (plain < -300)] = 40
    assert np.count_nonzero(nosed != plain) > 100
    surfaces = {}
    for name, voxels in (("plain", plain), ("nosed", nosed)):
        scan = Scan(voxels, truth.geometry, "CT", FACTS)
        before, _ = _profile(voxels, truth.geometry, -300)
        after, heights = _profile(deface(scan).voxels, truth.geometry, -300)
        surfaces[name] = (before, after)
    assert np.abs(surfaces["nosed"][0] - surfaces["plain"][0]).max() > 8
    face = heights < -36
    assert np.abs(surfaces["nosed"][1] - surfaces["plain"][1])[:, face].max() < 2


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("signs", list(itertools.product((1, -1), repeat=3))[::3])
def test_the_same_voxels_go_in_every_orientation(heads, order, signs):
    truth = heads[1]
    expected = deface(_scan(truth, "MR")).voxels
    flip = tuple(slice(None, None, sign) for sign in signs)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for new, (old, sign) in enumerate(zip(order, signs, strict=True)):
        affine[:3, new] = truth.geometry.affine[:3, old] * sign
    corner = [0 if sign > 0 else truth.mr.shape[old] - 1 for old, sign in zip(order, signs, strict=True)]
    start = np.zeros(3)
    start[list(order)] = corner
    affine[:3, 3] = truth.geometry.to_world(start[None])[0]
    turned = np.ascontiguousarray(truth.mr.transpose(order)[flip])
    done = deface(Scan(turned, Geometry(turned.shape, affine), "MR", FACTS))
    np.testing.assert_array_equal(done.voxels, expected.transpose(order)[flip])


def test_an_oblique_head_loses_its_face_and_no_brain(heads):
    """The affine alone is turned by ten degrees: patient axes, not voxel axes, say where the face is."""
    truth = heads[2]
    cosine, sine = np.cos(np.radians(10)), np.sin(np.radians(10))
    turn = np.eye(4)
    turn[:2, :2] = [[cosine, -sine], [sine, cosine]]
    done = deface(Scan(truth.mr, Geometry(truth.mr.shape, turn @ truth.geometry.affine), "MR", FACTS))
    blank = done.voxels != truth.mr
    assert not (np.isin(truth.anatomy.tissue, BRAIN) & blank).any()
    assert (done.voxels == 0)[_face_skin(truth)].mean() > 0.9


@pytest.mark.parametrize("part", [None, "QZTOKEN", "", *sorted(MIXED_PARTS)[:3]])
def test_an_unknown_or_mixed_body_part_is_refused(heads, part):
    with pytest.raises(QuarantineError) as refused:
        deface(_scan(heads[0], "MR", replace(FACTS, body_part=part)))
    assert refused.value.reason == "NOT_DEFACED"
    assert "QZTOKEN" not in str(refused.value)


def test_body_parts_without_a_face_are_left_alone():
    truth = phantom_subject(3, 0, "PELVIS", "T1")
    scan = _scan(truth, "CT", ScanFacts(body_part="PELVIS"))
    assert deface(scan) is scan
    assert not HEAD_PARTS & MIXED_PARTS


def test_a_head_cut_at_the_vertex_is_refused(heads):
    truth = heads[0]
    cut = truth.ct_hu[:, :, :26]
    with pytest.raises(QuarantineError, match="vertex"):
        deface(Scan(cut, Geometry(cut.shape, truth.geometry.affine), "CT", FACTS))


def test_a_scan_that_ends_above_the_brow_shows_no_face(heads):
    truth = heads[0]
    above = truth.ct_hu[:, :, 22:]
    affine = truth.geometry.affine.copy()
    affine[:3, 3] += affine[:3, 2] * 22
    done = deface(Scan(above, Geometry(above.shape, affine), "CT", FACTS))
    assert done.facts.flags == (FACE_OUT_OF_VIEW,)
    np.testing.assert_array_equal(done.voxels, above)


@pytest.mark.parametrize("voxels", [np.zeros((40, 40, 30), np.int16), np.full((40, 40, 30), -1000, np.int16)])
def test_what_is_no_head_is_refused(voxels):
    with pytest.raises(QuarantineError) as refused:
        deface(Scan(voxels, Geometry(voxels.shape, np.diag([4.0, 4.0, 4.0, 1.0])), "CT", FACTS))
    assert refused.value.reason == "NOT_DEFACED"


def test_ingest_defaces_where_asked_and_flags_it(inputs, run_ingest, heads):
    truth = heads[0]
    inputs.nifti("sub-1/sub-1_T1w.nii", truth.mr, truth.geometry.affine)
    inputs.text("sub-1/sub-1_T1w.json", '{"BodyPartExamined": "HEAD", "Modality": "MR"}')
    inputs.nifti("sub-2/sub-2_T1w.nii", heads[1].mr, truth.geometry.affine)
    plain, done = run_ingest(), run_ingest(workspace="second", deface=True)
    assert plain.catalog.series.height == 2
    assert (done.catalog.series.height, done.reasons()) == (1, ["NOT_DEFACED"])
    (row,) = done.catalog.series.to_dicts()
    assert row["flags"] == ["DEFACED"]
    stored, affine = done.catalog.volume(row)
    read = Scan(truth.mr, Geometry(truth.mr.shape, affine), "MR", FACTS)  # NIfTI rounds the affine to float32
    np.testing.assert_array_equal(stored, deface(read).voxels)


def test_images_that_say_nothing_of_their_place_are_refused_where_faces_must_go(inputs, run_ingest):
    for number in range(4):
        inputs.image(f"{'ab'[number % 2]}/{number}.png", seed=number)
    with pytest.raises(Exception, match="4 NOT_DEFACED"):
        run_ingest(deface=True)
