"""The compact file: a description, tensors and a plan as few bytes, and back, bit for bit.

    magic, version, checksum │ description (packed JSON) │ side (packed) │ blob │ coded words

docs/compact-format.md says what each holds. Whoever changes the layout raises VERSION, keeps reading what was written before,
and says so there.
"""

import json
import zlib
from typing import Any

from torch import Tensor

from penjing import records
from penjing.errors import PenjingError
from penjing.storage.compact._bytes import ByteReader, pack, varint
from penjing.storage.compact._coder import Source, coder_of, words_of
from penjing.storage.compact._tensors import check_size, code_tensors, decode_tensors, read_header

MAGIC = b"\x8fPJC\r\n\x1a"  # its line ends tell when a file was sent as text
VERSION = 1
LARGEST_TEXT = 16 * 2**20  # bytes of the description, and of the side, when unpacked
LARGEST_DEFAULT = 256 * 2**20
LARGEST_RATIO = 1024


def is_compact(head: bytes) -> bool:
    """Tells whether a file that begins with these bytes is a compact one."""
    return head.startswith(MAGIC)


def encode(description: dict[str, Any], tensors: dict[str, Tensor], plan: Any) -> bytes:
    """Returns the content of a compact file.

    Args:
        description: JSON, with `nodes`, `tensors`, `ties` and `masks` as in `graph.json`.
        tensors: by name, without ties; masks as `mask/NAME`.
        plan: JSON.

    Raises:
        PenjingError: a tensor has a dtype that the format has no place for, or the description is too large.
    """
    text = json.dumps({"graph": description, "plan": plan}, separators=(",", ":")).encode()
    names = _names(description)
    if sorted(names) != sorted(tensors):
        raise ValueError("the description names other tensors")
    whole = code_tensors({name: tensors[name] for name in names}, description["nodes"], description["ties"])
    if max(len(text), len(whole.side)) > LARGEST_TEXT:
        raise PenjingError(
            f"The graph's description is larger than the {LARGEST_TEXT} bytes that a compact file may hold; "
            "save it without compact=True."
        )
    body = b"".join(
        [
            varint(len(text)),
            pack(text, text=True),
            varint(len(whole.side)),
            pack(bytes(whole.side)),
            varint(len(whole.blob)),
            bytes(whole.blob),
            words_of(whole),
        ]
    )
    return MAGIC + bytes([VERSION]) + zlib.crc32(body).to_bytes(4, "little") + body


def decode(
    content: bytes, largest: int | None = None
) -> tuple[dict[str, Any], dict[str, Tensor], list[dict[str, Any]]]:
    """Returns description, tensors and plan of a compact file.

    Args:
        content: the file.
        largest: how many bytes its tensors and the workspace for decoding them may take; by default 256 MiB or 1,024 times
            the file, whichever is more.

    Raises:
        PenjingError: it is no whole compact file, or needs more.
    """
    reader = ByteReader(content)
    if bytes(reader.take(len(MAGIC))) != MAGIC:
        raise PenjingError("it is no compact .penjing file")
    version = reader.byte()
    if version != VERSION:
        raise PenjingError(
            f"its compact format has version {version}, not {VERSION}; a newer Penjing may have written it"
        )
    if int.from_bytes(reader.take(4), "little") != zlib.crc32(memoryview(content)[len(MAGIC) + 5 :]):
        raise PenjingError("its checksum is wrong: it was damaged or cut")
    described = records.parse(reader.unpack(_text_size(reader)), "its description")
    side = ByteReader(reader.unpack(_text_size(reader)))
    blob = ByteReader(bytes(reader.take(reader.varint())))
    words = reader.rest()
    if len(words) % 4:
        raise PenjingError("its coded values are damaged")
    description, plan = described["graph"], described["plan"]
    names = _names(description)
    headers = [read_header(side) for _ in names]
    check_size(headers, max(LARGEST_DEFAULT, LARGEST_RATIO * len(content)) if largest is None else largest)
    source = Source(side, blob, coder_of(words))
    tensors = decode_tensors(source, headers)
    source.finish()
    return description, dict(zip(names, tensors, strict=True)), plan


def _names(description: dict[str, Any]) -> list[str]:
    """Returns the names of the tensors that a file holds, in its order."""
    ties = description["ties"]
    names = [record["name"] for record in description["tensors"] if record["name"] not in ties]
    names += [f"mask/{name}" for name in description["masks"]]
    if len(set(names)) != len(names):
        raise PenjingError("two tensors in it have one name")
    return names


def _text_size(reader: ByteReader) -> int:
    size = reader.varint()
    if size > LARGEST_TEXT:
        raise PenjingError(f"a part of it is larger than {LARGEST_TEXT} bytes")
    return size
