import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from penjing.data._augment import PaddedCrop, RandomResizedCrop, random_flip, random_shift


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_each_image_is_moved_on_its_own_and_within_the_limit():
    images = torch.zeros(500, 2, 9, 9, dtype=torch.uint8)
    images[:, 0, 4, 4], images[:, 1, 4, 4] = 1, 2
    moved = random_shift(images, 3, generator())
    positions = moved[:, 0].nonzero()[:, 1:]
    assert moved.shape == images.shape and len(positions) == 500
    assert torch.equal(moved[:, 1], 2 * moved[:, 0])  # both channels move together
    assert positions.min() == 1 and positions.max() == 7
    assert len(positions.unique(dim=0)) == 49


def test_half_of_the_images_are_mirrored():
    images = torch.arange(4, dtype=torch.uint8).expand(1000, 1, 1, 4)
    flipped = random_flip(images, generator())
    mirrored = (flipped[:, 0, 0, 0] == 3).sum()
    assert 430 < mirrored < 570
    assert torch.equal(flipped.sort(-1).values, images)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 60), st.integers(1, 60), st.integers(1, 40), st.integers(0, 1000))
def test_random_resized_crops_have_the_size_and_stay_inside(width, height, size, seed):
    image = Image.new("RGB", (width, height), (9, 8, 7))
    out = np.asarray(RandomResizedCrop(size, flip=True)(image, np.random.default_rng(seed)))
    assert out.shape == (size, size, 3)
    assert (out == (9, 8, 7)).all()  # nothing black came in from outside


def test_padded_crops_move_and_mirror():
    image = Image.fromarray(np.arange(1, 26, dtype=np.uint8).reshape(5, 5))
    seen = set()
    for seed in range(200):
        out = PaddedCrop(1, flip=True)(image, np.random.default_rng(seed))
        assert out.size == (5, 5)
        seen.add(np.asarray(out).tobytes())
    assert len(seen) == 18  # nine places, each of them mirrored or not
