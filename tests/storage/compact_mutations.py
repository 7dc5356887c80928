"""Takes compact files apart, changes them at random and puts them together again, with checksums and lengths that fit.

So a change reaches the code behind the checks. Used by test_compact_hostile.py, test_hostile_files.py and by
benchmarks/file_fuzz.py. plain_mutations.py does the same for plain files.
"""

import json
import zlib
from contextlib import suppress
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from graph_mutations import UNCHANGEABLE, Content, changed, to_json

from penjing.errors import PenjingError
from penjing.storage.compact import MAGIC
from penjing.storage.compact._bytes import STORED, ByteReader, pack, varint
from penjing.storage.compact._coder import words_of
from penjing.storage.compact._tensors import code_tensors

HEAD = len(MAGIC) + 5


@dataclass(frozen=True)
class Sections:
    """What a compact file holds, unpacked."""

    version: int
    text: bytes
    side: bytes
    blob: bytes
    words: bytes

    def build(self, claimed: int | None = None) -> bytes:
        """Returns the file; `claimed` stands where the unpacked length of the side belongs."""
        body = varint(len(self.text)) + pack(self.text)
        body += varint(len(self.side) if claimed is None else claimed) + pack(self.side)
        body += varint(len(self.blob)) + self.blob + self.words
        return sealed(body, self.version)


def sealed(body: bytes, version: int = 1) -> bytes:
    """Returns a file of that body with its checksum."""
    return MAGIC + bytes([version]) + zlib.crc32(body).to_bytes(4, "little") + body


def sections(content: bytes) -> Sections:
    """Takes a file apart."""
    reader = ByteReader(content[HEAD:])
    text, side = (reader.unpack(reader.varint()) for _ in range(2))
    blob = bytes(reader.take(reader.varint()))
    return Sections(content[HEAD - 5], text, side, blob, bytes(reader.rest()))


def build(content: Content) -> bytes:
    """Returns the compact file of a content. Its description isn't packed, which takes most of the time.

    Raises:
        PenjingError: the format has no place for one of the tensors.
    """
    description, ties, names = content.description, content.description["ties"], _names(content)
    whole = code_tensors({name: content.tensors[name] for name in names}, description["nodes"], ties)
    text = to_json({"graph": description, "plan": content.plan})
    body = varint(len(text)) + bytes([STORED]) + varint(len(text)) + text
    body += varint(len(whole.side)) + pack(bytes(whole.side)) + varint(len(whole.blob)) + bytes(whole.blob)
    return sealed(body + words_of(whole))


def _names(content: Content) -> list[str]:
    ties = content.description["ties"]
    names = [record["name"] for record in content.description["tensors"] if record["name"] not in ties]
    return names + [f"mask/{name}" for name in content.description["masks"]]


def mutate(content: bytes, random: Random) -> bytes:
    """Returns a file changed in one of the ways below."""
    return random.choice(_WAYS)(content, random)


def mutate_graph(content: Content, whole: bytes, random: Random, ops: tuple[str, ...] = ()) -> bytes:
    """Returns a file of what the content becomes by a change that knows what it means.

    Args:
        content: what stands in the unchanged file.
        whole: that file; its coded tensors are taken over where the change leaves them alone, since coding takes time.
        random: decides.
        ops: are put in more often than others.
    """
    while True:
        with suppress(PenjingError, AssertionError, *UNCHANGEABLE):
            other = changed(content, random, ops)
            same = all(other.tensors.get(name) is tensor for name, tensor in content.tensors.items())
            if same and _names(other) == _names(content):
                text = to_json({"graph": other.description, "plan": other.plan})
                return replace(sections(whole), text=text).build()
            return build(other)


def _bytes(content: bytes, random: Random) -> bytes:
    """Flips bits, sets bytes, cuts, inserts, repeats: one to four times."""
    changed = bytearray(content)
    for _ in range(random.randint(1, 4)):
        at = random.randrange(len(changed) + 1)
        kind = random.randrange(6)
        if kind == 0 and at < len(changed):
            changed[at] ^= 1 << random.randrange(8)
        elif kind == 1 and at < len(changed):
            changed[at] = random.choice((0, 1, 0x7F, 0x80, 0xFF, random.randrange(256)))
        elif kind == 2:
            del changed[at : at + random.choice((1, 2, 4, 64))]
        elif kind == 3:
            changed[at:at] = random.randbytes(random.choice((1, 2, 4, 64)))
        elif kind == 4:
            changed[at:at] = varint(random.choice((2**14, 2**31, 2**40, 2**62, random.getrandbits(63))))
        else:
            del changed[at:]
    return bytes(changed)


def _unsealed(content: bytes, random: Random) -> bytes:
    return _bytes(content, random)


def _packed(content: bytes, random: Random) -> bytes:
    return sealed(_bytes(content[HEAD:], random))


def _section(name: str) -> Any:
    def change(content: bytes, random: Random) -> bytes:
        parts = sections(content)
        return replace(parts, **{name: _bytes(getattr(parts, name), random)}).build()

    return change


def _words(content: bytes, random: Random) -> bytes:
    """Keeps the words whole, so that they are decoded."""
    parts = sections(content)
    changed = _bytes(parts.words, random)
    return replace(parts, words=changed[: len(changed) // 4 * 4]).build()


def _claimed(content: bytes, random: Random) -> bytes:
    return sections(content).build(claimed=random.choice((0, 1, 2**20, 2**24, 2**24 + 1, 2**60)))


def _json(content: bytes, random: Random) -> bytes:
    """Puts another value somewhere into the description."""
    parts = sections(content)
    described = json.loads(parts.text)
    places: list[tuple[Any, Any]] = []
    stack = [described]
    while stack:
        value = stack.pop()
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            places.append((value, key))
            if isinstance(inner, dict | list):
                stack.append(inner)
    for _ in range(random.randint(1, 3)):
        holder, key = random.choice(places)
        other, its = random.choice(places)
        holder[key] = random.choice(
            (
                None,
                True,
                -1,
                2**40,
                1e308,
                "",
                "fc1.weight",
                [],
                {},
                [[]],
                {"node": "x"},
                json.loads(json.dumps(other[its])),
            )
        )
    return replace(parts, text=json.dumps(described).encode()).build()


_WAYS = (
    _unsealed,
    _packed,
    _section("side"),
    _section("side"),
    _section("blob"),
    _words,
    _claimed,
    _section("text"),
    _json,
)
