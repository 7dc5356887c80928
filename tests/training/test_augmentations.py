"""Each augmentation against its formula, and all of them by what the registry says."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import beta, kstest
from torch import Tensor

from penjing.errors import PenjingError
from penjing.training.augmentations import Augmented, augmentations, find


def random(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def images(count: int = 8, height: int = 12, width: int = 10) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(1)) * 3 + 1


@pytest.mark.parametrize("name", augmentations)
def test_an_augmentation_changes_a_copy_and_equal_random_numbers_give_equal_batches(name: str) -> None:
    given = (images(), images()[:, :1] + 5)
    kept = tuple(each.clone() for each in given)
    one, other, different = (find(name)(given, random(seed)) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(given, kept, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(one.inputs, other.inputs, strict=True)) and one.share == other.share
    assert not all(torch.equal(a, b) for a, b in zip(one.inputs, different.inputs, strict=True))
    assert [(each.shape, each.dtype) for each in one.inputs] == [(each.shape, each.dtype) for each in given]
    assert (one.partners is not None) == augmentations[name].mixes
    assert augmentations[name].summary and augmentations[name].source


def test_mixup_is_a_weighted_mean_with_another_sample() -> None:
    for seed in range(20):
        x = torch.randn(6, 4, generator=torch.Generator().manual_seed(seed))
        made = find("mixup:0.5")((x, images(6)), random(seed))
        assert made.partners is not None and sorted(made.partners.tolist()) == list(range(6)) and 0 <= made.share <= 1
        for sample, partner in enumerate(made.partners):
            torch.testing.assert_close(made.inputs[0][sample], made.share * x[sample] + (1 - made.share) * x[partner])
            torch.testing.assert_close(
                made.inputs[1][sample], made.share * images(6)[sample] + (1 - made.share) * images(6)[partner]
            )


def test_the_share_of_mixup_is_drawn_from_the_beta_distribution() -> None:
    shares = [find("mixup:0.3")((torch.ones(2, 1),), random(seed)).share for seed in range(500)]
    assert kstest(shares, beta(0.3, 0.3).cdf).pvalue > 0.01


def changed(made: Augmented, given: Tensor, at: int = 0) -> Tensor:
    """Returns where an image differs from the one that was given, (N, height, width)."""
    return (made.inputs[at] != given).any(1)


def is_rectangle(places: Tensor) -> bool:
    rows, columns = places.any(1), places.any(0)
    solid = all(bool((line.nonzero().diff(dim=0) == 1).all()) for line in (rows, columns))
    return solid and torch.equal(places, rows[:, None] & columns[None, :])


def test_cutmix_pastes_one_rectangle_and_counts_its_area() -> None:
    shares = []
    for seed in range(60):
        given = (images(), images()[:, :1] * 2)
        made = find("cutmix")(given, random(seed))
        assert made.partners is not None
        others = [each[made.partners] for each in given]
        pasted = (made.inputs[0] == others[0]).all(1) & (given[0] != others[0]).any(1)
        assert all(is_rectangle(places) for places in pasted)
        alone = pasted[made.partners != torch.arange(8)]
        assert all(torch.equal(places, alone[0]) for places in alone), "the same place in the whole batch"
        assert made.share == pytest.approx(1 - float(alone[0].float().mean()))
        assert torch.equal(changed(made, given[1], 1), pasted), "all inputs alike"
        shares.append(made.share)
    assert min(shares) < 0.5 and max(shares) > 0.95


def test_the_rectangle_of_cutmix_is_that_of_the_authors_code() -> None:
    class Told:
        """Gives λ, then the centre's row and column, and no order."""

        def beta(self, one: float, other: float) -> float:
            return 0.36

        def integers(self, size: int) -> int:
            return {12: 2, 10: 5}[size]

        def permutation(self, count: int) -> np.ndarray:
            return np.arange(count)[::-1].copy()

    made = find("cutmix")((images(),), Told())  # type: ignore[arg-type]
    # √0.64 = 0.8 of 12 and 10 are 9 and 8: rows 2 ± 4 cut to 0…6, columns 5 ± 4.
    expected = torch.zeros(12, 10, dtype=torch.bool)
    expected[0:6, 1:9] = True
    assert torch.equal(changed(made, images())[0], expected)
    assert made.share == pytest.approx(1 - 48 / 120)


def test_erasing_fills_rectangles_of_the_papers_sizes_with_values_of_the_images_range() -> None:
    given = images(400, 20, 20)
    made = find("erasing:1")((given,), random())
    places = changed(made, given)
    assert all(is_rectangle(one) for one in places)
    areas = places.float().mean((1, 2))
    assert (
        float(areas.min()) > 0.01 and float(areas.max()) < 0.45 and float(areas.mean()) == pytest.approx(0.2, abs=0.03)
    )
    aspects = places.any(2).sum(1) / places.any(1).sum(1)
    assert float(aspects.min()) < 0.5 and float(aspects.max()) > 2.5
    noise = made.inputs[0].movedim(1, -1)[places]
    low, high = given.amin((0, 2, 3)), given.amax((0, 2, 3))
    assert bool((noise >= low).all()) and bool((noise <= high).all())
    torch.testing.assert_close(noise.mean(0), (low + high) / 2, atol=0.1, rtol=0)
    torch.testing.assert_close(noise.std(0), (high - low) / 12**0.5, atol=0.1, rtol=0)


def test_erasing_leaves_the_rest_of_the_images_alone() -> None:
    given = images(400)
    share = changed(find("erasing:0.3")((given,), random()), given).flatten(1).any(1).float().mean()
    assert float(share) == pytest.approx(0.3, abs=0.08)
    line = torch.randn(3, 1, 1, 10_000)  # no rectangle fits
    assert torch.equal(find("erasing:1")((line,), random()).inputs[0], line)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("mixap", "Did you mean 'mixup'"),
        ("mixup:", "the α of the Beta"),
        ("mixup:0", "a number above 0"),
        ("cutmix:inf", "a number above 0"),
        ("cutmix:nan", "a number above 0"),
        ("erasing:1.5", "above 0 and at most 1"),
        ("erasing:often", "probability"),
    ],
)
def test_names_and_numbers_that_make_no_sense_are_refused(name: str, words: str) -> None:
    with pytest.raises(PenjingError, match=words):
        find(name)


@pytest.mark.parametrize(
    ("name", "inputs", "words"),
    [
        ("mixup", (torch.ones(4, 5, dtype=torch.int64),), r"numbers \(N, \.\.\.\).*\(4, 5\) int64: leave it out"),
        ("mixup", (torch.ones(4, 5), torch.ones(3, 5)), r"\(4, 5\) float32, \(3, 5\) float32"),
        ("mixup", (torch.ones(4), torch.ones(())), r"\(4,\) float32, \(\) float32"),
        ("cutmix", (torch.ones(4, 5),), r"images \(N, channels, height, width\)"),
        ("cutmix", (torch.ones(4, 3, 8, 8), torch.ones(4, 3, 8, 9)), r"\(4, 3, 8, 9\)"),
        ("erasing", (torch.ones(4, 3, 8),), r"'erasing:0\.5'|'erasing'.*\(4, 3, 8\)"),
    ],
)
def test_inputs_that_can_not_be_changed_so_are_told_with_their_shapes(name: str, inputs: Any, words: str) -> None:
    with pytest.raises(PenjingError, match=words):
        find(name)(inputs, random())
