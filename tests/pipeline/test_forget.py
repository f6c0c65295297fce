"""Forgetting a subject: no byte of it stays but its keyed pseudonym, and what is left still verifies."""

import json
import sqlite3
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import polars as pl
import pytest
from PIL import Image
from pydantic import BaseModel

import pipeline.forget as forget_module
from pipeline.catalog import read_catalog
from pipeline.deidentify import Pseudonymizer
from pipeline.errors import InputError
from pipeline.forget import forget, plan_forgetting
from pipeline.ingest.identity_removal import NO_TRACE, strip_databases, strip_input
from pipeline.ingest.retries import last_input, remember_input
from pipeline.ingest.stage import ingest
from pipeline.scan_io import SeriesIdentity, uid_from, write_dicom_series
from pipeline.scan_io.dicom_write import Acquisition
from pipeline.settings import RunSettings
from pipeline.stage_runner import Stage, run_stage, verified_record
from pipeline.workspace import Workspace

AFFINE = np.array([[-1.5, 0, 0, 20.0], [0, -1.5, 0, 30.0], [0, 0, 4.0, -50.0], [0, 0, 0, 1]])
PATIENTS = ("QZPATIENT-ADA", "QZPATIENT-BEN", "QZPATIENT-EVE")


class NoSettings(BaseModel, frozen=True):
    pass


def _voxels(number):
    """Voxels whose bytes occur nowhere else: a pattern that a search can find."""
    voxels = np.random.default_rng(number).integers(0, 1500, (12, 10, 4)).astype(np.int16)
    voxels[:, 3, 2] = np.arange(12) * 7 + 11000 + number * 100
    return voxels


def _pattern(number):
    return _voxels(number)[:, 3, 2].astype("<i2").tobytes()


@dataclass
class World:
    workspace: Workspace
    root: Path
    records: dict[str, Any]

    def subject(self, patient):
        return Pseudonymizer(self.workspace.identity_key()).subject(patient)

    def plan(self, patient):
        return plan_forgetting(self.workspace, self.subject(patient))


def _derive(workspace, name, inputs, subjects, table="images"):
    """An output of a stage that holds some subjects."""

    def body(context):
        rows = {"subject_id": subjects, "series_id": [f"ser-{subject}" for subject in subjects]}
        pl.DataFrame(rows).write_parquet(context.folder / f"{table}.parquet")
        for part in ("grids", "checkpoints", "model"):
            (context.folder / part).mkdir()
            (context.folder / part / "file").write_text(name)
        return {}

    return run_stage(workspace, Stage(name, "pipeline.errors", body), NoSettings(), records=inputs)


@pytest.fixture
def world(tmp_path):
    root = tmp_path / "input"
    for number, patient in enumerate(PATIENTS):
        who = SeriesIdentity(patient, uid_from(patient, "s"), uid_from(patient, "q"), uid_from(patient, "f"))
        write_dicom_series(root / f"{patient}-scans", _voxels(number), AFFINE, "MR", who, Acquisition(body_part="HEAD"))
        (root / f"{patient}-scans" / "note.dcm").write_text("not DICOM")
        mask = np.zeros((12, 10, 4), np.int16)
        mask[2:5, 2:5, 1:3] = 21000 + number
        image = nib.Nifti1Image(np.where(mask > 0, 1, 0).astype(np.int16), AFFINE)
        image.set_sform(AFFINE, 1)
        nib.save(image, root / f"{patient}-mask.nii.gz")
    lines = ["mask_path,image_path,mask_value,lesion_class"]
    lines += [f"{patient}-mask.nii.gz,{patient}-scans,1,cyst" for patient in PATIENTS]
    (root / "lesions.csv").write_text("\n".join(lines) + "\n")
    workspace = Workspace.open(tmp_path / "workspace", bytes(range(32)))
    record = ingest(workspace, RunSettings(), root)
    world = World(workspace, root, {"ingest": record})
    subjects = [world.subject(patient) for patient in PATIENTS]
    world.records["prepare_lesions"] = _derive(workspace, "prepare_lesions", {"catalog": record}, subjects)
    world.records["train_lesions"] = _derive(
        workspace, "train_lesions", {"prepared": world.records["prepare_lesions"]}, []
    )
    world.records["synthesize_lesions"] = _derive(
        workspace, "synthesize_lesions", {"trained": world.records["train_lesions"]}, []
    )
    world.records["evaluate_lesions"] = _derive(
        workspace, "evaluate_lesions", {"cohort": world.records["synthesize_lesions"]}, subjects
    )
    # This set holds the last two patients only: forgetting the first one leaves it, and its model, alone.
    world.records["prepare_mr_to_ct"] = _derive(
        workspace, "prepare_mr_to_ct", {"catalog": record}, subjects[1:], "volumes"
    )
    world.records["train_mr_to_ct"] = _derive(
        workspace, "train_mr_to_ct", {"prepared": world.records["prepare_mr_to_ct"]}, []
    )
    world.records["report"] = _derive(workspace, "report", {"ingest": record}, subjects)
    (workspace.splits_path).write_text(json.dumps({"shares": {}, "subjects": dict.fromkeys(subjects, "train")}))
    return world


