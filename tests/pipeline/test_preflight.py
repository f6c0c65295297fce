import shutil
from collections import namedtuple
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from models.lesion_gan.discriminator import DCGANDiscriminator
from models.lesion_gan.generator import DCGANGenerator
from models.mr_to_ct.generator import UNetGenerator
from pipeline import preflight
from pipeline.errors import InputError, ResourceError
from pipeline.preflight import check_input, convolution_speed, estimate, lesion_cost, mr_to_ct_cost, require, survey
from pipeline.settings import RunSettings
from pipeline.settings_loading import validate

MB = 1_000_000
Usage = namedtuple("Usage", "total used free")


@pytest.fixture
def scans(tmp_path: Path) -> Path:
    folder = tmp_path / "scans"
    for name, size in (("ser/1.dcm", 100), ("ser/2.dcm", 150), ("a.nii", 200), ("b.nii.gz", 70), ("c.PNG", 10)):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(size))
    return folder


def _settings(**sections: object) -> RunSettings:
    return validate({"device": "cpu", **sections}, "test")


def test_survey_expands_compressed_files_and_sees_a_series_as_one_volume(scans: Path) -> None:
    found = survey(scans)
    assert (found.files, found.bytes) == (5, 530)
    assert found.expanded_bytes == 100 + 150 + 200 + 4 * 70 + 3 * 10
    assert found.largest_bytes == 4 * 70


def test_survey_never_follows_links(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "big").write_bytes(bytes(1000))
    before = survey(scans)
    (scans / "link").symlink_to(tmp_path / "elsewhere")
    (scans / "file").symlink_to(tmp_path / "elsewhere" / "big")
    assert survey(scans) == before


def test_input_apart_from_the_workspace_passes(scans: Path, tmp_path: Path) -> None:
    check_input(scans, tmp_path / "work")
    check_input(scans, tmp_path / "scans-work")


@pytest.mark.parametrize("workspace", ["scans", "scans/work", "."])
def test_input_and_workspace_must_not_contain_each_other(scans: Path, tmp_path: Path, workspace: str) -> None:
    with pytest.raises(InputError, match="neither contains the other"):
        check_input(scans, tmp_path / workspace)


