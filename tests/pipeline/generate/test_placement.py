"""The stage: hosts of every orientation and type, of which nothing changes but the footprint; what is refused."""

import nibabel as nib
import numpy as np
import polars as pl
import pytest
from scipy import ndimage

from pipeline.catalog import write_catalog
from pipeline.errors import InputError
from pipeline.files import write_json
from pipeline.generate.placement import place_lesions
from pipeline.intensity import to_int16
from pipeline.records import silent
from pipeline.scan_io import write_nifti
from pipeline.settings import RunSettings
from pipeline.settings_loading import load
from pipeline.stage_runner import Stage, run_stage
from pipeline.workspace import Workspace

SIDE = 32
SHAPE, SPACING = (64, 56, 12), (1.5, 1.5, 4.0)
ORIENTATIONS = {
    "RAS": np.eye(3),
    "LPS": np.diag([-1.0, -1.0, 1.0]),
    "PSR": np.array([[0, 0, 1.0], [-1.0, 0, 0], [0, 1.0, 0]]),
}


def crops() -> np.ndarray:
    """Bright disks, dark disks, and two crops without anything."""
    rows, columns = np.mgrid[:SIDE, :SIDE]
    images = []
    for number in range(12):
        disk = 1 / (1 + np.exp(2 * (np.hypot(rows - 15.5, columns - 15.5) - (4 + number % 3))))
        images.append(-0.3 + (0.6 if number % 2 else -0.5) * disk)
    images += [np.full((SIDE, SIDE), -0.3)] * 2
    return np.stack(images)[:, None]


def body(kind: str) -> np.ndarray:
    """A head of soft tissue with texture, canonical (i, j, k)."""
    i, j, k = (np.arange(n) - (n - 1) / 2 for n in SHAPE)
    inside = (i[:, None, None] / 26) ** 2 + (j[None, :, None] / 22) ** 2 + (k[None, None, :] / 9) ** 2 < 1
    texture = np.random.default_rng(4).normal(0, 8, SHAPE)
    if kind == "CT":
        return np.rint(np.where(inside, 40 + texture, -1000)).astype(np.int16)
    return np.where(inside, 500 + texture, np.abs(texture) / 4).astype(np.float32)


class World:
    def __init__(self, root, modality="MR"):
        self.workspace, self.modality = Workspace.open(root, identity_key=bytes(32)), modality

    def record(self, name, fill):
        def run(context):
            fill(context.folder)
            return {}

        return run_stage(self.workspace, Stage(name, "pipeline.prepared_set", run), RunSettings(), records={})

    def catalog(self, name, volumes, lesions=(), modality=None):
        """``volumes``: subject → (voxels, affine)."""

        def fill(folder):
            rows = []
            (folder / "volumes").mkdir()
            for subject, (voxels, affine) in volumes.items():
                path = f"volumes/{subject}.nii"
                write_nifti(folder / path, voxels, affine, voxels.dtype)
                row = dict.fromkeys(
                    ("body_part", "sequence", "volume_label", "study_date", "tilt_degrees", "study_uid", "series_uid",
                     "frame_of_reference_uid", "sop_instance_uids", "patient_position", "pair_key", "published_split")
                )  # fmt: skip
                rows.append(
                    row
                    | {
                        "series_id": f"ser-{subject}", "subject_id": f"sub-{subject}", "subject_source": "case",
                        "kind": "volume", "source": "nifti", "modality": modality or self.modality, "flags": [],
                        "unit": "HU" if self.modality == "CT" else "signal", "shape": list(voxels.shape),
                        "affine": affine.ravel().tolist(), "spacing_mm": list(SPACING), "path": path,
                        "stack_index": -1, "slice_index": -1, "content_sha256": subject,
                    }
                )  # fmt: skip
            listed = [
                {"lesion_id": f"les-{subject}", "subject_id": f"sub-{subject}", "series_id": f"ser-{subject}",
                 "lesion_class": "ring", "mask_path": "masks/x.nii", "mask_value": 1, "volume_mm3": 1.0}
                for subject in lesions
            ]  # fmt: skip
            write_catalog(folder, rows, listed, [])

        return self.record(name, fill)

    def records(self, hosts, *, pixel_mm=1.5, blocked=False, flagged=(), images=None):
        images = crops() if images is None else images
        table = pl.DataFrame(
            {"image": range(len(images)), "lesion_class": [("ring", "cyst")[n % 2] for n in range(len(images))],
             "seed": [100 + n for n in range(len(images))], "truncation": 1.0, "model_sha256": "ab" * 32}
        )  # fmt: skip

        def cohort(folder):
            np.save(folder / "images.npy", to_int16(images))
            table.write_parquet(folder / "cohort.parquet")

        def evaluation(folder):
            write_json(folder / "gate.json", {"blocked": blocked, "reason": "12 of 14 images are copies"})
            pl.DataFrame({"image": list(flagged)}, schema={"image": pl.Int64}).write_parquet(folder / "flagged.parquet")

        facts = {"pixel_mm": pixel_mm, "modality": self.modality}
        return {
            "hosts": hosts,
            "prepared": self.record("prepare_lesions", lambda folder: write_json(folder / "set.json", facts)),
            "cohort": self.record("synthesize_lesions", cohort),
            "evaluation": self.record("evaluate_lesions", evaluation),
        }

    def place(self, records, **changes):
        settings = load(None, [f"generate.placement.{name}={value}" for name, value in changes.items()], {})
        record = place_lesions(self.workspace, settings, records, progress=silent)
        folder = record.path(self.workspace.root)
        return record, folder, pl.read_parquet(folder / "placed.parquet")


