"""One sample as people can look at it: a small image, or a line of text."""

import base64
import io
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from penjing.data import Data
from penjing.errors import PenjingError
from penjing.raised import raised
from penjing.tasks import first_tensor

SIDE = 80  # pixels of a thumbnail's longer side, at most
SMALL = 40  # pixels up to which PNG, which loses nothing, is the smaller file
LETTERS = 240  # of a text
NUMBERS = 12  # of a sample that is neither image nor text


def shown(sample: tuple[Tensor, ...], data: Data) -> dict[str, str]:
    """Returns `{"image": URI}` or `{"text": text}` for the inputs of one sample, each without the axis of samples.

    Raises:
        PenjingError: `data.show` raised an error, or gave neither.
    """
    if data.show is not None:
        return _as_user_says(sample, data)
    first = first_tensor(sample).detach().cpu()
    if first.ndim == 3 and first.shape[0] in (1, 3) and first.is_floating_point():
        return {"image": _uri(_image(first, data))}
    values = " ".join(f"{value:.4g}" for value in first.flatten()[:NUMBERS].tolist())
    return {"text": values + (" …" if first.numel() > NUMBERS else "")}


def _as_user_says(sample: tuple[Tensor, ...], data: Data) -> dict[str, str]:
    assert data.show is not None
    try:
        found: Any = data.show(*sample)
    except Exception as error:
        raise raised("data.show, asked to show a sample, raised", error) from error
    if isinstance(found, Image.Image):
        return {"image": _uri(found.convert("RGB"))}
    if isinstance(found, str):
        return {"text": found if len(found) <= LETTERS else f"{found[:LETTERS]}…"}
    raise PenjingError(f"data.show must give a text or a PIL image for a sample's inputs, not {type(found).__name__}.")


def _image(pixels: Tensor, data: Data) -> Image.Image:
    """Returns an input `(1 or 3, H, W)` as an image: its normalisation undone, or its values spread over all greys."""
    values = pixels.float().nan_to_num(0.0)
    known = data.preprocess
    if known is not None and len(known.mean) == len(values):
        values = values * torch.tensor(known.std).view(-1, 1, 1) + torch.tensor(known.mean).view(-1, 1, 1)
    else:
        least, most = float(values.min()), float(values.max())
        values = (values - least) / ((most - least) or 1.0)
    plain = (values.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    return Image.fromarray(plain[:, :, 0] if plain.shape[2] == 1 else plain)


def _uri(image: Image.Image) -> str:
    image.thumbnail((SIDE, SIDE))
    small = max(image.size) <= SMALL
    content = io.BytesIO()
    image.save(content, **({"format": "PNG"} if small else {"format": "JPEG", "quality": 80}))
    kind = "png" if small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(content.getvalue()).decode()}"
