"""Changes plain `.penjing` files at random, from the bytes of the zip up to what the graph computes.

Used by test_hostile_files.py and by benchmarks/file_fuzz.py. compact_mutations.py does the same for compact files.
"""

import copy
import io
import json
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from random import Random
from typing import Any

from graph_mutations import BEYOND, SIZES, STRINGS, UNCHANGEABLE, Content, changed, to_json
from safetensors.torch import save as save_tensors

MEMBERS = ("graph.json", "weights.safetensors", "plan.json")
EMPTY = zlib.compress(b"", wbits=-15)


def build(content: Content) -> bytes:
    """Returns the plain file of a content."""
    return _zip(_members(content))


def mutate(content: Content, random: Random, ops: tuple[str, ...] = ()) -> bytes:
    """Returns a plain file, changed in one of the ways below; `ops` are put in more often than others."""
    while True:
        with suppress(*UNCHANGEABLE):
            if random.random() < 0.7:
                return build(changed(content, random, ops))
            return random.choice(_WAYS)(_members(content), random)


def _members(content: Content) -> dict[str, bytes]:
    contents = to_json(content.description), save_tensors(content.tensors), to_json(content.plan)
    return dict(zip(MEMBERS, contents, strict=True))


def _zip(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content, zipfile.ZIP_DEFLATED if name == "graph.json" else zipfile.ZIP_STORED)
    return buffer.getvalue()


# The container


def _bytes(members: dict[str, bytes], random: Random) -> bytes:
    """Flips bits, sets bytes, cuts, inserts, repeats: one to four times."""
    content = bytearray(_zip(members))
    for _ in range(random.randint(1, 4)):
        if not content:
            break
        at, way = random.randrange(len(content)), random.randrange(5)
        if way == 0:
            content[at] ^= 1 << random.randrange(8)
        elif way == 1:
            content[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF))
        elif way == 2:
            del content[at : at + random.choice((1, 4, 64, 2**20))]
        elif way == 3:
            content[at:at] = random.randbytes(random.choice((1, 4, 64)))
        else:
            content[at:at] = content[: random.choice((22, 64, 2**20))]
    return bytes(content)


# Signature, size, and the fields of each record of a zip: where each begins, and how many bytes it has.
_RECORDS = {
    b"PK\3\4": (30, ((4, 2), (6, 2), (8, 2), (10, 4), (14, 4), (18, 4), (22, 4), (26, 2), (28, 2))),
    b"PK\1\2": (46, ((6, 2), (8, 2), (10, 2), (16, 4), (20, 4), (24, 4), (28, 2), (30, 2), (32, 2), (34, 2), (42, 4))),
    b"PK\5\6": (22, ((4, 2), (6, 2), (8, 2), (10, 2), (12, 4), (16, 4), (20, 2))),
}


def _fields(members: dict[str, bytes], random: Random) -> bytes:
    """Puts other numbers into the headers: sizes, offsets (so that members overlap), methods, flags, checksums."""
    content = bytearray(_zip(members))
    found = []
    for signature, (size, fields) in _RECORDS.items():
        at = content.find(signature)
        while at >= 0:
            found += [(at + begin, width) for begin, width in fields if at + size <= len(content)]
            at = content.find(signature, at + 1)
    for _ in range(random.choice((1, 1, 2, 3))):
        (at, width), (other, _) = random.choice(found), random.choice(found)
        old = int.from_bytes(content[at : at + width], "little")
        near = int.from_bytes(content[other : other + width], "little")
        value = random.choice(
            (0, 1, 8, 12, 14, 0xFFFF, 0xFFFFFFFF, len(content), old + 1, old - 1, old ^ 1, near, near)
        )
        content[at : at + width] = (value % 256**width).to_bytes(width, "little")
    return bytes(content)


def _archive(members: dict[str, bytes], random: Random) -> bytes:
    """Writes a zip with members that are doubled, missing, foreign, packed otherwise or behind something else."""
    buffer = io.BytesIO()
    buffer.write(random.choice((b"", b"", b"#!/bin/sh\n", _zip(members))))
    names = list(members)
    way = random.randrange(5)
    if way == 0:
        names.append(random.choice(names))
    elif way == 1:
        names.remove(random.choice(names))
    elif way == 2:
        names.append(random.choice(("../m.penjing", "/etc/passwd", "graph.json/", "graph.json\0", " ", "a" * 60_000)))
    elif way == 3:
        random.shuffle(names)
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "a") as archive:
        warnings.simplefilter("ignore")  # a member of one name was written twice: that is what is wanted
        for name in names:
            archive.writestr(name, members.get(name, b""), random.choice(methods))
        archive.comment = random.randbytes(random.choice((0, 0, 5, 60_000)))
    return buffer.getvalue()


