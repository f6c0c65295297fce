"""Phantoms whose CT is bent by a smooth known field: three waves a component, 14 to 26 cm long."""

import numpy as np
from scipy import ndimage

from pipeline.body_mask import ct_body_mask, mr_body_mask
from pipeline.phantom import phantom_subject
from pipeline.prepare.registration import Side

MEAN_MM = 3.0
"""Roughly how far places move on average, rigid share included."""


def displacement(places_mm, seed, mean_mm=MEAN_MM):
    """Displacements (n, 3) of places (n, 3) in the bent CT."""
    rng = np.random.default_rng(seed)
    moved = np.zeros_like(places_mm)
    for axis in range(3):
        for _ in range(3):
            direction = rng.normal(size=3)
            direction /= np.linalg.norm(direction)
            length = rng.uniform(140, 260)
            moved[:, axis] += np.sin(places_mm @ direction * 2 * np.pi / length + rng.uniform(0, 2 * np.pi))
    return moved * mean_mm / 1.95


def true_places(places_mm, seed, mean_mm=MEAN_MM):
    """Where places of the MR lie in the bent CT: y with y + displacement(y) = x."""
    found = places_mm.copy()
    for _ in range(30):
        found = places_mm - displacement(found, seed, mean_mm)
    return found


def bent_pair(index, part, grid, seed, mean_mm=MEAN_MM):
    """A phantom, its MR side, and the bent CT's side on the same grid."""
    truth = phantom_subject(3, index, part, grid=grid)
    geometry = truth.geometry
    places = geometry.to_world(np.indices(geometry.shape).reshape(3, -1).T)
    source = geometry.to_index(places + displacement(places, seed, mean_mm))
    hu = ndimage.map_coordinates(truth.ct_hu.astype(np.float32), source.T, order=1, cval=-1000)
    hu = hu.reshape(geometry.shape).astype(np.float32)
    body = ct_body_mask(hu, geometry.spacing_mm).astype(bool)
    ct = Side(np.where(body, hu, -1000).astype(np.float32), geometry, body)
    voxels = truth.mr.astype(np.float32)
    return truth, Side(voxels, geometry, mr_body_mask(voxels, geometry.spacing_mm).astype(bool)), ct
