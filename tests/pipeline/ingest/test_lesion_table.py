import polars as pl
import pytest

from pipeline.errors import InputError
from pipeline.ingest.lesion_table import FORM, LesionRow, read_lesion_table
from pipeline.ingest.source_tree import walk
from pipeline.ingest.table_files import find_table, parse_parquet
from pipeline.safe_parse import Limits

HEAD = "mask_path,image_path,mask_value,lesion_class\n"
LIMITS = Limits(60, 1400)


def _table(inputs):
    file = find_table(walk(inputs.root), FORM)
    assert file is not None
    return read_lesion_table(file, LIMITS)


def _read(inputs, text, name="lesions.csv"):
    (inputs.root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return _table(inputs)


def _parquet(inputs, **columns):
    pl.DataFrame(columns).write_parquet(inputs.root / "lesions.parquet")
    return _table(inputs)


def test_rows_are_read_tidied_and_told_once(inputs):
    rows = _read(inputs, HEAD + "./m.nii,dicom/1/,2,cyst\nm.nii,dicom/1,2,cyst\na\\b.nii,i.nii, 7 ,ring\n")
    assert rows == [LesionRow("m.nii", "dicom/1", 2, "cyst"), LesionRow("a/b.nii", "i.nii", 7, "ring")]


def test_columns_may_come_in_any_order_and_with_a_byte_order_mark(inputs):
    rows = _read(inputs, "\ufefflesion_class,mask_value,image_path,mask_path\ncyst,1,i.nii,m.nii\n")
    assert rows == [LesionRow("m.nii", "i.nii", 1, "cyst")]


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r\n\r\n"])
def test_tabs_separate_a_tsv_and_commas_are_text_there(inputs, ends):
    lines = ["mask_path\timage_path\tmask_value\tlesion_class", "m,1.nii\ti.nii\t1\tcyst", '"m 2.nii"\ti.nii\t2\tring']
    rows = _read(inputs, ends.join(lines), "lesions.tsv")
    assert rows == [LesionRow("m,1.nii", "i.nii", 1, "cyst"), LesionRow("m 2.nii", "i.nii", 2, "ring")]


@pytest.mark.parametrize("values", [[1, 2], ["1", "2"], pl.Series([1, 2], dtype=pl.UInt8)], ids=["int", "text", "u8"])
def test_a_parquet_says_the_same_as_the_text(inputs, values):
    rows = _parquet(
        inputs, lesion_class=["cyst", "ring"], mask_path=["./m", " m "], image_path=["i", "j"], mask_value=values
    )
    assert rows == [LesionRow("m", "i", 1, "cyst"), LesionRow("m", "j", 2, "ring")]
    assert [row.place for row in rows] == ["row 1", "row 2"]


def test_a_structure_stands_in_for_a_value(inputs):
    head = "mask_path,image_path,mask_value,structure,lesion_class\n"
    rows = _read(inputs, head + "s.dcm,ct,,GTV 1,tumor\nm.nii,ct,3,,cyst\ns.dcm,ct,,2,organ\n")
    assert [(row.mask_value, row.structure) for row in rows] == [(None, "GTV 1"), (3, None), (None, "2")]
    text = (inputs.root / "lesions.csv").read_text()
    (inputs.root / "lesions.csv").unlink()
    nothing = _parquet(
        inputs, mask_path=["s.dcm", "m.nii"], image_path=["ct"] * 2, structure=["GTV 1", None],
        mask_value=[None, 3], lesion_class=["tumor", "cyst"],
    )  # fmt: skip
    assert nothing == rows[:2]
    assert "GTV" in text
    for row, found in (("s.dcm,ct,,,x", "neither"), ("s.dcm,ct,1,1,x", "both")):
        (inputs.root / "lesions.parquet").unlink(missing_ok=True)
        with pytest.raises(InputError, match=f"line 2: {found} mask_value and structure"):
            _read(inputs, head + row)


def test_places_count_the_lines_of_the_file(inputs):
    rows = _read(inputs, HEAD + '\n"a\nb",i,1,cyst\n\nm,i,2,ring\n')
    assert [row.place for row in rows] == ["line 4", "line 6"]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "missing: mask_path"),
        ("mask_path,image_path,mask_value\na,b,1\n", "missing: lesion_class"),
        (HEAD.replace(",", ";") + "a;b;1;cyst\n", "1 columns; missing: mask_path"),
        (HEAD.replace("\n", ",note\n") + "a,b,1,cyst,x\n", "unknown or repeated: 1"),
        (HEAD.replace("\n", ",mask_value\n") + "a,b,1,cyst,2\n", "unknown or repeated: 1"),
        (HEAD + "a,b,1\n", "line 2 has more or fewer"),
        (HEAD + "a,b,1,cyst\na,b,2,cyst,JANE\n", "line 3 has more or fewer"),
        (HEAD + "a,b,one,cyst\n", "line 2: mask_value"),
        (HEAD + "a,b,0,cyst\n", "line 2: mask_value"),
        (HEAD + "a,b,-1,cyst\n", "line 2: mask_value"),
        (HEAD + "a,b,1.0,cyst\n", "line 2: mask_value"),
        (HEAD + "a,b,40000,cyst\n", "line 2: mask_value"),
        (HEAD + f"a,b,{'9' * 5000},cyst\n", "line 2: mask_value"),
        (HEAD + "a,b,\u00b2,cyst\n", "line 2: mask_value"),
        (HEAD + "a,b,1,\n", "line 2: lesion_class"),
        (HEAD + "a,b,1,<script>\n", "line 2: lesion_class"),
        (HEAD + ",b,1,cyst\n", "line 2: an empty path"),
        (HEAD + "a,b,1,cyst\na,b,1,ring\n", "line 3: a lesion that an earlier line gives another class"),
        (HEAD.encode() + b"\xff\xfe,b,1,cyst\n", "UnicodeDecodeError"),
        ((HEAD + "a,b,1,cyst\n").encode("utf-16"), "UnicodeDecodeError"),
        (HEAD.encode() + "a,b,1,L\u00e4sion\n".encode("latin-1"), "UnicodeDecodeError"),
        (HEAD + 'a,"b,1,cyst\n', "while reading"),
        (HEAD + f"{'x' * 200_000},b,1,cyst\n", "while reading"),
    ],
)
def test_a_mangled_table_is_refused_with_the_place_and_without_its_content(inputs, text, found):
    with pytest.raises(InputError) as caught:
        _read(inputs, text)
    assert found in caught.value.found
    assert "lesions.csv" in caught.value.change
    assert "JANE" not in str(caught.value)


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t=", "|", "%"])
def test_a_class_that_a_spreadsheet_would_run_is_refused(inputs, start):
    with pytest.raises(InputError, match="line 2: lesion_class"):
        _read(inputs, HEAD + f"a,b,1,{start}cmd(1)\n")


