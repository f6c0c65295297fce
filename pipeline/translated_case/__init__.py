"""One MR and what networks make of it: maps of the case, its figures, and those of held-out cases to compare with."""

from pipeline.translated_case.figures import case_figures
from pipeline.translated_case.held_out import CALIBRATION_CASES, calibrated
from pipeline.translated_case.maps import RESIDUAL_STEPS, CaseMaps, Networks, pictures_of_case, write_case_maps
from pipeline.translated_case.source import AIR, CaseSource, case_source

__all__ = [
    "AIR",
    "CALIBRATION_CASES",
    "RESIDUAL_STEPS",
    "CaseMaps",
    "CaseSource",
    "Networks",
    "calibrated",
    "case_figures",
    "case_source",
    "pictures_of_case",
    "write_case_maps",
]
