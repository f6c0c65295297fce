"""Digital phantoms: paired MR and CT of heads and pelves with lesions, all of whose truth is known."""

from pipeline.phantom.anatomy import Anatomy, Tissue
from pipeline.phantom.cohort import CohortTruth, LesionTruth, PhantomSubject, cohort_plan, write_cohort
from pipeline.phantom.contrast import PROPERTIES, SEQUENCES, spin_echo_signal
from pipeline.phantom.head import head_anatomy
from pipeline.phantom.lesions import LESION_CLASSES, Lesion, LesionClass
from pipeline.phantom.pelvis import pelvis_anatomy
from pipeline.phantom.subject import GRIDS, PhantomGrid, PhantomTruth, phantom_subject

__all__ = [
    "GRIDS",
    "LESION_CLASSES",
    "PROPERTIES",
    "SEQUENCES",
    "Anatomy",
    "CohortTruth",
    "Lesion",
    "LesionClass",
    "LesionTruth",
    "PhantomGrid",
    "PhantomSubject",
    "PhantomTruth",
    "Tissue",
    "cohort_plan",
    "head_anatomy",
    "pelvis_anatomy",
    "phantom_subject",
    "spin_echo_signal",
    "write_cohort",
]
