import hashlib
import hmac
import re

from hypothesis import given
from hypothesis import strategies as st

from pipeline.deidentify import Pseudonymizer

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
