import numpy as np
import polars as pl
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from pipeline.errors import InputError


def _smooth(seed, shape=(64, 60)):
    field = gaussian_filter(np.random.default_rng(seed).random(shape), 4)
    return np.uint8(255 * (field - field.min()) / np.ptp(field))


def test_each_image_is_one_lesion_of_its_folder_with_its_pixels(inputs, run_ingest):
    truth = {}
    for number in range(6):
        lesion_class = ("cyst", "ring")[number % 2]
        truth[_smooth(number).tobytes()] = lesion_class
        inputs.image(f"{lesion_class}/{number}.png", _smooth(number))
    result = run_ingest()
    table = result.catalog.series.join(result.catalog.lesions, on="series_id")
    found = {result.catalog.image(row).tobytes(): row["lesion_class"] for row in table.iter_rows(named=True)}
    assert found == truth
    assert set(result.catalog.series["subject_source"]) == {"near_duplicates"}
    assert result.record.facts["subjects"] == 6


def test_near_copies_mirrored_ones_too_are_one_subject(inputs, run_ingest):
    image = _smooth(0)
    inputs.image("a/original.png", image)
    inputs.image("a/mirrored.png", np.ascontiguousarray(image[:, ::-1]))
    Image.fromarray(image).resize((120, 128)).save(inputs.root / "a/larger.jpg", quality=80)
    inputs.image("a/other.png", _smooth(1))
    result = run_ingest()
    assert sorted(result.catalog.series.group_by("subject_id").len()["len"]) == [1, 3]


def test_names_of_subjects_do_not_depend_on_file_names(inputs, run_ingest):
    first = inputs.image("a/1.png", _smooth(0))
    inputs.image("a/2.png", _smooth(1))
    before = run_ingest()
    first.rename(inputs.root / "a/renamed.png")
    after = run_ingest()
    assert set(before.catalog.series["subject_id"]) == set(after.catalog.series["subject_id"])
    assert before.record.key != after.record.key


def test_a_published_split_is_kept(inputs, run_ingest):
    for number, place in enumerate(["Training/a", "val/a", "Testing/b"]):
        inputs.image(f"{place}/{number}.png", _smooth(number))
    table = run_ingest().catalog.series.join(run_ingest().catalog.lesions, on="series_id")
    pairs = set(table.select("published_split", "lesion_class").iter_rows())
    assert pairs == {("train", "a"), ("validation", "a"), ("test", "b")}


def test_broken_and_misplaced_images_are_quarantined_and_notes_ignored(inputs, run_ingest):
    inputs.image("a/good.png")
    inputs.image("a/deep/er.png")
    inputs.image("loose.png")
    inputs.text("a/broken.png", "no image")
    inputs.text("a/notes.txt", "")
    result = run_ingest()
    assert result.reasons() == ["NO_CLASS", "NO_CLASS", "UNREADABLE"]
    assert (result.record.facts["series"], result.record.facts["ignored"]) == (1, 1)


def test_odd_class_names_are_refused_by_number(inputs, run_ingest):
    inputs.image("good/1.png")
    inputs.image("=cmd()|x/1.png")
    with pytest.raises(InputError, match="1 of 2 folder names") as caught:
        run_ingest()
    assert "cmd" not in str(caught.value)