def _words(world, patient):
    """Everything that leads to a patient."""
    catalog = read_catalog(world.records["ingest"].path(world.workspace.root))
    rows = catalog.series.filter(pl.col("subject_id") == world.subject(patient)).to_dicts()
    words = {patient, world.subject(patient), uid_from(patient, "s"), uid_from(patient, "q"), uid_from(patient, "f")}
    for row in rows:
        words |= {row["series_id"], row["study_uid"], row["series_uid"], row["frame_of_reference_uid"]}
        words |= {row["content_sha256"], *row["sop_instance_uids"]}
    words |= set(catalog.lesions.filter(pl.col("subject_id") == world.subject(patient))["lesion_id"])
    assert len(words) > 10
    return words


def _bytes_left(root, pattern):
    return [path.name for path in root.rglob("*") if path.is_file() and pattern in path.read_bytes()]


def test_nothing_of_a_forgotten_subject_is_left(world, find_words):
    patient, root = PATIENTS[0], world.workspace.root
    words = _words(world, patient)
    assert len(find_words(root, words)) > 20
    assert _bytes_left(root, _pattern(0)) != []
    forget(world.workspace, world.plan(patient))
    subject = world.subject(patient)
    assert find_words(root, words) == [f"identity/forgotten.json: {subject}"]
    assert _bytes_left(root, _pattern(0)) == []


def test_others_stay_whole_and_verified(world):
    folder = world.records["ingest"].path(world.workspace.root)
    before = read_catalog(folder)
    forget(world.workspace, world.plan(PATIENTS[0]))
    record = verified_record(folder)
    assert record is not None
    facts = {name: record.facts[name] for name in ("series", "subjects", "lesions", "quarantined", "lesion_classes")}
    assert facts == {"series": 2, "subjects": 2, "lesions": 2, "quarantined": 2, "lesion_classes": {"cyst": 2}}
    after = read_catalog(folder)
    kept = before.series.filter(pl.col("subject_id") != world.subject(PATIENTS[0]))
    assert after.series.equals(kept)
    for number, patient in enumerate(PATIENTS[1:], start=1):
        (row,) = after.series.filter(pl.col("subject_id") == world.subject(patient)).to_dicts()
        np.testing.assert_array_equal(np.sort(after.volume(row)[0], axis=None), np.sort(_voxels(number), axis=None))
    crosswalk = json.loads(next(world.workspace.identity.glob("crosswalk-*.json")).read_text())
    assert set(crosswalk["subjects"].values()) == set(PATIENTS[1:])
    assert set(json.loads(world.workspace.splits_path.read_text())["subjects"]) == set(kept["subject_id"])


def test_the_plan_tells_models_that_saw_the_subject_from_those_that_did_not(world):
    first, last = world.plan(PATIENTS[0]), world.plan(PATIENTS[2])
    assert [path.parent.name for path in first.trained] == ["train_lesions"]
    assert [path.parent.name for path in last.trained] == ["train_lesions", "train_mr_to_ct"]
    assert [path.parent.name for path in first.cohorts] == ["synthesize_lesions"]
    assert [path.parent.name for path in first.derived] == ["evaluate_lesions", "prepare_lesions", "report"]
    assert list(first.catalogs.values()) == [1]


def test_planning_changes_nothing(world):
    def state():
        files = sorted(path for path in world.workspace.root.rglob("*") if path.is_file())
        return [(path, path.read_bytes()) for path in files if "sqlite-" not in path.name]

    before = state()
    world.plan(PATIENTS[1])
    assert state() == before


def test_trained_weights_stay_without_pictures_unless_models_go_too(world):
    folder = world.records["train_lesions"].path(world.workspace.root)
    untouched = world.records["train_mr_to_ct"].path(world.workspace.root)
    forget(world.workspace, world.plan(PATIENTS[0]))
    assert sorted(path.name for path in folder.iterdir() if path.is_dir()) == ["model"]
    assert verified_record(folder) is not None
    assert (untouched / "grids").is_dir()
    forget(world.workspace, world.plan(PATIENTS[2]), models=True)
    assert not untouched.exists()


