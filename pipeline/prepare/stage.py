"""The prepare stage: one set for lesions, one for MR-to-CT."""

from collections.abc import Mapping

from pydantic import BaseModel, JsonValue

from pipeline.catalog import Catalog, read_catalog
from pipeline.files import sha256_json
from pipeline.prepare.lesions import prepare_lesion_set
from pipeline.prepare.mr_to_ct import prepare_volume_set
from pipeline.prepare.subjects import split_subjects
from pipeline.records import ProgressCallback, StageRecord, silent
from pipeline.settings import PrepareLesionsSettings, PrepareMRToCTSettings, RunSettings, SplitSettings
from pipeline.spreading import Spread, here
from pipeline.stage_runner import Stage, StageBody, StageContext, run_stage
from pipeline.workspace import Workspace

_MODULE = "pipeline.prepare.stage"


class LesionsKey(BaseModel, frozen=True):
    """What enters the key of the lesion set."""

    split: SplitSettings
    lesions: PrepareLesionsSettings
    mr_percentiles: tuple[float, float]


class MRToCTKey(BaseModel, frozen=True):
    """What enters the key of the volume set."""

    split: SplitSettings
    mr_to_ct: PrepareMRToCTSettings


def prepare_lesions(
    workspace: Workspace,
    settings: RunSettings,
    catalog: StageRecord,
    *,
    progress: ProgressCallback = silent,
    spread: Spread = here,
) -> StageRecord:
    """Cut, scale and split lesion images; output is a `pipeline.prepared_set.ImageSet`.

    Raises:
        InputError: the catalog has no usable lesions, or too few of a class.
    """
    opened, splits = _open(workspace, settings, catalog)

    def body(context: StageContext) -> dict[str, JsonValue]:
        return prepare_lesion_set(opened, splits, settings.prepare, context.folder, context.progress, spread)

    prepare = settings.prepare
    key = LesionsKey(split=prepare.split, lesions=prepare.lesions, mr_percentiles=prepare.mr_to_ct.mr_percentiles)
    return _run("prepare_lesions", body, workspace, key, catalog, splits, progress)


def prepare_mr_to_ct(
    workspace: Workspace,
    settings: RunSettings,
    catalog: StageRecord,
    *,
    progress: ProgressCallback = silent,
    spread: Spread = here,
) -> StageRecord:
    """Resample, correct, mask, scale and split MR and CT volumes; output is a `pipeline.prepared_set.VolumeSet`.

    Raises:
        InputError: the catalog lacks MR or CT.
    """
    opened, splits = _open(workspace, settings, catalog)

    def body(context: StageContext) -> dict[str, JsonValue]:
        mr_to_ct = settings.prepare.mr_to_ct
        return prepare_volume_set(opened, splits, mr_to_ct, context.folder, context.progress, spread)

    key = MRToCTKey(split=settings.prepare.split, mr_to_ct=settings.prepare.mr_to_ct)
    return _run("prepare_mr_to_ct", body, workspace, key, catalog, splits, progress)


def _open(workspace: Workspace, settings: RunSettings, catalog: StageRecord) -> tuple[Catalog, dict[str, str]]:
    opened = read_catalog(catalog.path(workspace.root))
    return opened, split_subjects(workspace, opened, settings.prepare.split)


def _run(
    name: str,
    body: StageBody,
    workspace: Workspace,
    settings: BaseModel,
    catalog: StageRecord,
    splits: Mapping[str, str],
    progress: ProgressCallback,
) -> StageRecord:
    return run_stage(
        workspace,
        Stage(name, _MODULE, body),
        settings,
        records={"catalog": catalog},
        hashes={"splits": sha256_json(dict(splits))},
        progress=progress,
    )
