"""The subject-level split: made once for a workspace, stored, reused by every stage.

The first subjects are laid out in strata (body part, modalities, class), in the order of a keyed hash; each goes to
the split that lacks most of its share. Subjects that arrive later are assigned by their keyed hash alone, so that
nobody ever changes sides. Where a source publishes a split, that split is kept; a subject with images in several
published splits belongs to the strictest of them (test, then validation), and prepare leaves its other images out.
"""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence

from pipeline.deidentify import Pseudonymizer
from pipeline.errors import SettingsError
from pipeline.files import read_json, write_json
from pipeline.settings import SplitSettings
from pipeline.workspace import Workspace

SPLITS = ("train", "validation", "test")
_STRICTEST_FIRST = ("test", "validation", "train")


def assign_splits(
    workspace: Workspace,
    strata: Mapping[str, str],
    published: Mapping[str, set[str]],
    shares: SplitSettings,
    together: Sequence[Collection[str]] = (),
) -> dict[str, str]:
    """Split of every subject in ``strata``; new subjects are added to the stored split.

    Args:
        workspace: holds the stored split and the key.
        strata: subject -> stratum; subjects of one stratum are shared out evenly.
        published: subject -> splits that the source published for its images; may lack subjects.
        shares: shares of the splits.
        together: groups of subjects that show the same and so belong on one side; those split before stay where they
            are, and the others follow the strictest of them.

    Raises:
        SettingsError: the stored split was made with other shares.
    """
    stored = read_json(workspace.splits_path) if workspace.splits_path.exists() else None
    wanted = shares.model_dump()
    if stored is not None and stored["shares"] != wanted:
        raise SettingsError(
            "The split of a workspace is made once and never changes.",
            found=f"prepare.split = {wanted}",
            allowed=f"{stored['shares']}, with which this workspace was split",
            change="Restore prepare.split, or use a new --workspace.",
        )
    subjects: dict[str, str] = dict(stored["subjects"]) if stored else {}
    pseudonymizer = Pseudonymizer(workspace.identity_key())
    fractions = {name: pseudonymizer.fraction("split", name) for name in strata if name not in subjects}
    for name in sorted(fractions.keys() & published.keys()):
        subjects[name] = next(split for split in _STRICTEST_FIRST if split in published[name])
    rest = {name: fraction for name, fraction in fractions.items() if name not in subjects}
    subjects |= _by_hash(rest, shares) if stored else _by_strata(rest, strata, shares)
    for group in together:
        subjects |= _one_side([name for name in group if name in strata], subjects, fractions)
    if fractions and not workspace.planning:
        write_json(workspace.splits_path, {"shares": wanted, "subjects": subjects})
    return {name: subjects[name] for name in strata}


def _one_side(group: Sequence[str], subjects: Mapping[str, str], fresh: Collection[str]) -> dict[str, str]:
    """The side of the new subjects of a group: that of the old ones, or of the first name where all are new."""
    old = {subjects[name] for name in group if name not in fresh} or {subjects[name] for name in sorted(group)[:1]}
    side = next((split for split in _STRICTEST_FIRST if split in old), None)
    return {} if side is None else {name: side for name in group if name in fresh}


def _by_hash(fractions: Mapping[str, float], shares: SplitSettings) -> dict[str, str]:
    def side(fraction: float) -> str:
        return "train" if fraction < shares.train else "validation" if fraction < 1 - shares.test else "test"

    return {name: side(fraction) for name, fraction in fractions.items()}


def _by_strata(fractions: Mapping[str, float], strata: Mapping[str, str], shares: SplitSettings) -> dict[str, str]:
    """Largest-deficit assignment along the strata."""
    share = shares.model_dump()
    taken: Counter[str] = Counter()
    result = {}
    for number, name in enumerate(sorted(fractions, key=lambda subject: (strata[subject], fractions[subject])), 1):
        split = max(SPLITS, key=lambda side: share[side] * number - taken[side])
        taken[split] += 1
        result[name] = split
    return result
