import json

import numpy as np
import pytest
import torch
from PIL import Image

from penjing.data import Preprocess
from penjing.data._preprocess import IMAGENET_MEAN, IMAGENET_STD
from penjing.errors import PenjingError

RANDOM = np.random.default_rng(0)
PLAIN = Preprocess("RGB", None, None, (0.0,) * 3, (1.0,) * 3)
GREY = Preprocess("L", None, None, (0.0,), (1.0,))


def photo(height, width):
    return Image.fromarray(RANDOM.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_values_are_scaled_and_normalised_channel_by_channel():
    image = photo(5, 7)
    x = Preprocess("RGB", None, None, IMAGENET_MEAN, IMAGENET_STD)(image)
    assert x.shape == (3, 5, 7) and x.dtype == torch.float32
    expected = (np.asarray(image) / 255 - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(x.numpy(), expected.transpose(2, 0, 1), atol=1e-6)


@pytest.mark.parametrize(("height", "width"), [(300, 400), (400, 300), (256, 256), (100, 1000), (31, 33)])
def test_the_short_side_is_resized_and_the_centre_kept(height, width):
    image = photo(height, width)
    x = Preprocess("RGB", 256, (224, 224), (0.0,) * 3, (1.0,) * 3)(image)
    scale = 256 / min(height, width)
    resized = image.resize((max(256, int(width * scale)), max(256, int(height * scale))), Image.Resampling.BILINEAR)
    left, top = (resized.width - 224) // 2, (resized.height - 224) // 2
    pixels = np.asarray(resized).astype(np.float32) / 255
    near = [
        np.abs(pixels[top + a : top + a + 224, left + b : left + b + 224] - x.numpy().transpose(1, 2, 0)).max()
        for a in (0, 1)
        for b in (0, 1)
        if top + a + 224 <= resized.height and left + b + 224 <= resized.width
    ]
    assert min(near) == 0  # odd margins may round either way


def test_batches_in_memory_are_normalised_bit_for_bit_alike():
    preprocess = Preprocess("RGB", None, None, IMAGENET_MEAN, IMAGENET_STD)
    images = [photo(8, 8) for _ in range(4)]
    batch = torch.from_numpy(np.stack([np.asarray(image) for image in images])).permute(0, 3, 1, 2)
    assert torch.equal(preprocess.normalise(batch), torch.stack([preprocess(image) for image in images]))


def test_it_survives_json():
    preprocess = Preprocess("RGB", 256, (224, 192), IMAGENET_MEAN, IMAGENET_STD)
    assert Preprocess.from_dict(json.loads(json.dumps(preprocess.to_dict()))) == preprocess
    assert Preprocess.from_dict(json.loads(json.dumps(GREY.to_dict()))) == GREY


def test_sixteen_bit_grey_is_scaled_not_clipped():
    image = Image.fromarray(np.full((2, 2), 32896, np.uint16))
    assert image.mode.startswith("I")
    torch.testing.assert_close(GREY(image), torch.full((1, 2, 2), 128 / 255))
    torch.testing.assert_close(PLAIN(image), torch.full((3, 2, 2), 128 / 255))


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGBA", "LA", "CMYK", "YCbCr", "HSV"])
def test_every_mode_becomes_the_one_asked_for(mode):
    red = Image.new("RGB", (4, 4), (255, 0, 0)).convert("LA" if mode == "LA" else mode)
    assert PLAIN(red).shape == (3, 4, 4)
    assert GREY(red).shape == (1, 4, 4)
    if mode not in ("1", "L", "LA"):
        torch.testing.assert_close(PLAIN(red)[:, 0, 0], torch.tensor([1.0, 0, 0]), atol=0.02, rtol=0)


def test_a_palette_with_transparency_keeps_its_colours():
    image = Image.new("P", (2, 2))
    image.putpalette([0, 0, 0, 0, 255, 0])
    image.paste(1, (0, 0, 2, 2))
    image.info["transparency"] = b"\x00\x80"
    torch.testing.assert_close(PLAIN(image)[:, 0, 0], torch.tensor([0.0, 1.0, 0.0]))


def test_exif_rotation_is_applied():
    image = photo(4, 6)
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = image.copy()
    turned.info["exif"] = exif.tobytes()
    turned.getexif()[0x0112] = 6
    assert torch.equal(PLAIN(turned), PLAIN(image.transpose(Image.Transpose.ROTATE_270)))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"mode": "CMYK"}, "CMYK"),
        ({"mean": (0.5,)}, "3 values"),
        ({"std": (1.0, 0.0, 1.0)}, "above 0"),
        ({"resize": 0}, "resize=0: it must be a whole number"),
        ({"resize": 100_000}, "resize=100000: it must be a whole number"),
        ({"crop": (8193, 8192)}, "pixels"),
        ({"mean": (0.5, 0.5, float("nan"))}, r"'preprocess\.mean\[2\]' is nan"),
        ({"mode": 3}, r"'preprocess\.mode' must be a string, and is 3"),
        ({"crop": (0, 5)}, "pixels"),
        ({"color": 1}, "unknown key 'color'; known are mode, resize"),
    ],
)
def test_what_can_never_be_applied_is_refused(change, says):
    with pytest.raises(PenjingError, match=says):
        Preprocess.from_dict(PLAIN.to_dict() | change)
