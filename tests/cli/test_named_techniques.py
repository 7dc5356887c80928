"""Which techniques the options of `penjing compress` name."""

import pytest

from penjing.cli.compressing import TECHNIQUES, named_techniques
from penjing.errors import PenjingError


@pytest.mark.parametrize(
    ("techniques", "short", "named"),
    [
        (TECHNIQUES, (), ["prune", "quantize"]),
        (" factorize , quantize,", (), ["factorize", "quantize"]),
        (TECHNIQUES, ("quantize",), ["quantize"]),
        (TECHNIQUES, ("prune",), ["prune"]),
        ("prune", ("prune",), ["prune"]),
    ],
)
def test_techniques_are_named_in_full_or_by_a_short_form(techniques, short, named):
    assert named_techniques(techniques, {name: name in short for name in ("quantize", "prune")}) == named


@pytest.mark.parametrize(
    ("techniques", "short", "says"),
    [
        (TECHNIQUES, ("quantize", "prune"), "--quantize-only and --prune-only contradict"),
        ("factorize", ("prune",), "--prune-only and --techniques factorize contradict"),
    ],
)
def test_a_short_form_beside_something_else_is_refused(techniques, short, says):
    with pytest.raises(PenjingError, match=says):
        named_techniques(techniques, {name: name in short for name in ("quantize", "prune")})
