"""Does what docs/howto/add-an-op.md says, with the code that stands there."""

import contextlib
import io
import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import penjing as pj
from penjing.errors import PenjingError
from penjing.graph.channels import rules

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "add-an-op.md"
OP = "my.scaled_norm.default"


@pytest.fixture(scope="module")
def blocks():
    return re.findall(r"```(\w*)\n(.*?)```", PAGE.read_text(), re.DOTALL)


@pytest.fixture(scope="module")
def models_block(blocks):
    """The names of the model's block, run once: an op that is collected takes a later one of its name with it."""
    names: dict = {}
    exec(blocks[0][1], names)
    return names


@pytest.fixture
def without_rule(models_block):
    """The model's names, before anybody wrote a rule for its op."""
    yield dict(models_block)
    for table in (rules.RULES, rules.RESIZES):
        table.pop(torch.ops.my.scaled_norm.default, None)


def test_without_a_rule_the_op_pins_and_is_named(without_rule):
    network, x = without_rule["model"]()
    graph = pj.capture(network, x)
    found = pj.channels(graph)
    assert not found.groups
    (pinned,) = [p for p in found.pinned if (p.tensor, p.axis) == ("up.weight", 0)]
    assert OP in pinned.op
    with pytest.raises(PenjingError, match=re.escape(OP)):
        pj.prune(graph, amount=0.5)


def test_with_the_pages_rule_pruning_goes_through_the_op(without_rule, blocks, tmp_path):
    names = without_rule
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        for kind, code in blocks[1:]:
            if kind == "python":
                exec(code, names)
    lines = printed.getvalue().splitlines()
    expected = next(code for kind, code in blocks if kind == "")
    assert lines == expected.splitlines()
    artifact = pj.lower(names["small"], target="torch", path=tmp_path / "small.pt2")
    torch.testing.assert_close(pj.targets.run(artifact, names["x"]), names["small"](names["x"]))
    with pytest.raises(PenjingError, match=re.escape(OP)):
        names["small"].save(tmp_path / "small.penjing")


def test_the_command_line_sees_a_rule_that_stands_beside_the_model(blocks, tmp_path):
    file = tmp_path / "my_model.py"
    file.write_text("\n".join(code for _, code in blocks[:2]))
    command = [sys.executable, "-m", "penjing", "channels", f"{file}:model", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    (group,) = json.loads(done.stdout)["groups"]
    assert (group["name"], group["units"]) == ("up", 32)
