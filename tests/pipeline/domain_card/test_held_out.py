import math

import numpy as np
import pytest
from scipy import stats

from pipeline.domain_card import TAIL, AnswerKind, Calibration, CaseFigures

KIND = AnswerKind(models=1, planes=("axial",), mirrored=True)


def figures(uncertainty=None, residual=None, outline=None):
    return CaseFigures(uncertainty, uncertainty, residual, residual, outline)


def test_the_limit_of_one_case_is_that_of_what_cases_are_known_to_differ_by():
    found = Calibration.of(KIND, [figures(40.0, 0.1, 0.9)], "HU")
    factor = math.exp(stats.t.ppf(1 - TAIL, 8) * 0.25 * math.sqrt(2))
    assert found.limit("residual", TAIL) == pytest.approx(0.1 * factor)
    assert found.limit("uncertainty", TAIL) == pytest.approx(40 * factor ** (0.15 / 0.25))
    outline = math.exp(stats.t.ppf(1 - TAIL, 8) * 0.35 * math.sqrt(2))
    assert found.limit("outline", TAIL) == pytest.approx(0.1 * outline)
    assert found.count("outline") == 1


def test_limits_scale_with_the_cases_and_never_fall_below_what_does_no_harm():
    cases = [figures(value) for value in (30.0, 40.0, 55.0)]
    doubled = [figures(2 * value) for value in (30.0, 40.0, 55.0)]
    one, two = (Calibration.of(KIND, some, "HU").limit("uncertainty", 0.025) for some in (cases, doubled))
    assert two == pytest.approx(2 * one)
    assert Calibration.of(KIND, [figures(0.0)], "HU").limit("uncertainty", TAIL) == 10
    assert Calibration.of(KIND, [figures(0.0)], "grey").limit("uncertainty", TAIL) == 2


def test_further_cases_of_the_kind_are_rarely_refused_and_far_ones_always():
    rng = np.random.default_rng(0)
    refused, missed = 0, 0
    for _ in range(2000):
        cases = [figures(value) for value in np.exp(math.log(40) + 0.15 * rng.normal(size=4))]
        limit = Calibration.of(KIND, cases, "HU").limit("uncertainty", TAIL)
        refused += math.exp(math.log(40) + 0.15 * rng.normal()) > limit
        missed += math.exp(math.log(160) + 0.15 * rng.normal()) < limit
    assert refused <= 5
    assert missed <= 20


def test_figures_that_no_case_had_have_no_limit():
    found = Calibration.of(KIND, [figures(40.0)], "HU")
    assert found.limit("residual", TAIL) is None
    assert Calibration.model_validate_json(found.model_dump_json()) == found
