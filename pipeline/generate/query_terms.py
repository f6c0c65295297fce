"""What a request for a cohort is made of: its vocabulary, what comes of it, the words it is said and refused in."""

import difflib
from dataclasses import dataclass

from pipeline.errors import InputError
from pipeline.generate.query_words import NUMBER_WORDS, same_words, words_of
from pipeline.generate_settings import AttributeValue, CohortLine
from pipeline.lesion_attributes import RANGE_WORDS, LesionAttribute

FILLERS = frozenset(
    """
    image images lesion lesions tumor tumors tumour tumours picture pictures case cases slice slices of the class
    classes with please give me make i want need them in a an synthetic is size
    """.split()  # noqa: SIM905
)
"""Words that say nothing."""

GRAMMAR_WORDS = (
    *("and", "each", "all", "under", "over", "between", "truncation", "seed", "plus"),
    *RANGE_WORDS,
    *NUMBER_WORDS,
)


@dataclass(frozen=True)
class Vocabulary:
    """What a request can speak of: classes and attributes that a generator knows."""

    classes: tuple[str, ...]
    attributes: tuple[LesionAttribute, ...] = ()

    def nearest(self, word: str) -> str | None:
        """The word that may have been meant."""
        known = [*self.classes, *(attribute.name for attribute in self.attributes), *GRAMMAR_WORDS]
        known += [level for attribute in self.attributes for level in attribute.levels]
        names = {name.casefold(): name for name in reversed(known) if name.casefold() != word.casefold()}
        near = difflib.get_close_matches(word.casefold(), names, n=1)
        return names[near[0]] if near else None


@dataclass(frozen=True)
class Request:
    """What was asked for; None where nothing was said."""

    lines: tuple[CohortLine, ...]
    truncation: float | None = None
    seed: int | None = None


def request_text(request: Request, vocabulary: Vocabulary) -> str:
    """A request in words that `parse_request` reads back as it is."""
    parts = []
    for line in request.lines:
        values = [f"{name} {_value_text(value)}" for name, value in line.attributes.items()]
        parts.append(" ".join([str(line.count), _name_text(line.lesion_class, vocabulary), *values]))
    options = [("truncation", request.truncation), ("seed", request.seed)]
    said = [f"{name} {value!r}" for name, value in options if value is not None]
    return "; ".join([", ".join(parts), *said])


def _name_text(name: str, vocabulary: Vocabulary) -> str:
    words = words_of(name)
    alone = sum(same_words(words, words_of(other)) for other in vocabulary.classes) == 1
    plain = len(words) == 1 and name.isalpha() and words[0] not in {*GRAMMAR_WORDS, *FILLERS}
    return name if plain and alone else f'"{name}"'


def _value_text(value: AttributeValue) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return f"{value[0]!r} to {value[1]!r}" if isinstance(value, tuple) else repr(value)


def refused(found: str, vocabulary: Vocabulary, change: str) -> InputError:
    """The refusal of a request, with all that would be understood."""
    attributes = "; ".join(f"{attribute.name}: {attribute.allowed}" for attribute in vocabulary.attributes)
    return InputError(
        "A request says how many images of which class.",
        found=found,
        allowed=f"numbers (40, forty), each; classes: {', '.join(vocabulary.classes)}; attributes: "
        f"{attributes or 'none, the model knows classes only'}; and, commas, all; truncation, seed",
        change=change,
    )
