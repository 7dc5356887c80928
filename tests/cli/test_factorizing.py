"""What `--ranks` means: a rule, the ranks of all layers, or those of single layers."""

import pytest

from penjing.cli.factorizing import read_ranks
from penjing.errors import PenjingError


@pytest.mark.parametrize(
    ("given", "means"),
    [
        (["energy:0.9"], "energy:0.9"),
        (["16"], 16),
        (["24,32"], (24, 32)),
        (["24, 32"], (24, 32)),
        (["-3"], -3),  # which the verb refuses, with the valid range
        (["conv1=24,32", "head.fc=8"], {"conv1": (24, 32), "head.fc": 8}),
    ],
)
def test_ranks_are_read_as_the_verb_takes_them(given, means):
    assert read_ranks(given) == means


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (["16", "8"], "--ranks was given 2 times .16, 8.: give it once, or as LAYER=RANKS"),
        (["conv1=16", "8"], "--ranks '8' isn't LAYER=RANKS"),
        (["conv1=many"], "--ranks 'conv1=many' isn't LAYER=RANKS"),
        (["=8"], "--ranks '=8' isn't LAYER=RANKS"),
        (["a=8", "a=9"], "--ranks names the layer 'a' twice"),
    ],
)
def test_ranks_that_mean_nothing_are_refused(given, says):
    with pytest.raises(PenjingError, match=says):
        read_ranks(given)