def test_models_go_where_asked(world):
    forget(world.workspace, world.plan(PATIENTS[0]), models=True)
    left = {path.name for path in world.workspace.root.iterdir() if path.is_dir() and list(path.iterdir())}
    assert left == {"identity", "ingest", "logs", "prepare_mr_to_ct", "train_mr_to_ct"}


def test_a_later_ingest_refuses_the_subject(world):
    forget(world.workspace, world.plan(PATIENTS[0]))
    record = ingest(world.workspace, RunSettings(), world.root)
    catalog = read_catalog(record.path(world.workspace.root))
    assert record.facts["subjects"] == 2
    assert world.subject(PATIENTS[0]) not in catalog.series["subject_id"].to_list()
    assert catalog.quarantine["reason"].to_list().count("FORGOTTEN") == 1
    assert record.key != world.records["ingest"].key


@pytest.mark.parametrize(
    "step",
    [
        "_written_trace", "_strip_training", "_strip_catalog", "_strip_logs", "_strip_split", "_strip_ledger",
        "strip_databases", "strip_crosswalk", "flush_directory",
    ],
)  # fmt: skip
@pytest.mark.parametrize("after", [False, True])
def test_a_killed_forgetting_run_again_completes(world, monkeypatch, step, after, find_words):
    words, original = _words(world, PATIENTS[0]), getattr(forget_module, step)

    def dies(*arguments, **named):
        if after:
            original(*arguments, **named)
        raise KeyboardInterrupt

    monkeypatch.setattr(forget_module, step, dies)
    with pytest.raises(KeyboardInterrupt):
        forget(world.workspace, world.plan(PATIENTS[0]))
    monkeypatch.undo()
    forget(world.workspace, world.plan(PATIENTS[0]))
    assert find_words(world.workspace.root, words) == [f"identity/forgotten.json: {world.subject(PATIENTS[0])}"]
    assert _bytes_left(world.workspace.root, _pattern(0)) == []
    assert verified_record(world.records["ingest"].path(world.workspace.root)) is not None


def test_a_killed_rewrite_of_a_catalog_run_again_completes(world, monkeypatch):
    """Tables go one by one; whichever is reached last, the next attempt ends the same."""
    from pipeline.ingest import catalog_removal

    original, calls = catalog_removal._replace, []

    for allowed in range(4):
        calls.clear()

        def dies(path, table, allowed=allowed):
            calls.append(path)
            if len(calls) > allowed:
                raise KeyboardInterrupt
            original(path, table)

        monkeypatch.setattr(catalog_removal, "_replace", dies)
        try:
            forget(world.workspace, world.plan(PATIENTS[0]))
        except KeyboardInterrupt:
            continue
        finally:
            monkeypatch.undo()
    forget(world.workspace, world.plan(PATIENTS[0]))
    record = verified_record(world.records["ingest"].path(world.workspace.root))
    assert (record.facts["series"], record.facts["lesions"]) == (2, 2)


def test_the_last_subject_takes_the_catalog_with_it(world):
    for patient in PATIENTS:
        forget(world.workspace, world.plan(patient))
    assert list((world.workspace.root / "ingest").iterdir()) == []
    kept = set(json.loads((world.workspace.identity / "forgotten.json").read_text())["subjects"])
    assert kept == {world.subject(patient) for patient in PATIENTS}
    assert last_input(world.workspace.identity) is None
    assert list(world.workspace.identity.glob("*.sqlite")) == []


@pytest.mark.parametrize(("folder", "named"), [("ward", False), ("Lindgren-77", True)])
def test_the_path_of_the_input_goes_where_it_names_the_subject(tmp_path, folder, named):
    remember_input(tmp_path, f"/scans/{folder}/today")
    (tmp_path / "crosswalk-1.json").write_text('{"subjects": {"sub-other": "P2"}, "series": {}, "paths": {}}')
    strip_input(tmp_path, replace(NO_TRACE, words=frozenset({"Lindgren-77"})))
    assert (last_input(tmp_path) is None) is named


def test_a_subject_that_was_never_here_is_refused(world):
    with pytest.raises(InputError, match="forgotten"):
        plan_forgetting(world.workspace, "sub-0000000000")


