"""The plain form of a `.penjing` file: a zip of `graph.json`, `weights.safetensors` and `plan.json`.

    graph.json            format version, signature, nodes [{name, op, target, args, kwargs, module, source, …}],
                          tensors [{name, parameter, trained, persistent}], ties, masks, outputs
    weights.safetensors   each tensor once, under its first name; masks as "mask/NAME"
    plan.json             what was done to the graph

Every size is checked before anything is unpacked. `compact` writes the same content entropy-coded into one stream instead.
"""

import json
import zipfile
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from penjing import records
from penjing.errors import PenjingError
from penjing.files import atomic_path

MEMBERS = ("graph.json", "weights.safetensors", "plan.json")
_ENCRYPTED = 0x1
_LOCAL_HEADER = 30  # bytes before a member's name and contents


def write(path: Path | str, description: dict[str, Any], tensors: dict[str, Tensor], plan: Any) -> None:
    """Writes the file, whole or not at all.

    Raises:
        PenjingError: a text is larger than a file may hold.
    """
    texts = {"graph.json": json.dumps(description), "plan.json": json.dumps(plan, indent=1)}
    for name, text in texts.items():
        records.check_size(text.encode(), name)
    with atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("graph.json", texts["graph.json"], zipfile.ZIP_DEFLATED)
        archive.writestr("weights.safetensors", save_tensors(tensors))
        archive.writestr("plan.json", texts["plan.json"])


def read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor], Any]:
    """Returns description, tensors and plan.

    Raises:
        PenjingError: the members aren't what they must be; what the zip, JSON or safetensors raise stands in `damage`.
    """
    with _opened(path) as archive:
        members = _checked(archive, path.stat().st_size)
        description = _read_json(archive, members["graph.json"])
        plan = _read_json(archive, members["plan.json"])
        tensors = load_tensors(_unpack(archive, members["weights.safetensors"]))
    for name, tensor in tensors.items():
        if tensor.dtype == torch.bool and tensor.numel() and int(tensor.view(torch.uint8).max()) > 1:
            raise PenjingError(f"a truth value in '{name}' is neither true nor false")
    return description, tensors, plan


def _opened(path: Path) -> zipfile.ZipFile:
    try:
        return zipfile.ZipFile(path)
    except zipfile.BadZipFile as error:  # its directory, which stands at the end, isn't there or isn't whole
        raise PenjingError("it was cut short, or is no .penjing file") from error


def _checked(archive: zipfile.ZipFile, size: int) -> dict[str, zipfile.ZipInfo]:
    """Returns the members of a zip that holds what it should, each in bytes of its own."""
    infos = archive.infolist()
    members = {info.filename: info for info in infos}
    if sorted(members) != sorted(MEMBERS) or len(infos) != len(MEMBERS):
        raise PenjingError(f"it must hold exactly {', '.join(MEMBERS)}")
    end = 0
    for info in sorted(infos, key=lambda one: one.header_offset):
        if info.header_offset < end:
            raise PenjingError(f"{info.filename} overlaps another member")
        end = info.header_offset + _LOCAL_HEADER + len(info.filename.encode()) + info.compress_size
        if end > size:
            raise PenjingError(f"{info.filename} claims to be larger than the file")
        if info.flag_bits & _ENCRYPTED:
            raise PenjingError(f"{info.filename} is encrypted")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise PenjingError(f"{info.filename} is packed in a way that this format never uses")
        if info.compress_type == zipfile.ZIP_STORED and info.file_size != info.compress_size:
            raise PenjingError(f"{info.filename} claims another size than it has")
    if members["weights.safetensors"].compress_type != zipfile.ZIP_STORED:
        raise PenjingError("weights.safetensors is compressed, which this format never does")
    for name in ("graph.json", "plan.json"):
        if members[name].file_size > records.LARGEST:
            raise PenjingError(f"{name} is larger than {records.LARGEST:,} bytes")
    return members


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """Returns a member's contents; never unpacks more than the size that was checked."""
    with archive.open(info) as stream:
        content = stream.read(info.file_size) if info.file_size else b""
        if len(content) != info.file_size or stream.read(1):  # the read behind the end checks the checksum
            raise PenjingError(f"{info.filename} has another size than it claims")
    return content


def _read_json(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Any:
    return records.parse(_unpack(archive, info), info.filename)