def stored(canonical, orientation):
    """A canonical volume and its affine, stored with other axes: nibabel's own reorientation."""
    affine = np.diag([*SPACING, 1.0])
    affine[:3, 3] = (-40, 20, 300)
    image = nib.Nifti1Image(canonical, affine)
    wanted = nib.orientations.axcodes2ornt(orientation)
    turned = image.as_reoriented(nib.orientations.ornt_transform(nib.io_orientation(affine), wanted))
    return np.asarray(turned.dataobj), turned.affine


@pytest.mark.parametrize("blending", ["poisson", "feathered"])
@pytest.mark.parametrize(("modality", "orientation"), [("MR", "RAS"), ("MR", "PSR"), ("CT", "LPS"), ("CT", "LAS")])
def test_nothing_changes_but_the_rim_of_a_lesion(tmp_path, modality, orientation, blending):
    world = World(tmp_path / "w", modality)
    host, affine = stored(body(modality), orientation)
    records = world.records(world.catalog("ingest", {"a": (host, affine)}))
    record, folder, table = world.place(records, per_host=2, blending=blending, rim_mm=4)
    assert record.facts["lesions"] == table.height == 2
    assert record.facts["unusable_sections"] <= 2
    image, mask = (nib.load(folder / table[column][0]) for column in ("image_path", "mask_path"))
    voxels, labels = np.asarray(image.dataobj), np.asarray(mask.dataobj)
    assert voxels.dtype == host.dtype
    assert np.allclose(image.affine, affine)
    assert np.allclose(mask.affine, affine)
    assert np.unique(labels).tolist() == [0, 1, 2]
    in_plane = nib.orientations.io_orientation(affine)[:, 0]
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    far = np.where(in_plane == 2, 1e6, spacing)  # rims lie in the axial plane
    distance = ndimage.distance_transform_edt(labels == 0, sampling=far)
    changed = voxels != host
    assert distance[changed].max() <= 4.01
    assert changed[labels > 0].mean() > 0.9
    for row in table.to_dicts():
        own = labels == row["mask_value"]
        center = affine @ [*np.argwhere(own).mean(axis=0), 1]
        assert row["center_mm"] == pytest.approx(center[:3].tolist(), abs=1e-6)
        assert row["volume_mm3"] == pytest.approx(own.sum() * np.prod(SPACING))
        assert row["seed"] == 100 + row["cohort_image"]
        difference = (voxels.astype(float) - host)[own].mean()
        assert np.sign(difference) == (1 if row["cohort_image"] % 2 else -1), "bright stays bright, dark stays dark"


def test_seeds_and_margins(tmp_path):
    world = World(tmp_path / "w")
    records = world.records(world.catalog("ingest", {"a": stored(body("MR"), "RAS"), "b": stored(body("MR"), "LPS")}))
    first, _, one = world.place(records, per_host=2)
    again, _, _ = world.place(records, per_host=2)
    other, _, two = world.place(records, per_host=2, seed=5)
    assert again.cached
    assert first.content_sha256 == again.content_sha256 != other.content_sha256
    assert one["center_mm"].to_list() != two["center_mm"].to_list()
    assert one["series_id"].n_unique() == 2


