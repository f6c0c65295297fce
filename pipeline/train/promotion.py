"""Whether a newly trained model takes the place of the last one: only where it is no worse on the validation split.

Both models are scored on the same images of subjects that neither learned from, for a subject's split never changes:

- lesions: unbiased MMD² (Gretton 2012, cubic kernel) between all validation crops and as many synthetic ones of the
  same classes, in wavelet scattering features; both generators are given the same latents;
- MR to CT: mean absolute error in HU inside the body, over patches of registered validation pairs.

The same patches, latents and features for both make the comparison paired; it is exact for equal inputs, so that a run
that is done again decides the same. Where no comparison is possible the new model is taken, and the record says why.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from pipeline.device import choose_device
from pipeline.errors import InputError
from pipeline.features import FeatureScale, TextureExtractor
from pipeline.intensity import PiecewiseLinearMap, from_int16
from pipeline.lesion_attributes import LesionAttribute
from pipeline.metrics.kid import mmd2_unbiased
from pipeline.prepared_set import ImageSet, read_image_set, read_volume_set
from pipeline.promotions import Decision, ModelStage, Promoted, promoted_models, write_promoted
from pipeline.records import StageRecord
from pipeline.settings import RunSettings
from pipeline.stage_runner import verified_record
from pipeline.train.patch_sampler import PatchSampler
from pipeline.trained_models import (
    LesionGeneratorSettings,
    TranslatorSettings,
    lesion_generator_settings,
    load_lesion_generator,
    load_translator,
)
from pipeline.workspace import Workspace

_LEAST_CROPS = 4
_PATCHES, _BATCH = 128, 16
_MEASURES = {
    "train_lesions": "MMD² of texture features, validation crops",
    "train_mr_to_ct": "MAE in HU inside the body, validation pairs",
}


class NotComparable(Exception):  # noqa: N818 - an answer, not a failure
    """Two models cannot be scored on the same images; the text says why."""


def promote(
    workspace: Workspace, settings: RunSettings, stage: ModelStage, prepared: StageRecord, trained: StageRecord
) -> StageRecord:
    """The training to go on with: ``trained``, or the last one where that is better.

    Args:
        workspace: keeps the record.
        settings: ``promotion`` decides; `auto` is `always` here, for flows of a site say otherwise.
        stage: which training.
        prepared: the set whose validation split judges.
        trained: the new training.
    """
    known = promoted_models(workspace).get(stage)
    if known is not None and known.content_sha256 == trained.content_sha256:
        return trained
    last = None if known is None else verified_record(workspace.root / known.folder, set_aside=False)
    before = () if known is None else known.decisions
    again = next((each for each in reversed(before) if _same(each, trained, last, prepared)), None)
    if again is not None and not again.promoted and settings.promotion == "no_worse" and last is not None:
        return last.model_copy(update={"cached": True})
    if workspace.planning:
        return trained
    decision = _decide(workspace, settings, stage, prepared, trained, last)
    chosen = trained if decision.promoted or last is None else last.model_copy(update={"cached": True})
    write_promoted(
        workspace,
        stage,
        Promoted(folder=chosen.folder, content_sha256=chosen.content_sha256, decisions=(*before, decision)),
    )
    return chosen


def _same(decision: Decision, trained: StageRecord, last: StageRecord | None, prepared: StageRecord) -> bool:
    asked = (trained.content_sha256, last and last.content_sha256, prepared.content_sha256)
    return asked == (decision.model, decision.last, decision.prepared)


def _decide(
    workspace: Workspace,
    settings: RunSettings,
    stage: ModelStage,
    prepared: StageRecord,
    trained: StageRecord,
    last: StageRecord | None,
) -> Decision:
    score = last_score = None
    promoted, why = True, "it is the first one" if last is None else "promotion takes every new model here"
    if last is not None and settings.promotion == "no_worse":
        models = [record.path(workspace.root) / "model" for record in (trained, last)]
        try:
            score, last_score = SCORES[stage](models, prepared.path(workspace.root), settings)
            promoted = score <= last_score
            why = "no worse on validation" if promoted else "the new one is worse on validation"
        except NotComparable as reason:
            why = f"no comparison, {reason}"
    return Decision(
        model=trained.content_sha256,
        last=None if last is None else last.content_sha256,
        prepared=prepared.content_sha256,
        promoted=promoted,
        measure=None if score is None else _MEASURES[stage],
        score=score,
        last_score=last_score,
        why=why,
    )


def score_lesions(models: list[Path], prepared: Path, settings: RunSettings) -> tuple[float, float]:
    """MMD² of two lesion generators from the validation crops; less is better.

    Raises:
        NotComparable: the generators differ in classes or image size, or there are too few crops.
    """
    images = read_image_set(prepared)
    rows = images.rows("validation")
    if len(rows) < _LEAST_CROPS:
        raise NotComparable(f"{len(rows)} validation crops, {_LEAST_CROPS} needed")
    kinds = {_shape(lesion_generator_settings(model)) for model in models}
    here = (tuple(images.classes), images.attributes, images.images.shape[1], images.images.shape[2])
    if kinds != {here}:
        raise NotComparable("classes, attributes, channels or size of the images changed")
    extract = TextureExtractor()
    real = extract(torch.from_numpy(from_int16(np.asarray(images.images[rows]))))
    scale = FeatureScale.fit(real)
    scores = [
        mmd2_unbiased(scale.bounded(real), scale.bounded(extract(_synthetic(model, images, settings))))
        for model in models
    ]
    return scores[0], scores[1]


def _shape(model: LesionGeneratorSettings) -> tuple[tuple[str, ...], tuple[LesionAttribute, ...], int, int]:
    return model.classes, model.attributes, model.channels, model.size_px


@torch.no_grad()
def _synthetic(model: Path, images: ImageSet, settings: RunSettings) -> torch.Tensor:
    """As many images as there are validation crops, of the same classes, from latents that hang on the seed alone."""
    device = choose_device(settings.device)
    generator, told = load_lesion_generator(model, device)
    classes = torch.from_numpy(images.class_indices()[images.rows("validation")])
    latent = torch.randn(len(classes), told.latent_size, generator=torch.Generator().manual_seed(settings.seed))
    if told.attributes:
        missing = torch.full((len(classes), len(told.attributes)), torch.nan)
        classes = torch.cat([classes[:, None].float(), missing], dim=1)
    parts = zip(torch.split(latent, _BATCH), torch.split(classes, _BATCH), strict=True)
    return torch.cat([generator(z.to(device), c.to(device)).float().cpu() for z, c in parts])


def score_translators(models: list[Path], prepared: Path, settings: RunSettings) -> tuple[float, float]:
    """MAE of two translators inside the body, in HU, over registered validation pairs; less is better.

    Raises:
        NotComparable: the translators are given different inputs, or there are no validation pairs.
    """
    device = choose_device(settings.device)
    (new, told), (last, told_last) = (load_translator(model, device) for model in models)
    if _inputs(told) != _inputs(told_last):
        raise NotComparable("slices, coordinates or patches of the translator changed")
    volumes = read_volume_set(prepared)
    asked = settings.train.mr_to_ct.model_copy(
        update={
            "supervision": "paired",
            "mirror": False,
            "slices": told.slices,
            "dimensions": told.dimensions,
            "coordinates": told.coordinates,
            "patch_px": told.patch_px,
        }
    )
    try:
        sampler = PatchSampler(volumes, asked, torch.Generator().manual_seed(settings.seed), device, "validation")
    except InputError:
        raise NotComparable("no registered pair in the validation split") from None
    knots = volumes.facts["ct_map"]
    hu = PiecewiseLinearMap(tuple(knots["knots_hu"]), tuple(knots["knots_unit"])).decode
    errors, voxels, middle = np.zeros(2), 0, told.slices // 2
    for _ in range(_PATCHES // _BATCH):
        batch = sampler.draw(_BATCH)
        inside = batch.mr_mask[:, middle].cpu().numpy() > 0
        truth = hu(batch.ct[:, middle].cpu().numpy())
        voxels += int(inside.sum())
        for number, network in enumerate((new, last)):
            with torch.no_grad():
                made = hu(network(batch.mr)[:, middle].float().cpu().numpy())
            errors[number] += float(np.abs(made - truth)[inside].sum(dtype=np.float64))
    if not voxels:
        raise NotComparable("no body in the validation patches")
    return float(errors[0] / voxels), float(errors[1] / voxels)


def _inputs(model: TranslatorSettings) -> tuple[int, bool, int, int, tuple[str, ...]]:
    return model.slices, model.coordinates, model.patch_px, model.dimensions, model.sequences


SCORES: dict[ModelStage, Callable[[list[Path], Path, RunSettings], tuple[float, float]]] = {
    "train_lesions": score_lesions,
    "train_mr_to_ct": score_translators,
}
"""How the new and the last model of each track are scored."""
