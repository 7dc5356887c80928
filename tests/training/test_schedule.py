import pytest
from hypothesis import given
from hypothesis import strategies as st

from penjing.training.schedule import warmup_cosine

shares = st.floats(0, 1)


def test_the_rate_rises_along_a_line_and_falls_along_half_a_cosine() -> None:
    assert warmup_cosine(0.05, warmup=0.1) == pytest.approx(0.5)
    assert warmup_cosine(0.1, warmup=0.1) == 1
    assert warmup_cosine(0.55, warmup=0.1) == pytest.approx(0.5)
    assert warmup_cosine(1.0, warmup=0.1) == pytest.approx(0)


def test_without_warmup_it_starts_at_the_peak() -> None:
    assert warmup_cosine(0.0, warmup=0.0) == 1


@given(shares, shares, st.floats(0, 0.9))
def test_it_stays_a_share_and_falls_after_the_warmup(one: float, other: float, warmup: float) -> None:
    assert 0 <= warmup_cosine(one, warmup) <= 1
    early, late = sorted((one, other))
    if early >= warmup:
        assert warmup_cosine(early, warmup) >= warmup_cosine(late, warmup)
