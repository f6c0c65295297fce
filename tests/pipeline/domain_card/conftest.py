"""A body whose make is known: bright rim, dark ring, bright middle, an eye in front; lighter above than below."""

import numpy as np
import pytest


def made(seed=0, shape=(12, 48, 40), contrast=(0.6, -0.7, 0.2), size=1.0, texture=0.03):
    """Units (K, H, W) and body mask of a subject."""
    rng = np.random.default_rng(seed)
    k, r, c = np.indices(shape)
    grow = size * (1 + 0.03 * rng.normal())
    half_k = 0.46 * shape[0]
    height = np.clip(1 - ((k - (shape[0] - 1) / 2) / (1.25 * half_k)) ** 2, 0, None) ** 0.5
    distance = np.hypot((r - 23.5) / (19 * grow), (c - 19.5) / (15 * grow)) / np.maximum(height, 1e-3)
    body = distance < 1
    units = np.select([distance < 0.7, distance < 0.85, body], [contrast[2], contrast[1], contrast[0]], -1.0)
    units = np.where(np.hypot(r - 15, c - 25) < 3.5, 0.9, units) + np.where(body, 0.25 * (k / shape[0] - 0.5), 0)
    units = units + texture * rng.normal(size=shape)
    return np.clip(np.where(body, units, -1), -1, 1).astype(np.float32), body.astype(np.uint8)


@pytest.fixture
def subject():
    return made
