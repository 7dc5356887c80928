"""What every target must do, whichever runtime it is."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from penjing.capabilities import find
from penjing.data import Preprocess
from penjing.errors import PenjingError
from penjing.graph import capture
from penjing.targets import (
    available,
    check_parity,
    find_target,
    integer_macs,
    lower,
    measure,
    open_artifact,
    profile,
    run,
    session,
    targets,
    write_runner,
)

NAMES = sorted(targets)
MISSING = {row.name: row.note for row in available() if not row.usable}


@pytest.fixture(params=NAMES)
def target(request):
    if request.param in MISSING:
        pytest.skip(f"{request.param} isn't installed. {MISSING[request.param]}")
    return request.param


@pytest.fixture
def path(target, tmp_path):
    return tmp_path / f"model{find_target(target).suffix}"


def test_it_is_listed_as_usable(target):
    (row,) = [row for row in available() if row.name == target]
    assert row.usable and row.version
    assert find_target(target).name == target and find(target).name == target


def test_outputs_are_nested_as_the_models_at_any_batch(target, path, plain):
    artifact = lower(plain, target, path)
    assert artifact.path == path and artifact.target == target and artifact.size_bytes > 0
    assert sorted(path.parent.iterdir()) == sorted(artifact.files)
    for batch in (1, 3, 8):
        x = torch.randn(batch, 3, 12, 12)
        expected, actual = plain(x), run(artifact, x)
        assert set(actual) == {"logits", "features"}
        for name in expected:
            torch.testing.assert_close(actual[name], expected[name], rtol=1e-4, atol=1e-5)
    assert check_parity(artifact, plain).max_abs_error < 1e-4


class Mixed(nn.Module):
    """Tokens of any number and a float of the same length, one by position and one by name, and a constant."""

    def __init__(self):
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(20, 6), nn.LSTM(6, 5, batch_first=True), nn.Linear(5, 3)

    def forward(self, tokens, *, weights, scale=1.0):
        x = self.mix(self.embed(tokens) * weights[..., None])[0]
        return self.head(x) * scale, x


@pytest.fixture(scope="module")
def mixed():
    torch.manual_seed(0)
    free = {"tokens": (0, 1), "weights": (0, 1)}
    inputs = {"weights": torch.randn(2, 7), "scale": 2.0}
    return capture(Mixed().eval(), (torch.randint(20, (2, 7)),), kwargs=inputs, dynamic=free)


def test_free_axes_stay_free_and_integers_keep_their_range(target, path, mixed):
    if find_target(target).fixed_sizes:
        with pytest.raises(PenjingError, match="Axis 1 of input 'tokens' is free"):
            lower(mixed, target, path)
        return
    artifact = lower(mixed, target, path)
    assert [spec.shape for spec in artifact.inputs] == [(None, None)] * 2
    assert [spec.name for spec in artifact.inputs] == ["tokens", "weights"]
    assert [spec.ranges for spec in artifact.inputs] == [given.ranges for given in mixed.inputs]
    tokens, weights = torch.randint(20, (5, 11)), torch.randn(5, 11)
    for actual, expected in zip(run(artifact, tokens, weights), mixed(tokens, weights=weights, scale=2.0), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


def test_the_graph_stays_as_it_was(target, path, quantised):
    code = quantised.program.code
    state = {name: tensor.clone() for name, tensor in quantised.tensors().items()}
    lower(quantised, target, path)
    assert quantised.program.code == code
    assert all(torch.equal(tensor, state[name]) for name, tensor in quantised.tensors().items())


def test_a_quantised_graph_agrees_with_its_simulation(target, path, quantised):
    artifact = lower(quantised, target, path)
    parity = check_parity(artifact, quantised, quantised.example_inputs(64, seed=3))
    assert parity.top1_agreement >= 0.95 and parity.max_abs_error < 0.02
    assert 0 <= integer_macs(artifact, quantised.cost().macs) <= 1


def test_a_fixed_batch_stays_fixed_and_takes_any_number_of_samples(target, path):
    class Fixed(nn.Module):
        def forward(self, x):
            return x.reshape(3, 8).sum(1)

    artifact = lower(capture(Fixed(), torch.randn(3, 2, 4)), target, path)
    assert artifact.batch == 3
    x = torch.randn(7, 2, 4)
    torch.testing.assert_close(run(artifact, x), x.sum((1, 2)))


def test_the_profile_names_the_users_modules_and_counts_their_macs(target, path, plain):
    rows = [row for row in profile(lower(plain, target, path)) if row.macs]
    assert [row.module for row in rows] == ["conv", "head"]
    assert [row.macs for row in rows][1] == 8 * 4
    # A runtime whose clock has whole microseconds may see no time in the smallest of layers.
    assert all(row.latency_us >= 0 for row in rows) and rows[0].latency_us > 0


def test_time_and_memory_are_measured(target, path, plain):
    batch = 1 if find_target(target).fixed_sizes else 2
    found = measure(lower(plain, target, path), runs=3, seconds=0.1, batch=batch)
    assert found.batch == batch and 0 < found.latency_ms.median <= found.latency_ms.p90
    assert found.peak_memory_bytes > found.model_memory_bytes > 0
    assert found.runtime.startswith(target)


def test_a_file_is_opened_without_its_graph(target, path, plain):
    artifact = lower(plain, target, path)
    again = open_artifact(path, target)
    assert again == artifact
    x = torch.randn(3, 3, 12, 12)
    torch.testing.assert_close(session(again)(x), run(artifact, x), rtol=0, atol=0)


def test_what_is_no_such_file_is_refused(target, path, plain):
    with pytest.raises(PenjingError, match="no file"):
        open_artifact(path, target)
    for file in find_target(target).files(path):
        file.write_bytes(b"no model")
    with pytest.raises(PenjingError, match="can't load"):
        open_artifact(path, target)
    with pytest.raises(PenjingError, match="Can't write"):
        lower(plain, target, path / "inner")
    assert path.read_bytes() == b"no model"


def test_the_script_beside_a_file_is_clean_as_written(target, tmp_path):
    pytest.importorskip("ruff")
    script = write_runner(tmp_path, target)
    assert compile(script.read_text(), str(script), "exec") and "{%" not in script.read_text()
    settings = ["--config", str(Path(__file__).parents[2] / "pyproject.toml"), str(script)]
    for command in (["check"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *command, *settings], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def executed(script, *arguments):
    """Runs the script in a process in which importing Penjing fails."""
    start = (
        "import sys; sys.modules['penjing'] = None; sys.argv = sys.argv[1:]; import runpy; runpy.run_path(sys.argv[0], "
    )
    command = [sys.executable, "-c", start + "run_name='__main__')", str(script), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_script_takes_images_where_it_knows_how_and_names_classes_where_they_have_names(target, path, quantised):
    lower(quantised, target, path)
    script, image, classes = write_runner(path.parent, target), path.parent / "a.png", path.parent / "classes.txt"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8)).save(image)
    preprocess = Preprocess("RGB", None, None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).to_dict()
    (script.parent / "preprocess.json").write_text(json.dumps(preprocess))
    for names in ([], ["ant", "bee", "cat", "dog", "elk"]):
        if names:
            classes.write_text("\n".join(names) + "\n")
        done = executed(script, image)
        assert done.returncode == 0, done.stderr
        lines = [line.split() for line in done.stdout.splitlines()[1:]]
        assert {name for _, name in lines} == set(names or "01234")
        assert sum(float(share.rstrip("%")) for share, _ in lines) == pytest.approx(100, abs=0.5)
    (script.parent / "preprocess.json").write_text("null")
    done = executed(script, image)
    assert done.returncode == 1 and "preprocess.json doesn't say how an image becomes an input" in done.stderr


@pytest.mark.parametrize("integer", [False, True])
def test_the_script_beside_a_file_uses_it_without_penjing(target, path, quantised, integer):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 5))
    graph = capture(model, torch.randn(2, 3, 12, 12))
    artifact = lower(quantised if integer else graph, target, path)
    preprocess = Preprocess("RGB", None, None, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    (path.parent / "preprocess.json").write_text(json.dumps(preprocess.to_dict()))
    script = write_runner(path.parent, target)
    x = np.random.default_rng(0).standard_normal((70, *artifact.inputs[0].shape[1:]), np.float32)
    y = run(artifact, x).argmax(1).numpy()
    y[:7] = (y[:7] + 1) % 5
    np.savez(path.parent / "examples.npz", x=x, y=y)
    done = executed(script, path.parent / "examples.npz")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "accuracy 0.9000 (70 inputs)"
