import math

import pytest
import torch
from torch import Tensor

from pipeline.classifier import SmallClassifier, balanced_batch, predict, train_classifier
from pipeline.classifier_augmentation import AugmentationDraw, ClassicalAugmentation, augment_batch
from pipeline.errors import InputError, TrainingError

STILL = ClassicalAugmentation(
    max_rotation_degrees=0, max_zoom=0, max_shift=0, move_probability=1, mirror_probability=0, max_gain=0, max_offset=0
)


def bars(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Horizontal bars (class 0) and vertical bars (class 1) in noise, nine times more of class 0."""
    rng = torch.Generator().manual_seed(seed)
    classes = (torch.arange(count) % 10 == 0).long()
    wave = torch.sin(torch.arange(16) * 1.5)
    image = torch.where(classes[:, None, None] == 0, wave[None, :, None], wave[None, None, :]).expand(count, 16, 16)
    return (0.4 * image + 0.3 * torch.randn(count, 16, 16, generator=rng))[:, None].clamp(-1, 1), classes


def scene(count: int = 6, size: int = 32) -> Tensor:
    return torch.rand(count, 1, size, size, generator=torch.Generator().manual_seed(5)) * 1.6 - 0.8


def drawn(count: int, affine: Tensor | None = None) -> AugmentationDraw:
    moved = torch.full((count,), affine is not None)
    matrix = torch.eye(2, 3) if affine is None else affine
    unchanged = torch.zeros(count, dtype=torch.bool)
    return AugmentationDraw(matrix.expand(count, 2, 3), moved, unchanged, torch.ones(count), torch.zeros(count))


def test_default_classifier_has_about_a_hundred_thousand_weights() -> None:
    assert 9e4 < sum(p.numel() for p in SmallClassifier(1, 4).parameters()) < 1.1e5


def test_training_learns_an_imbalanced_problem_and_predicts_both_classes() -> None:
    images, classes = bars(200, seed=0)
    model = train_classifier(images, classes, 2, steps=40, seed=1, batch_size=16, width=4)
    unseen, truth = bars(200, seed=9)
    probabilities = predict(model, unseen)
    torch.testing.assert_close(probabilities.sum(1), torch.ones(200))
    correct = probabilities.argmax(1) == truth
    assert correct[truth == 0].float().mean() > 0.95
    assert correct[truth == 1].float().mean() > 0.95


def test_training_repeats_bit_for_bit_and_leaves_the_global_generator_alone() -> None:
    images, classes = bars(60, seed=0)
    augment = ClassicalAugmentation()
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, again, other = (
        train_classifier(images, classes, 2, steps=4, seed=seed, batch_size=8, width=4, augment=augment)
        for seed in (7, 7, 8)
    )
    assert torch.equal(before, torch.get_rng_state())
    for name, weight in first.state_dict().items():
        assert torch.equal(weight, again.state_dict()[name])
    assert not torch.equal(first.head.weight, other.head.weight)


def test_progress_counts_images() -> None:
    images, classes = bars(40, seed=0)
    seen: list[tuple[int, int]] = []
    train_classifier(
        images,
        classes,
        2,
        steps=3,
        seed=0,
        batch_size=8,
        width=4,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen == [(8, 24), (16, 24), (24, 24)]


def test_batches_are_balanced_whatever_the_prevalence() -> None:
    members = [torch.arange(0, 1000), torch.arange(1000, 1005), torch.arange(1005, 1100)]
    chosen = balanced_batch(members, 9000, torch.Generator().manual_seed(0))
    counts = torch.stack([torch.isin(chosen, indices).sum() for indices in members])
    # 9000 draws at 1/3: standard deviation 45.
    assert (counts - 3000).abs().max() < 200
    assert len(torch.unique(chosen[torch.isin(chosen, members[1])])) == 5


def test_features_are_what_the_head_sees_and_prediction_keeps_the_mode() -> None:
    model = SmallClassifier(1, 3, width=4).train()
    images = scene()
    probabilities = predict(model, images, batch_size=4)
    assert model.training
    model.eval()
    torch.testing.assert_close(torch.softmax(model.head(model.features(images)), 1), probabilities)


def test_bad_input_is_refused() -> None:
    images, classes = bars(40, seed=0)
    with pytest.raises(InputError, match=r"classes \[0\]"):
        train_classifier(images, torch.zeros(40, dtype=torch.long), 2, steps=1, seed=0)
    with pytest.raises(InputError, match="H, W >= 16"):
        train_classifier(images[..., :8], classes, 2, steps=1, seed=0)


def test_a_loss_that_is_not_finite_stops_training() -> None:
    images, classes = bars(40, seed=0)
    with pytest.raises(TrainingError, match="step 1"):
        train_classifier(images * math.nan, classes, 2, steps=2, seed=0, batch_size=8, width=4)


def test_augmentation_without_any_change_returns_the_same_bits() -> None:
    images = scene()
    assert torch.equal(STILL(images, torch.Generator().manual_seed(0)), images)
    assert torch.equal(augment_batch(images, drawn(6)), images)


def test_augmentation_by_an_identity_resampling_changes_nothing() -> None:
    images = scene()
    torch.testing.assert_close(augment_batch(images, drawn(6, torch.eye(2, 3))), images, atol=1e-5, rtol=0)


def test_quarter_turn_and_whole_pixel_shift_are_exact() -> None:
    images = scene()
    quarter = augment_batch(images, drawn(6, torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]])))
    turned = [torch.rot90(images, k, dims=(2, 3)) for k in (1, 3)]
    assert min(float((quarter - candidate).abs().max()) for candidate in turned) < 1e-4
    shifted = augment_batch(images, drawn(6, torch.tensor([[1.0, 0.0, 2 * 3 / 32], [0.0, 1.0, 0.0]])))
    torch.testing.assert_close(shifted[..., :-3], images[..., 3:], atol=1e-4, rtol=0)


def test_rotation_keeps_its_angle_on_images_that_are_not_square() -> None:
    angle = math.radians(90)
    matrix = torch.tensor([[math.cos(angle), -math.sin(angle), 0.0], [math.sin(angle), math.cos(angle), 0.0]])
    image = torch.full((1, 1, 16, 32), -1.0)
    image[..., 4:12, 15:17] = 1.0
    turned = augment_batch(image, drawn(1, matrix))
    expected = torch.full_like(image, -1.0)
    expected[..., 7:9, 12:20] = 1.0
    torch.testing.assert_close(turned, expected, atol=1e-3, rtol=0)


def test_classical_augmentation_does_not_blur() -> None:
    smooth = torch.nn.functional.avg_pool2d(scene(64, 66), 3, 1)
    augmented = ClassicalAugmentation(max_gain=0, max_offset=0)(smooth, torch.Generator().manual_seed(0))

    def sharpness(images: Tensor) -> float:
        inner = images[:, :, 8:-8, 8:-8]
        return float(inner.diff(dim=-1).square().mean() + inner.diff(dim=-2).square().mean())

    assert sharpness(augmented) > 0.9 * sharpness(smooth)


def test_augmentation_changes_images_without_touching_the_input_or_leaving_the_range() -> None:
    images = scene()
    kept = images.clone()
    augmented = ClassicalAugmentation(max_offset=0.5)(images, torch.Generator().manual_seed(0))
    assert torch.equal(images, kept)
    assert augmented.abs().max() <= 1
    assert ((augmented - images).abs().flatten(1).max(dim=1).values > 0.01).all()


def test_background_stays_background_under_gain() -> None:
    draw = drawn(1)
    louder = AugmentationDraw(draw.affine, draw.moved, draw.mirrored, torch.tensor([1.5]), draw.offset)
    image = torch.tensor([[[[-1.0, -0.6]]]])
    torch.testing.assert_close(augment_batch(image, louder), torch.tensor([[[[-1.0, -0.4]]]]))


def test_mirror_is_exact_and_drawn_for_about_half_of_the_images() -> None:
    draw = ClassicalAugmentation(max_gain=0, max_offset=0, move_probability=0).draw(
        4000, torch.Generator().manual_seed(0)
    )
    assert 0.46 < draw.mirrored.float().mean() < 0.54
    images = scene()
    half = AugmentationDraw(draw.affine[:6], draw.moved[:6], torch.arange(6) < 3, draw.gain[:6], draw.offset[:6])
    assert torch.equal(augment_batch(images, half), torch.cat([images[:3].flip(-1), images[3:]]))


@pytest.mark.parametrize("network", ["densenet121", "resnet18"])
def test_named_networks_train_repeatably_and_open_their_last_layer(network: str) -> None:
    images = torch.rand(8, 1, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    classes = torch.arange(8) % 2
    before = torch.random.get_rng_state()
    first, second = (
        train_classifier(images, classes, 2, steps=2, seed=4, batch_size=4, network=network) for _ in range(2)
    )
    assert torch.equal(before, torch.random.get_rng_state()), "torch's global generator is left as it was"
    assert torch.equal(predict(first, images), predict(second, images))
    with torch.no_grad():
        assert torch.allclose(first.head(first.features(images)), first(images))
