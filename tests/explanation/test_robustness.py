"""Changed images: what each change does, how two networks are judged on them, and what is refused."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import penjing as pj
from penjing.errors import PenjingError
from penjing.explanation._corruptions import CORRUPTIONS
from penjing.explanation._robustness import _Changed

SEED = 3


def images(side=32, channels=3):
    return np.random.default_rng(0).uniform(0.2, 0.8, (4, side, side, channels)).astype(np.float32)


def changed(name, severity, pixels):
    return CORRUPTIONS[name](pixels, severity, np.random.default_rng(SEED))


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("side", [32, 64])
@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_change_grows_with_its_severity_and_stays_an_image(name, side, channels):
    pixels = images(side, channels)
    before = pixels.copy()
    found = [changed(name, severity, pixels) for severity in range(1, 6)]
    assert np.array_equal(pixels, before)
    assert all(one.shape == pixels.shape and one.min() >= 0 and one.max() <= 1 for one in found)
    far = [np.abs(one - pixels).mean() for one in found]
    assert far == sorted(far) and far[0] > 0


def test_noise_has_the_deviation_of_the_paper():
    grey = np.full((8, 64, 64, 3), 0.5, np.float32)
    assert changed("gaussian_noise", 2, grey).std() == pytest.approx(0.12, rel=0.02)
    assert changed("gaussian_noise", 2, grey[:, :32, :32]).std() == pytest.approx(0.06, rel=0.02)


def test_light_raises_the_value_and_keeps_hue_and_saturation():
    import colorsys

    pixel = np.array([0.2, 0.4, 0.6], np.float32).reshape(1, 1, 1, 3) * np.ones((1, 64, 64, 1), np.float32)
    hue, saturation, value = colorsys.rgb_to_hsv(0.2, 0.4, 0.6)
    expected = colorsys.hsv_to_rgb(hue, saturation, value + 0.2)
    assert changed("brightness", 2, pixel)[0, 0, 0] == pytest.approx(expected, abs=1e-6)
    black = np.zeros((1, 64, 64, 3), np.float32)
    assert changed("brightness", 2, black) == pytest.approx(0.2)


def test_less_contrast_keeps_the_mean_and_scales_the_deviation():
    pixels = images(64)
    found = changed("contrast", 1, pixels)
    assert found.mean((1, 2)) == pytest.approx(pixels.mean((1, 2)), abs=1e-5)
    assert found.std((1, 2)) == pytest.approx(0.4 * pixels.std((1, 2)), rel=1e-4)


def test_blur_keeps_a_flat_image_and_the_mean_of_others():
    flat = np.full((1, 32, 32, 3), 0.3, np.float32)
    assert changed("gaussian_blur", 5, flat) == pytest.approx(0.3, abs=1e-6)
    point = np.zeros((1, 33, 33, 1), np.float32)
    point[0, 16, 16] = 1
    assert changed("gaussian_blur", 5, point)[0, 16, 16, 0] == pytest.approx(1 / (2 * np.pi), rel=0.02)  # sigma is 1


def test_jpeg_is_what_pillow_writes_and_reads():
    pixels = images(32)
    stored = io.BytesIO()
    Image.fromarray((pixels[2] * 255).round().astype(np.uint8)).save(stored, "JPEG", quality=58)
    assert np.array_equal((changed("jpeg_compression", 3, pixels)[2] * 255).round(), np.asarray(Image.open(stored)))


class Liveliest(nn.Module):
    """Answers with the channel that varies most; `blind` to deviations below a bound."""

    def __init__(self, blind=0.0):
        super().__init__()
        self.blind = blind

    def forward(self, x):
        deviations = x.std((2, 3))
        return torch.where(deviations > self.blind, deviations, -1.0)


@pytest.fixture(scope="module")
def data():
    generator = torch.Generator().manual_seed(0)
    targets = torch.arange(90) % 3
    pixels = torch.rand(90, 3, 16, 16, generator=generator) - 0.5
    pixels *= 0.04
    pixels[torch.arange(90), targets] *= 10
    pixels += 0.5
    prepared = pj.data.Preprocess("RGB", None, None, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25))
    batches = [((pixels[at : at + 30] - 0.5) / 0.25, targets[at : at + 30]) for at in (0, 30, 60)]
    return pj.Data(None, None, batches, pj.tasks.Classification(3), "colours", preprocess=prepared)


def test_both_networks_are_judged_on_each_change_at_each_severity(data):
    found = pj.explain(Liveliest(), Liveliest(0.3), data, robustness=True).robustness
    assert [(row.corruption, row.severity) for row in found.rows[:4]] == [
        ("none", 0), ("gaussian_noise", 1), ("gaussian_noise", 3), ("gaussian_noise", 5),
    ]  # fmt: skip
    assert len(found.rows) == 1 + 3 * len(CORRUPTIONS) and found.rows[0].before == found.rows[0].after == 1
    weak = next(row for row in found.rows if (row.corruption, row.severity) == ("contrast", 5))
    assert weak.before > 0.9 and weak.after < 0.5, "the second network needs contrast"
    assert found.mean_falls[0] < found.mean_falls[1]


def test_what_is_told_names_the_largest_gap_and_is_json(data):
    found = pj.explain(Liveliest(), Liveliest(0.3), data, robustness=True)
    assert "the largest gap is under gaussian_blur of severity 3: 1.0000 before, 0.0000 after." in str(found)
    assert found.to_dict()["robustness"]["rows"][0]["corruption"] == "none"
    assert pj.explain(Liveliest(), Liveliest(), data).robustness is None


def test_both_networks_see_the_same_noise(data):
    loader = _Changed(data.validation, data.preprocess, CORRUPTIONS["gaussian_noise"], 5, seed=1)
    one, two = ([image for image, _ in loader] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))
    assert not torch.equal(one[0][0] - data.validation[0][0][0], one[1][0] - data.validation[1][0][0])


def test_data_that_are_no_labelled_images_are_refused(data):
    inputs = [(torch.randn(4, 3), torch.zeros(4, dtype=torch.long))]
    for other, words in (
        (replace(data, preprocess=None), "nothing says that the data 'colours' are some"),
        (replace(data, validation=inputs), "with 3 channels"),
        (replace(data, validation=None, calibration=data.validation), "on labelled validation data"),
        (replace(data, task=pj.tasks.Unlabelled()), "on labelled validation data"),
    ):
        with pytest.raises(PenjingError, match=words):
            pj.explain(Liveliest(), Liveliest(), other, robustness=True)
