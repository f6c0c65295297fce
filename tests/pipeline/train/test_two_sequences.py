"""Two MR sequences as one input, from a prepared set through training to a pseudo-CT and the gate."""

import numpy as np
import pytest
import torch

from pipeline.domain_card import SCOPE_KEY, domain_card, read_domain_card
from pipeline.errors import InputError
from pipeline.files import read_json
from pipeline.generate.scope import case_scope
from pipeline.generate.translators import load_translators
from pipeline.inference import WindowPlan
from pipeline.prepared_set import VolumeSet
from pipeline.settings import GenerateMRToCTSettings, TrainMRToCTSettings
from pipeline.train.mr_to_ct_training import MRToCTTraining
from pipeline.translated_case import case_source, write_case_maps
from tests.pipeline.train.conftest import volume_set

CPU = torch.device("cpu")
NAMES = ("T1", "T2")
SMALL = {
    "width": 4, "discriminator_width": 4, "patch_px": 32, "slices": 3, "batch_size": 2, "generator": "unet",
    "supervision": "mixed", "augment_shape": 0.5, "augment_look": 0.5, "lambda_gradient": 0.1, "lambda_body": 0.1,
}  # fmt: skip


def training(volumes, **changes):
    return MRToCTTraining(volumes, TrainMRToCTSettings.model_validate(SMALL | changes), 0, CPU)


@pytest.fixture
def both(tmp_path):
    return volume_set(tmp_path / "volumes", sequences=NAMES)


def test_a_batch_holds_the_slices_of_every_sequence_and_then_the_place(both):
    batch = training(both, augment_shape=0, augment_look=0)._sampler.draw(4)
    assert batch.mr.shape[1] == 2 * 3 + 3
    assert batch.ct.shape[1] == 3 + 3
    body = batch.mr_mask > 0
    assert torch.allclose(batch.mr[:, :3][body], torch.tensor(0.4), atol=1e-3)
    second = batch.mr[:, 3:6][body]
    assert ((second - 0.5).abs() < 1e-3).logical_xor(second.abs() < 1e-3).all()


def test_the_second_sequence_is_learned_from(both):
    trainee = training(both, supervision="paired", lambda_adversarial=0, lambda_cycle=0, slices=1,
                       augment_shape=0, augment_look=0, learning_rate=5e-3, ema_decay=0.5, lambda_gradient=0,
                       coordinates=False, mirror=False)  # fmt: skip
    for _ in range(60):
        trainee.train_batch()
    batch = trainee._sampler.draw(6)
    body = batch.mr_mask[:, 0] > 0
    bone = body & (batch.mr[:, 1] > 0.25)
    made, truth = trainee.step.translate(batch.mr)[:, 0], batch.ct[:, 0]
    contrast = [float(image[bone].mean() - image[body & ~bone].mean()) for image in (made, truth)]
    assert contrast[0] > 0.5 * contrast[1], "the first sequence shows no difference at all"


def saved(trainee, folder):
    trainee.save(folder / "model", 8)
    return load_translators([folder / "model"], CPU)


def test_training_saving_and_translating_go_through_all_networks(both, tmp_path):
    trainee = training(both)
    for _ in range(2):
        terms = trainee.train_batch()
    assert {"cycle_ct", "cycle_mr", "identity_ct", "identity_mr", "paired_mr"} <= terms.keys()
    translators = saved(trainee, tmp_path)
    assert read_json(tmp_path / "model" / "settings.json")["sequences"] == list(NAMES)
    assert translators.back is not None
    (tmp_path / "scratch").mkdir()
    settings = GenerateMRToCTSettings.model_validate({"planes": ["axial", "sagittal"]})
    row = both.volumes("MR", ["train"])[0]
    source = case_source(both, row)
    maps = write_case_maps(
        tmp_path, "case", source, translators.networks, settings, WindowPlan(), CPU, lambda done: None
    )
    found = np.load(tmp_path / maps.pseudo_ct)
    assert found.shape == both.voxels(row).shape
    assert maps.cycle_residual is not None
    # Another second sequence gives another pseudo-CT: it is looked at.
    other = VolumeSet(
        {**both.arrays, "mr": np.where(second_sequence(both), 0, both.arrays["mr"])}, both.table, both.facts
    )
    (tmp_path / "scratch").mkdir()
    changed = write_case_maps(
        tmp_path, "other", case_source(other, row), translators.networks, settings, WindowPlan(), CPU, lambda done: None
    )
    assert not np.array_equal(np.load(tmp_path / changed.pseudo_ct), found)


def second_sequence(volumes):
    """Where the flat array of MR holds the second sequence of a case."""
    where = np.zeros(volumes.arrays["mr"].shape, bool)
    for row in volumes.volumes("MR", ["train"]):
        size = row["slices"] * row["rows"] * row["columns"]
        where[row["offset"] + size : row["offset"] + 2 * size] = True
    return where


@pytest.mark.parametrize("names", [("T2", "T1"), (), ("T1", "FLAIR")])
def test_a_set_of_other_sequences_or_another_order_is_refused(both, tmp_path, names):
    translators = saved(training(both), tmp_path)
    translators.require_sequences(("t1", "T2"))
    with pytest.raises(InputError, match="T1, T2 together"):
        translators.require_sequences(names)


def test_scans_whose_headers_exchange_two_sequences_are_out_of_scope(both, tmp_path):
    translators = saved(training(both), tmp_path)
    rows = both.volumes("MR", ["train"])
    assert [case_scope(both, row, translators, None).outcome for row in rows] == ["in scope"] * 3
    mr = both.arrays["mr"].copy()
    for row in rows:
        size = row["slices"] * row["rows"] * row["columns"]
        first, second = (slice(row["offset"] + n * size, row["offset"] + (n + 1) * size) for n in (0, 1))
        mr[first], mr[second] = mr[second].copy(), mr[first].copy()
    exchanged = VolumeSet({**both.arrays, "mr": mr}, both.table, both.facts)
    scope = case_scope(exchanged, rows[0], translators, None)
    assert scope.refused
    assert any(finding.startswith("T2: ") for finding in scope.findings)
    assert any(not finding.startswith("T2: ") for finding in scope.findings)


def test_the_card_knows_every_sequence_and_one_sequence_leaves_no_trace(both, tmp_path):
    card = domain_card(both)
    assert (card.sequences, len(card.more)) == (NAMES, 1)
    assert read_domain_card({SCOPE_KEY: card.model_dump(mode="json")}) == card
    single = volume_set(tmp_path / "single")
    assert not {"sequences", "more"} & domain_card(single).model_dump(mode="json").keys()
    training(single).save(tmp_path / "one", 8)
    assert "sequences" not in read_json(tmp_path / "one" / "settings.json")