def test_images_leave_their_stacks_and_the_rest_keep_their_places(tmp_path):
    root = tmp_path / "input"
    drawn = {}
    for number in range(12):
        name = f"{'tumor' if number % 2 else 'none'}/{number:02d}.png"
        drawn[name] = np.random.default_rng(number).integers(0, 256, (40, 36)).astype(np.uint8)
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(drawn[name]).save(root / name)
    workspace = Workspace.open(tmp_path / "workspace", bytes(range(32)))
    folder = ingest(workspace, RunSettings(), root).path(workspace.root)
    rows = read_catalog(folder).series
    subject = rows["subject_id"][5]
    gone = [read_catalog(folder).image(row).copy() for row in rows.filter(pl.col("subject_id") == subject).to_dicts()]
    kept = {
        row["series_id"]: read_catalog(folder).image(row).copy()
        for row in rows.filter(pl.col("subject_id") != subject).to_dicts()
    }
    forget(workspace, plan_forgetting(workspace, subject))
    after = read_catalog(folder)
    assert {row["series_id"] for row in after.series.to_dicts()} == set(kept)
    for row in after.series.to_dicts():
        np.testing.assert_array_equal(after.image(row), kept[row["series_id"]])
    assert all(_bytes_left(workspace.root, pixels.tobytes()) == [] for pixels in gone)
    again = ingest(workspace, RunSettings(), root)
    assert again.facts["quarantine_reasons"] == {"FORGOTTEN": len(gone)}
    assert subject not in read_catalog(again.path(workspace.root)).series["subject_id"].to_list()


def test_deleted_rows_leave_no_bytes_in_any_database(world):
    """Whatever tables a database has: rows go by path, by word and by original UID, and only the subject's."""
    path = world.workspace.identity / "cache.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA secure_delete = OFF")
        connection.execute("CREATE TABLE readings (key TEXT, value BLOB)")
        connection.execute('CREATE TABLE "odd ""name" (path TEXT PRIMARY KEY) WITHOUT ROWID')
        for patient in PATIENTS:
            facts = json.dumps({"patient_id": patient, "series_uid": uid_from(patient, "q")})
            rows = [(f"{patient}-{number}", facts.encode()) for number in range(300)]
            connection.executemany("INSERT INTO readings VALUES (?, ?)", rows)
            connection.execute('INSERT INTO "odd ""name" VALUES (?)', (f"/data/{patient}-scans/0001.dcm",))
    forget(world.workspace, world.plan(PATIENTS[0]))
    content = path.read_bytes()
    assert PATIENTS[0].encode() not in content
    assert uid_from(PATIENTS[0], "q").encode() not in content
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT COUNT(*) FROM readings").fetchone() == (600,)
        assert connection.execute('SELECT COUNT(*) FROM "odd ""name"').fetchone() == (2,)


def test_files_of_identity_stay_private(world):
    forget(world.workspace, world.plan(PATIENTS[0]))
    assert {path.stat().st_mode & 0o077 for path in world.workspace.identity.iterdir()} == {0}


def test_one_patient_in_two_ingests_leaves_both(world, tmp_path, find_words):
    second = tmp_path / "second"
    who = SeriesIdentity(PATIENTS[0], "1.2.3.4", "1.2.3.4.5", "1.2.3.4.6")
    write_dicom_series(second / "a", _voxels(7), AFFINE, "MR", who, Acquisition(body_part="HEAD"))
    other = replace(who, patient_id=PATIENTS[1], study_uid="1.2.9", series_uid="1.2.9.1")
    write_dicom_series(second / "b", _voxels(8), AFFINE, "MR", other, Acquisition(body_part="HEAD"))
    ingest(world.workspace, RunSettings(), second)
    plan = world.plan(PATIENTS[0])
    assert len(plan.catalogs) == 2
    forget(world.workspace, plan)
    assert find_words(world.workspace.root, [PATIENTS[0], "1.2.3.4.5"]) == []
    assert _bytes_left(world.workspace.root, _pattern(7)) == []
    assert _bytes_left(world.workspace.root, _pattern(8)) != []


def test_words_are_found_as_json_spells_them(tmp_path):
    path = tmp_path / "cache.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE readings (value TEXT)")
        facts = [json.dumps({"patient_id": name}) for name in ("Jörg-17", "Other-18")]
        rows = [(text,) for text in (*facts, json.dumps(["Müller/1.dcm"]), json.dumps(["Other/1.dcm"]))]
        connection.executemany("INSERT INTO readings VALUES (?)", rows)
    strip_databases(tmp_path, replace(NO_TRACE, words=frozenset({"Jörg-17"}), names=frozenset({"Müller/1.dcm"})))
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT * FROM readings").fetchall() == [rows[1], rows[3]]
