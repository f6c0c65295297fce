"""Cohorts by request, offline: ``40 small meningiomas and 20 pituitary`` becomes lines of a recipe, or is refused.

    request    = part { ("," | ";" | "and") part }
    part       = count class { attribute } | count { attribute } class { attribute } | count "each"
               | attribute { attribute } | "all" attribute | "truncation" number | "seed" number
    attribute  = range word | level | [name] number [unit] | [name] number "to" number [unit] | [name] bound number
    bound      = "under" | "over" | "at most" | "at least" | "<" | ">" | ...

An attribute beside a class belongs to its line. One that stands apart, behind a comma, belongs to the lines since the
comma before: both in ``40 meningioma and 20 pituitary, small``, the first in ``40 malignant, small, and 10 benign``.
Behind ``all`` it belongs to every line. Every word must be understood: what is not is refused with what would be.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from pipeline.errors import InputError
from pipeline.generate.query_terms import FILLERS, Request, Vocabulary, refused
from pipeline.generate.query_words import Token, read_number, same_words, shown, tokens_of, words_of
from pipeline.generate_settings import AttributeValue, CohortLine
from pipeline.lesion_attributes import RANGE_WORDS, LesionAttribute

LONGEST = 1000
"""Signs of a request at the most."""

_EACH = (("each",), ("per", "class"), ("every", "class"))
_BOUNDS = {
    "at most": ("under", "below", "up to", "at most", "less than", "smaller than", "no more than", "<", "<="),
    "at least": ("over", "above", "at least", "from", "more than", "larger than", "greater than", ">", ">="),
}
_TO = frozenset({"to", "-", "–", "..", "and"})


def parse_request(text: str, vocabulary: Vocabulary) -> Request:
    """Read a request.

    Raises:
        InputError: something in it is not understood, or says nothing that can be made.
    """
    if len(text) > LONGEST:
        raise refused(f"{len(text)} signs", vocabulary, f"Keep to {LONGEST} signs, or write a recipe in a file.")
    return _Parser(tokens_of(text), vocabulary).request()


@dataclass
class _Line:
    """A line that is being read."""

    count: int | None
    lesion_class: str | None = None
    attributes: dict[str, AttributeValue] = field(default_factory=dict)


@dataclass
class _Parser:
    """Reads tokens from left to right; every ``_take_...`` tells whether it understood what comes next."""

    tokens: Sequence[Token]
    vocabulary: Vocabulary
    place: int = 0
    groups: list[list[_Line]] = field(default_factory=list)
    separated: bool = True
    for_all: dict[str, AttributeValue] = field(default_factory=dict)
    options: dict[str, float] = field(default_factory=dict)

    def request(self) -> Request:
        """The whole request."""
        takers = (
            *(self._take_separator, self._take_option, self._take_class, self._take_each, self._take_all),
            *(self._take_attribute, self._take_count, self._refuse_class, self._take_filler),
        )
        while self.place < len(self.tokens):
            if not any(take() for take in takers):
                raise self._unknown()
        lines = [line for group in self.groups for line in group]
        if not lines:
            raise refused("no image", self.vocabulary, "Say how many of which class, e.g. 40 of a class.")
        self._close()
        for line in lines:
            line.attributes = _merged(line.attributes, self.for_all, self.vocabulary)
        seed = self.options.get("seed")
        return Request(
            tuple(self._finished(line) for line in lines),
            self.options.get("truncation"),
            None if seed is None else int(seed),
        )

    def _finished(self, line: _Line) -> CohortLine:
        assert line.count is not None and line.lesion_class is not None  # noqa: S101, PT018 - `_close` has seen to it
        known = {attribute.name: attribute for attribute in self.vocabulary.attributes}
        for name, value in line.attributes.items():
            known[name].resolve(value)
        return CohortLine(lesion_class=line.lesion_class, count=line.count, attributes=line.attributes)

    def _text(self, ahead: int = 0) -> str:
        place = self.place + ahead
        return self.tokens[place].said if place < len(self.tokens) else ""

    def _take_separator(self) -> bool:
        if self._text() in (",", ";"):
            self.separated = True
        elif self._text() not in ("and", "&", "plus"):
            return False
        self.place += 1
        return True

    def _take_option(self) -> bool:
        name = self._text()
        if name not in ("truncation", "seed") or (self._awaits_class() and self._class_at(self.place) is not None):
            return False
        value, place = read_number(self.tokens, self.place + 1 + (self._text(1) in ("=", ":")))
        if value is None or name in self.options or not _is_option(name, value):
            raise self._refuse(f"{name} {shown(self.tokens[self.place + 1 : place])}".strip(), f"Give one {name}.")
        self.options[name], self.place = value, place
        return True

    def _take_count(self) -> bool:
        value, place = read_number(self.tokens, self.place)
        if value is None and self._text() in ("a", "an") and self._class_at(self.place + 1) is not None:
            value, place = 1.0, self.place + 1
        if value is None:
            return False
        if value < 1 or value != int(value):
            raise self._refuse(f"{value:g} images", "Ask for a whole number of images, 1 or more.")
        self._close()
        if self.separated or not self.groups:
            self.groups.append([])
        self.groups[-1].append(_Line(int(value)))
        self.place, self.separated = place, False
        return True

    def _take_class(self) -> bool:
        found = self._class_at(self.place) if self._awaits_class() else None
        if found is None:
            return False
        name, place = found
        self.groups[-1][-1].lesion_class = name
        self.place, self.separated = place, False
        return True

    def _awaits_class(self) -> bool:
        return bool(self.groups) and self.groups[-1][-1].lesion_class is None

    def _refuse_class(self) -> bool:
        """A class where no number awaits it."""
        found = self._class_at(self.place)
        if found is not None:
            raise self._refuse(f"no number before {found[0]}", f"Say how many of {found[0]}.")
        return False

    def _class_at(self, start: int) -> tuple[str, int] | None:
        """The class with the most words at a place, and the place behind it."""
        return self._name_at(start, self.vocabulary.classes)

    def _name_at(self, start: int, names: Sequence[str]) -> tuple[str, int] | None:
        if start < len(self.tokens) and self.tokens[start].kind == "quoted":
            return (self.tokens[start].text, start + 1) if self.tokens[start].text in names else None
        best: list[tuple[int, bool, str]] = []
        for name in names:
            words = words_of(name)
            place, said = start, list[str]()
            while place < len(self.tokens) and len(said) < len(words):
                sign = self.tokens[place].kind == "sign"
                if sign and (not said or self.tokens[place].text not in f"-{name}"):
                    break
                said += [] if sign else [self.tokens[place].said]
                place += 1
            if same_words(said, words):
                best.append((place, tuple(said) == words, name))
        if not best:
            return None
        best = [entry for entry in best if entry[:2] == max(entry[:2] for entry in best)]
        if len(best) > 1:
            raise self._refuse(f"one name for {', '.join(name for *_, name in best)}", "Put the name in quotes.")
        return best[0][2], best[0][0]

    def _take_each(self) -> bool:
        words = next((words for words in _EACH if tuple(self._text(i) for i in range(len(words))) == words), None)
        if words is None or not self.groups or self.groups[-1][-1].lesion_class is not None:
            return False
        line = self.groups[-1].pop()
        self.groups[-1] += [_Line(line.count, name, dict(line.attributes)) for name in self.vocabulary.classes]
        self.place += len(words)
        self.separated = False
        return True

    def _take_all(self) -> bool:
        if self._text() != "all" or not self.groups:
            return False
        self.place += 1
        while self._text() in FILLERS:
            self.place += 1
        before, found = self.place, self._attribute()
        if found is None:
            self.place = before
            return False
        self.for_all = _merged(self.for_all, dict([found]), self.vocabulary)
        return True

    def _take_attribute(self) -> bool:
        before, found = self.place, self._attribute()
        if found is None:
            self.place = before
            return False
        if not self.groups:
            raise self._refuse(f"{found[0]} before any number", "Begin with a number, e.g. 40 small ...")
        lines = self.groups[-1] if self.separated else self.groups[-1][-1:]
        for line in lines:
            line.attributes = _merged(line.attributes, dict([found]), self.vocabulary)
        return True

    def _attribute(self) -> tuple[str, AttributeValue] | None:
        """Name and value at the current place, which is moved behind them."""
        for attribute in self.vocabulary.attributes:
            end = self._attribute_name(attribute)
            if end is None:
                continue
            before, self.place = self.place, end
            while self._text() in ("=", ":", "of", "is"):
                self.place += 1
            value = self._level([attribute]) or self._range([attribute], named=True)
            if value is not None:
                return value
            self.place = before
        return self._level(self.vocabulary.attributes) or self._range(self.vocabulary.attributes, named=False)

    def _attribute_name(self, attribute: LesionAttribute) -> int | None:
        """The place behind the attribute's name, with or without its unit, where it stands here."""
        words = words_of(attribute.name)
        for said in (words, words[:-1] if attribute.unit else ()):
            if said and tuple(self._text(i) for i in range(len(said))) == said:
                return self.place + len(said)
        return None

    def _level(self, attributes: Sequence[LesionAttribute]) -> tuple[str, AttributeValue] | None:
        """A level, or a word for a third of a number."""
        found: list[tuple[str, str, int]] = []
        for attribute in attributes:
            level = self._name_at(self.place, attribute.levels or RANGE_WORDS)
            if level is not None:
                found.append((attribute.name, *level))
        if not found:
            return None
        if len(found) > 1:
            names = " or ".join(name for name, *_ in found)
            raise self._refuse(f"{found[0][1]} of {names}", f"Say which, e.g. {found[0][0]} {found[0][1]}.")
        name, value, self.place = found[0]
        return name, value

    def _range(self, attributes: Sequence[LesionAttribute], *, named: bool) -> tuple[str, AttributeValue] | None:
        """Numbers of an attribute that is named before them, or by its unit behind them."""
        bound = self._bound()
        between = bound is None and self._text() in ("between", "from")
        self.place += between
        low, self.place = read_number(self.tokens, self.place)
        if low is None:
            return None
        high: float | None = None
        if bound is None and self._text() in _TO:
            high, place = read_number(self.tokens, self.place + 1)
            if high is not None and (between or self._text() != "and"):
                self.place = place
            else:
                high = None
        units = [attribute for attribute in attributes if not attribute.levels and attribute.unit == self._text()]
        self.place += bool(units)
        chosen = units if units else [each for each in attributes if not each.levels] if named else []
        if len(chosen) > 1:
            raise self._refuse(f"a number of {' or '.join(each.name for each in chosen)}", "Name the attribute.")
        return (chosen[0].name, _bounded(chosen[0], bound, low, high)) if chosen else None

    def _bound(self) -> str | None:
        for bound, phrases in _BOUNDS.items():
            for phrase in sorted(phrases, key=len, reverse=True):
                words = phrase.split()
                if [self._text(i) for i in range(len(words))] != words:
                    continue
                value, place = read_number(self.tokens, self.place + len(words))
                ranged = phrase == "from" and place < len(self.tokens) and self.tokens[place].said in _TO
                if value is not None and not ranged:
                    self.place += len(words)
                    return bound
        return None

    def _take_filler(self) -> bool:
        if self._text() not in FILLERS:
            return False
        self.place += 1
        return True

    def _close(self) -> None:
        """The last line must be whole."""
        if self.groups and self.groups[-1][-1].lesion_class is None:
            raise self._refuse(f"{self.groups[-1][-1].count} of no class", "Name the class behind the number.")

    def _unknown(self) -> InputError:
        token = self.tokens[min(self.place, len(self.tokens) - 1)]
        near = self.vocabulary.nearest(token.text)
        hint = f"Did you mean `{near}`?" if near else "Leave it out, or say it in these words."
        return self._refuse(f"`{token.shown}`", hint)

    def _refuse(self, found: str, change: str) -> InputError:
        before = shown(self.tokens[: self.place])
        return refused(f"{found}; understood before it: {before}" if before else found, self.vocabulary, change)


def _bounded(attribute: LesionAttribute, bound: str | None, low: float, high: float | None) -> AttributeValue:
    if bound == "at most":
        return attribute.low, low
    if bound == "at least":
        return low, attribute.high
    return low if high is None else (low, high)


def _is_option(name: str, value: float) -> bool:
    return 0 < value <= 2 if name == "truncation" else value == int(value) and 0 <= value < 2**31


def _merged(
    first: dict[str, AttributeValue], second: dict[str, AttributeValue], vocabulary: Vocabulary
) -> dict[str, AttributeValue]:
    twice = sorted(name for name in first.keys() & second.keys() if first[name] != second[name])
    if twice:
        raise refused(f"{twice[0]} twice for one line", vocabulary, f"Say {twice[0]} once for each line.")
    return first | second