def test_one_table_may_lie_there(inputs):
    _parquet(inputs, mask_path=["m"], image_path=["i"], mask_value=[1], lesion_class=["cyst"])
    inputs.text("deeper/lesions.csv", HEAD)
    assert len(_table(inputs)) == 1
    with pytest.raises(InputError) as caught:
        _read(inputs, HEAD + "a,b,1,cyst\n")
    assert caught.value.found == "lesions.csv, lesions.parquet"


@pytest.mark.parametrize("content", [b"", b"PAR1", b"PAR1" + bytes(200) + b"PAR1", b"mask_path,image_path\n"])
def test_what_is_no_parquet_is_refused_by_its_reason(inputs, content):
    (inputs.root / "lesions.parquet").write_bytes(content)
    with pytest.raises(InputError, match="UNREADABLE: "):
        _table(inputs)


def test_a_parquet_of_small_size_and_large_content_is_refused(inputs):
    rows = 200_000
    table = pl.DataFrame({"mask_path": ["x" * 2000] * rows, "image_path": ["i"] * rows})
    path = inputs.root / "lesions.parquet"
    table.write_parquet(path)
    assert path.stat().st_size < 1 << 20
    with pytest.raises(InputError, match="TOO_LARGE: a table of more than 64 MB"):
        _table(inputs)
    pl.DataFrame({"mask_path": pl.repeat("", 2_000_001, eager=True)}).write_parquet(path)
    with pytest.raises(InputError, match="TOO_LARGE: a table of 2000001 rows and 1 columns"):
        _table(inputs)


def test_a_parquet_of_lists_is_refused(inputs):
    path = inputs.root / "lesions.parquet"
    pl.DataFrame({"mask_path": [[1, 2]], "image_path": [b"\xff"]}).write_parquet(path)
    with pytest.raises(InputError):
        _table(inputs)


def test_every_damage_to_a_parquet_is_an_error_for_the_user(inputs):
    path = inputs.root / "whole.parquet"
    pl.DataFrame({"mask_path": ["m"] * 9, "image_path": ["i"] * 9, "lesion_class": ["c"] * 9}).write_parquet(path)
    whole = path.read_bytes()
    path.unlink()
    target = inputs.root / "lesions.parquet"
    for place in range(0, len(whole), max(1, len(whole) // 12)):
        target.write_bytes(whole[:place] + bytes([whole[place] ^ 0x55]) + whole[place + 1 :])
        with pytest.raises(InputError):
            _table(inputs)  # damaged, or whole but without mask_value and structure


def test_the_parser_says_nothing_as_empty_text(tmp_path):
    pl.DataFrame({"a": [None, 1.5], "b": [True, None]}).write_parquet(tmp_path / "t.parquet")
    assert parse_parquet(tmp_path / "t.parquet") == (("a", ("", "1.5")), ("b", ("true", "")))
