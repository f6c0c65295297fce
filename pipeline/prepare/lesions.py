"""The set of class-labeled lesion images: crops from scans with masks, or whole pictures from class folders."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from pydantic import JsonValue

from pipeline.catalog import Catalog
from pipeline.errors import InputError
from pipeline.geometry import to_canonical
from pipeline.intensity import to_int16
from pipeline.lesion_attributes import ATTRIBUTE_PREFIX, attributes_of
from pipeline.prepare.lesion_crops import crops_of_lesion, display_volume, image_to_square
from pipeline.prepare.sequence_channels import on_grid_of, registered_sequences
from pipeline.prepare.subjects import kept_in_split
from pipeline.prepared_set import to_slices, write_image_set
from pipeline.records import ProgressCallback
from pipeline.settings import PrepareSettings
from pipeline.spreading import Spread, here

_Item = tuple[dict[str, Any], npt.NDArray[np.float32]]

CHUNK_IMAGES = 200
"""Pictures that are scaled in one go, here or elsewhere."""


@dataclass(frozen=True)
class _LesionSeries:
    """One series with lesions: its rows of the catalog.

    Attributes:
        source: of the series.
        lesions: of its lesions.
        channels: of the volumes that make the channels; none for a picture.
    """

    source: dict[str, Any]
    lesions: list[dict[str, Any]]
    channels: Sequence[Mapping[str, Any]] = ()


def prepare_lesion_set(
    catalog: Catalog,
    splits: Mapping[str, str],
    settings: PrepareSettings,
    folder: Path,
    progress: ProgressCallback,
    spread: Spread = here,
) -> dict[str, JsonValue]:
    """Write the lesion image set into ``folder``; returns its facts.

    Raises:
        InputError: no lesion with an image, a class too small or absent from train or test.
    """
    rows: list[dict[str, Any]] = []
    images: list[npt.NDArray[np.int16]] = []
    dropped = 0
    series = {row["series_id"]: row for row in catalog.series.to_dicts()}
    names = settings.lesions.attributes
    lacking: list[str] = []
    for row, image in _items(catalog, series, settings, lacking, progress, spread):
        if not kept_in_split(series[row["series_id"]], dict(splits)):
            dropped += 1
            continue
        described = {f"{ATTRIBUTE_PREFIX}{name}": (row | series[row["series_id"]]).get(name) for name in names}
        rows.append(row | described | {"image": len(rows), "split": splits[row["subject_id"]]})
        images.append(to_int16(image))
    table = pl.DataFrame(rows, infer_schema_length=None)
    _check_lesions(table, catalog, settings, len(lacking))
    classes = sorted(table["lesion_class"].unique().to_list())
    counts = {split: dict.fromkeys(classes, 0) for split in ("train", "validation", "test")}
    for split, lesion_class in zip(table["split"], table["lesion_class"], strict=True):
        counts[split][lesion_class] += 1
    per_split = table.group_by("split").agg(pl.col("subject_id").n_unique())
    facts: dict[str, Any] = {
        "classes": classes,
        "size_px": settings.lesions.size_px,
        "pixel_mm": settings.lesions.pixel_mm if catalog.series["kind"].eq("volume").any() else None,
        "channels": images[0].shape[0],
        "modality": settings.lesions.modality if catalog.series["kind"].eq("volume").any() else None,
        "counts": counts,
        "subjects": dict(zip(per_split["split"], per_split["subject_id"], strict=True)),
        "subject_source": sorted(catalog.series["subject_source"].unique().to_list()),
        "left_out_for_published_split": dropped,
    }
    if settings.lesions.sequences:
        facts |= {"sequences": list(settings.lesions.sequences), "left_out_for_missing_sequences": len(lacking)}
    if names:
        own = [pl.col(f"{ATTRIBUTE_PREFIX}{name}").alias(name) for name in names]
        train = table.filter(pl.col("split") == "train").select(own)
        facts["attributes"] = [attribute.model_dump(mode="json") for attribute in attributes_of(train, names)]
    write_image_set(folder, np.stack(images), table, facts)
    return facts


def _items(
    catalog: Catalog,
    series: Mapping[str, dict[str, Any]],
    settings: PrepareSettings,
    lacking: list[str],
    progress: ProgressCallback,
    spread: Spread,
) -> Iterator[_Item]:
    """Every lesion image (C, H, W) with its table row, series by series so that a volume is read once.

    Series whose lesions are left out for a sequence that is missing are added to ``lacking``, once for each lesion.
    """
    groups: dict[str, list[dict[str, Any]]] = {}
    for lesion in catalog.lesions.sort("series_id", "lesion_id").to_dicts():
        groups.setdefault(lesion["series_id"], []).append(lesion)
    wanted = _wanted(groups, series, settings, lacking)
    chunks = list(_chunks(wanted))
    done = len(groups) - len(wanted)
    for chunk, items in zip(chunks, spread(partial(_cut, catalog.without_rows(), settings), chunks), strict=True):
        yield from items
        done += len(chunk)
        progress("lesion series", done, len(groups))


def _wanted(
    groups: Mapping[str, list[dict[str, Any]]],
    series: Mapping[str, dict[str, Any]],
    settings: PrepareSettings,
    lacking: list[str],
) -> list[_LesionSeries]:
    """What there is to cut, in order; series whose sequences are not complete are added to ``lacking``."""
    rows = list(series.values())
    wanted = []
    for series_id, lesions in groups.items():
        source = series[series_id]
        if source["kind"] == "image":
            wanted.append(_LesionSeries(source, lesions))
        elif source["modality"] == settings.lesions.modality:
            channels = registered_sequences(source, rows, settings.lesions.sequences)
            if channels is None:
                lacking += [series_id] * len(lesions)
            else:
                wanted.append(_LesionSeries(source, lesions, channels or [source]))
    return wanted


def _chunks(wanted: Sequence[_LesionSeries]) -> Iterator[list[_LesionSeries]]:
    """A volume at a time, and `CHUNK_IMAGES` pictures."""
    chunk: list[_LesionSeries] = []
    for item in wanted:
        chunk.append(item)
        if item.channels or len(chunk) == CHUNK_IMAGES:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _cut(catalog: Catalog, settings: PrepareSettings, chunk: Sequence[_LesionSeries]) -> list[_Item]:
    items: list[_Item] = []
    for one in chunk:
        if one.channels:
            items += _volume_items(catalog, one.source, one.channels, one.lesions, settings)
        else:
            image = image_to_square(catalog.image(one.source), settings.lesions.size_px)
            items += [(_row(lesion, -1, None), image[None]) for lesion in one.lesions]
    return items


def _volume_items(
    catalog: Catalog,
    source: dict[str, Any],
    channels: Sequence[Mapping[str, Any]],
    lesions: list[dict[str, Any]],
    settings: PrepareSettings,
) -> Iterator[_Item]:
    voxels, affine = catalog.volume(source)
    scans = [on_grid_of(catalog, row, voxels, affine, source) for row in channels]
    volumes = [display_volume(scan, affine, source["modality"], settings.mr_to_ct.mr_percentiles) for scan in scans]
    for lesion in lesions:
        mask, mask_affine = catalog.mask(lesion)
        inside = to_slices(to_canonical(mask == lesion["mask_value"], mask_affine)[0])
        for index, crop in crops_of_lesion(volumes, inside, settings.lesions):
            area_mm2 = float(inside[index].sum()) * volumes[0].row_mm * volumes[0].column_mm
            yield _row(lesion, index, 2 * math.sqrt(area_mm2 / math.pi)), crop


def _row(lesion: dict[str, Any], slice_index: int, size_mm: float | None) -> dict[str, Any]:
    """A table row; ``size_mm`` is the diameter of the circle of the section's area, None without a mask."""
    kept = {name: lesion[name] for name in ("subject_id", "series_id", "lesion_id", "lesion_class")}
    return kept | {"slice_index": slice_index, "size_mm": size_mm}


