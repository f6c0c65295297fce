"""How input folders are organized: one module a layout, one line here to register it."""

from pipeline.errors import InputError
from pipeline.ingest.found import Layout
from pipeline.ingest.layouts import bids, class_folders, decathlon, medmnist_npz, nnunet, scans, slice_pairs, synthrad
from pipeline.ingest.source_tree import SourceTree

LAYOUTS: dict[str, Layout] = {
    "scans": scans.LAYOUT,
    "bids": bids.LAYOUT,
    "synthrad": synthrad.LAYOUT,
    "slice_pairs": slice_pairs.LAYOUT,
    "decathlon": decathlon.LAYOUT,
    "nnunet": nnunet.LAYOUT,
    "class_folders": class_folders.LAYOUT,
    "medmnist_npz": medmnist_npz.LAYOUT,
}


def detect(tree: SourceTree) -> tuple[str, str]:
    """Name of the layout of an input, and a sentence on why.

    Raises:
        InputError: no layout fits, or several do.
    """
    reasons = {name: reason for name, layout in LAYOUTS.items() if (reason := layout.recognize(tree)) is not None}
    if len(reasons) == 1:
        return next(iter(reasons.items()))
    if reasons:
        raise InputError(
            "The input must be of one layout.",
            found="; ".join(f"{name}: {reason}" for name, reason in reasons.items()),
            allowed=f"one of {', '.join(LAYOUTS)}",
            change=f"Separate them, or choose with --set ingest.layout={next(iter(reasons))}.",
        )
    raise InputError(
        "The input must be of a known layout.",
        found=f"{len(tree.files)} file{'' if len(tree.files) == 1 else 's'} ({_endings(tree)}) of no known layout",
        allowed=(
            "scans: DICOM, NIfTI, MetaImage, NRRD; bids: sub-<label>/anat/ with NIfTI; "
            "synthrad: mr.nii.gz and ct.nii.gz (or .mha) in <subject>/; "
            "decathlon, nnunet: dataset.json with its imagesTr/ and labelsTr/; "
            "class_folders: images in <class>/ or <train|val|test>/<class>/, or labels.csv; "
            "slice_pairs: images in MR/ and CT/ named <case><3-digit slice>; medmnist_npz: one .npz file"
        ),
        change="Arrange the files in one of these ways, e.g. put images into one folder for each class.",
    )


def _endings(tree: SourceTree) -> str:
    counts: dict[str, int] = {}
    for file in tree.files:
        known = file.suffix if file.suffix in _QUOTED_ENDINGS else "other"
        counts[known] = counts.get(known, 0) + 1
    return ", ".join(f"{count} {suffix}" for suffix, count in sorted(counts.items(), key=lambda item: -item[1]))


_QUOTED_ENDINGS = frozenset(
    """
    .png .jpg .jpeg .bmp .tif .tiff .npz .npy .csv .tsv .json .txt .md .zip .gz .dcm
    .nii .nii.gz .mha .mhd .nrrd .nhdr .raw .zraw .hdr .img .mgz
    """.split()  # noqa: SIM905
)
"""Endings that may be quoted: an unknown ending could be part of a name."""
