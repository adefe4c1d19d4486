"""Mutations that know what they change: bytes, JSON, protobuf messages, headers of .npy, chunks of PNG, and bundles of
several files.
"""

from __future__ import annotations

import copy
import json
import re
import zlib
from collections.abc import Iterator
from random import Random
from typing import Any

EDGES = (0, 1, 0x7F, 0x80, 0xFF)
DIGITS = b'0123456789-.eE[]{}",:'
INTEGERS = (0, 1, -1, 2, 3, 7, 16, 255, 1 << 20, 1 << 31, (1 << 32) - 1, -(1 << 31), (1 << 63) - 1, -(1 << 63))
NUMBERS = (0.0, -0.0, 1.0, -1.0, 0.5, 1e-45, 3e38, -3e38, float("inf"), float("-inf"), float("nan"))
TEXTS = ("", "x", "a.b", "../secret", "/etc/passwd", "\0", "é" * 9, "0" * 400, "-1", "1e999", "%s{0}")
VALUES = (None, True, False, [], {}, [[[]]], [0], {"": 0}, 1 << 70, -(1 << 70), *INTEGERS, *NUMBERS, *TEXTS)
DTYPES = (
    "|O", "<U4", "|S3", "<c8", ">f4", "<f2", "<f8", "<f16", "|b1", "|u1", "<i8", "<u8", "|V8", "<M8[s]", "<m8", "f", "",
    "i4,f4", "O", "<f4,",
)  # fmt: skip


def of_bytes(data: bytes, rng: Random) -> bytes:
    """A few bytes changed, cut out, doubled or cut off; numbers and punctuation in texts; lengths in headers."""
    found = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        if not found:
            break
        at = rng.randrange(len(found)) if rng.random() < 0.4 else rng.randrange(min(len(found), 256))
        size = rng.randint(1, 8)
        match rng.randrange(14):
            case 0 | 7:
                found[at] = rng.randrange(256)
            case 1 | 8:
                found[at] ^= 1 << rng.randrange(8)
            case 2 | 9:
                found[at : at + size] = bytes([rng.choice(EDGES)] * size)
            case 3 | 10:
                del found[at : at + size * rng.choice([1, 1, 64])]
            case 4 | 11:
                found[at:at] = found[at : at + size]
            case 5 | 6 | 12:
                found[at] = rng.choice(DIGITS)
            case _:
                del found[at:]
    return bytes(found)


# --------------------------------------------------------------------------------------------------------------- JSON


