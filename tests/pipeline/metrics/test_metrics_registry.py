import numpy as np
import pytest

from pipeline.metrics import DIALECTS, METRICS

RNG = np.random.default_rng(0)
CT = RNG.uniform(-900, 1200, (97, 97))
NOISE = RNG.normal(size=CT.shape)


@pytest.mark.parametrize("name", list(METRICS))
def test_every_metric_points_in_its_direction_and_takes_no_mask(name: str) -> None:
    metric, bounds = METRICS[name], DIALECTS["synthrad2025-container"]
    near, far = (metric.compute(CT, CT + sigma * (NOISE + 1), None, bounds) for sigma in (20, 400))
    assert abs(near) < abs(far) if metric.better in {"lower", "zero"} else near > far


@pytest.mark.parametrize("name", list(METRICS))
def test_only_ranged_metrics_depend_on_the_range(name: str) -> None:
    metric = METRICS[name]
    narrow, wide = (
        metric.compute(CT, CT + 50 * NOISE, None, DIALECTS[dialect]) for dialect in ("grey8", "synthrad2023")
    )
    assert (narrow != wide) == metric.ranged


def test_dialects_are_filed_under_their_own_name() -> None:
    assert all(name == bounds.name for name, bounds in DIALECTS.items())
