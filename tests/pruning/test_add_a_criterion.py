"""Does what docs/howto/add-a-criterion.md says, with the code that stands there."""

import contextlib
import io
import json
import re
from pathlib import Path

import pytest
import torch

import penjing as pj
from penjing.cli.looking import list_command
from penjing.errors import PenjingError
from penjing.pruning import criteria

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "add-a-criterion.md"


@pytest.fixture(scope="module")
def blocks():
    return re.findall(r"```(\w*)\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture
def registered(blocks):
    """Runs the two criteria's blocks; afterwards they are no longer registered."""
    before, names = set(criteria), {}
    for _, code in blocks[:2]:
        exec(code, names)
    yield names
    for name in set(criteria) - before:
        del criteria._entries[name]


def test_the_pages_criteria_prune_as_it_says(registered, blocks):
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        exec(blocks[2][1], registered)
    assert printed.getvalue() == blocks[3][1]


def test_the_pages_criteria_follow_their_formulas(registered, chain, chain_model, data):
    found = criteria["relative_importance"].function(
        registered["Evidence"](chain, (), None, 1, 0, weights=("head.weight",))
    )
    size = chain.tensor("head.weight").abs()
    for o, i in [(0, 0), (2, 5)]:
        expected = size[o, i] / size[o].sum() + size[o, i] / size[:, i].sum()
        torch.testing.assert_close(found["head.weight"][o, i], expected.detach())
    small = pj.prune(chain, 0.5, criterion="activation_std", data=data, include=["conv1"])
    with torch.no_grad():
        maps = [torch.relu(chain_model.bn1(chain_model.conv1(batch[0]))) for batch in data.calibration]
    spread = torch.stack([one.transpose(0, 1).flatten(1).std(1) for one in maps]).mean(0)
    kept = spread.argsort()[3:].sort().values
    assert torch.equal(small.tensor("conv1.weight"), chain.tensor("conv1.weight")[kept])


def test_what_the_pages_criteria_need_is_asked_for_and_listed(registered, chain, capsys):
    with pytest.raises(PenjingError, match="'activation_std' needs data"):
        pj.prune(chain, 0.5, criterion="activation_std")
    with pytest.raises(PenjingError, match=r"'activation_std' scores single channels.*relative_importance"):
        pj.prune(chain, 0.5, criterion="activation_std", granularity="element", data=pj.data.digits())
    list_command("criteria", as_json=True)
    listed = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)["criteria"]}
    assert listed["activation_std"]["needs"] == ["data"]
    assert listed["relative_importance"]["summary"].startswith("Relative importance: |w|")
