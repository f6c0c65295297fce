import numpy as np
import pytest

from pipeline.errors import InputError
from pipeline.metrics.baselines import ConstantCT, IntensityLookup
from pipeline.metrics.mae import mae

RNG = np.random.default_rng(0)
MR = RNG.uniform(-1, 1, (12, 12, 6))
MASK = RNG.uniform(size=MR.shape) > 0.2
CT = np.where(MASK, 500 * MR**2 + RNG.laplace(0, 30, MR.shape), -1000)


def test_constant_minimizes_the_mean_absolute_error() -> None:
    constant = ConstantCT.fit([CT], [MASK])
    best = mae(CT, constant.predict(MR, MASK), MASK)
    for other in np.linspace(-200, 600, 81):
        assert mae(CT, np.full(CT.shape, other), MASK) >= best - 1e-3


def test_lookup_recovers_a_function_of_intensity_and_beats_the_constant() -> None:
    lookup = IntensityLookup.fit([MR], [CT], [MASK], bins=16)
    prediction = lookup.predict(MR, MASK)
    assert np.abs(prediction - 500 * MR**2)[MASK].mean() < 30
    assert mae(CT, prediction, MASK) < 0.5 * mae(CT, ConstantCT.fit([CT], [MASK]).predict(MR, MASK), MASK)


def test_lookup_on_a_discrete_mr_is_the_exact_median_of_every_level() -> None:
    mr = RNG.integers(0, 5, (10, 10, 4)) / 4.0
    ct = 100 * mr + RNG.normal(0, 10, mr.shape)
    lookup = IntensityLookup.fit([mr], [ct], [np.ones(mr.shape)])
    levels = np.unique(mr)
    predicted = lookup.predict(levels[:, None], np.ones((5, 1)))[:, 0]
    np.testing.assert_allclose(predicted, [np.median(ct[mr == level]) for level in levels], rtol=1e-6)


def test_lookup_extends_its_end_bins_and_says_air_outside_the_body() -> None:
    lookup = IntensityLookup.fit([MR], [CT], [MASK], bins=8)
    ends = lookup.predict(np.array([-9.0, 9.0, 0.0]), np.array([1, 1, 0]))
    np.testing.assert_allclose(ends, [lookup.hu[0], lookup.hu[-1], -1000], rtol=1e-6)


def test_constant_mr_and_pooled_volumes_work() -> None:
    flat = IntensityLookup.fit([np.zeros_like(MR)], [CT], [MASK])
    np.testing.assert_allclose(flat.predict(np.zeros_like(MR), MASK)[MASK], np.median(CT[MASK]), rtol=1e-6)
    pooled = ConstantCT.fit([CT, CT], [MASK, MASK])
    assert pooled == ConstantCT.fit([CT], [MASK])


def test_nothing_to_fit_is_refused() -> None:
    with pytest.raises(InputError, match="not all of them empty"):
        ConstantCT.fit([CT], [np.zeros(CT.shape)])
    with pytest.raises(InputError, match="shapes fit: False"):
        IntensityLookup.fit([MR], [CT[1:]], [MASK])