@cache
def _packed(unit: bytes, size: int) -> tuple[bytes, int]:
    """Returns `size` bytes of a repeated unit, deflated, and their checksum."""
    packer, check, made = zlib.compressobj(6, wbits=-15), 0, b""
    piece = unit * (2**20 // len(unit))
    for _ in range(size // 2**20):
        made, check = made + packer.compress(piece), zlib.crc32(piece, check)
    return made + packer.flush(), check


def _bomb(members: dict[str, bytes], random: Random) -> bytes:
    """Puts megabytes of repeated text, packed to kilobytes, in the place of a member."""
    name = random.choice(("graph.json", "graph.json", "plan.json", "weights.safetensors"))
    unit = random.choice((b" ", b"[", b"1", b"[],", b'"a":{},', b"\0"))
    size = random.choice((2**20, 16 * 2**20, 255 * 2**20) if random.random() < 0.2 else (2**20, 4 * 2**20))
    packed, check = _packed(unit, size)
    claimed = random.choice((size, size, 100, 2**31))
    buffer, central = bytearray(), bytearray()
    for member in MEMBERS:
        plain = members[member]
        method, content, total, crc = 0, plain, len(plain), zlib.crc32(plain)
        if member == name:
            method, content, total, crc = 8, packed, claimed, check
        at, encoded = len(buffer), member.encode()
        common = struct.pack("<HHHIIIIHH", 20, 0, method, 0x210000, crc, len(content), total, len(encoded), 0)
        buffer += b"PK\3\4" + common + encoded + content
        central += b"PK\1\2\x14\0" + common + struct.pack("<HHHII", 0, 0, 0, 0, at) + encoded
    end = struct.pack("<HHHHIIH", 0, 0, len(MEMBERS), len(MEMBERS), len(central), len(buffer), 0)
    return bytes(buffer + central + b"PK\5\6" + end)


# The tensors' header

_TYPES = ("F64", "F32", "F16", "BF16", "I64", "I32", "I16", "I8", "U8", "U64", "BOOL", "F8_E4M3", "C64", "F4", "X", "")


def _header(members: dict[str, bytes], random: Random) -> bytes:
    """Changes offsets, shapes, dtypes, names, lengths in the header of the tensors' file."""
    whole = members["weights.safetensors"]
    length = int.from_bytes(whole[:8], "little")
    header, data = json.loads(whole[8 : 8 + length]), whole[8 + length :]
    for _ in range(random.choice((1, 1, 2))):
        header, data = _other_header(header, data, random)
    text = header if isinstance(header, bytes) else to_json(header) + b" " * random.choice((0, 0, 1, 7))
    claimed = (
        len(text) if random.random() < 0.85 else random.choice((0, 1, len(text) - 1, len(whole), 2**40, 2**64 - 1))
    )
    return _zip({**members, "weights.safetensors": claimed.to_bytes(8, "little") + text + data})


def _other_header(header: Any, data: bytes, random: Random) -> tuple[Any, bytes]:
    if not isinstance(header, dict) or not header:
        return header, data
    names = list(header)
    record, other = header[random.choice(names)], copy.deepcopy(header[random.choice(names)])
    numbers = (*SIZES, *BEYOND, 1.5, "4", None, len(data), len(data) + 1)
    way = random.randrange(9)
    if way == 0:
        record["data_offsets"][random.randrange(2)] = random.choice(numbers)
    elif way == 1:
        record["data_offsets"] = other["data_offsets"]
    elif way == 2:
        record["shape"] = [random.choice(numbers) for _ in range(random.choice((0, 1, 2, 70)))]
    elif way == 3:
        record["shape"] = random.choice((other["shape"], [*record["shape"], 1], [0, *record["shape"]], "x", None))
    elif way == 4:
        record["dtype"] = random.choice(_TYPES)
    elif way == 5:
        header[random.choice((*STRINGS, "__metadata__"))] = other
    elif way == 6:
        return {**header, "__metadata__": random.choice(({"a": 1}, {"a": "b"}, [], "x", {"a": "b" * 10_000}))}, data
    elif way == 7:
        return header, random.choice((data[:-1], data + b"\0", b"", data * 2, data + random.randbytes(64)))
    else:
        twice = to_json(header)[:-1] + b"," + to_json({random.choice(names): other})[1:]
        return random.choice((twice, b"[" * 5000, b"{" * 5000, b"\xff", to_json(header)[:-1], b"null")), data
    return header, data


Way = Callable[[dict[str, bytes], Random], bytes]
_WAYS: tuple[Way, ...] = (*(_bytes,) * 3, *(_fields,) * 4, *(_archive,) * 2, _bomb, *(_header,) * 5)
