"""What a code of a header means: terms of PS3.16 and SNOMED CT, never the text that the header gives for it."""

from collections.abc import Mapping
from functools import cache

from pydicom.sr._concepts_dict import concepts
from pydicom.sr._snomed_dict import mapping as snomed_codes


def term_of(scheme: str, value: str) -> str | None:
    """Keyword of a code in the dictionaries of pydicom, None for a code that they lack.

    >>> term_of("SRT", "T-62000"), term_of("SCT", "10200004"), term_of("99LOCAL", "1")
    ('Liver', 'Liver', None)
    """
    if scheme == "SRT":
        scheme, value = "SCT", str(snomed_codes["SRT"].get(value, ""))
    return _terms(scheme).get(value)


@cache
def _terms(scheme: str) -> Mapping[str, str]:
    """Code value → keyword; of several keywords that which PS3.16 lists in context groups, then the shortest."""
    ranked = [
        (not groups, len(keyword), keyword, value)
        for keyword, codes in concepts.get(scheme, {}).items()
        for value, (_, groups) in codes.items()
    ]
    terms: dict[str, str] = {}
    for _, _, keyword, value in sorted(ranked):
        terms.setdefault(value, keyword)
    return terms
