"""MR and CT that are drawn alike are never warned of; whatever is planted on one side alone is."""

import json
import math

import numpy as np
import polars as pl
import pytest
import torch

from pipeline.errors import InputError
from pipeline.prepared_set import VOLUME_SCHEMA, VolumeSet
from pipeline.records import StageRecord, silent
from pipeline.report.cautions import cautions
from pipeline.settings import TrainMRToCTSettings
from pipeline.train.domain_balance import compare_domains
from pipeline.train.loop import train
from pipeline.train.mr_to_ct_training import MRToCTTraining
from pipeline.training_alarms import read_alarms

ROWS, COLUMNS = np.mgrid[:20, :20]
HEIGHT = "distance of slices from the body's upper end"


def body(rng, slices, radius):
    """A spindle of elliptic slices that differs from subject to subject."""
    size = radius * (1 + 0.06 * rng.normal())
    place = np.linspace(-0.8, 0.8, slices)[:, None, None]
    reach = size * np.sqrt(1 - place**2)
    return (np.hypot(ROWS - 10, (COLUMNS - 10) * 1.2)[None] < reach).astype(np.uint8)


def cylinder(rng, radius):
    """Slices of one area in pixels, but for what subjects differ by."""
    distances = np.sort((np.hypot(ROWS - 9.7, COLUMNS - 9.6)).ravel())
    area = round(math.pi * radius**2 * (1 + 0.03 * rng.normal()))
    inside = np.hypot(ROWS - 9.7, COLUMNS - 9.6) < distances[area]
    return np.repeat(inside[None], 8, 0).astype(np.uint8)


def volume_set(rng, scans, spacing=(4.0, 4.0, 5.0)):
    """A prepared set without voxels; ``scans`` hold modality, body_part, lesion_classes, slices, radius."""
    rows, masks, offset = [], [], 0
    for number, scan in enumerate(scans):
        mask = body(rng, scan.get("slices", 8), scan.get("radius", 8.0))
        if "cylinder" in scan:
            mask = cylinder(rng, scan["cylinder"])
        slices, high, wide = mask.shape
        rows.append(
            {
                "volume": number, "modality": scan["modality"], "subject_id": f"s{number}", "series_id": f"v{number}",
                "split": scan.get("split", "train"), "offset": 0, "mask_offset": offset, "slices": slices, "rows": high,
                "columns": wide, "pair_volume": -1, "own_grid": True, "body_part": scan.get("body_part"),
                "lesion_classes": scan.get("lesion_classes"),
            }
        )  # fmt: skip
        masks.append(mask.ravel())
        offset += mask.size
    facts = {"spacing_mm": None if spacing is None else list(spacing)}
    return VolumeSet({"mask": np.concatenate(masks)}, pl.DataFrame(rows, schema=VOLUME_SCHEMA), facts)


def settings(**changes):
    return TrainMRToCTSettings(supervision="unpaired", **changes)


def both(count, **kind):
    return [kind | {"modality": modality} for modality in ("MR", "CT") for _ in range(count)]


def compared(rng, scans, **changes):
    return {each.what: each for each in compare_domains(volume_set(rng, scans), settings(**changes))}


def differing(rng, scans, **changes):
    return {what for what, each in compared(rng, scans, **changes).items() if each.differs}


@pytest.mark.parametrize("count", [2, 12])
def test_sides_of_equal_make_are_never_warned_of(count):
    """Other subjects on both sides, heads and larger pelves, some with lesions: 40 draws of each size."""
    rng = np.random.default_rng(count)
    scans = both(count, body_part="HEAD", radius=6.0, lesion_classes=["a"])
    scans += both(count, body_part="PELVIS", radius=9.0, slices=10, lesion_classes=[])
    assert sum(bool(differing(rng, scans)) for _ in range(40)) <= 1


def test_sides_that_are_drawn_at_random_from_one_clinic_are_rarely_warned_of():
    rng = np.random.default_rng(9)
    warned = 0
    for _ in range(60):
        scans = [
            {"modality": modality, "body_part": part, "radius": 6.0 if part == "HEAD" else 9.0}
            for modality in ("MR", "CT")
            for part in rng.choice(["HEAD", "PELVIS"], 60, p=[0.7, 0.3])
        ]
        warned += bool(differing(rng, scans))
    assert warned == 0


def sides(count, mr, ct):
    return [scan | {"modality": name} for name, scan in (("MR", mr), ("CT", ct)) for _ in range(count)]


PLANTED = {
    "body part": ({"body_part": "HEAD"}, {"body_part": "PELVIS"}),
    "lesions": ({"lesion_classes": ["tumor"]}, {"lesion_classes": []}),
    "area of the body in a slice": ({"radius": 4.5}, {"radius": 9.0}),
    HEIGHT: ({"slices": 6}, {"slices": 20}),
}


@pytest.mark.parametrize("count", [1, 3, 12])
@pytest.mark.parametrize("what", PLANTED)
def test_what_one_side_alone_has_is_warned_of_and_nothing_else(what, count):
    rng = np.random.default_rng(1)
    scans = sides(count, *PLANTED[what])
    if what == "lesions":  # one of them known on the other side, so that it is known to be looked for
        scans += [{"modality": "CT", "lesion_classes": ["tumor"]}, {"modality": "MR", "lesion_classes": []}]
        count += 1
    for _ in range(10):
        found = differing(rng, scans)
        if what == "lesions" and count == 2:
            assert not found, "one in two on both sides"
        else:
            assert found == {what}


