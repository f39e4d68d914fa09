"""Names and keys are each other's inverse."""

from __future__ import annotations

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from s3mount.errors import Invalid, NameTooLong
from s3mount.fs.names import MARKER, Kind, begun, meaning, name_in, place_of, plain_names

M = MARKER

PIECES = [M, "f", ">", "_", ".", "0", "E", "2", "9", "B", "F", "\0", "a", "é", "漢", "🦆", f"{M}E2{M}90{M}9B", f"{M}FF", "k" * 120]
components = st.lists(st.sampled_from(PIECES), max_size=12).map("".join) | st.text(
    st.characters(exclude_characters="/", exclude_categories=["Cs"])
)
NAME_PIECES = [
    M.encode(),
    b"f",
    b">",
    b"_",
    b".",
    b"0",
    b"E2",
    b"9",
    b"\xff",
    b"\xe2",
    b"\x90\x9b",
    "é".encode(),
    b"k" * 60,
    b"\xed\xb2\x80",
]
names = (st.lists(st.sampled_from(NAME_PIECES), min_size=1, max_size=10).map(b"".join) | st.binary(min_size=1, max_size=255)).filter(
    lambda name: len(name) <= 255 and b"/" not in name and b"\0" not in name and name not in (b".", b"..")
)


def path_to(component: str, *, shadowed: bool = False) -> list[bytes]:
    """Walk from the ordinary directory "d/" down to the component, as a listing would show the way."""
    stem, names = "d/", []
    while True:
        shown = name_in(stem, "d/" + component, shadowed=shadowed)
        assert shown is not None
        names.append(shown.name)
        if not shown.continued:
            return names
        said = meaning(stem, shown.name)
        assert said.kind is Kind.CONTINUED
        assert said.key.startswith(stem)
        stem = said.key


@pytest.mark.parametrize(
    ("component", "path"),
    [
        ("plain.txt", [b"plain.txt"]),
        ("", ["␛_".encode()]),
        (".", ["␛.".encode()]),
        ("..", ["␛..".encode()]),
        ("a\0b", ["a␛0b".encode()]),
        ("a␛b", ["a␛␛b".encode()]),
        ("caf␛E9", [b"caf\xe9"]),
        ("k" * 255, [b"k" * 255]),
        ("k" * 300, [b"k" * 251 + "␛>".encode(), b"k" * 49]),
        ("k" * 251 + ".", [b"k" * 251 + b"."]),
        ("k" * 250 + "é" * 4, [b"k" * 250 + "␛>".encode(), "éééé".encode()]),
        ("x␛E2␛90␛9By", ["x␛y".encode()]),
    ],
)
def test_the_table_of_escapes_holds(component: str, path: list[bytes]) -> None:
    assert path_to(component) == path


def test_a_shadowed_object_shows_under_its_name_and_an_ending() -> None:
    assert path_to("a", shadowed=True) == ["a␛f".encode()]
    assert meaning("d/", "a␛f".encode()).kind is Kind.SHADOWED
    assert path_to("k" * 253, shadowed=True) == [b"k" * 251 + "␛>".encode(), "kk␛f".encode()]


@given(components, st.booleans())
@example("." * 252, False)
@example(f"{M}{M}FF", False)
@example("k" * 246 + M, False)
def test_every_component_is_reached_by_names_that_mean_it(component: str, shadowed: bool) -> None:
    path = path_to(component, shadowed=shadowed)
    stem = "d/"
    for name in path:
        assert 0 < len(name) <= 255
        assert name not in (b".", b"..")
        assert b"/" not in name
        assert b"\0" not in name
        said = meaning(stem, name)
        stem = said.key
    assert said.key == "d/" + component
    assert said.kind is (Kind.SHADOWED if shadowed else Kind.PLAIN)


@given(names)
@example(f"{M}{M}FF".encode())
@example(M.encode())
@example(f"a{M}f{M}f".encode())
def test_every_name_is_stored_under_a_key_that_shows_as_it(name: bytes) -> None:
    said = meaning("d/", name)
    assert said.key.startswith("d/")
    if said.kind is Kind.CONTINUED:
        assert begun(said.key)
        return
    shown = name_in("d/", said.key, shadowed=said.kind is Kind.SHADOWED)
    assert shown is not None
    assert (shown.name, shown.continued) == (name, False)


@given(names)
def test_ordinary_names_are_stored_as_they_are(name: bytes) -> None:
    try:
        text = name.decode()
    except UnicodeDecodeError:
        assume(False)
    assume(MARKER not in text)
    assert meaning("d/", name).key == "d/" + text


@given(components, components)
def test_two_components_never_share_a_path(a: str, b: str) -> None:
    assume(a != b)
    assert path_to(a) != path_to(b)
    assert path_to(a) != path_to(b, shadowed=True)


@given(components)
def test_the_place_of_a_key_is_where_it_shows(component: str) -> None:
    stem, name = place_of("d/" + component)
    assert name == path_to(component)[-1]
    shown = name_in(stem, "d/" + component)
    assert shown is not None
    assert shown.name == name


def test_the_top_of_a_bucket_has_names_too() -> None:
    assert meaning("", "␛_".encode()).key == ""
    assert place_of("") == ("", "␛_".encode())


def test_a_name_over_255_bytes_is_refused() -> None:
    with pytest.raises(NameTooLong):
        meaning("", b"k" * 256)


def test_a_pseudo_directory_refuses_names_that_are_no_tails() -> None:
    stem = meaning("d/", b"k" * 251 + "␛>".encode()).key
    for name in (b"k", b"\xff" * 10, "x␛y".encode()):
        with pytest.raises(Invalid):
            meaning(stem, name)
    assert meaning(stem, b"k" * 10).key == "d/" + "k" * 261


@given(st.sampled_from(["", "d/", "d/k", f"{M}/"]), st.lists(components, max_size=4))
def test_names_made_in_one_go_are_those_made_one_by_one(stem: str, found: list[str]) -> None:
    keys = [stem + component for component in found]
    plain = plain_names(stem, keys)
    assert plain is None or [(name, False) for name in plain] == [
        (shown.name, shown.continued) for key in keys if (shown := name_in(stem, key))
    ]


def test_what_most_directories_hold_is_named_in_one_go() -> None:
    assert plain_names("d/", ["d/a", "d/b.txt", "d/é"]) == [b"a", b"b.txt", "é".encode()]
