import numpy as np
import pytest
import torch

from pipeline.inference import Member, SourceVolume, WindowPlan, translate_volume
from pipeline.trained_models import TranslatorSettings

CPU = torch.device("cpu")
PATCH = 32


def member(network, slices=1, coordinates=False, divisor=1, dimensions=2):
    settings = TranslatorSettings(
        generator="unet", width=4, slices=slices, dimensions=dimensions, coordinates=coordinates, patch_px=PATCH
    )
    return Member(network, settings, divisor)


def noise(shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32)


def source_of(mr, mask=None, near=None, spacing=None):
    body = np.ones(mr.shape, np.uint8) if mask is None else mask
    return SourceVolume(mr, body, body > 0 if near is None else near, lambda values: values, spacing)


@pytest.fixture
def translated(tmp_path):
    """Mean and deviation of what networks say of a volume of units."""

    def run(networks, mr, *, plan=None, mask=None, near=None, spacing=None, slices=1, coordinates=False, **more):
        networks = networks if isinstance(networks, list) else [networks]
        maps = translate_volume(
            source_of(mr, mask, near, spacing),
            [member(network, slices, coordinates) for network in networks],
            plan or WindowPlan(),
            lambda units: units,
            CPU,
            tmp_path,
            **more,
        )
        return maps.mean.copy(), np.stack([maps.deviation(k) for k in range(len(mr))])

    return run


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
