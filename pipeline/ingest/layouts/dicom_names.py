"""Which files could be DICOM by their name; content decides."""

from pipeline.ingest.source_tree import SourceFile

DICOM_SUFFIXES = frozenset({".dcm", ".dicom", ".dic", ".ima", ".seg"})
_NOTES = frozenset({"readme", "license", "licence", "changes", "copying", "notice", "makefile", "version"})


def may_be_dicom(file: SourceFile) -> bool:
    """DICOM endings, no ending, or the numbers that a UID used as a name ends with; no hidden files."""
    if file.suffix in DICOM_SUFFIXES or file.suffix[1:].isdigit():
        return True
    return not file.suffix and file.stem.lower() not in _NOTES and not file.stem.startswith(".")