def of_tree(tree: Any, rng: Random) -> Any:
    """A JSON value with one to three parts replaced, removed, renamed, repeated or exchanged for others."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        places = list(_places(tree))
        if not places:
            return rng.choice(VALUES)
        holder, key = rng.choice(places)
        kind = rng.randrange(8)
        if kind < 3:
            holder[key] = copy.deepcopy(rng.choice(VALUES))  # which a later change may reach
        elif kind == 3:
            other, place = rng.choice(places)
            holder[key] = copy.deepcopy(other[place])
        elif kind == 4:
            del holder[key]
        elif kind == 5 and isinstance(holder, list):
            holder[key:key] = [copy.deepcopy(holder[key])] * rng.choice((1, 1, 40))
        elif kind == 5:
            holder[rng.choice(TEXTS)] = holder.pop(key)
        elif isinstance(holder[key], int):
            holder[key] += rng.choice((-1, 1))
        elif isinstance(holder[key], str):
            holder[key] = of_bytes(holder[key].encode(), rng).decode(errors="replace")
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        yield tree, key
        yield from _places(tree[key])


def of_json(text: bytes, rng: Random) -> bytes:
    """As a tree mostly; else byte by byte, or nested beyond any depth."""
    kind = rng.randrange(20)
    if kind == 0:
        return b"[" * rng.choice((100, 5000, 200_000))
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        kind = 1
    return of_bytes(text, rng) if kind < 4 else json.dumps(of_tree(tree, rng)).encode()


# ------------------------------------------------------------------------------------------------------ kinds of files


def of_safetensors(data: bytes, rng: Random, key: str = "dtdfast") -> bytes:
    """The header, or the list of layers in it, as a tree; its length is then that of the new text mostly."""
    end = 8 + int.from_bytes(data[:8], "little")
    try:
        header = json.loads(data[8:end])
        inner = json.loads(header["__metadata__"][key])
    except (ValueError, LookupError, TypeError, RecursionError):
        return of_bytes(data, rng)
    match rng.randrange(8):
        case 0:
            return of_bytes(data, rng)
        case 1:
            return data[:end] + of_bytes(data[end:], rng)
        case 2 | 3:
            text = of_json(data[8:end], rng)
        case 4:
            header["__metadata__"][key] = of_json(header["__metadata__"][key].encode(), rng).decode(errors="replace")
            text = json.dumps(header).encode()
        case _:
            header["__metadata__"][key] = json.dumps(of_tree(inner, rng))
            text = json.dumps(header).encode()
    length = len(text) if rng.random() < 0.95 else rng.choice((0, len(text) + 1, 1 << 24, 1 << 40, (1 << 64) - 1))
    return length.to_bytes(8, "little") + text + data[end:]


def of_npy(data: bytes, rng: Random) -> bytes:
    """The dictionary of the header: its type, its shape, its order; lengths, versions and bytes."""
    end = 10 + int.from_bytes(data[8:10], "little")
    text = data[10:end].decode("latin1")
    match rng.randrange(8):
        case 0 | 1:
            return of_bytes(data, rng)
        case 2 | 3:
            text = re.sub(r"'descr': [^,]*", lambda _: f"'descr': {rng.choice(DTYPES)!r}", text)
        case 4 | 5:
            sizes = ", ".join(str(rng.choice((1, 2, 3, 4, *INTEGERS))) for _ in range(rng.randrange(6)))
            text = re.sub(r"'shape': \([^)]*\)", f"'shape': ({sizes}{',' if sizes else ''})", text)
        case 6:
            text = text.replace("False", rng.choice(("True", "None", "2", "'x'", "[]", "(" * 300)))
        case _:
            text = of_bytes(text.encode("latin1"), rng).decode("latin1")
    length = len(text) if rng.random() < 0.9 else rng.choice((0, 1, len(text) - 1, 65535))
    version = b"\x01\x00" if rng.random() < 0.95 else bytes([rng.randrange(5), rng.randrange(2)])
    return data[:6] + version + (length % 65536).to_bytes(2, "little") + text.encode("latin1") + data[end:]


def of_png(data: bytes, rng: Random) -> bytes:
    """A chunk changed, with the checksum that it then has."""
    if rng.random() < 0.3 or not data.startswith(b"\x89PNG"):
        return of_bytes(data, rng)
    chunks, at = [], 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + length]))
        at += 12 + length
    number = rng.randrange(len(chunks) or 1)
    match rng.randrange(4) if chunks else 3:
        case 0:
            chunks.insert(number, rng.choice(chunks))
        case 1:
            del chunks[number]
        case _ if chunks:
            chunks[number] = (chunks[number][0], of_bytes(chunks[number][1], rng))
    return data[:8] + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big") for kind, body in chunks
    )


# ------------------------------------------------------------------------------------------------------------- bundles


def bundled(files: dict[str, bytes]) -> bytes:
    """Several files as one text of bytes: of each a line with its name and length, and then its contents."""
    return b"".join(f"{name} {len(content)}\n".encode() + content for name, content in files.items())


def unbundled(data: bytes) -> dict[str, bytes]:
    """The files of a bundle, as far as it is one."""
    files = {}
    while found := re.match(rb"([\w.]+(?:/[\w.]+)*) (\d{1,8})\n", data):
        start, length = found.end(), int(found[2])
        name = found[1].decode()
        if ".." not in name:
            files[name] = data[start : start + length]
        data = data[start + length :]
    return files


def of_bundle(data: bytes, rng: Random) -> bytes:
    """One file changed, as JSON where it is; or removed, or exchanged for another."""
    files = unbundled(data)
    if not files:
        return data
    name = rng.choice(list(files))
    match rng.randrange(12):
        case 0:
            del files[name]
        case 1:
            files[name] = files[rng.choice(list(files))]
        case _:
            files[name] = (of_json if files[name].lstrip()[:1] == b"{" else of_bytes)(files[name], rng)
    return bundled(files)


# ------------------------------------------------------------------------------------------------------------ protobuf


def of_message(message: Any, rng: Random, texts: tuple[str, ...]) -> None:
    """One to three fields of a protobuf message, or of one within it, changed in place."""
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        held = list(_messages(message))
        one = rng.choice(held)
        fields = [f for f, _ in one.ListFields()] if rng.random() < 0.8 else list(one.DESCRIPTOR.fields)
        if fields:
            _change(one, rng.choice(fields), rng, (*texts, *TEXTS, *(v for m in held for v in _strings(m))), held)


def _change(one: Any, field: Any, rng: Random, names: tuple[str, ...], held: list[Any]) -> None:
    if _repeated(field):
        _change_items(getattr(one, field.name), field, rng, names, held)
    elif field.message_type is not None:
        same = [m for m in held if m.DESCRIPTOR is field.message_type]
        if same and rng.random() < 0.7:
            getattr(one, field.name).CopyFrom(copy.deepcopy(rng.choice(same)))
        else:
            one.ClearField(field.name)
    elif rng.random() < 0.15:
        one.ClearField(field.name)
    else:
        _put(lambda value: setattr(one, field.name, value), field, getattr(one, field.name), rng, names)


def _repeated(field: Any) -> bool:
    kind = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if kind is None else kind)


def _messages(message: Any) -> Iterator[Any]:
    yield message
    for field, value in message.ListFields():
        if field.message_type is not None:
            for one in value if _repeated(field) else [value]:
                yield from _messages(one)


def _strings(message: Any) -> Iterator[str]:
    for field, value in message.ListFields():
        if field.cpp_type == field.CPPTYPE_STRING and field.type == field.TYPE_STRING:
            yield from value if _repeated(field) else [value]


def _change_items(items: Any, field: Any, rng: Random, names: tuple[str, ...], held: list[Any]) -> None:
    kind = rng.randrange(4)
    if len(items) and kind == 0:
        del items[rng.randrange(len(items))]
    elif field.message_type is not None:
        same = [m for m in held if m.DESCRIPTOR is field.message_type]
        if same and kind == 1 and len(items):
            items[rng.randrange(len(items))].CopyFrom(copy.deepcopy(rng.choice(same)))
        elif same:
            items.append(copy.deepcopy(rng.choice(same)))
    elif len(items) and kind < 3:
        at = rng.randrange(len(items))
        _put(lambda value: items.__setitem__(at, value), field, items[at], rng, names)
    else:
        _put(items.append, field, items[0] if len(items) else None, rng, names)


def _put(put: Any, field: Any, old: Any, rng: Random, names: tuple[str, ...]) -> None:
    value: Any
    if field.type == field.TYPE_STRING:
        value = rng.choice(names)
    elif field.type == field.TYPE_BYTES:
        value = of_bytes(old or b"\0\1", rng)
    elif field.cpp_type in (field.CPPTYPE_DOUBLE, field.CPPTYPE_FLOAT):
        value = rng.choice(NUMBERS)
    elif field.enum_type is not None:
        value = rng.choice(field.enum_type.values).number
    elif old and rng.random() < 0.3:
        value = old + rng.choice((-1, 1))
    else:
        value = rng.choice(INTEGERS) if rng.random() < 0.6 else rng.randint(-1, 8)
    try:
        put(value)
    except (ValueError, OverflowError):  # beyond the field's type
        put(1 << 20)
