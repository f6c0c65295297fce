"""The recipe of a synthetic cohort, checked against what a generator knows before anything is written."""

import difflib
from collections.abc import Sequence

from pipeline.errors import InputError
from pipeline.generate_settings import CohortLine, GenerateLesionsSettings
from pipeline.lesion_attributes import LesionAttribute

SEED_SPACING = 2**20
"""Numbers of seeds between two cohorts; a cohort has as many candidates at the most."""


def resolve_recipe(
    settings: GenerateLesionsSettings, classes: Sequence[str], attributes: Sequence[LesionAttribute] = ()
) -> tuple[CohortLine, ...]:
    """Lines of the recipe, in the order in which images are made; without `lines`, one line a class of the model.

    Args:
        settings: the recipe.
        classes: that the generator knows, in the order of their index.
        attributes: that the generator is conditioned on.

    Raises:
        InputError: a class, an attribute or a value that the generator does not know, no image at all, or too many.
    """
    lines = settings.lines or _even_lines(settings, classes)
    known = {attribute.name: attribute for attribute in attributes}
    for line in lines:
        if line.lesion_class not in classes:
            raise _unknown_class(line.lesion_class, classes)
        for name, value in line.attributes.items():
            if name not in known:
                raise _unknown_attribute(name, sorted(known))
            known[name].resolve(value)
    wanted = sum(line.count for line in lines)
    attempts = settings.filter.attempts if settings.filter.active else 1
    if wanted * attempts > SEED_SPACING:
        raise InputError(
            "A cohort has a seed of its own for every image that is tried.",
            found=f"{wanted} images, {attempts} attempts for each",
            allowed=f"{SEED_SPACING} in all",
            change="Ask for fewer images, and for more with another generate.lesions.seed.",
        )
    return tuple(lines)


def counts_by_class(lines: Sequence[CohortLine], classes: Sequence[str]) -> dict[str, int]:
    """Images that the lines ask for, for every class of the model."""
    counts = dict.fromkeys(classes, 0)
    for line in lines:
        counts[line.lesion_class] += line.count
    return counts


def _even_lines(settings: GenerateLesionsSettings, classes: Sequence[str]) -> list[CohortLine]:
    """One line for each class of ``per_class``, in the order of the model's classes."""
    asked = settings.per_class or {}
    if isinstance(asked, int):
        return [CohortLine(lesion_class=name, count=asked) for name in classes]
    unknown = sorted(set(asked) - set(classes))
    if unknown:
        raise _unknown_class(", ".join(unknown), classes)
    if not any(asked.values()):
        raise InputError(
            "A recipe asks for at least one image.",
            found="no image",
            allowed=", ".join(classes),
            change="Correct generate.lesions.per_class.",
        )
    return [CohortLine(lesion_class=name, count=asked[name]) for name in classes if asked.get(name)]


def _unknown_class(found: str, classes: Sequence[str]) -> InputError:
    near = difflib.get_close_matches(found.casefold(), [name.casefold() for name in classes], n=1)
    guess = next((name for name in classes if near and name.casefold() == near[0]), None)
    return InputError(
        "A recipe names classes that the model was trained on.",
        found=found,
        allowed=", ".join(classes),
        change=f"Did you mean `{guess}`?" if guess else "Correct the classes of generate.lesions.",
    )


def _unknown_attribute(found: str, known: Sequence[str]) -> InputError:
    near = difflib.get_close_matches(found, known, n=1)
    hint = f"Did you mean `{near[0]}`?" if near else "Leave it out, or train with prepare.lesions.attributes."
    return InputError(
        "A recipe names attributes that the model was conditioned on.",
        found=found,
        allowed=", ".join(known) or "none: the model knows classes only",
        change=hint,
    )
