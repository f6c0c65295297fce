import pytest

from pipeline.errors import InputError
from pipeline.ingest.lesion_table import LesionRow, read_lesion_table
from pipeline.ingest.source_tree import walk

HEAD = "mask_path,image_path,mask_value,lesion_class\n"


def _read(inputs, text):
    path = inputs.root / "lesions.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return read_lesion_table(walk(inputs.root).named()["lesions.csv"])


def test_rows_are_read_tidied_and_told_once(inputs):
    rows = _read(inputs, HEAD + "./m.nii,dicom/1/,2,cyst\nm.nii,dicom/1,2,cyst\na\\b.nii,i.nii, 7 ,ring\n")
    assert rows == [LesionRow("m.nii", "dicom/1", 2, "cyst"), LesionRow("a/b.nii", "i.nii", 7, "ring")]


def test_columns_may_come_in_any_order_and_with_a_byte_order_mark(inputs):
    rows = _read(inputs, "\ufefflesion_class,mask_value,image_path,mask_path\ncyst,1,i.nii,m.nii\n")
    assert rows == [LesionRow("m.nii", "i.nii", 1, "cyst")]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "missing: mask_path"),
        ("mask_path,image_path,mask_value\na,b,1\n", "missing: lesion_class"),
        (HEAD.replace("\n", ",note\n") + "a,b,1,cyst,x\n", "unknown: 1"),
        (HEAD + "a,b,1\n", "line 2 has more or fewer"),
        (HEAD + "a,b,1,cyst\na,b,2,cyst,JANE\n", "line 3 has more or fewer"),
        (HEAD + "a,b,one,cyst\n", "line 2: mask_value"),
        (HEAD + "a,b,0,cyst\n", "line 2: mask_value"),
        (HEAD + "a,b,40000,cyst\n", "line 2: mask_value"),
        (HEAD + "a,b,\u00b2,cyst\n", "line 2: mask_value"),
        (HEAD + "a,b,1,\n", "line 2: lesion_class"),
        (HEAD + "a,b,1,<script>\n", "line 2: lesion_class"),
        (HEAD + ",b,1,cyst\n", "line 2: an empty path"),
        (HEAD + "a,b,1,cyst\na,b,1,ring\n", "another class"),
        (HEAD.encode() + b"\xff\xfe,b,1,cyst\n", "UnicodeDecodeError"),
        (HEAD + 'a,"b,1,cyst\n', "while reading"),
    ],
)
def test_a_mangled_table_is_refused_with_the_place_and_without_its_content(inputs, text, found):
    with pytest.raises(InputError) as caught:
        _read(inputs, text)
    assert found in caught.value.found
    assert "lesions.csv" in caught.value.change
    assert "JANE" not in str(caught.value)
