"""What a workspace remembers of the settings, and when."""

from pathlib import Path

import pytest

from flows.requests import Options, load_settings, remembered
from pipeline.errors import InputError, ResourceError, ScanloomError, SettingsError, TrainingError, WorkspaceError
from pipeline.settings import RunSettings
from pipeline.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.open(tmp_path / "work")


def _seed(workspace: Workspace) -> tuple[int, str]:
    settings, origin = load_settings(Options(workspace.root))
    return settings.seed, origin


def _refusal(kind: type[ScanloomError]) -> ScanloomError:
    return kind("rule", found="f", allowed="a", change="c")


def test_settings_are_remembered_from_the_start_so_that_a_killed_run_goes_on_with_them(workspace: Workspace) -> None:
    with remembered(workspace, RunSettings(seed=11)):
        assert _seed(workspace) == (11, "last used in this workspace")
    assert _seed(workspace) == (11, "last used in this workspace")


@pytest.mark.parametrize("kind", [SettingsError, InputError, ResourceError, WorkspaceError])
def test_refused_settings_leave_the_earlier_ones(workspace: Workspace, kind: type[ScanloomError]) -> None:
    with remembered(workspace, RunSettings(seed=11)):
        pass
    with pytest.raises(kind), remembered(workspace, RunSettings(seed=12)):
        raise _refusal(kind)
    assert _seed(workspace)[0] == 11


@pytest.mark.parametrize("ending", [KeyboardInterrupt(), LookupError("fault"), _refusal(TrainingError)])
def test_a_stopped_command_goes_on_with_its_settings(workspace: Workspace, ending: BaseException) -> None:
    with pytest.raises(type(ending)), remembered(workspace, RunSettings(seed=12)):
        raise ending
    assert _seed(workspace)[0] == 12


def test_a_corrected_recipe_does_not_bring_the_typo_back(workspace: Workspace) -> None:
    typo, corrected = "generate.lesions.per_class={cist: 4}", "generate.lesions.per_class={cyst: 4}"
    settings, _ = load_settings(Options(workspace.root, overrides=(typo,)))
    with remembered(workspace, settings):
        pass
    settings, _ = load_settings(Options(workspace.root, overrides=(corrected,)))
    assert settings.generate.lesions.per_class == {"cyst": 4}


LINES = "generate.lesions.lines=[{lesion_class: cyst, count: 3}]"


@pytest.mark.parametrize(
    ("said", "per_class", "lines"),
    [
        (("generate.lesions.per_class=7",), 7, 0),
        (("generate.lesions.per_class={ring: 7}",), {"ring": 7}, 0),
        (("generate.lesions.per_class.ring=7",), {"ring": 7}, 0),
        (("generate.lesions={per_class: 7}",), 7, 0),
        (("generate.lesions.seed=7",), None, 1),
    ],
)
def test_a_recipe_by_class_takes_the_place_of_remembered_lines(
    workspace: Workspace, said: tuple[str, ...], per_class: object, lines: int
) -> None:
    settings, _ = load_settings(Options(workspace.root, overrides=(LINES,)))
    with remembered(workspace, settings):
        pass
    recipe = load_settings(Options(workspace.root, overrides=said))[0].generate.lesions
    assert (recipe.per_class, len(recipe.lines)) == (per_class, lines)


def test_lines_take_the_place_of_a_remembered_recipe_by_class(workspace: Workspace) -> None:
    with remembered(workspace, RunSettings()):
        pass
    recipe = load_settings(Options(workspace.root, overrides=(LINES,)))[0].generate.lesions
    assert (recipe.per_class, len(recipe.lines)) == (None, 1)


def test_both_recipes_in_one_command_are_refused(workspace: Workspace) -> None:
    with pytest.raises(SettingsError, match="either per_class or lines"):
        load_settings(Options(workspace.root, overrides=(LINES, "generate.lesions.per_class=7")))


def test_a_risk_is_accepted_for_one_command_alone(workspace: Workspace) -> None:
    asked = ("seed=13", 'generate.mr_to_ct.accept_risk="a study on phantoms"')
    settings, _ = load_settings(Options(workspace.root, overrides=asked))
    assert settings.generate.mr_to_ct.accept_risk == "a study on phantoms"
    with remembered(workspace, settings):
        pass
    later, _ = load_settings(Options(workspace.root))
    assert (later.seed, later.generate.mr_to_ct.accept_risk) == (13, None)