def test_sizes_and_types_are_kept_apart(inputs, run_ingest):
    inputs.image("a/1.png", _smooth(0, (40, 50)))
    inputs.image("a/2.png", _smooth(1, (50, 40)).astype(np.uint16) * 257)
    tinted = _smooth(2, (40, 50))
    inputs.image("a/3.png", np.dstack([tinted, tinted, tinted - tinted // 20]))
    series = run_ingest().catalog.series
    assert sorted(series["path"]) == [
        "stacks/40x50-uint8.npy", "stacks/40x50x3-uint8.npy", "stacks/50x40-uint16.npy",
    ]  # fmt: skip
    assert series.filter(pl.col("shape").list.len() == 3)["shape"].to_list() == [[40, 50, 3]]


def _in_color(number):
    return np.dstack([_smooth(seed, (40, 36)) for seed in (number, 10 + number, 20 + number)])


def _palette(path, number):
    Image.fromarray(_in_color(number)).convert("P", palette=Image.Palette.ADAPTIVE).save(path)


def _opaque(path, number):
    Image.fromarray(np.dstack([_in_color(number), np.full((40, 36), 255, np.uint8)])).save(path)


@pytest.mark.parametrize(
    "store", [lambda path, number: Image.fromarray(_in_color(number)).save(path), _palette, _opaque],
    ids=["rgb", "palette", "opaque alpha"],
)  # fmt: skip
def test_pictures_whose_channels_differ_are_refused_with_what_to_do(inputs, run_ingest, store):
    inputs.image("a/gray.png", _smooth(0))
    store(inputs.root / "a/color.png", 1)
    result = run_ingest()
    assert (result.reasons(), result.record.facts["series"]) == (["UNSUPPORTED_COLOR"], 1)
    row = result.catalog.quarantine.row(0, named=True)
    assert "prepare.lesions.sequences" in row["advice"]
    assert "more than 10%" in row["found"]


def test_equal_channels_are_gray_exactly_and_a_tint_or_a_small_mark_is_let_pass(inputs, run_ingest):
    gray = np.maximum(_smooth(0, (40, 36)), 40)
    inputs.image("a/equal.png", np.dstack([gray] * 3))
    inputs.image("a/tint.jpg", np.dstack([gray, gray, gray - gray // 20]))
    marked = np.dstack([gray] * 3)
    marked[:2, :20] = (255, 0, 0)
    inputs.image("a/marked.png", marked)
    result = run_ingest()
    assert result.reasons() == []
    stored = {tuple(row["shape"]): result.catalog.image(row) for row in result.catalog.series.to_dicts()}
    np.testing.assert_array_equal(stored[40, 36], gray)


def test_a_class_in_color_alone_is_refused_by_name_and_reason(inputs, run_ingest):
    inputs.image("a/gray.png", _smooth(0))
    for number in range(2):
        inputs.image(f"b/{number}.png", _in_color(number))
    with pytest.raises(InputError) as caught:
        run_ingest()
    assert caught.value.found == "b: none of 2 images (2 UNSUPPORTED_COLOR)"
    assert "gray" in caught.value.change


def test_pixels_that_are_no_whole_numbers_are_refused_nan_or_not(inputs, run_ingest):
    inputs.image("a/good.png", _smooth(0))
    pixels = _smooth(1).astype(np.float32)
    Image.fromarray(pixels).save(inputs.root / "a/float.tif")
    pixels[3, 4] = np.nan
    Image.fromarray(pixels).save(inputs.root / "a/nan.tif")
    result = run_ingest()
    assert (result.reasons(), result.record.facts["series"]) == (["UNSUPPORTED_PIXELS"] * 2, 1)
    assert set(result.catalog.quarantine["found"]) == {"pixels of mode F"}
    assert all("8- or 16-bit gray" in advice for advice in result.catalog.quarantine["advice"])


def _rows(result):
    table = result.catalog.series.join(result.catalog.lesions, on="series_id", suffix="_lesion")
    return {result.catalog.image(row).tobytes(): row for row in table.to_dicts()}


@pytest.mark.parametrize("ending", [".csv", ".tsv", ".parquet"])
def test_a_table_at_the_root_tells_class_subject_and_split_whatever_the_folders(inputs, run_ingest, ending):
    listed = []
    for number in range(4):
        name = f"deep/{'ab'[number % 2]}/Züge {number}.png"
        inputs.image(name, _smooth(number))
        split = ("train", "Val", "TESTING", "test")[number]
        listed.append((f"./{name}", ("cyst", "ring")[number // 2], f"P{min(number, 2)}", split))
    table = pl.DataFrame(listed, schema=["image_path", "lesion_class", "subject", "split"], orient="row")
    path = inputs.root / f"labels{ending}"
    if ending == ".parquet":
        table.write_parquet(path)
    else:
        table.write_csv(path, separator="," if ending == ".csv" else "\t", include_bom=ending == ".csv")
    result = run_ingest()
    facts = result.record.facts
    assert (facts["layout"], facts["layout_reason"]) == ("class_folders", f"4 images, with labels{ending}")
    assert (facts["subjects"], facts["subject_source"], facts["ignored"], result.reasons()) == (3, ["table"], 1, [])
    rows = _rows(result)
    found = [rows[_smooth(number).tobytes()] for number in range(4)]
    assert [row["lesion_class"] for row in found] == ["cyst", "cyst", "ring", "ring"]
    assert [row["published_split"] for row in found] == ["train", "validation", "test", "test"]
    assert found[2]["subject_id"] == found[3]["subject_id"] != found[1]["subject_id"]
    stored = b"".join(path.read_bytes() for path in result.catalog.folder.rglob("*") if path.is_file())
    assert b"Z\xc3\xbcge" not in stored


def test_a_table_without_subjects_leaves_them_to_near_copies(inputs, run_ingest):
    for number, seed in enumerate((0, 0, 1)):
        inputs.image(f"{number}.png", _smooth(seed))
    inputs.text("labels.csv", "lesion_class,image_path\ncyst,0.png\ncyst,1.png\nring,2.png\nring,2.png\n")
    facts = run_ingest().record.facts
    assert (facts["subjects"], facts["subject_source"]) == (2, ["near_duplicates"])
    assert facts["lesion_classes"] == {"cyst": 2, "ring": 1}


def test_images_and_lines_without_the_other_are_refused_by_line_and_never_by_path(inputs, run_ingest):
    inputs.image("a/1.png")
    inputs.image("a/2.png", seed=2)
    inputs.text("labels.csv", "image_path,lesion_class\na/1.png,cyst\nJANE.png,cyst\n../a/2.png,cyst\n/etc/passwd,x\n")
    result = run_ingest()
    assert result.reasons() == ["MISSING_REFERENCE"] * 3 + ["NO_CLASS"]
    found = set(result.catalog.quarantine["found"])
    assert {f"line {line}: an image that is not in the input" for line in (3, 4, 5)} < found
    assert "JANE" not in " ".join(found)


@pytest.mark.parametrize(
    ("table", "found"),
    [
        ("image_path\n1.png\n", "missing: lesion_class"),
        ("image_path,lesion_class,age\n1.png,cyst,7\n", "unknown or repeated: 1"),
        ("image_path,lesion_class\n1.png,=cmd()\n", "line 2: lesion_class"),
        ("image_path,lesion_class\n,cyst\n", "line 2: image_path is empty"),
        ("image_path,lesion_class,subject\n1.png,cyst,\n", "line 2: subject is empty"),
        ("image_path,lesion_class,subject\n1.png,cyst,unknown\n", "line 2: subject is a placeholder"),
        ("image_path,lesion_class,split\n1.png,cyst,JANE\n", "line 2: split is none of"),
        ("image_path,lesion_class\n1.png,cyst\n./1.png,ring\n", "line 3: an image that an earlier line gives another"),
        (
            "image_path,lesion_class,subject,split\n1.png,cyst,P1,train\n2.png,cyst,P1,test\n",
            "line 3: a subject that an earlier line puts into another part",
        ),
        ("image_path;lesion_class\n1.png;cyst\n", "1 columns"),
    ],
)
def test_a_mangled_table_of_labels_stops_the_run_and_is_not_quoted(inputs, run_ingest, table, found):
    inputs.image("1.png")
    inputs.text("labels.csv", table)
    with pytest.raises(InputError) as caught:
        run_ingest()
    assert found in caught.value.found
    assert "labels.csv" in caught.value.change
    assert "JANE" not in str(caught.value)
    assert "cmd" not in str(caught.value)


def test_a_subject_that_looks_like_a_formula_is_a_pseudonym_like_any_other(inputs, run_ingest):
    inputs.image("1.png")
    inputs.text("labels.csv", 'image_path,lesion_class,subject\n1.png,cyst,"=HYPERLINK(""http://x"")"\n')
    result = run_ingest()
    (subject,) = result.catalog.series["subject_id"]
    assert subject.startswith("sub-")
    assert "HYPERLINK" not in subject


def test_two_tables_of_labels_are_refused(inputs, run_ingest):
    inputs.image("a/1.png")
    inputs.text("labels.csv", "image_path,lesion_class\na/1.png,cyst\n")
    inputs.text("labels.tsv", "image_path\tlesion_class\na/1.png\tcyst\n")
    with pytest.raises(InputError) as caught:
        run_ingest()
    assert caught.value.found == "labels.csv, labels.tsv"


def test_folders_are_renamed_and_left_out_by_the_mapping(inputs, run_ingest):
    for number, folder in enumerate(["Glioma_tumor", "Meningioma tumor", "no_tumor", "=cmd()"]):
        inputs.image(f"{folder}/{number}.png", _smooth(number))
    result = run_ingest(lesion_classes={"no*": "healthy", "*TUMOR": "tumor"})
    facts = result.record.facts
    assert facts["lesion_classes"] == {"healthy": 1, "tumor": 2}
    assert (facts["ignored"], result.reasons()) == (1, [])


def test_a_class_of_which_no_image_can_be_read_is_refused_by_name(inputs, run_ingest):
    inputs.image("a/good.png")
    inputs.text("b/one.png", "no image")
    inputs.text("b/two.png", "no image")
    with pytest.raises(InputError, match="Every class needs an image that can be used") as caught:
        run_ingest()
    assert caught.value.found == "b: none of 2 images (2 UNREADABLE)"


def test_a_class_folder_without_files_is_refused_without_its_name(inputs, run_ingest):
    inputs.image("a/good.png")
    (inputs.root / "Doe John").mkdir()
    with pytest.raises(InputError, match="Every class folder holds images") as caught:
        run_ingest()
    assert caught.value.found == "1 of 2 folders of the input without any file"
    assert "Doe" not in str(caught.value)
