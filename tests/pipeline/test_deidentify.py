import hashlib
import hmac
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.deidentify import Pseudonymizer, names_a_patient

ROOT = Path(__file__).resolve().parents[2]
ONE, OTHER = Pseudonymizer(b"1" * 32), Pseudonymizer(b"2" * 32)


def test_a_pseudonym_is_the_keyed_hash_of_rfc_2104():
    digest = hmac.new(b"1" * 32, b"subject\0PATIENT-7", hashlib.sha256).hexdigest()
    assert ONE.subject("PATIENT-7") == "sub-" + digest[:10]


def test_pseudonyms_are_stable_under_a_key_and_unlinkable_across_keys():
    assert ONE.subject("7") == Pseudonymizer(b"1" * 32).subject("7")
    assert ONE.subject("7") != OTHER.subject("7")
    assert ONE.uid("1.2.3") != OTHER.uid("1.2.3")


def test_kinds_of_pseudonyms_are_independent():
    digits = {ONE.subject("7")[4:14], ONE.series("7")[4:14], ONE.path_hash("7")[:10]}
    assert len(digits) == 3


@given(st.text(max_size=80))
def test_uids_are_valid_for_dicom(text):
    uid = ONE.uid(text)
    assert re.fullmatch(r"2\.25\.(0|[1-9][0-9]*)", uid)  # PS3.5 B.2: no leading zeros
    assert len(uid) <= 64
    assert int(uid[5:]) < 1 << 128


@given(st.text(max_size=40), st.text(max_size=40))
def test_different_words_get_different_pseudonyms(first, second):
    assert (ONE.subject(first) == ONE.subject(second)) == (first == second)


def test_keyed_fractions_are_spread_evenly():
    values = sorted(ONE.fraction("split", str(number)) for number in range(2000))
    assert values[0] >= 0
    assert values[-1] < 1
    largest_gap = max(abs(value - (rank + 0.5) / 2000) for rank, value in enumerate(values))
    assert largest_gap < 1.63 / 2000**0.5  # Kolmogorov-Smirnov bound at 1 %


@given(st.text(max_size=40))
def test_dates_of_a_patient_move_back_by_one_day_to_ten_years(patient):
    assert -3650 <= ONE.days(patient) <= -1
    assert ONE.days(patient) == Pseudonymizer(b"1" * 32).days(patient)


def test_two_workspaces_shift_dates_differently_and_patients_too():
    patients = [str(number) for number in range(200)]
    assert sum(ONE.days(name) == OTHER.days(name) for name in patients) < 5  # 200 / 3650 are expected to agree
    assert len({ONE.days(name) for name in patients}) > 180


def test_pseudonyms_do_not_depend_on_the_process():
    script = (
        "from pipeline.deidentify import Pseudonymizer as P; p = P(bytes(range(32)));"
        "print(p.subject('Jörg 7'), p.series('s'), p.uid('1.2'), p.path_hash('a/b'), p.days('7'), p.fraction('x', '7'))"
    )
    outputs = {
        subprocess.run(
            [sys.executable, "-c", script],
            env=os.environ | {"PYTHONHASHSEED": seed, "LC_ALL": locale},
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed, locale in (("0", "C"), ("1", "C.UTF-8"), ("4242", "POSIX"))
    }
    here = Pseudonymizer(bytes(range(32)))
    words = (here.subject("Jörg 7"), here.series("s"), here.uid("1.2"), here.path_hash("a/b"), here.days("7"))
    assert outputs == {" ".join(map(str, (*words, here.fraction("x", "7")))) + "\n"}


PLACEHOLDERS = [
    None, "", " ", "\0", "-", "?", "...", "^", "0", "00", "0000000", "x", "XXXX", "x-x-x", "anon", "ANON ", "Anonymous",
    "anonymized", "ANONYMOUS^PATIENT", "unknown", "Un-Known", "none", "N/A", "n.a.", "null", "patient id", "Patient",
    "NO ID", "de-identified", "REMOVED", "TBD",
]  # fmt: skip


@pytest.mark.parametrize("patient_id", PLACEHOLDERS)
def test_placeholders_name_no_patient(patient_id):
    assert not names_a_patient(patient_id)


@pytest.mark.parametrize(
    "patient_id", ["7", "1", "10", "0007", "999", "ANON-17", "ANONYMOUS2", "X1", "Nona", "José", "患者"]
)
def test_words_that_tell_patients_apart_name_one(patient_id):
    assert names_a_patient(patient_id)
