"""Transfer syntaxes that can be read (PS3.5 Annex A, PS3.6 Annex A)."""

BIG_ENDIAN = "1.2.840.10008.1.2.2"
PLAIN = frozenset({"1.2.840.10008.1.2", "1.2.840.10008.1.2.1"})
"""Implicit and explicit little endian: pixels lie in the file as they are."""

NATIVE = PLAIN | {BIG_ENDIAN, "1.2.840.10008.1.2.1.99"}
"""The plain ones, big endian and deflated."""

_JPEG = "1.2.840.10008.1.2.4."
DECODED = NATIVE | {
    "1.2.840.10008.1.2.5",
    *(_JPEG + number for number in ("50", "51", "57", "70", "80", "81", "90", "91", "201", "202", "203")),
}
"""Native ones, RLE, JPEG baseline, extended and lossless, JPEG-LS, JPEG 2000, high-throughput JPEG 2000."""

LOSSY = frozenset(_JPEG + number for number in ("50", "51", "81"))
"""Those that lose by definition; JPEG 2000 tells by LossyImageCompression."""


def undecodable(transfer_syntax_uid: str) -> tuple[str, str, str] | None:
    """Reason, what was found and advice where pixels of a transfer syntax cannot be decoded, else None."""
    if transfer_syntax_uid in DECODED:
        return None
    from pydicom.uid import UID

    known = UID(transfer_syntax_uid)
    name = str(known.name) if known.name != transfer_syntax_uid else "a transfer syntax outside the standard"
    return "UNSUPPORTED_SYNTAX", name, "Export without compression, or with a lossless JPEG."
