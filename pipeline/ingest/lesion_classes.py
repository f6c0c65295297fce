"""Which lesion class a structure, segment or label becomes: the mapping ``ingest.lesion_classes``.

A key is a name in which ``*`` stands for any signs and ``?`` for one; all else, square brackets too, stands for itself.
Case, Unicode form (NFKC) and white space around a name do not count. The first key that matches decides, in the order
in which the mapping is written. What no key matches is left out.
"""

import re
import unicodedata
from collections.abc import Iterable, Mapping
from functools import lru_cache


def lesion_class_of(name: str, mapping: Mapping[str, str] | None) -> str | None:
    """Class of a name, None where it is left out; without a mapping a name is its own class.

    >>> lesion_class_of("GTV-1 [old]", {"gtv*[old]": "left", "GTV*": "tumor"}), lesion_class_of("Liver", {"GTV*": "a"})
    ('left', None)
    """
    return name if mapping is None else first_class([name], mapping)


def first_class(names: Iterable[str], mapping: Mapping[str, str]) -> str | None:
    """Class of a thing of several names, e.g. label and code: that of the first key that matches any of them."""
    plain = [_plain(name) for name in names]
    for pattern, lesion_class in mapping.items():
        expression = _expression(pattern)
        if any(expression.fullmatch(name) for name in plain):
            return lesion_class
    return None


def _plain(name: str) -> str:
    return unicodedata.normalize("NFKC", name).strip().casefold()


@lru_cache(maxsize=4096)
def _expression(pattern: str) -> re.Pattern[str]:
    """Regular expression of a key; runs of ``*`` count as one, so that no key takes long to tell."""
    parts = [{"*": ".*", "?": "."}.get(sign, re.escape(sign)) for sign in re.sub(r"\*+", "*", _plain(pattern))]
    return re.compile("".join(parts), re.DOTALL)