def _check_lesions(table: pl.DataFrame, catalog: Catalog, settings: PrepareSettings, lacking: int) -> None:
    wanted = settings.lesions.sequences
    if wanted and (table.is_empty() or catalog.series["kind"].eq("image").any()):
        raise InputError(
            "Images of several sequences need, for each lesion, a registered scan of every sequence.",
            found=f"{lacking} lesions without one of {', '.join(wanted)}, {table.height} images that could be made",
            allowed="volumes of one subject in one frame of reference or on one grid, whose sequence is known",
            change="Name sequences that the catalog knows, add the scans, or set prepare.lesions.sequences=[].",
        )
    if table.is_empty():
        raise InputError(
            "The lesion track needs lesions: scans with masks and classes, or pictures in class folders.",
            found=f"{catalog.lesions.height} lesions in the catalog, none on a usable {settings.lesions.modality} scan",
            allowed="lesions.csv beside the scans, class folders, or a MedMNIST-style npz",
            change="Add lesions.csv (mask_path,image_path,mask_value,lesion_class), or set tracks: [mr_to_ct].",
        )
    counts = Counter(table["lesion_class"])
    for split, least in (("train", settings.lesions.min_images_per_class), ("test", 1)):
        held = Counter(table.filter(pl.col("split") == split)["lesion_class"])
        small = {name: held[name] for name in sorted(counts) if held[name] < least}
        if small:
            raise InputError(
                f"Every lesion class needs images in the {split} split.",
                found=", ".join(f"{name}: {count}" for name, count in small.items()),
                allowed=f"at least {least} a class",
                change="Add subjects with these classes, leave the classes out, or change prepare.split.",
            )
