"""Which CT, pseudo-CT, MR, masks and label maps that were given belong together; what cannot be told is not guessed."""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Row = dict[str, Any]
LABEL_ROLES = {"ct_labels": "label map of the CT", "pseudo_ct_labels": "label map of the pseudo-CT"}
"""Roles of a segmenter's label maps, in words."""

_NAMES = {"ct": "CT", "pseudo_ct": "pseudo-CT", "mr": "MR", "mask": "mask"} | LABEL_ROLES


@dataclass(frozen=True)
class Matching:
    """Which volumes belong together.

    Attributes:
        pairs: catalog rows of each pair by role; the others where there is one.
        unmatched: role, subject and reason of what has no partner.
    """

    pairs: tuple[dict[str, Row], ...]
    unmatched: tuple[Row, ...]


def match(tables: Mapping[str, Sequence[Row]]) -> Matching:
    """Pair CT and pseudo-CT: of one subject, by frame of reference where it has several; else by frame alone.

    Args:
        tables: catalog rows by role.
    """
    left = {role: list(tables[role]) for role in ("ct", "pseudo_ct")}
    pairs: list[dict[str, Row]] = []
    for keys in (("subject_id", "frame_of_reference_uid"), ("subject_id",), ("frame_of_reference_uid",)):
        for ct, pseudo_ct in list(_unique_pairs(left["ct"], left["pseudo_ct"], keys)):
            pairs.append({"ct": ct, "pseudo_ct": pseudo_ct})
            left["ct"].remove(ct)
            left["pseudo_ct"].remove(pseudo_ct)
    unmatched = [
        {"role": _NAMES[role], "subject_id": row["subject_id"], "why": _why(row, left[other])}
        for role, other in (("ct", "pseudo_ct"), ("pseudo_ct", "ct"))
        for row in left[role]
    ]
    for role in ("mr", "mask", *LABEL_ROLES):
        unmatched += _add(pairs, role, list(tables.get(role, ())))
    return Matching(tuple(sorted(pairs, key=lambda pair: str(pair["ct"]["series_id"]))), tuple(unmatched))


def _unique_pairs(firsts: Sequence[Row], seconds: Sequence[Row], keys: tuple[str, ...]) -> Iterator[tuple[Row, Row]]:
    """Rows that are the only ones of their side with equal, known keys."""
    sides = []
    for rows in (firsts, seconds):
        groups: dict[tuple[Any, ...], list[Row]] = defaultdict(list)
        for row in rows:
            groups[tuple(row[key] for key in keys)].append(row)
        sides.append(groups)
    for values, own in sides[0].items():
        other = sides[1].get(values, [])
        if None not in values and len(own) == 1 and len(other) == 1:
            yield own[0], other[0]


def _why(row: Row, others: Sequence[Row]) -> str:
    same = sum(other["subject_id"] == row["subject_id"] for other in others)
    return "several volumes of this case, not told apart by a frame of reference" if same else "no partner of this case"


def _add(pairs: list[dict[str, Row]], role: str, rows: list[Row]) -> list[Row]:
    """Give MR, masks or label maps to the pairs of their subject; returns what is left over."""
    by_subject: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        by_subject[row["subject_id"]].append(row)
    used: set[str] = set()
    for pair in pairs:
        subject = next((s for s in (pair["ct"]["subject_id"], pair["pseudo_ct"]["subject_id"]) if s in by_subject), "")
        if len(by_subject.get(subject, [])) == 1:
            pair[role] = by_subject[subject][0]
            used.add(subject)
    return [
        {"role": _NAMES[role], "subject_id": subject, "why": "no pair of this case, or several of one"}
        for subject in sorted(by_subject)
        if subject not in used
    ]
