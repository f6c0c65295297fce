import pytest

from pipeline.errors import QuarantineError
from pipeline.ingest.allow_list import body_part, is_class_name, patient_position, without_free_text


def test_defined_terms_pass_in_their_common_spellings():
    assert [body_part(text) for text in ("HEAD", "head ", "Whole Body", "C_SPINE")] == [
        "HEAD", "HEAD", "WHOLEBODY", "CSPINE",
    ]  # fmt: skip
    assert patient_position(" hfs") == "HFS"


@pytest.mark.parametrize("text", ["JANE ROE", "HEAD OF JANE", "", None, "<script>", "HFS JANE"])
def test_free_text_does_not_pass(text):
    assert body_part(text) is None
    assert patient_position(text) is None


def test_a_refusal_quotes_a_modality_only_where_it_is_a_defined_term():
    def refused(modality):
        return without_free_text(QuarantineError("UNSUPPORTED_MODALITY", f"modality {modality}", "advice")).found

    assert refused("RTSTRUCT") == "modality RTSTRUCT"
    assert "JANE" not in refused("JANE ROE")
    other = QuarantineError("TRUNCATED", "1 of 2 bytes", "advice")
    assert without_free_text(other) is other


@pytest.mark.parametrize(
    ("name", "allowed"),
    [
        ("glioma", True),
        ("grade 2 (low)", True),
        ("Läsion-3", True),
        ("", False),
        ("../up", False),
        (".hidden", False),
        ("a/b", False),
        ("<b>", False),
        ("=1+1", False),
        ("x" * 65, False),
        ("line\nbreak", False),
    ],
)
def test_class_names_are_safe_as_text_and_as_folder(name, allowed):
    assert is_class_name(name) is allowed
