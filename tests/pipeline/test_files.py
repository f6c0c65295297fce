import json

import pytest

from pipeline.files import (
    atomic_folder,
    folder_manifest,
    manifest_hash,
    read_json,
    sha256_bytes,
    sha256_file,
    sha256_json,
    write_bytes,
    write_json,
)


def test_hashes_agree_with_the_published_value_of_abc(tmp_path):
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-4, example B.1
    write_bytes(tmp_path / "x", b"abc")
    assert sha256_file(tmp_path / "x") == sha256_bytes(b"abc") == expected


def test_json_hash_does_not_see_the_order_of_keys():
    assert sha256_json({"a": 1, "b": [2]}) == sha256_json({"b": [2], "a": 1})
    assert sha256_json({"a": 1}) != sha256_json({"a": 1.5})


def test_non_finite_numbers_never_reach_json(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_json(tmp_path / "x.json", {"a": float("nan")})
    assert not list(tmp_path.iterdir())


def test_a_failed_folder_leaves_nothing_and_keeps_the_old_one(tmp_path):
    with atomic_folder(tmp_path / "out") as folder:
        (folder / "a").write_text("old", encoding="utf-8")
    with pytest.raises(KeyError), atomic_folder(tmp_path / "out") as folder:  # noqa: PT012
        (folder / "a").write_text("new", encoding="utf-8")
        raise KeyError
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "a").read_text(encoding="utf-8") == "old"


def test_a_new_folder_replaces_the_old_one_whole(tmp_path):
    for name in ("a", "b"):
        with atomic_folder(tmp_path / "out") as folder:
            (folder / name).write_text(name, encoding="utf-8")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b"]


def test_manifest_sees_every_byte_and_every_name(tmp_path):
    write_bytes(tmp_path / "d" / "x", b"1")
    write_bytes(tmp_path / "skip.json", b"{}")
    first = folder_manifest(tmp_path, frozenset({"skip.json"}))
    assert set(first) == {"d/x"}
    write_bytes(tmp_path / "d" / "x", b"2")
    second = folder_manifest(tmp_path, frozenset({"skip.json"}))
    assert manifest_hash(first) != manifest_hash(second)


def test_json_round_trip(tmp_path):
    value = {"b": [1, 2.5, None], "a": {"c": "ü"}}
    write_json(tmp_path / "x.json", value)
    assert read_json(tmp_path / "x.json") == value
    assert list(json.loads((tmp_path / "x.json").read_text(encoding="utf-8"))) == ["a", "b"]
