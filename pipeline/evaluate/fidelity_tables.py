"""Tables of fidelity and diversity: one for the verdict-bearing shares, one for the distances behind it."""

from collections.abc import Sequence

from pipeline.evaluate.fidelity import Row
from pipeline.features import Extractor
from pipeline.results import Column, ResultTable
from pipeline.settings import EvaluateLesionsSettings

_FIRST = (
    Column(key="extractor", title="features"),
    Column(key="lesion_class", title="class"),
    Column(key="title", title="comparison"),
    Column(key="images", title="images", digits=0),
)


def fidelity_table(
    rows: Sequence[Row], extractors: Sequence[Extractor], settings: EvaluateLesionsSettings
) -> ResultTable:
    """KID and the shares of the manifolds, all with intervals."""

    def share(key: str, definition: str) -> Column:
        return Column(key=key, title=key, definition=definition, low_key=f"{key}_low", high_key=f"{key}_high")

    spaces = "; ".join(f"{e.name} version {e.version}, SHA-256 {e.sha256[:12]}" for e in extractors)
    near = f"k = {settings.neighbors} nearest neighbors"
    return ResultTable(
        key="fidelity",
        title="Fidelity and diversity",
        caption=(
            f"Feature spaces: {spaces}. Features standardized by the held-out real images and bounded. Precision alone "
            "misleads; recall and coverage carry the verdict. 95 % intervals: KID, recall and coverage over subjects "
            "of the held-out images, precision and density over synthetic images."
        ),
        columns=(
            *_FIRST,
            Column(
                key="kid",
                title="KID",
                definition=f"unbiased MMD², cubic kernel, mean of {settings.kid_subsets} subsets",
                digits=4,
                low_key="kid_low",
                high_key="kid_high",
            ),
            Column(key="kid_se", title="± se", definition="standard error over subsets", digits=4),
            Column(
                key="kid_relative",
                title="relative KID",
                definition="(KID − floor) / (noise − floor): 0 as training images, 1 as noise",
            ),
            share("precision", near),
            share("recall", near),
            share("density", "mean hits / k in real balls"),
            share("coverage", "share of real balls that hold an image"),
        ),
        rows=tuple(rows),
    )


def distance_table(rows: Sequence[Row]) -> ResultTable:
    """FID and FID∞ of the same comparisons, with the flag that they need."""
    return ResultTable(
        key="frechet",
        title="Fréchet distances",
        caption=(
            "On the same bounded features. FID is biased upward where images are few, and does not compare between "
            "cohorts of different sizes; where a side has fewer images than features it is flagged: read KID instead."
        ),
        columns=(
            *_FIRST,
            Column(key="real_images", title="real images", digits=0),
            Column(key="features", title="features (d)", digits=0),
            Column(key="fid", title="FID", definition="‖Δμ‖² + tr(Σr + Σf − 2(ΣrΣf)^½)", digits=2),
            Column(key="fid_infinity", title="FID∞", definition="line in 1/n through 5 subsets, at 1/n = 0", digits=2),
            Column(key="fid_infinity_se", title="± se", definition="of that line; subjects are not redrawn", digits=2),
            Column(key="too_few_for_fid", title="fewer images than features"),
        ),
        rows=tuple(rows),
    )