def test_the_distance_of_labels_is_half_the_sum_of_differences_in_drawn_slices():
    rng = np.random.default_rng(0)
    mr = [
        {"body_part": "HEAD", "slices": 10},
        {"body_part": "BRAIN", "slices": 10},
        {"body_part": "CHEST", "slices": 5},
    ]
    ct = [{"body_part": "SKULL", "slices": 15}, {"body_part": "PELVIS", "slices": 10}]
    scans = [scan | {"modality": "MR"} for scan in mr] + [scan | {"modality": "CT"} for scan in ct]
    found = compared(rng, scans)["body part"]
    # brain and skull are heads: .8 against .6; .2 chest; .4 pelvis
    assert found.distance == pytest.approx(0.5 * (0.2 + 0.2 + 0.4))
    assert (found.mr, found.ct) == ("80% HEAD, 20% CHEST", "60% HEAD, 40% PELVIS")
    assert found.allowed == 0.3


def test_the_distance_of_heights_is_that_of_kolmogorov():
    rng = np.random.default_rng(0)
    found = compared(rng, sides(5, {"slices": 6}, {"slices": 12}))[HEIGHT]
    # uniform on 0 to 25 mm against uniform on 0 to 55 mm: all of one lies where half of the other does
    assert found.distance == pytest.approx(0.5)
    assert found.ct == "27.5 mm (0 to 55)"


@pytest.mark.parametrize(("factor", "differs"), [(1.15, False), (1 / 1.15, False), (1.5, True), (1 / 1.5, True)])
def test_outlines_that_lie_a_little_further_out_in_one_modality_are_no_mismatch(factor, differs):
    """Cylinders of one size in each modality, whose areas differ by a factor."""
    rng = np.random.default_rng(0)
    scans = sides(20, {"cylinder": 6 * math.sqrt(factor)}, {"cylinder": 6.0})
    assert differing(rng, scans) == ({"area of the body in a slice"} if differs else set())


def test_unknown_labels_and_pictures_without_geometry_are_not_compared():
    rng = np.random.default_rng(0)
    assert set(compared(rng, both(3))) == {"area of the body in a slice", HEIGHT}
    scans = sides(3, {"body_part": "HEAD", "lesion_classes": ["tumor"]}, {})
    assert set(compared(rng, scans)) == {"area of the body in a slice", HEIGHT}
    flat = compare_domains(volume_set(rng, both(3), spacing=None), settings())
    assert [each.what for each in flat] == ["area of the body in a slice"]
    assert "of the picture" in flat[0].mr


def test_only_games_without_pairs_are_looked_at_and_only_training_scans():
    rng = np.random.default_rng(0)
    scans = sides(3, {"body_part": "HEAD"}, {"body_part": "PELVIS"})
    volumes = volume_set(rng, scans)
    assert not compare_domains(volumes, TrainMRToCTSettings(supervision="paired"))
    assert not compare_domains(volumes, settings(lambda_adversarial=0.0, lambda_weak=1.0))
    assert any(each.differs for each in compare_domains(volumes, TrainMRToCTSettings(supervision="mixed")))
    held_out = both(3, body_part="HEAD") + [
        {"modality": "CT", "body_part": "PELVIS", "split": "test"} for _ in range(20)
    ]
    assert not differing(rng, held_out)


def test_a_mismatch_can_be_made_an_error_and_the_limit_be_set():
    rng = np.random.default_rng(0)
    scans = sides(3, {"body_part": "HEAD"}, {"body_part": "PELVIS"})
    with pytest.raises(InputError, match="same kinds of things") as caught:
        compared(rng, scans, domain_mismatch="refuse")
    assert caught.value.found == "body part: MR 100% HEAD; CT 100% PELVIS; distance 1.00"
    assert caught.value.allowed == "distances of at most 0.30"
    assert "prepare.mr_to_ct.body_parts" in caught.value.change
    assert "domain_mismatch=warn" in caught.value.change
    assert not differing(rng, scans, domain_mismatch_limit=1.0, domain_mismatch="refuse")


def test_a_warning_is_in_the_alarms_the_facts_the_card_and_the_report(volumes, tmp_path):
    """The set of three subjects, with CT called pelves."""
    part = pl.when(pl.col("modality") == "MR").then(pl.lit("HEAD")).otherwise(pl.lit("PELVIS"))
    planted = VolumeSet(volumes.arrays, volumes.table.with_columns(part.alias("body_part")), volumes.facts)
    small = settings(images=4, batch_size=2, width=4, discriminator_width=4, patch_px=32, alarms={"probe_images": 0})
    trainee = MRToCTTraining(planted, small, 1, torch.device("cpu"))
    facts = train(trainee, small, tmp_path, "w", silent)
    (alarm,) = [alarm for alarm in read_alarms(tmp_path) if alarm.alarm == "domains_differ"]
    assert (alarm.images, alarm.action) == (0, "warn")
    assert "MR 100% HEAD; CT 100% PELVIS" in alarm.found
    assert any("domains_differ after 0 images: body part" in sentence for sentence in facts["alarms"])
    assert facts["domains_differ"] == [alarm.found]
    card = json.loads((tmp_path / "model" / "card.json").read_text(encoding="utf-8"))
    first = card["domain_balance"][0]
    assert (first["what"], first["distance"], first["allowed"], first["differs"]) == ("body part", 1.0, 0.3, True)
    assert all(math.isclose(other["distance"], 0, abs_tol=1e-9) for other in card["domain_balance"][1:])
    record = StageRecord.model_construct(stage="train_mr_to_ct", facts=facts)
    (caution,) = cautions({"train_mr_to_ct": record}, {}, None)
    assert "differ in body part: MR 100% HEAD; CT 100% PELVIS" in caution
    quiet = MRToCTTraining(volumes, small, 1, torch.device("cpu"))
    assert not quiet.mismatches
