"""What a command takes from the folder of a finished run."""

import json
from pathlib import Path

import pytest

from penjing.cli.remembered import data_of
from penjing.data import is_there, load
from report.report_samples import report


@pytest.fixture
def finished(tmp_path) -> Path:
    """A folder whose report says that the run took the digits, with seed 5."""
    (tmp_path / "report.json").write_text(json.dumps(report() | {"seed": 5, "data_source": "digits"}))
    return tmp_path


@pytest.mark.parametrize("spec", [None, "digits"])
def test_data_are_loaded_with_the_seed_of_the_run(finished, spec):
    assert data_of(finished, spec).identity() == load("digits", 5).identity()


def test_data_that_are_gone_are_told_from_those_that_are_there(tmp_path):
    (tmp_path / "photos").mkdir()
    assert is_there(f"folder:{tmp_path}/photos,size=32,mean=0.5") and is_there("digits") and is_there("net.py:data")
    assert not is_there(f"folder:{tmp_path}/gone,size=32") and not is_there(f"mnist:{tmp_path}/gone.npz")
