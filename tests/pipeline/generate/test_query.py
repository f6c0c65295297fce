"""Requests in words: what they mean, that recipes survive being said and read back, that nonsense is refused."""

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import InputError
from pipeline.generate.query import LONGEST, parse_request
from pipeline.generate.query_terms import FILLERS, GRAMMAR_WORDS, Request, Vocabulary, request_text
from pipeline.generate.query_words import read_number, tokens_of
from pipeline.generate_settings import CohortLine
from pipeline.lesion_attributes import LesionAttribute

SIZE = LesionAttribute(name="size_mm", low=4, high=30, thirds=(8, 12))
SEQUENCE = LesionAttribute(name="sequence", levels=("T1", "T2 FLAIR"))
KNOWN = Vocabulary(("glioma", "meningioma", "pituitary", "no tumor"), (SIZE, SEQUENCE))


def read(text, vocabulary=KNOWN):
    return [(line.count, line.lesion_class, dict(line.attributes)) for line in parse_request(text, vocabulary).lines]


SMALL = {"size_mm": "small"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("40 meningioma and 20 pituitary", [(40, "meningioma", {}), (20, "pituitary", {})]),
        ("40 meningioma and 20 pituitary, small", [(40, "meningioma", SMALL), (20, "pituitary", SMALL)]),
        ("40 meningioma, small, and 10 glioma", [(40, "meningioma", SMALL), (10, "glioma", {})]),
        ("40 meningioma, 20 pituitary, small", [(40, "meningioma", {}), (20, "pituitary", SMALL)]),
        ("40 small meningioma and 20 pituitary", [(40, "meningioma", SMALL), (20, "pituitary", {})]),
        ("40 meningioma and 20 pituitary, all small", [(40, "meningioma", SMALL), (20, "pituitary", SMALL)]),
        ("40 meningioma, 20 pituitary, all of them small", [(40, "meningioma", SMALL), (20, "pituitary", SMALL)]),
        ("forty MENINGIOMAS", [(40, "meningioma", {})]),
        ("please make a dozen images of pituitary tumors", [(12, "pituitary", {})]),
        ("a glioma and an glioma", [(1, "glioma", {}), (1, "glioma", {})]),
        ("1,200 gliomata; 3 No-Tumor", [(1200, "glioma", {}), (3, "no tumor", {})]),
        ("two hundred and fifty glioma and fifty pituitary", [(250, "glioma", {}), (50, "pituitary", {})]),
        ("2 per class", [(2, name, {}) for name in KNOWN.classes]),
        ("2 small of each", [(2, name, SMALL) for name in KNOWN.classes]),
        ("5 glioma 10-20 mm", [(5, "glioma", {"size_mm": (10, 20)})]),
        ("5 glioma between 10 and 20 mm", [(5, "glioma", {"size_mm": (10, 20)})]),
        ("5 glioma from ten to twenty mm", [(5, "glioma", {"size_mm": (10, 20)})]),
        ("5 glioma of 12.5 mm", [(5, "glioma", {"size_mm": 12.5})]),
        (
            "5 glioma under 9 mm and 4 glioma over 9 mm",
            [(5, "glioma", {"size_mm": (4, 9)}), (4, "glioma", {"size_mm": (9, 30)})],
        ),
        ("5 glioma size <= 9", [(5, "glioma", {"size_mm": (4, 9)})]),
        ("5 glioma size 9 and 4 pituitary", [(5, "glioma", {"size_mm": 9}), (4, "pituitary", {})]),
        ("5 glioma, t2-flair and large", [(5, "glioma", {"sequence": "T2 FLAIR", "size_mm": "large"})]),
        ("5 T1 glioma", [(5, "glioma", {"sequence": "T1"})]),
        ("twenty 10 mm glioma", [(20, "glioma", {"size_mm": 10})]),
    ],
)
def test_requests_mean_what_they_say(text, expected):
    assert read(text) == expected


def test_truncation_and_seed():
    assert parse_request("5 glioma, truncation 0.8, seed: 7", KNOWN) == Request(
        (CohortLine(lesion_class="glioma", count=5),), 0.8, 7
    )


@pytest.mark.parametrize(
    ("text", "found", "change"),
    [
        ("forty menngioma", "`menngioma`; understood before it: forty", "Did you mean `meningioma`?"),
        ("5 glioma smal", "`smal`", "Did you mean `small`?"),
        ("5 glioma tiny", "`tiny`", ""),
        ("glioma", "no number before glioma", "how many"),
        ("40", "40 of no class", "Name the class"),
        ("5 glioma and 20", "20 of no class", "Name the class"),
        ("5 and 20 glioma", "5 of no class", "Name the class"),
        ("small", "before any number", "40 small"),
        ("0 glioma", "0 images", "1 or more"),
        ("2.5 glioma", "2.5 images", "1 or more"),
        ("-3 glioma", "-3 images", "1 or more"),
        ("5 glioma small large", "size_mm twice", "once"),
        ("5 glioma, all small, all large", "size_mm twice", "once"),
        ("", "no image", "Say how many"),
        ("some images please", "`some`", ""),
        ("5 glioma 50 mm", "50", "size_mm"),
        ("5 glioma 20 to 10 mm", "20 to 10", "size_mm"),
        ("5 glioma truncation 3", "truncation 3", "Give one truncation"),
        ("5 glioma seed 1 seed 2", "seed 2", "Give one seed"),
        ("5 glioma; rm -rf /", "`rm`", ""),
        ("5 glioma <script>", "`<`", ""),
        ("x" * (LONGEST + 1), f"{LONGEST + 1} signs", str(LONGEST)),
    ],
)
def test_what_is_not_understood_is_refused_with_what_would_be(text, found, change):
    with pytest.raises(InputError) as caught:
        parse_request(text, KNOWN)
    assert found in caught.value.found
    assert change in caught.value.change
    assert "glioma" in caught.value.allowed or "size" in caught.value.rule