def test_equal_seeds_give_equal_files_in_another_workspace(tmp_path):
    hashes = []
    for name in ("w", "v"):
        world = World(tmp_path / name)
        records = world.records(world.catalog("ingest", {"a": stored(body("MR"), "RAS")}))
        hashes.append(world.place(records)[0].content_sha256)
    assert hashes[0] == hashes[1]


def test_lesions_stay_in_the_labels_that_are_allowed(tmp_path):
    world = World(tmp_path / "w")
    host, affine = stored(body("MR"), "LPS")
    organ = np.zeros(SHAPE, np.uint8)
    organ[34:56, 8:48, 2:10] = 3
    organ[8:30, 8:48, 2:10] = 1
    mask, mask_affine = stored(organ, "LPS")
    assert np.allclose(affine, mask_affine)
    records = world.records(world.catalog("ingest", {"a": (host, affine)}))
    records["masks"] = world.catalog("ingest_mask", {"a": (mask, affine)})
    for seed in range(4):
        _, folder, table = world.place(records, seed=seed, labels="[3]", margin_mm=2)
        voxels = np.asarray(nib.load(folder / table["image_path"][0]).dataobj)
        assert (mask[voxels != host] == 3).all()
        inside = ndimage.distance_transform_edt(mask == 3, sampling=SPACING)
        assert inside[voxels != host].min() > 2


def test_the_table_of_lesions_is_what_ingest_reads(tmp_path):
    from pipeline.ingest.stage import ingest

    world = World(tmp_path / "w")
    volumes = {name: stored(body("MR"), "RAS") for name in "abc"}
    _, folder, table = world.place(world.records(world.catalog("ingest", volumes)), per_host=2)
    again = Workspace.open(tmp_path / "again", identity_key=bytes(32))
    record = ingest(again, load(None, ["ingest.burned_in_text=keep"], {}), folder)
    assert record.facts["lesions"] == table.height == 6
    counts = dict(sorted(table.group_by("lesion_class").len().iter_rows()))
    assert record.facts["lesion_classes"] == counts
    assert record.facts["modalities"] == {"MR": 3}
    assert record.facts["subjects"] == 3


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"blocked": True}, "copies"),
        ({"pixel_mm": None}, "pictures"),
        ({"images": np.full((4, 1, SIDE, SIDE), -0.3)}, "4 crops in which no lesion can be told"),
    ],
)
def test_cohorts_that_cannot_be_placed_are_refused(tmp_path, changes, found):
    world = World(tmp_path / "w")
    records = world.records(world.catalog("ingest", {"a": stored(body("MR"), "RAS")}), **changes)
    with pytest.raises(InputError) as caught:
        world.place(records)
    assert found in caught.value.found
    assert not list((world.workspace.root / "place_lesions").glob("*/lesions.csv"))


def test_flagged_copies_are_not_placed(tmp_path):
    world = World(tmp_path / "w")
    records = world.records(world.catalog("ingest", {"a": stored(body("MR"), "RAS")}), flagged=range(1, 14))
    _, _, table = world.place(records)
    assert table["cohort_image"].to_list() == [0]


def test_scans_with_lesions_and_other_modalities_are_no_hosts(tmp_path):
    world = World(tmp_path / "w")
    volumes = {"a": stored(body("MR"), "RAS"), "b": stored(body("MR"), "RAS")}
    _, _, table = world.place(world.records(world.catalog("ingest", volumes, lesions=["a"])))
    assert table["subject_id"].to_list() == ["sub-b"]
    with pytest.raises(InputError, match="--hosts"):
        world.place(world.records(world.catalog("one", volumes, lesions=["a", "b"])))
    with pytest.raises(InputError, match="MR volume"):
        world.place(world.records(world.catalog("two", volumes, modality="CT")))


@pytest.mark.parametrize("fault", ["moved", "missing", "label", "shape"])
def test_masks_that_do_not_fit_are_refused(tmp_path, fault):
    world = World(tmp_path / "w")
    host, affine = stored(body("MR"), "RAS")
    mask, moved = np.ones(SHAPE, np.uint8), affine.copy()
    moved[0, 3] += 1 if fault == "moved" else 0
    mask = mask[:-1] if fault == "shape" else mask
    records = world.records(world.catalog("ingest", {"a": (host, affine)}))
    records["masks"] = world.catalog("ingest_mask", {"x" if fault == "missing" else "a": (mask, moved)})
    with pytest.raises(InputError, match="mask"):
        world.place(records, labels="[2]" if fault == "label" else "[]")