def test_input_inside_the_workspace_by_a_link_is_seen(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(scans)
    with pytest.raises(InputError, match="neither contains the other"):
        check_input(tmp_path / "link", scans / "work")


def test_empty_folder_and_single_file_are_refused(scans: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no file at all"):
        check_input(tmp_path / "empty", tmp_path / "work")
    with pytest.raises(InputError, match="a single file"):
        check_input(scans / "a.nii", tmp_path / "work")
    (tmp_path / "set.npz").write_bytes(b"x")
    check_input(tmp_path / "set.npz", tmp_path / "work")


def test_lesion_cost_counts_the_networks_passes() -> None:
    settings = _settings(train={"lesions": {"width": 16, "latent_size": 8}}, prepare={"lesions": {"size_px": 32}})
    rng, classes = torch.Generator().manual_seed(0), torch.zeros(1, dtype=torch.long)
    generator = DCGANGenerator(32, rng, num_classes=2, latent_size=8, width=16).eval()
    discriminator = DCGANDiscriminator(32, rng, num_classes=2, width=16).eval()
    with FlopCounterMode(display=False) as made:
        image = generator(torch.zeros(1, 8), classes)
    with FlopCounterMode(display=False) as judged:
        discriminator(image, classes)
    cost = lesion_cost(settings)
    assert cost.operations == 4 * made.get_total_flops() + 9 * judged.get_total_flops()
    weights = [*generator.parameters(), *discriminator.parameters()]
    assert cost.parameters == sum(weight.numel() for weight in weights)


def test_cost_of_a_wide_network_follows_from_a_narrow_one() -> None:
    wide = {"width": 48, "discriminator_width": 48, "coordinates": False}
    exact = UNetGenerator(1, 1, torch.Generator(), width=48).to("meta").eval()
    with FlopCounterMode(display=False) as counter:
        exact(torch.empty(1, 1, 96, 96, device="meta"))
    estimated = mr_to_ct_cost(_settings(train={"mr_to_ct": {**wide, "patch_px": 96, "lambda_paired": 0}}))
    assert estimated.operations > 2 * 9 * counter.get_total_flops()
    double = mr_to_ct_cost(_settings(train={"mr_to_ct": {**wide, "width": 96, "discriminator_width": 96}}))
    assert double.operations == pytest.approx(4 * estimated.operations)
    assert double.activation_bytes == pytest.approx(2 * estimated.activation_bytes)


def test_paired_training_costs_less_than_both_directions() -> None:
    costs = {
        kind: mr_to_ct_cost(_settings(train={"mr_to_ct": {"supervision": kind}})).operations
        for kind in ("paired", "mixed", "unpaired")
    }
    assert costs["paired"] < costs["mixed"] == costs["unpaired"]


def test_time_grows_with_images_and_disk_with_input(
    scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preflight, "convolution_speed", lambda device: 1e9)
    short = estimate(_settings(train={"lesions": {"images": 1000}}), survey(scans), tmp_path / "work")
    long = estimate(_settings(train={"lesions": {"images": 3000}}), survey(scans), tmp_path / "work")
    assert long.seconds["train_lesions"] == pytest.approx(3 * short.seconds["train_lesions"])
    (scans / "more.nii").write_bytes(bytes(50 * MB))
    more = estimate(_settings(train={"lesions": {"images": 1000}}), survey(scans), tmp_path / "work")
    assert more.needs[0].need - short.needs[0].need > 50 * MB


def test_what_lies_in_the_workspace_already_is_not_needed_again(scans: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    before = estimate(_settings(), survey(scans), work).needs[0].need
    (work / "done").write_bytes(bytes(10 * MB))
    assert before - estimate(_settings(), survey(scans), work).needs[0].need == 10 * MB


def test_a_full_disk_is_refused_with_numbers(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(100 * MB, 99 * MB, MB))
    with pytest.raises(ResourceError, match=r"disk(.|\n)*1 MB free"):
        require(estimate(_settings(), survey(scans), tmp_path / "work"))


def test_little_memory_is_refused(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "available_memory_bytes", lambda: 300 * MB)
    with pytest.raises(ResourceError, match=r"memory(.|\n)*300 MB free(.|\n)*batch_size"):
        require(estimate(_settings(), survey(scans), tmp_path / "work"))


def test_settings_that_no_machine_can_hold_are_sized_up_in_moments(scans: Path, tmp_path: Path) -> None:
    huge = _settings(train={"lesions": {"width": 100_000, "batch_size": 4096}})
    needs = {need.resource: need.need for need in estimate(huge, survey(scans), tmp_path / "work").needs}
    assert needs["memory"] > 1e12


def test_a_run_that_fits_passes(scans: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "available_memory_bytes", lambda: 10**12)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: Usage(10**13, 0, 10**13))
    require(estimate(_settings(), survey(scans), tmp_path / "work"))


def test_a_network_of_three_dimensions_costs_as_many_times_more_as_it_sees_slices() -> None:
    costs = [
        mr_to_ct_cost(_settings(train={"mr_to_ct": {"dimensions": 3, "slices": slices, "supervision": "paired"}}))
        for slices in (8, 16)
    ]
    assert costs[1].operations == pytest.approx(2 * costs[0].operations, rel=0.02)
    assert costs[1].activation_bytes == pytest.approx(2 * costs[0].activation_bytes, rel=0.02)
    assert costs[1].parameters == costs[0].parameters
    flat = mr_to_ct_cost(_settings(train={"mr_to_ct": {"slices": 5, "supervision": "paired"}}))
    assert costs[0].operations > 8 * flat.operations


def test_measured_speed_is_that_of_a_computer() -> None:
    assert 1e8 < convolution_speed(torch.device("cpu")) < 1e15
