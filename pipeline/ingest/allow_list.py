"""The header texts that may leave `identity/`: defined terms only, so that no free text of a header is ever kept.

Terms: Body Part Examined after PS3.16 Annex L, Patient Position and Modality after PS3.3 C.7.3.1.1.
"""

import re

from pipeline.errors import QuarantineError
from pipeline.settings import CLASS_NAME


def terms(text: str) -> frozenset[str]:
    """The words of a text, as a set of defined terms."""
    return frozenset(text.split())


BODY_PARTS = terms(
    """
    ABDOMEN ABDOMENPELVIS ADRENAL ANKLE AORTA ARM AXILLA BACK BLADDER BRAIN BREAST BRONCHUS CALCANEUS CALF CAROTID
    CEREBELLUM CERVIX CHEEK CHEST CHESTABDOMEN CHESTABDPELVIS CIRCLEOFWILLIS CLAVICLE COCCYX COLON CORNEA
    CORONARYARTERY CSPINE CTSPINE DUODENUM EAR ELBOW ESOPHAGUS EXTREMITY EYE EYELID FACE FEMUR FINGER FOOT
    GALLBLADDER HAND HEAD HEADNECK HEART HIP HUMERUS ILEUM ILIUM IAC JAW JEJUNUM KIDNEY KNEE LARYNX LEG LIVER LSPINE
    LSSPINE LUNG MAXILLA MEDIASTINUM MOUTH NECK NECKCHEST NECKCHESTABDOMEN NECKCHESTABDPELV NOSE ORBIT OVARY
    PANCREAS PAROTID PATELLA PELVIS PENIS PHARYNX PROSTATE RADIUS RADIUSULNA RECTUM RIB SACRUM SCALP SCAPULA SCLERA
    SCROTUM SELLA SHOULDER SKULL SPINE SPLEEN SSPINE STERNUM STOMACH SUBMANDIBULAR TESTIS THIGH THUMB THYMUS THYROID
    TIBIA TIBIAFIBULA TLSPINE TMJ TOE TONGUE TRACHEA TSPINE ULNA UPRARM URETER URETHRA UTERUS VAGINA VULVA WHOLEBODY
    WRIST ZYGOMA
    """
)
PATIENT_POSITIONS = frozenset(
    {
        "HFP",
        "HFS",
        "HFDR",
        "HFDL",
        "FFDR",
        "FFDL",
        "FFP",
        "FFS",
        "LFP",
        "LFS",
        "RFP",
        "RFS",
        "AFDR",
        "AFDL",
        "PFDR",
        "PFDL",
    }
)
_MODALITIES = terms(
    """
    ANN AR AU CR CT DOC DX ECG EPS ES GM HC HD IO IVUS KO LEN LS MG MR M3D NM OAM OCT OP OPM OPT OT PLAN PR PT PX
    REG RESP RF RG RTDOSE RTIMAGE RTPLAN RTRECORD RTSTRUCT RWV SEG SM SMR SR SRF STAIN TG US VA XA XC
    """
)
_CLASS_NAME = re.compile(CLASS_NAME)


def body_part(text: str | None) -> str | None:
    """The body part as a defined term, upper case without spaces; None for anything else."""
    term = re.sub(r"[\s_-]", "", text or "").upper()
    return term if term in BODY_PARTS else None


def patient_position(text: str | None) -> str | None:
    """The patient position as a defined term; None for anything else."""
    term = (text or "").strip().upper()
    return term if term in PATIENT_POSITIONS else None


def without_free_text(refusal: QuarantineError) -> QuarantineError:
    """The refusal, without a modality that is no defined term: readers quote it from the header."""
    if refusal.reason != "UNSUPPORTED_MODALITY":
        return refusal
    term = refusal.found.removeprefix("modality ").strip()
    known = f"modality {term}" if term in _MODALITIES else "no modality, or one that is no defined term"
    return QuarantineError(refusal.reason, known, refusal.advice)


def is_class_name(text: str) -> bool:
    """Tell whether a text may name a class: no separators, no markup, at most 64 characters."""
    return _CLASS_NAME.fullmatch(text) is not None
