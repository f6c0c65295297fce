import numpy as np

from pipeline.generate.pseudo_ct import native_geometry, on_grid
from pipeline.geometry import Geometry
from pipeline.prepared_set import to_slices


def test_a_grid_of_its_own_comes_back_unchanged():
    volume = np.random.default_rng(1).integers(-1024, 3071, (9, 7, 5)).astype(np.int16)
    grid = Geometry(volume.shape, np.diag([1.5, 2.0, 3.0, 1.0]))
    assert np.array_equal(on_grid(to_slices(volume), grid.affine, grid), volume)


def test_beyond_the_prepared_field_of_view_there_is_air():
    volume = np.full((6, 6, 4), 200, np.int16)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    shifted = affine.copy()
    shifted[0, 3] = -6.0
    found = on_grid(to_slices(volume), affine, Geometry((6, 6, 4), shifted))
    assert np.all(found[:3] == -1000)
    assert np.all(found[3:] == 200)


def test_a_linear_ramp_survives_resampling():
    coarse = Geometry((20, 20, 10), np.diag([2.0, 2.0, 4.0, 1.0]))
    fine = Geometry((30, 30, 15), np.diag([1.2, 1.1, 2.3, 1.0]))
    ramp = np.rint(100 + 10 * coarse.to_world(np.stack(np.indices(coarse.shape), -1))[..., 0]).astype(np.int16)
    expected = 100 + 10 * fine.to_world(np.stack(np.indices(fine.shape), -1))[..., 0]
    assert np.abs(on_grid(to_slices(ramp), coarse.affine, fine) - expected).max() <= 1


def test_the_native_grid_is_that_of_the_catalog():
    affine = np.arange(16.0)
    affine[[0, 5, 10, 15]] = 20, 30, 40, 1
    affine[12:15] = 0
    found = native_geometry({"shape": [4, 5, 6], "affine": affine.tolist()})
    assert found.shape == (4, 5, 6)
    assert np.array_equal(found.affine, affine.reshape(4, 4))
