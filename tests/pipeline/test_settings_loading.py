import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from pipeline import settings_loading as settings_module
from pipeline.errors import SettingsError
from pipeline.settings import RunSettings
from pipeline.settings_loading import find_preset, json_schema, load, preset_names, to_yaml, validate


def leaf_paths(model: type[BaseModel] = RunSettings, prefix: str = "") -> list[str]:
    paths = []
    for name, field in model.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            paths += leaf_paths(kind, f"{prefix}{name}.")
        else:
            paths.append(prefix + name)
    return paths


def test_defaults_are_valid_and_round_trip_through_yaml(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text(to_yaml(load(None, environment={})), encoding="utf-8")
    assert load(path, environment={}) == RunSettings()


@pytest.mark.parametrize("path", leaf_paths())
def test_every_misspelled_key_is_refused_with_the_right_name(path):
    section, _, name = path.rpartition(".")
    misspelled = f"{section}.{name}z".lstrip(".")
    with pytest.raises(SettingsError) as caught:
        load(None, [f"{misspelled}=1"], {})
    assert caught.value.found == misspelled
    assert f"`{name}`" in caught.value.change
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    "override",
    ["seed=-1", "seed=x", "tracks=[]", "tracks=[lesion]", "train.lesions.images=0", "train.mr_to_ct.slices=2",
     "train.mr_to_ct.patch_px=50", "prepare.split.train=0.9", "device=tpu", "name=Has Space",
     "generate.lesions.per_class=-3",
     "prepare.lesions.size_px=48", "train.lesions.objective=mini", "evaluate.lesions.seeds=1"],
)  # fmt: skip
def test_values_out_of_range_are_refused_and_named(override):
    with pytest.raises(SettingsError) as caught:
        load(None, [override], {})
    top = override.partition("=")[0].split(".")[0]
    assert caught.value.found.startswith(top)


def test_override_beats_environment_beats_file_beats_default(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("seed: 1\ntrain: {lesions: {width: 8, images: 5}}\n", encoding="utf-8")
    environment = {"SCANLOOM_SEED": "2", "SCANLOOM_TRAIN__LESIONS__WIDTH": "16"}
    loaded = load(path, ["seed=3"], environment)
    assert (loaded.seed, loaded.train.lesions.width, loaded.train.lesions.images) == (3, 16, 5)


def test_a_mapping_given_for_one_setting_replaces_the_earlier_one(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("generate: {lesions: {per_class: {cist: 4, mass: 2}, truncation: 0.5}}\n", encoding="utf-8")
    override = "generate.lesions.per_class={cyst: 4}"
    by_override = load(path, [override], {}).generate.lesions
    assert (by_override.per_class, by_override.truncation) == ({"cyst": 4}, 0.5)
    by_environment = load(path, [], {"SCANLOOM_GENERATE__LESIONS__PER_CLASS": "{cyst: 4}"}).generate.lesions
    assert by_environment == by_override
    assert load(path, ["generate.lesions={per_class: {cyst: 4}}"], {}).generate.lesions == by_override
    assert load(path, ["generate.lesions.per_class=7", override], {}).generate.lesions == by_override


def test_an_override_that_names_an_entry_keeps_the_other_entries():
    overrides = ["generate.lesions.per_class={mass: 2}", "generate.lesions.per_class.cyst=4"]
    assert load(None, overrides, {}).generate.lesions.per_class == {"mass": 2, "cyst": 4}


def test_a_section_given_as_a_mapping_keeps_its_other_settings():
    loaded = load(None, ["train.lesions.width=16", "train.lesions={images: 5}"], {}).train.lesions
    assert (loaded.width, loaded.images) == (16, 5)


def test_an_error_says_whether_overrides_took_part(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("seed: -1\n", encoding="utf-8")
    with pytest.raises(SettingsError, match=r"in run\.yaml has"):
        load(path, environment={})
    with pytest.raises(SettingsError, match=r"in run\.yaml with overrides has"):
        load(path, ["seed=-2"], {})
    with pytest.raises(SettingsError, match="in the defaults with overrides"):
        load(None, [], {"SCANLOOM_TRAIN__LESIONS__IMAGS": "3"})


def test_variables_that_are_no_settings_are_left_alone():
    assert load(None, environment={"SCANLOOM_TEST_DATA": "somewhere"}) == RunSettings()


@pytest.mark.parametrize("override", ["seed", "=3", "a..b=1", ""])
def test_an_override_needs_key_and_value(override):
    with pytest.raises(SettingsError, match="key=value"):
        load(None, [override], {})


@pytest.mark.parametrize("text", ["- a\n- b\n", "a: [1\n", "\t"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(SettingsError):
        load(path, environment={})


def test_every_shipped_preset_is_valid():
    assert preset_names()
    for name in preset_names():
        assert isinstance(load(find_preset(name), environment={}), RunSettings)


def test_an_unknown_preset_names_the_nearest():
    with pytest.raises(SettingsError) as caught:
        find_preset("demmo")
    assert "`demo`" in caught.value.change


def test_settings_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        RunSettings().seed = 3  # type: ignore[misc]


def test_schema_knows_every_section():
    schema = json_schema()
    assert set(schema["properties"]) == set(RunSettings.model_fields)
    assert schema["additionalProperties"] is False


@given(st.integers(0, 2**31 - 1))
def test_every_seed_in_range_is_kept(seed):
    assert validate({"seed": seed}, "test").seed == seed


def test_environment_reads_every_section():
    assert set(settings_module._Environment.model_fields) == set(RunSettings.model_fields)