def test_without_attributes_their_words_are_refused():
    with pytest.raises(InputError) as caught:
        parse_request("40 small glioma", Vocabulary(KNOWN.classes))
    assert caught.value.found == "`small`; understood before it: 40"
    assert "the model knows classes only" in caught.value.allowed


def test_words_that_fit_two_attributes_need_a_name():
    depth = LesionAttribute(name="depth_mm", low=0, high=50, thirds=(10, 20))
    two = Vocabulary(KNOWN.classes, (SIZE, depth))
    for text in ("5 small glioma", "5 glioma 10 mm"):
        with pytest.raises(InputError, match="size_mm or depth_mm"):
            parse_request(text, two)
    assert read("5 glioma size small, depth 10 to 20", two) == [
        (5, "glioma", {"size_mm": "small", "depth_mm": (10, 20)})
    ]


def test_names_that_differ_in_signs_alone_need_quotes():
    alike = Vocabulary(("a-b", "a_b", "ring", "ring cyst"))
    with pytest.raises(InputError, match="quotes"):
        parse_request("5 a b", alike)
    assert read("5 'a_b'", alike) == [(5, "a_b", {})]
    assert read("5 ring, 2 ring cysts", alike) == [(5, "ring", {}), (2, "ring cyst", {})]


def test_a_comma_joins_no_words_to_a_name():
    with pytest.raises(InputError, match="cyst"):
        parse_request("5 ring, cyst", Vocabulary(("ring", "ring cyst")))


UNITS = ["", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
TEENS = ["ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"]
TENS = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def spelled(number):
    """An independent spelling of 1 to 999,999."""
    if number >= 1000:
        rest = number % 1000
        joint = "" if not rest else " and " if rest < 100 else " "
        return f"{spelled(number // 1000)} thousand{joint}{spelled(rest) if rest else ''}"
    if number >= 100:
        rest = number % 100
        return f"{UNITS[number // 100]} hundred{f' and {spelled(rest)}' if rest else ''}"
    if number >= 20:
        return TENS[number // 10] + (f"-{UNITS[number % 10]}" if number % 10 else "")
    return UNITS[number] if number < 10 else TEENS[number - 10]


@given(st.integers(1, 999_999))
@settings(max_examples=200, deadline=None)
def test_spelled_numbers_are_read(number):
    tokens = tokens_of(spelled(number))
    assert read_number(tokens, 0) == (number, len(tokens))
    assert read_number(tokens_of(f"{number:,}"), 0)[0] == number
    assert read_number(tokens_of(str(number)), 0)[0] == number


names = st.one_of(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9 _,.()+&-]{0,12}", fullmatch=True),
    st.sampled_from(sorted({*GRAMMAR_WORDS, *FILLERS, "10", "T1", "size_mm", "rings", "ring", "Ring"})),
)
numbers = st.floats(4, 30, allow_nan=False)
values = st.one_of(
    st.sampled_from(["small", "medium", "large"]),
    numbers,
    st.tuples(numbers, numbers).map(lambda ends: tuple(sorted(ends))),
)


@st.composite
def requests(draw):
    classes = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    lines = draw(
        st.lists(
            st.builds(
                CohortLine,
                lesion_class=st.sampled_from(classes),
                count=st.integers(1, 10**6),
                attributes=st.fixed_dictionaries(
                    {}, optional={"size_mm": values, "sequence": st.sampled_from(SEQUENCE.levels)}
                ),
            ),
            min_size=1,
            max_size=4,
        )
    )
    truncation = draw(st.none() | st.floats(0.001, 2))
    seed = draw(st.none() | st.integers(0, 2**31 - 1))
    return Request(tuple(lines), truncation, seed), Vocabulary(tuple(classes), (SIZE, SEQUENCE))


@given(requests())
@example((Request((CohortLine(lesion_class="10", count=1),), 1.0, None), Vocabulary(("10", "truncation"), (SIZE,))))
@example((Request((CohortLine(lesion_class="seed", count=7),), None, 3), Vocabulary(("seed", "1"), (SIZE,))))
@settings(max_examples=100, deadline=None)
def test_recipes_survive_being_said_and_read_back(case):
    request, vocabulary = case
    text = request_text(request, vocabulary)
    if len(text) <= LONGEST:
        assert parse_request(text, vocabulary) == request


@example("1!ALL")
@given(
    st.text(max_size=60)
    | st.lists(
        st.sampled_from(["5", "glioma", "and", ",", "small", "to", "all", "mm", "T1", "-", "seed", "'"]), max_size=8
    ).map(" ".join)
)
@settings(max_examples=300, deadline=None)
def test_any_text_is_a_recipe_or_refused(text):
    try:
        request = parse_request(text, KNOWN)
    except InputError:
        return
    assert request.lines
    assert parse_request(request_text(request, KNOWN), KNOWN) == request
