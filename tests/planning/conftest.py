"""What tests of planning share."""

import pytest


@pytest.fixture(autouse=True)
def short_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files that are measured for a choice of bits are timed for a moment: these tests ask for right choices, not sure times."""
    monkeypatch.setattr("penjing.planning.bit_costs.SECONDS", 0.2)
