import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.classifier import SmallClassifier
from pipeline.errors import InputError
from pipeline.features import ClassifierExtractor, FeatureScale, TextureExtractor, morlet_bank

CELLS = slice(0, 16)
FIRST = slice(16, 208)
SECOND = slice(208, 256)
QUANTILES = slice(256, 267)


def textures(count: int = 8, seed: int = 0) -> Tensor:
    noise = torch.randn(count, 1, 32, 32, generator=torch.Generator().manual_seed(seed))
    return torch.tanh(F.avg_pool2d(noise, 3, 1, 1) * 2)


def grating(angle_degrees: float, radians_per_pixel: float) -> Tensor:
    angle = np.radians(angle_degrees)
    rows, columns = np.mgrid[:32, :32]
    wave = np.cos(radians_per_pixel * (columns * np.cos(angle) + rows * np.sin(angle)))
    return torch.from_numpy(wave[None, None]).float() * 0.5


def test_wavelets_ignore_brightness_and_peak_at_their_frequency() -> None:
    bank = morlet_bank(48, 3, 4)
    np.testing.assert_allclose(bank[:, :, 0, 0], 0, atol=1e-6)
    for j in range(3):
        row, column = np.unravel_index(bank[j, 0].argmax(), (48, 48))
        assert row == 0
        assert column == pytest.approx(48 * 0.375 / 2**j, abs=1)
    np.testing.assert_allclose(bank[1, 2], bank[1, 0].T, atol=1e-6)


def test_first_layer_answers_to_scale_and_orientation_of_a_grating() -> None:
    extractor = TextureExtractor()
    for j in range(3):
        for turn in range(4):
            features = extractor(grating(45 * turn, 0.75 * np.pi / 2**j))
            response = features[0, FIRST].reshape(12, 16).mean(axis=1)
            assert response.argmax() == 4 * j + turn


def test_constant_image_has_no_texture_and_its_own_intensity() -> None:
    features = TextureExtractor()(torch.full((1, 1, 40, 40), 0.3))[0]
    np.testing.assert_allclose(features[CELLS], 0.3, atol=1e-6)
    np.testing.assert_allclose(features[FIRST], 0, atol=1e-4)
    np.testing.assert_allclose(features[SECOND], 0, atol=1e-4)
    np.testing.assert_allclose(features[QUANTILES], 0.3, atol=1e-6)


def test_texture_features_ignore_an_offset_and_quantiles_follow_it() -> None:
    images = textures() * 0.5
    plain, brighter = TextureExtractor()(images), TextureExtractor()(images + 0.25)
    np.testing.assert_allclose(plain[:, 16:256], brighter[:, 16:256], atol=1e-3)
    np.testing.assert_allclose(plain[:, QUANTILES] + 0.25, brighter[:, QUANTILES], atol=1e-5)


def test_blur_and_noise_move_the_features_more_than_a_small_shift() -> None:
    images = textures(16)
    extractor = TextureExtractor()
    plain = extractor(images)

    def moved(changed: Tensor) -> float:
        return float(np.linalg.norm(extractor(changed)[:, 16:256] - plain[:, 16:256], axis=1).mean())

    shift = moved(images.roll(1, dims=-1))
    assert moved(F.avg_pool2d(images, 3, 1, 1)) > 1.5 * shift
    noisy = images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    assert moved(noisy) > 1.2 * shift


def test_features_do_not_depend_on_the_batch_and_repeat_bit_for_bit() -> None:
    images = textures(70)
    extractor = TextureExtractor()
    whole = extractor(images)
    assert whole.shape == (70, 267)
    assert whole.dtype == np.float32
    np.testing.assert_array_equal(whole, extractor(images))
    np.testing.assert_allclose(whole[66:], extractor(images[66:]), atol=1e-5)


def test_channels_are_embedded_one_by_one() -> None:
    images = textures(4)
    both = TextureExtractor()(torch.cat([images, -images], dim=1))
    np.testing.assert_allclose(both, np.hstack([TextureExtractor()(images), TextureExtractor()(-images)]), atol=1e-5)


def test_hash_names_the_parameters() -> None:
    assert TextureExtractor().sha256 == TextureExtractor().sha256
    assert len({TextureExtractor().sha256, TextureExtractor(edge=64).sha256, TextureExtractor(scales=2).sha256}) == 3
    with pytest.raises(InputError, match="multiple of 8"):
        TextureExtractor(edge=30)


def test_classifier_features_are_the_penultimate_ones_and_weights_make_the_hash() -> None:
    torch.manual_seed(0)
    network = SmallClassifier(1, 3, width=4).train()
    extractor = ClassifierExtractor(network)
    images = textures(5)
    features, before = extractor(images), extractor.sha256
    assert network.training
    np.testing.assert_allclose(features, network.eval().features(images).detach().numpy(), atol=1e-6)
    with torch.no_grad():
        network.head.bias[0] += 1e-3
    assert extractor.sha256 != before


def test_scale_standardizes_the_reference_and_leaves_constants_alone() -> None:
    rng = np.random.default_rng(0)
    features = rng.normal(5, [1.0, 100.0, 0.0], size=(50, 3)).astype(np.float32)
    scaled = FeatureScale.fit(features).apply(features)
    np.testing.assert_allclose(scaled.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(scaled.std(axis=0), [1, 1, 0], atol=1e-5)


@pytest.mark.parametrize("shape", [(32, 32), (0, 1, 32, 32)])
def test_anything_but_a_batch_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(InputError, match="N, C, H, W"):
        TextureExtractor()(torch.zeros(shape))


def test_bounded_features_keep_real_images_and_their_direction_and_bound_everything_else() -> None:
    rng = np.random.default_rng(0)
    real = rng.normal(3, 2, (400, 50)).astype(np.float32)
    scale = FeatureScale.fit(real)
    plain, bounded = scale.apply(real), scale.bounded(real)
    assert np.linalg.norm(plain - bounded) < 0.1 * np.linalg.norm(plain)
    strange = scale.bounded(real * 1e6)
    assert np.square(strange).sum(axis=1).max() <= 2 * 50 * (1 + 1e-5)
    cosine = (plain * bounded).sum(1) / np.linalg.norm(plain, axis=1) / np.linalg.norm(bounded, axis=1)
    np.testing.assert_allclose(cosine, 1, atol=1e-5)
