"""Slimmable networks in folders: the widest graph, the norms of the other widths, and which channels each width keeps."""

import itertools
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
from msgspec import Meta
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from penjing import records, storage
from penjing.adaptive.slimmable import Slimmable
from penjing.errors import PenjingError
from penjing.files import atomic_path, atomic_write
from penjing.graph import channels
from penjing.pruning.ranking import Ranking

WEIGHTS, NORMS, CHANNELS = "widest.penjing", "norms.safetensors", "slimmable.json"


@dataclass(frozen=True)
class _Settings:
    """By which choices the units were put in order: what a plan's entry says of a pruning, but for how much stays."""

    granularity: records.Name
    criterion: records.Name
    allocation: records.Name
    include: list[str]
    exclude: list[str]
    batches: Annotated[int, Meta(ge=1)]
    seed: Annotated[int, Meta(ge=0)]
    units: Literal["auto", "heads", "features"]


@dataclass(frozen=True)
class _Content:
    """What `slimmable.json` holds.

    Attributes:
        slimmable: version of the format.
        widths: the shares of the channels, from narrow to wide.
        ranks: the units of each of the widest graph's groups, those that matter most first.
        counts: how many units of each group the narrow widths keep.
        settings: by which choices the units were put in order.
    """

    slimmable: Literal[1]
    widths: list[float]
    ranks: list[list[int]]
    counts: list[list[int]]
    settings: _Settings


def save(model: Slimmable, folder: Path) -> None:
    """Writes a folder; the file with the channels is the last.

    Raises:
        PenjingError: it can't be written.
    """
    settings = records.convert(model.settings, _Settings, "settings")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        storage.save(model.wide, folder / WEIGHTS)
        with atomic_path(folder / NORMS) as temporary:
            norms = {name: tensor.detach().cpu().contiguous() for name, tensor in model.slim.state_dict().items()}
            save_file(norms, temporary)
        content = asdict(_Content(1, list(model.widths), model.ranks, model.counts, settings))
        atomic_write(folder / CHANNELS, json.dumps(content) + "\n")
    except OSError as error:
        raise PenjingError(f"{folder} can't be written: {error.strerror or error}.") from error


def load(folder: Path) -> Slimmable:
    """Reads a folder that `save` wrote.

    Raises:
        PenjingError: it lacks a file, or one is damaged or belongs to another network.
    """
    for name in (WEIGHTS, NORMS, CHANNELS):
        if not (folder / name).is_file():
            raise PenjingError(f"{folder} holds no slimmable network: there is no file {name} in it.")
    try:
        content = records.convert(records.read(folder / CHANNELS), _Content)
        _check_widths(content.widths)
    except PenjingError as error:
        raise PenjingError(f"{folder / CHANNELS} can't be used: {error}") from error
    wide = storage.load(folder / WEIGHTS)
    settings = content.settings
    found = channels(wide, include=settings.include, exclude=settings.exclude, units=settings.units)
    sizes = [group.units for group in found.groups]
    fits = (
        sizes == [len(one) for one in content.ranks]
        and all(sorted(one) == list(range(len(one))) for one in content.ranks)
        and len(content.counts) == len(content.widths) - 1
        and all(len(one) == len(sizes) for one in content.counts)
        and all(kept >= 1 for one in content.counts for kept in one)
        and all(_grows(*pair) for pair in itertools.pairwise([*content.counts, sizes]))
    )
    if not fits:
        raise PenjingError(
            f"{folder / CHANNELS} doesn't belong to the network in {WEIGHTS}: its groups of channels differ."
        )
    orders = tuple(np.array(one) for one in content.ranks)
    model = Slimmable(wide, content.widths, Ranking(found, orders, asdict(settings)), content.counts)
    try:
        norms = load_file(folder / NORMS)
    except (SafetensorError, OSError) as error:
        raise PenjingError(f"{folder / NORMS} can't be read: {error}") from error
    own = model.slim.state_dict()
    if {name: (one.shape, one.dtype) for name, one in norms.items()} != {
        name: (one.shape, one.dtype) for name, one in own.items()
    }:
        raise PenjingError(f"{folder / NORMS} doesn't belong to the network in {WEIGHTS}: its norms differ.")
    with torch.no_grad():
        model.slim.load_state_dict(norms)
    return model


def _check_widths(widths: list[float]) -> None:
    """Raises if a stranger's widths aren't shares of the channels, from narrow to wide."""
    rises = all(one < other for one, other in itertools.pairwise(widths))
    if len(widths) < 2 or not rises or not all(0 < width <= 1 for width in widths):
        raise PenjingError(
            f"'widths' must be two shares of the channels or more, above 0 and at most 1, from narrow to wide, and is {widths}"
        )


def _grows(narrow: list[int], wide: list[int]) -> bool:
    """Tells whether a width keeps at least what the narrower one keeps of each group, and more of one."""
    return narrow != wide and all(one <= other for one, other in zip(narrow, wide, strict=True))
