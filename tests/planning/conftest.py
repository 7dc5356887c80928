"""What tests of planning share."""

import pytest
from made_up_latency import learnt, made_up, solutions  # noqa: F401  fixtures of solvers' tests


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are measured for a choice of bits are timed for a moment: these tests ask for right choices, not sure times."""
    monkeypatch.setattr("penjing.planning.bit_costs.SECONDS", 0.2)
