"""Names and keys: one reversible escape, so that every key is reachable and every name can be stored.

Owns: what a name in a directory means, and under which name a key shows.
Must not know: stores, inodes, what exists. Pure.

A directory is known by its *stem*, the text that all keys below it begin with: "" or "photos/" as a rule. What follows the stem up to the
next "/" is a *component*. Most components are names as they are. The others are spelled with the marker ␛ (U+241B, "symbol for escape"):

    component                              name                  example: key -> path
    ""  (keys with //, or a leading /)     ␛_                    a//b        -> a/␛_/b
    "." and ".."                           ␛. and ␛..            a/../b      -> a/␛../b
    NUL inside                             ␛0                    a\\0b        -> a␛0b
    the marker inside                      ␛␛                    a␛b         -> a␛␛b
    an object that a directory shadows     name␛f                a, a/b      -> a␛f, a/b
    a directory's own object, with data    ␛_ inside of it       a/ (5 byte) -> a/␛_
    over 255 bytes                         pieces in pseudo-directories whose names end with ␛>:
                                           300 x "k"             -> 251 x "k" ␛> / 49 x "k"

and the other way round, names that an application creates and that cannot be (part of) a key as they are:

    name                                   component             example
    a byte that is not UTF-8               ␛ and two hex digits  caf\\xe9     -> caf␛E9
    the marker, where the table above      its bytes likewise    x␛y         -> x␛E2␛90␛9By
    does not read it

Both directions are each other's inverse, because each checks itself with the other (on something strictly shorter, so it ends):
N1  `meaning` of the name that `name_in` gives to a component is that component.
N2  `name_in` of the component that `meaning` gives to a name is that name, for every name that can exist there.

A pseudo-directory's stem does not end with "/"; it holds nothing but the tails of long components. Names with ␛f or ␛> at their end always
mean what the table says: a file cannot be created under them. name␛f leads to the object also when no directory shadows it (any more), as
whoever has listed a tree may remove its directories first; listings then show the plain name.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from s3mount.errors import Invalid, NameTooLong

MARKER = "␛"
_MARK = MARKER.encode()

# NAME_MAX of Linux: what the kernel passes on.
NAME_BYTES = 255

_SHADOWED = f"{MARKER}f"
_CONTINUED = f"{MARKER}>"
# A pseudo-directory's name holds this much of the component, beside the ending.
_CHUNK_BYTES = NAME_BYTES - len(_CONTINUED.encode())
# The longest spelling of one character: the marker, twice.
_UNIT_BYTES = 2 * len(_MARK)

_WHOLE = {"": f"{MARKER}_", ".": f"{MARKER}.", "..": f"{MARKER}.."}
_WHOLE_MEANT = {spelled: text for text, spelled in _WHOLE.items()}
_INLINE = {"\0": f"{MARKER}0", MARKER: MARKER * 2}
_INLINE_MEANT = {spelled: text for text, spelled in _INLINE.items()}
_SPELLED = re.compile(f"{MARKER}.", re.DOTALL)
_HEX = re.compile(_MARK + b"([0-9A-F][0-9A-F])")
_LONE = re.compile("[\udc80-\udcff]")


class Kind(Enum):
    """What a name speaks of."""

    PLAIN = auto()
    """Whatever stands under the key: a directory, else an object."""
    SHADOWED = auto()
    """The object under the key, while a directory has its name."""
    CONTINUED = auto()
    """The long components that begin so."""


@dataclass(frozen=True, slots=True)
class Meaning:
    """What a name in a directory means: a kind, and the key (of a CONTINUED one: the pseudo-directory's stem)."""

    kind: Kind
    key: str


@dataclass(frozen=True, slots=True)
class Shown:
    """The name under which a component shows in a directory, itself or (`continued`) as the pseudo-directory that leads to it."""

    name: bytes
    continued: bool


def meaning(stem: str, name: bytes) -> Meaning:
    """What *name* means in the directory *stem*. Raises NameTooLong; Invalid for a name that nothing can have there."""
    if len(name) > NAME_BYTES:
        raise NameTooLong(f"A name has at most {NAME_BYTES} bytes, not {len(name)}.")
    if stem and stem[-1] != "/":
        return _meaning_in_pieces(stem, name)
    if _MARK not in name:
        try:
            return Meaning(Kind.PLAIN, stem + name.decode())
        except UnicodeDecodeError:
            return Meaning(Kind.PLAIN, stem + _stored(name))
    kind, component = _component(name)
    return Meaning(kind, stem + component)


def begun(stem: str) -> str:
    """The part of a component that a pseudo-directory's stem ends with; "" for any other directory."""
    return stem[stem.rfind("/") + 1 :]


def name_in(stem: str, key: str, *, shadowed: bool = False) -> Shown | None:
    """How the component of *key* shows in *stem*, which *key* begins with; None when it shows elsewhere.

    *key* is an object's, or a directory's stem without its final "/".
    """
    cut = stem.rfind("/") + 1
    component = key[cut:]
    if cut == len(stem) and not shadowed and _is_plain(component):
        return Shown(component.encode(), continued=False)
    start = len(stem) - cut
    at = 0
    pieces = _pieces(component, shadowed=shadowed)
    for number, (name, end) in enumerate(pieces, 1):
        if at == start:
            return Shown(name, continued=number < len(pieces))
        at = end
    return None


def plain_names(stem: str, keys: Sequence[str]) -> list[bytes] | None:
    """How *keys* show in *stem* where each shows as its component, as it is; None where perhaps one does not. In one go."""
    if stem and stem[-1] != "/":
        return None
    start = len(stem)
    components = [key[start:] for key in keys]
    joined = "".join(components)
    plain = MARKER not in joined and "\0" not in joined and max(map(len, components), default=0) <= NAME_BYTES // 4
    return [component.encode() for component in components] if plain and not _WHOLE.keys() & components else None


def place_of(key: str) -> tuple[str, bytes]:
    """The stem of the directory where *key* (as for `name_in`, not shadowed) shows, and its name there."""
    cut = key.rfind("/") + 1
    component = key[cut:]
    if _is_plain(component):
        return key[:cut], component.encode()
    pieces = _pieces(component, shadowed=False)
    return key[: cut + (pieces[-2][1] if len(pieces) > 1 else 0)], pieces[-1][0]


# -- components to names ------------------------------------------------------------------


def _is_plain(component: str) -> bool:
    return (
        component not in _WHOLE
        and MARKER not in component
        and "\0" not in component
        and (len(component) <= NAME_BYTES // 4 or len(component.encode()) <= NAME_BYTES)
    )


def _pieces(component: str, *, shadowed: bool) -> list[tuple[bytes, int]]:
    """The names that lead to *component*, each with the place in the component where it ends."""
    if not shadowed and (name := _name_stored_as(component)) is not None:
        return [(name, len(component))]
    return list(_spelled_pieces(component, _SHADOWED if shadowed else ""))


def _spelled_pieces(component: str, ending: str) -> Iterator[tuple[bytes, int]]:
    at = 0
    while len(spelled := (_spell(component[at:]) + ending).encode()) > NAME_BYTES:
        end = _chunk_end(component, at)
        yield _spell_inline(component[at:end]).encode() + _CONTINUED.encode(), end
        at = end
    yield spelled, len(component)


def _chunk_end(component: str, at: int) -> int:
    room = _CHUNK_BYTES
    while (room := room - len(_INLINE.get(component[at], component[at]).encode())) >= 0:
        at += 1
    return at


def _spell(text: str) -> str:
    return _WHOLE.get(text) or _spell_inline(text)


def _spell_inline(text: str) -> str:
    return text.replace(MARKER, _INLINE[MARKER]).replace("\0", _INLINE["\0"])


def _name_stored_as(component: str) -> bytes | None:
    """The application's name that is stored as *component* because it cannot be one itself."""
    if MARKER not in component:
        return None
    name = _HEX.sub(lambda found: bytes([int(found[1], 16)]), component.encode())
    if not _can_be_a_name(name) or _stored(name) != component:
        return None
    return name if _component(name) == (Kind.PLAIN, component) else None


def _can_be_a_name(name: bytes) -> bool:
    return 0 < len(name) <= NAME_BYTES and b"/" not in name and b"\0" not in name and name not in (b".", b"..")


# -- names to components ------------------------------------------------------------------


def _component(name: bytes) -> tuple[Kind, str]:
    """What *name*, in an ordinary directory, means."""
    try:
        text = name.decode()
    except UnicodeDecodeError:
        return Kind.PLAIN, _stored(name)
    if MARKER not in text:
        return Kind.PLAIN, text
    read = _read(text)
    if read is not None and _shows_so("", read, name):
        return read
    return Kind.PLAIN, _stored(name)


def _meaning_in_pieces(stem: str, name: bytes) -> Meaning:
    read = None
    try:
        read = _read(name.decode())
    except UnicodeDecodeError:
        pass
    if read is None or not _shows_so(begun(stem), read, name):
        raise Invalid("Nothing can have that name here: this directory holds the tails of long keys.")
    kind, text = read
    return Meaning(kind, stem + text)


def _shows_so(start: str, read: tuple[Kind, str], name: bytes) -> bool:
    kind, text = read
    if kind is Kind.CONTINUED:
        chunk = _spell_inline(text).encode()
        return _CHUNK_BYTES - _UNIT_BYTES < len(chunk) <= _CHUNK_BYTES
    return name_in(start, start + text, shadowed=kind is Kind.SHADOWED) == Shown(name, continued=False)


def _read(spelled: str) -> tuple[Kind, str] | None:
    """Read the first table backwards; None where it does not read."""
    kind = Kind.PLAIN
    body = spelled
    units = _SPELLED.findall(spelled)
    if units and spelled.endswith(units[-1]) and units[-1] in (_SHADOWED, _CONTINUED):
        kind = Kind.SHADOWED if units.pop() == _SHADOWED else Kind.CONTINUED
        body = spelled[:-2]
    if body in _WHOLE_MEANT and kind is not Kind.CONTINUED:
        return kind, _WHOLE_MEANT[body]
    if body.count(MARKER) != "".join(units).count(MARKER) or not all(unit in _INLINE_MEANT for unit in units):
        return None
    return kind, _SPELLED.sub(lambda found: _INLINE_MEANT[found[0]], body)


def _stored(name: bytes) -> str:
    """The component as which a name is stored that cannot be one itself."""
    text = name.decode("utf-8", "surrogateescape").replace(MARKER, "".join(f"{MARKER}{byte:02X}" for byte in _MARK))
    return _LONE.sub(lambda found: f"{MARKER}{ord(found[0]) & 0xFF:02X}", text)
