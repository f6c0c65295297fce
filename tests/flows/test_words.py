from pathlib import Path

import pytest

from flows.chain import STEPS
from flows.words import DEFAULT_WORKSPACE, counted, sentence_case, workspace_option


@pytest.mark.parametrize(("count", "text"), [(0, "0 steps"), (1, "1 step"), (2, "2 steps"), (11, "11 steps")])
def test_one_is_singular(count: int, text: str) -> None:
    assert counted(count, "step") == text


def test_names_keep_their_capitals() -> None:
    titles = {name: sentence_case(step.title) for name, step in STEPS.items()}
    assert titles["train_lesions"] == "Train the lesion GAN"
    assert titles["prepare_mr_to_ct"] == "Bring MR and CT to one grid"
    assert titles["translate_mr_to_ct"] == "Make pseudo-CT"
    assert sentence_case("") == ""


def test_a_workspace_is_named_where_it_is_not_the_default() -> None:
    assert workspace_option(DEFAULT_WORKSPACE) == ""
    assert workspace_option(Path("work")) == " --workspace work"
    assert workspace_option(Path("my work")) == " --workspace 'my work'"
