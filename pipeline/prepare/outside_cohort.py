"""Images that scanloom did not make, brought to one form: real training and test images, and a synthetic cohort.

The rule for both sides: grey (luma of color), padded with the darkest level to a square, resized to one edge with
linear interpolation (smoothed first where it shrinks). 8-bit pictures span 0 to 255. Of 16-bit pictures the highest
level of all sides decides the range, 0 to 1023, 4095, 16383 or 65535, and they are brought to 8 bits.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import BaseModel, JsonValue

from pipeline.catalog import Catalog, read_catalog
from pipeline.errors import InputError
from pipeline.files import sha256_json, write_json
from pipeline.intensity import to_int16
from pipeline.prepare.lesion_crops import image_to_square
from pipeline.prepare.subjects import kept_in_split, split_subjects
from pipeline.prepared_set import IMAGES_ARRAY, write_image_set
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.settings import RunSettings
from pipeline.splits import SPLITS
from pipeline.stage_runner import Stage, StageContext, run_stage
from pipeline.workspace import Workspace

DEPTHS = (1023, 4095, 16383, 65535)
"""Highest levels of 10, 12, 14 and 16 bits."""

_MODULE = "pipeline.prepare.outside_cohort"
_Split = Mapping[str, str] | str


class SizeKey(BaseModel, frozen=True):
    """What enters the key of both stages."""

    size_px: int
    min_images_per_class: int
    highest_level: int | None


@dataclass(frozen=True)
class Sides:
    """Catalogs of what was given.

    Attributes:
        real: real images that the generator was trained on.
        synthetic: images of the same classes.
        test: real images that it never saw; None where a part of ``real`` has to serve.
    """

    real: StageRecord
    synthetic: StageRecord
    test: StageRecord | None

    def catalogs(self) -> dict[str, StageRecord]:
        """Those given, by side."""
        given = {"real": self.real, "synthetic": self.synthetic, "test": self.test}
        return {name: record for name, record in given.items() if record is not None}


def prepare_outside_images(
    workspace: Workspace, settings: RunSettings, sides: Sides, *, progress: ProgressCallback = silent
) -> StageRecord:
    """Write the real images as a `pipeline.prepared_set.ImageSet`.

    With ``sides.test`` every image of ``sides.real`` is for training. Without, ``sides.real`` is split: as published
    where it comes in split folders, else by subject or cluster of near-duplicates.

    Returns:
        Record with the facts of `prepare_lesions`, ``split_rule`` and ``notes``.

    Raises:
        InputError: volumes instead of pictures, one class, a class too small, or test images given twice.
    """
    opened = {name: read_catalog(record.path(workspace.root)) for name, record in sides.catalogs().items()}
    for catalog in opened.values():
        _check_pictures(catalog)
    real, test = opened["real"], opened.get("test")
    splits: _Split = "train" if test else split_subjects(workspace, real, settings.prepare.split)
    key = _key(settings, opened)

    def body(context: StageContext) -> dict[str, JsonValue]:
        if test is None:
            parts = [_Part(real, splits, "")]
        else:
            _check_one_test(real)
            parts = [_Part(real, "train", ""), _Part(test, "test", "test-")]
        return _write_real(context, parts, key)

    records = {name: record for name, record in sides.catalogs().items() if name != "synthetic"}
    hashes = {"splits": sha256_json(splits if isinstance(splits, str) else dict(splits))}
    stage = Stage("prepare_outside_images", _MODULE, body)
    return run_stage(workspace, stage, key, records=records, hashes=hashes, progress=progress)


def take_in_cohort(
    workspace: Workspace,
    settings: RunSettings,
    sides: Sides,
    prepared: StageRecord,
    *,
    progress: ProgressCallback = silent,
) -> StageRecord:
    """Write the synthetic images in the form of a cohort that scanloom made: images.npy, cohort.parquet, cohort.json.

    Returns:
        Record with the facts images, per_class and ``notes``.

    Raises:
        InputError: a class that the real images lack.
    """
    opened = {name: read_catalog(record.path(workspace.root)) for name, record in sides.catalogs().items()}
    key = _key(settings, opened)

    def body(context: StageContext) -> dict[str, JsonValue]:
        classes = [str(name) for name in _list(context.facts["prepared"]["classes"])]
        return _write_cohort(context, opened["synthetic"], classes, key)

    records = {"prepared": prepared, "synthetic": sides.synthetic}
    return run_stage(workspace, Stage("outside_cohort", _MODULE, body), key, records=records, progress=progress)


@dataclass(frozen=True)
class _Part:
    """Real images of one catalog; ``splits`` is one split for all, or split by subject."""

    catalog: Catalog
    splits: _Split
    prefix: str

    def items(self) -> Iterator[dict[str, Any]]:
        for row in _pictures(self.catalog):
            if isinstance(self.splits, str):
                yield row | {"split": self.splits}
            elif kept_in_split(row, dict(self.splits)):
                yield row | {"split": self.splits[row["subject_id"]]}


def _pictures(catalog: Catalog) -> list[dict[str, Any]]:
    """Catalog rows of pictures joined with their class, in a fixed order."""
    classes = catalog.lesions.select("series_id", "lesion_id", "lesion_class")
    return catalog.series.join(classes, on="series_id").sort("series_id", "lesion_id").to_dicts()


def _write_real(context: StageContext, parts: Sequence[_Part], key: SizeKey) -> dict[str, JsonValue]:
    rows: list[dict[str, Any]] = []
    images: list[npt.NDArray[np.int16]] = []
    sizes: Counter[tuple[int, int]] = Counter()
    total = sum(part.catalog.lesions.height for part in parts)
    for part in parts:
        for item in part.items():
            pixels = part.catalog.image(item)
            sizes[pixels.shape[0], pixels.shape[1]] += 1
            images.append(to_int16(image_to_square(eight_bits(pixels, key.highest_level), key.size_px)))
            kept = {name: item[name] for name in ("subject_id", "series_id", "lesion_id", "lesion_class", "split")}
            kept |= {name: part.prefix + kept[name] for name in ("series_id", "lesion_id")}
            rows.append(kept | {"image": len(rows), "slice_index": -1})
            context.progress("real images", len(rows), total)
    table = pl.DataFrame(rows)
    counts = _counts(table)
    _check_classes(counts, key.min_images_per_class)
    subjects = table.group_by("split").agg(pl.col("subject_id").n_unique())
    sources = {source for part in parts for source in part.catalog.series["subject_source"]}
    facts: dict[str, Any] = {
        "classes": sorted(counts["train"]),
        "size_px": key.size_px,
        "pixel_mm": None,
        "channels": 1,
        "modality": None,
        "counts": counts,
        "subjects": dict(zip(subjects["split"], subjects["subject_id"], strict=True)),
        "subject_source": sorted(sources),
        "left_out_for_published_split": total - len(rows),
        "split_rule": _split_rule(parts),
        "notes": [*_size_notes("Real", sizes, key), *_test_notes(parts)],
    }
    write_image_set(context.folder, np.stack(images)[:, None], table, facts)
    return facts


def _write_cohort(
    context: StageContext, catalog: Catalog, classes: Sequence[str], key: SizeKey
) -> dict[str, JsonValue]:
    rows = _pictures(catalog)
    counts = Counter(str(row["lesion_class"]) for row in rows)
    strange = sorted(set(counts) - set(classes))
    if strange:
        raise InputError(
            "Synthetic images are of the classes of the real ones.",
            found=", ".join(f"{name}: {counts[name]}" for name in strange),
            allowed=", ".join(classes),
            change="Name the class folders of --synthetic like those of --real, or leave these classes out.",
        )
    sizes: Counter[tuple[int, int]] = Counter()
    images = []
    for number, row in enumerate(rows, 1):
        pixels = catalog.image(row)
        sizes[pixels.shape[0], pixels.shape[1]] += 1
        images.append(to_int16(image_to_square(eight_bits(pixels, key.highest_level), key.size_px)))
        context.progress("synthetic images", number, len(rows))
    np.save(context.folder / IMAGES_ARRAY, np.stack(images)[:, None])
    names = [str(row["lesion_class"]) for row in rows]
    pl.DataFrame({"image": list(range(len(rows))), "lesion_class": names}).write_parquet(
        context.folder / "cohort.parquet"
    )
    recipe = {name: counts[name] for name in classes}
    write_json(context.folder / "cohort.json", {"classes": list(classes), "recipe": recipe, "model_sha256": None})
    absent = [name for name in classes if not counts[name]]
    notes = _size_notes("Synthetic", sizes, key)
    notes += [f"No synthetic image of: {', '.join(absent)}. Arms that need every class are left out."] if absent else []
    return {"images": len(rows), "per_class": dict(recipe), "notes": list(notes)}


def eight_bits(pixels: npt.NDArray[Any], highest_level: int | None) -> npt.NDArray[np.uint8]:
    """Pixels in 8 bits: as they are, or 0 to ``highest_level`` rounded to 0 to 255.

    >>> eight_bits(np.array([0, 4095], np.uint16), 4095).tolist()
    [0, 255]
    """
    if pixels.dtype == np.uint8:
        return np.asarray(pixels)
    scaled = np.asarray(pixels, dtype=np.float64) * (255 / (highest_level or DEPTHS[-1]))
    return np.clip(np.rint(scaled), 0, 255).astype(np.uint8)


def highest_level(catalogs: Sequence[Catalog]) -> int | None:
    """The range of 16-bit pictures: the smallest of `DEPTHS` that holds all of them; None where all have 8 bits."""
    highest: int | None = None
    for catalog in catalogs:
        for path in sorted(set(catalog.series["path"])):
            stack = np.load(catalog.folder / path, mmap_mode="r", allow_pickle=False)
            if stack.dtype != np.uint8 and stack.size:
                highest = max(highest or 0, int(stack.max()))
    return None if highest is None else next(depth for depth in DEPTHS if highest <= depth)


def _key(settings: RunSettings, opened: Mapping[str, Catalog]) -> SizeKey:
    lesions = settings.prepare.lesions
    level = highest_level(list(opened.values()))
    return SizeKey(size_px=lesions.size_px, min_images_per_class=lesions.min_images_per_class, highest_level=level)


def _counts(table: pl.DataFrame) -> dict[str, dict[str, int]]:
    classes = sorted(table["lesion_class"].unique().to_list())
    counts = {split: dict.fromkeys(classes, 0) for split in SPLITS}
    for split, lesion_class in zip(table["split"], table["lesion_class"], strict=True):
        counts[split][lesion_class] += 1
    return counts


def _check_pictures(catalog: Catalog) -> None:
    volumes = catalog.series.filter(pl.col("kind") != "image").height
    if volumes or not catalog.lesions.height:
        raise InputError(
            "Cohorts are compared as pictures with a class.",
            found=f"{volumes} volumes, {catalog.lesions.height} pictures with a class",
            allowed="one folder of pictures for each class, or a MedMNIST-style .npz file",
            change="Sort the pictures into class folders; pseudo-CT volumes go to `scanloom evaluate mr-to-ct`.",
        )


def _check_one_test(real: Catalog) -> None:
    published = real.series.filter(pl.col("published_split").is_in(["validation", "test"])).height
    if published:
        raise InputError(
            "Held-out images are given once.",
            found=f"{published} images in validation or test folders of --real, and --test",
            allowed="--test with a --real that holds training images only, or split folders in --real alone",
            change="Give the training folder as --real, or leave --test out.",
        )


def _check_classes(counts: Mapping[str, Mapping[str, int]], least_train: int) -> None:
    if len(counts["train"]) < 2:
        raise InputError(
            "A comparison by class needs at least two classes.",
            found=f"one class: {next(iter(counts['train']))}",
            allowed="two or more class folders",
            change="Add images of another class, e.g. healthy tissue.",
        )
    for split, least in (("train", least_train), ("test", 1)):
        small = {name: count for name, count in counts[split].items() if count < least}
        if small:
            raise InputError(
                f"Every class needs real images for {'training' if split == 'train' else 'testing'}.",
                found=", ".join(f"{name}: {count}" for name, count in small.items()),
                allowed=f"at least {least} a class",
                change="Add images of these classes to --real or --test, or leave the classes out.",
            )


def _split_rule(parts: Sequence[_Part]) -> str:
    if len(parts) > 1:
        return "test images as given"
    published = parts[0].catalog.series["published_split"].drop_nulls().len() > 0
    return (
        "split as published with the real images"
        if published
        else "split made here, by subject or cluster of near-duplicates"
    )


def _test_notes(parts: Sequence[_Part]) -> list[str]:
    if len(parts) > 1 or parts[0].catalog.series["published_split"].drop_nulls().len():
        return []
    return [
        "No test images were given, so a part of the real ones was held out here. A generator trained on all of them "
        "has seen that part: fidelity and use may look better than they are. Give images it never saw with --test."
    ]


def _size_notes(side: str, sizes: Counter[tuple[int, int]], key: SizeKey) -> list[str]:
    """What was done to one side, where it is more than nothing."""
    edge = key.size_px
    smaller = sum(count for (rows, columns), count in sizes.items() if max(rows, columns) < edge)
    larger = sum(count for (rows, columns), count in sizes.items() if max(rows, columns) > edge)
    notes = []
    if smaller:
        notes.append(
            f"{side}: {smaller} of {sizes.total()} images were enlarged to {edge} × {edge} pixels, which blurs them; "
            "set prepare.lesions.size_px to the smaller size of the two sides."
        )
    if larger:
        notes.append(f"{side}: {larger} of {sizes.total()} images were shrunk to {edge} × {edge} pixels.")
    return notes


def _list(value: JsonValue) -> list[JsonValue]:
    return value if isinstance(value, list) else []
