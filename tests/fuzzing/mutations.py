"""Valid bytes and JSON documents, with random edits. All chance comes from the generator that is given."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, TypeAlias

Json: TypeAlias = Any
# Where counters, lengths and signs go wrong.
_NUMBERS = (0, 1, 2, 3, 7, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
# Headers are where decoders go wrong, so half of all edits are within so many bytes.
_HEAD = 600
_MOST_EDITS = 6

#: Values that a field of a JSON document is not made for.
HOSTILE_VALUES: tuple[Json, ...] = (
    *(None, True, False, 0, 1, -1, 0.5, -0.0, 1e308, 2**31, 2**63, 10**18, 10**40, float("nan"), float("inf")),
    *("", "x", "0", "../..", "/etc/passwd", "a/b", "\0", "\ud800", "\x1b[2J\n", "ä" * 3000, "%s{}", "CURRENT"),
    *([], {}, [[]], [0] * 1000, {"": None}, [None], ["a", 1]),
)


def mutated(data: bytes, chance: Random, others: Sequence[bytes] = ()) -> bytes:
    """The bytes with one to six edits: bits, bytes and numbers changed; ranges deleted, repeated, moved; cut short.

    others: further valid files, parts of which may be put in.
    """
    changed = bytearray(data)
    for _ in range(chance.randint(1, _MOST_EDITS)):
        chance.choices(_EDITS, _WEIGHTS)[0](changed, chance)
        if others and chance.random() < 0.05:
            other, at = chance.choice(others), _place(changed, chance)
            start = chance.randrange(len(other) + 1)
            changed[at : at + 4000] = other[start : start + 4000]
    return bytes(changed)


def _place(data: bytearray, chance: Random) -> int:
    return chance.randrange(1 + min(len(data), _HEAD if chance.random() < 0.5 else len(data)))


def _flip(data: bytearray, chance: Random) -> None:
    if data:
        data[min(_place(data, chance), len(data) - 1)] ^= 1 << chance.randrange(8)


def _overwrite(data: bytearray, chance: Random) -> None:
    at, size = _place(data, chance), chance.choice((1, 2, 4, 8))
    number = chance.choice((*_NUMBERS, chance.getrandbits(32))) & ((1 << 8 * size) - 1)
    data[at : at + size] = number.to_bytes(size, chance.choice(("little", "big")))


def _delete(data: bytearray, chance: Random) -> None:
    at = _place(data, chance)
    del data[at : at + chance.choice((1, 2, 4, 30, 500))]


def _repeat(data: bytearray, chance: Random) -> None:
    at, size = _place(data, chance), chance.choice((1, 4, 30, 500))
    data[at:at] = data[at : at + size] * chance.choice((1, 2, 50))


def _insert(data: bytearray, chance: Random) -> None:
    at = _place(data, chance)
    data[at:at] = chance.randbytes(chance.choice((1, 2, 4, 30)))


def _move(data: bytearray, chance: Random) -> None:
    at, to, size = _place(data, chance), _place(data, chance), chance.choice((2, 4, 30, 500))
    part = data[at : at + size]
    data[to : to + len(part)] = part


def _cut(data: bytearray, chance: Random) -> None:
    del data[_place(data, chance) :]


_EDITS: tuple[Callable[[bytearray, Random], None], ...] = (_flip, _overwrite, _delete, _repeat, _insert, _move, _cut)
_WEIGHTS = (30, 30, 5, 8, 5, 8, 3)


def with_right_checksums(png: bytes) -> bytes:
    """A damaged PNG file whose chunks have the checksums of what they hold now: else decoders look no further."""
    fixed, at = bytearray(png), 8
    while at + 12 <= len(fixed):
        (length,) = struct.unpack_from(">I", fixed, at)
        end = at + 8 + length
        if end + 4 > len(fixed):
            break
        struct.pack_into(">I", fixed, end, zlib.crc32(fixed[at + 4 : end]))
        at = end + 4
    return bytes(fixed)


def mutated_json(document: Json, chance: Random) -> Json:
    """A copy of the document with one to three edits: values replaced, keys removed, added, renamed, values moved."""
    changed = json.loads(json.dumps(document))
    for _ in range(chance.choice((1, 1, 2, 3))):
        places = _places(changed)
        if not places:
            break
        inside, key = chance.choice(places)
        _EDITS_OF_JSON[chance.randrange(len(_EDITS_OF_JSON))](inside, key, chance, places)
    return changed


def _places(document: Json) -> list[tuple[Json, Any]]:
    """Every container of the document with each of its keys or indices."""
    found: list[tuple[Json, Any]] = []
    left = [document]
    while left:
        inside = left.pop()
        keys = list(inside) if isinstance(inside, dict) else range(len(inside)) if isinstance(inside, list) else []
        for key in keys:
            found.append((inside, key))
            left.append(inside[key])
    return found


def _replace(inside: Json, key: Any, chance: Random, places: list[tuple[Json, Any]]) -> None:
    inside[key] = chance.choice(HOSTILE_VALUES)


def _nudge(inside: Json, key: Any, chance: Random, places: list[tuple[Json, Any]]) -> None:
    value = inside[key]
    if isinstance(value, bool) or value is None:
        inside[key] = not value
    elif isinstance(value, int | float):
        inside[key] = chance.choice((value + 1, value - 1, -value, value * 1000, value / 3, str(value), [value]))
    elif isinstance(value, str):
        at = chance.randrange(len(value) + 1)
        inside[key] = value[:at] + chance.choice(("", "\0", "/", "..", "x", "0")) + value[at + 1 :]
    elif isinstance(value, list) and value:
        inside[key] = chance.choice((value[1:], value * 2, value[::-1], value[0]))


def _remove(inside: Json, key: Any, chance: Random, places: list[tuple[Json, Any]]) -> None:
    # An earlier edit may have taken it.
    if isinstance(inside, dict):
        inside.pop(key, None)
    elif key < len(inside):
        del inside[key]


def _add(inside: Json, key: Any, chance: Random, places: list[tuple[Json, Any]]) -> None:
    if isinstance(inside, dict):
        inside[chance.choice(("new", "", str(key) + "s"))] = chance.choice(HOSTILE_VALUES)
    else:
        inside.append(inside[key])


def _exchange(inside: Json, key: Any, chance: Random, places: list[tuple[Json, Any]]) -> None:
    other, its_key = chance.choice(places)
    # A copy: a container within itself could not be written.
    inside[key] = json.loads(json.dumps(other[its_key]))


_EDITS_OF_JSON: tuple[Callable[[Json, Any, Random, list[tuple[Json, Any]]], None], ...]
_EDITS_OF_JSON = (_replace, _replace, _nudge, _nudge, _nudge, _remove, _add, _exchange)


def json_bytes(document: Json) -> bytes:
    """The document as a file, with NaN and lone surrogates as JSON's Python dialect writes them."""
    return json.dumps(document).encode("utf-8")
