"""The words of a request: tokens, numbers in digits and words, plurals."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

_TOKEN = re.compile(
    r"""(?P<quoted>"[^"]*"|'[^']*')
      | (?P<number>\d{1,3}(?:,\d{3})+(?![\d,.])|(?<![\w.])-?\d+(?:\.\d+)?(?:e[+-]?\d+)?(?![^\W\d_])|\d+(?![^\W\d_]))
      | (?P<word>[^\W_]+)
      | (?P<sign><=|>=|\.\.|[,;<>=:–\-&+])
      | (?P<other>\S)""",
    re.VERBOSE,
)
_SILENT = frozenset("_().+/|!?")
"""Signs that part words and say nothing."""

_UNITS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve"),
    *("thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_SMALL = {word: number for number, word in enumerate(_UNITS)} | {word: 10 * i for i, word in enumerate(_TENS, 2)}
_SCALES = {"dozen": 12, "hundred": 100, "thousand": 1000}
NUMBER_WORDS = (*_SMALL, *_SCALES)


@dataclass(frozen=True)
class Token:
    """One word, number or sign.

    Attributes:
        kind: quoted, number, word or sign.
        text: in lower case; of a quoted one what stands between the quotes, as it is.
        shown: as it was written.
    """

    kind: str
    text: str
    shown: str

    @property
    def said(self) -> str:
        """The text of what is not quoted; what is quoted is a name and no word of the grammar."""
        return "" if self.kind == "quoted" else self.text


def tokens_of(text: str) -> list[Token]:
    """Tokens of a request; other signs than a request has come as words, to be refused as such."""
    found = []
    for match in _TOKEN.finditer(text):
        kind, shown = str(match.lastgroup), match.group()
        if kind == "quoted":
            found.append(Token(kind, shown[1:-1], shown))
        elif kind == "other" or shown == "+":
            found += [] if shown in _SILENT else [Token("word", shown, shown)]
        else:
            found.append(Token(kind, shown.casefold(), shown))
    return found


def words_of(name: str) -> tuple[str, ...]:
    """Words of the name of a class, a level or an attribute: ``Pituitary_tumor-T2`` → pituitary, tumor, t2."""
    return tuple(re.findall(r"[^\W_]+", name.casefold()))


def same_words(first: Sequence[str], second: Sequence[str]) -> bool:
    """Whether two names have the same words, but for the number of the last one."""
    return (
        len(first) == len(second) > 0
        and tuple(first[:-1]) == tuple(second[:-1])
        and not _singulars(first[-1]).isdisjoint(_singulars(second[-1]))
    )


def _singulars(word: str) -> set[str]:
    """The word, and what it may be the plural of: cysts, metastases, bodies, meningiomata."""
    endings = (("s", ""), ("es", ""), ("ies", "y"), ("ses", "sis"), ("mata", "ma"), ("i", "us"))
    return {word} | {
        word.removesuffix(plural) + single
        for plural, single in endings
        if word.endswith(plural) and len(word) > len(plural) + 2 and not word.endswith("ss")
    }


def read_number(tokens: Sequence[Token], start: int) -> tuple[float | None, int]:
    """A number at ``start`` and the place behind it; None where there is none.

    ``40``, ``1,000``, ``2.5``, ``forty``, ``twenty-five``, ``two hundred and six``, ``a dozen``, ``3 thousand``.
    """
    total, current, place = 0.0, None, start
    while place < len(tokens):
        token = tokens[place]
        if token.kind == "number" and current is None:
            current = float(token.text.replace(",", ""))
        elif token.said in _SCALES:
            total, current = _scaled(total, current, _SCALES[token.said])
        elif token.said in _SMALL and (current is None or _goes_on(current, _SMALL[token.said])):
            current = (current or 0) + _SMALL[token.said]
        elif not _joins(tokens, place, current):
            break
        place += 1
    return (None, start) if current is None else (total + current, place)


def _scaled(total: float, current: float | None, scale: int) -> tuple[float, float]:
    """``two`` + ``hundred``; ``two hundred`` + ``thousand`` goes into the total."""
    value = (1.0 if current is None else current) * scale
    return (total + value, 0.0) if scale == 1000 else (total, value)


def _goes_on(current: float, more: int) -> bool:
    """``twenty`` + ``five``, ``two hundred`` + ``six``, ``two thousand`` + ``six``; but no ``five`` + ``six``."""
    return current == 0 or (current % 100 == 0) or (current % 10 == 0 and 20 <= current % 100 <= 90 and 0 < more < 10)


def _joins(tokens: Sequence[Token], place: int, current: float | None) -> bool:
    """A word between the parts of one number: the first ``a``, a hyphen, the ``and`` after hundreds."""
    following = tokens[place + 1].said if place + 1 < len(tokens) else ""
    token = tokens[place]
    if token.said in ("a", "an") and current is None:
        return following in _SCALES
    spelled = current is not None and following in _SMALL and tokens[place - 1].kind == "word"
    if token.said == "-":
        return spelled and tokens[place - 1].said in _TENS and _SMALL[following] < 10
    return token.said == "and" and spelled and tokens[place - 1].said in ("hundred", "thousand")


def shown(tokens: Iterable[Token]) -> str:
    """Tokens as they were written."""
    return " ".join(token.shown for token in tokens)
