"""Keyed pseudonyms, UIDs and date shifts: stable within a workspace, unlinkable without its key.

HMAC-SHA-256 (RFC 2104) of the original value under the workspace's key. UIDs take the 2.25 form of PS3.5 B.2.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass

_PSEUDONYM_DIGITS = 10
_LONGEST_SHIFT_DAYS = 3650
_SERIES_DIGITS = 16  # a set may hold 100,000 images: at 10 digits two would share a name once in 200 sets

_PLACEHOLDER = re.compile(
    r"ANON|ANONYM|ANONYMOUS(PATIENT)?|ANONYMI[SZ]ED?|CONFIDENTIAL|DEFAULT|DEIDENTIFIED|EMPTY|HIDDEN|MISSING|NAN?|NIL|NO"
    r"|NO(ID|NAME|PATIENTID|TAVAILABLE)|NONE|NULL|(PATIENT)?ID(ENTIFIER)?|PATIENT|REDACTED|REMOVED|SUBJECT|TBD"
    r"|UN(ASSIGNED|DEFINED|IDENTIFIED|KNOWN|KNOWNPATIENT|NAMED|SPECIFIED)|0*|X*"
)


def names_a_patient(patient_id: str | None) -> bool:
    """Tell whether a PatientID names one patient; a placeholder stands for many and would merge them into one.

    Placeholders are empty texts, texts without letter or digit, zeros, rows of X, and words such as ANONYMOUS, in any
    case and punctuation. Ambiguous short numbers (``1``, ``999``) count as names.

    >>> [names_a_patient(text) for text in ("", "Anonymous", "0000", "N/A", "XXX", "ANON-17", "7")]
    [False, False, False, False, False, True, True]
    """
    word = re.sub(r"[\W_]", "", patient_id or "").upper()
    return _PLACEHOLDER.fullmatch(word) is None


@dataclass(frozen=True)
class Pseudonymizer:
    """Maps identities to pseudonyms.

    Args:
        key: the workspace's secret key.
    """

    key: bytes

    def subject(self, patient_id: str) -> str:
        """Pseudonym of a patient, e.g. ``sub-4f1c09ab2e`` (BIDS subject label)."""
        return "sub-" + self._digest("subject", patient_id).hex()[:_PSEUDONYM_DIGITS]

    def series(self, series: str) -> str:
        """Pseudonym of a series."""
        return "ser-" + self._digest("series", series).hex()[:_SERIES_DIGITS]

    def uid(self, uid: str) -> str:
        """Remapped DICOM UID, ``2.25.`` and a 128-bit integer; at most 44 characters."""
        return f"2.25.{int.from_bytes(self._digest('uid', uid)[:16], 'big')}"

    def days(self, patient: str) -> int:
        """Shift of every date of a patient, in [−3650, −1] days; equal for equal words."""
        return -1 - int.from_bytes(self._digest("days", patient)[:8], "big") % _LONGEST_SHIFT_DAYS

    def path_hash(self, relative_path: str) -> str:
        """Keyed hash of a source path, the name of a quarantine row."""
        return self._digest("path", relative_path).hex()[:16]

    def fraction(self, word: str, value: str) -> float:
        """A keyed number in [0, 1), e.g. to assign a late subject to a split."""
        return int.from_bytes(self._digest(word, value)[:7], "big") / (1 << 56)

    def _digest(self, kind: str, value: str) -> bytes:
        return hmac.new(self.key, f"{kind}\0{value}".encode(), hashlib.sha256).digest()
