"""What a column is where its table does not say, and the work that defines the measure in it.

Keys are those of the columns; ``table.column`` goes before ``column``.
"""

from collections.abc import Mapping

DEFINITIONS: Mapping[str, str] = {
    "advice": "What to do about it.",
    "attribute": "Fact of the catalog by which test images are grouped.",
    "auc": "Area under the ROC curve of this class against all others.",
    "cases": "Cases that enter the mean.",
    "dice": "2 |A∩B| / (|A| + |B|) of the structure in pseudo-CT and CT.",
    "extractor": "Network whose features are compared; its hash is in the evaluation's facts.",
    "features": "Number of features d.",
    "files": "Number of files.",
    "finding": "What was found, in words.",
    "flag": "Code of the finding.",
    "found": "What was found; one example where there are many.",
    "images": "Number of images.",
    "kind": "What was compared.",
    "qc_composition.kind": "Modality, sequence and body part, from defined terms of the header.",
    "qc_look_alikes.kind": "How the two are alike.",
    "lesion_class": "Lesion class, as the source names it; all is every class together.",
    "level": "Value of that fact.",
    "look": "What to look for.",
    "matrix": "Voxels along each axis, smallest to largest.",
    "measure": "What is measured.",
    "other_series_id": "Pseudonym of the other series.",
    "other_subject_id": "Pseudonym of its subject.",
    "planes": "How slices lie.",
    "ratio": "Synthetic images for one real image.",
    "real": "Real training images.",
    "real_images": "Real images compared with.",
    "reason": "Stable code of the rule that was broken.",
    "role": "Which of the given files.",
    "rule": "When it is raised.",
    "sensitivity": "Share of images of this class that are called so, at the threshold.",
    "series": "Number of series.",
    "series_id": "Pseudonym of the series.",
    "shared": "How many lie in both splits; 0 is right.",
    "side": "Which of the given cohorts.",
    "similarity": "Correlation of reduced pictures; 1 for equal ones.",
    "space": "What likeness is measured on: pixels or features.",
    "spacing": "Voxel size in mm.",
    "specificity": "Share of images of other classes that are not called so, at the threshold.",
    "split": "Training, validation or test, by subject.",
    "splits": "The two splits compared.",
    "structure": "Structure; HU thresholds stand beside it.",
    "subject_id": "Pseudonym of the subject.",
    "subjects": "Number of subjects.",
    "synthetic": "Synthetic training images.",
    "test": "Images or subjects of the test split.",
    "threshold": "Rule that turns probabilities into calls.",
    "title": "Row of the comparison: what was trained on, compared or predicted with.",
    "too_few_for_fid": "Whether the covariance is singular, so that the FID is biased upward.",
    "train": "Images or subjects of the training split.",
    "validation": "Images or subjects of the validation split.",
    "value": "The measure of the synthetic images, with its interval.",
    "voxels": "Voxels of the structure.",
    "weight": "How serious it may be.",
    "what": "What is counted.",
    "why": "Reason in words.",
}

SOURCES: Mapping[str, str] = {
    "auc": "Hanley and McNeil 1982",
    "auc_difference": "Efron 1979",
    "balanced_accuracy": "Brodersen 2010",
    "coverage": "Naeem 2020",
    "density": "Naeem 2020",
    "dice": "Dice 1945",
    "ece": "Guo 2017",
    "fid": "Heusel 2017",
    "fid_infinity": "Chong and Forsyth 2020",
    "fid_infinity_se": "Chong and Forsyth 2020",
    "hd95": "Huttenlocher 1993",
    "kid": "Bińkowski 2018",
    "kid_se": "Bińkowski 2018",
    "macro_auc": "Hanley and McNeil 1982",
    "macro_specificity": "Altman and Bland 1994",
    "mae": "Huijben 2024",
    "mean_error": "Huijben 2024",
    "ms_ssim": "Wang 2003",
    "ms_ssim_coarsest": "Wang 2003",
    "p_holm": "Holm 1979",
    "precision": "Kynkäänniemi 2019",
    "privacy.value": "Shokri 2017; Alaa 2022",
    "psnr": "Huijben 2024",
    "recall": "Kynkäänniemi 2019",
    "sensitivity": "Altman and Bland 1994",
    "specificity": "Altman and Bland 1994",
    "ssim": "Wang 2004",
    "wepl": "ICRU 44",
}

OWN = "scanloom"
"""Source of counts, names, and what is measured in no other work."""

_BY_PLACE = frozenset({"dice", "hd95", "mae", "mean_error", "wepl"})


def definition_of(table: str, column: str) -> str:
    """What a column is; empty where nothing is known of it."""
    return DEFINITIONS.get(f"{table}.{column}") or DEFINITIONS.get(column, "")


def source_of(table: str, column: str) -> str:
    """The work that defines a column's measure.

    Measures by tissue or structure (``mae_bone``, ``wepl_p95_abs``) take that of the measure. What is measured in no
    other work is `OWN`.
    """
    exact = SOURCES.get(f"{table}.{column}") or SOURCES.get(column)
    if exact is not None:
        return exact
    longest = max((name for name in SOURCES if column.startswith(f"{name}_")), key=len, default="")
    return SOURCES[longest] if longest in _BY_PLACE else OWN
