"""Does what docs/howto/quantise-a-mobile-network.md says, with the code that stands there."""

import contextlib
import io
import re
from pathlib import Path

import onnx
import pytest
import torch

from penjing.tasks import evaluate

PAGE = (Path(__file__).parents[2] / "docs" / "howto" / "quantise-a-mobile-network.md").read_text()
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture(scope="module")
def after(tmp_path_factory):
    """What the page's names mean after its code has run in an empty folder, and what it printed."""
    names = {}
    # The page's paths are relative. Its choices of bits are timed for a moment: it is right without sure times.
    with contextlib.chdir(tmp_path_factory.mktemp("page")), pytest.MonkeyPatch.context() as patch:
        patch.setattr("penjing.planning.bit_costs.SECONDS", 0.2)
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            for language, code in BLOCKS:
                if language == "python":
                    exec(code, names)
        yield names, printed.getvalue()


def test_the_page_prints_what_it_says(after):
    _, printed = after
    for language, code in BLOCKS:
        if not language:
            assert code in printed


def test_the_file_is_within_a_point_of_a_network_that_has_learned_something(after):
    names, _ = after
    assert names["before"] > 0.9
    assert names["after"] >= names["before"] - 0.01
    assert not names["in_float"]


def test_the_file_stores_bytes(after):
    names, _ = after
    model = onnx.load("model.onnx")
    stored = {tensor.data_type for tensor in model.graph.initializer if len(tensor.dims) > 1}
    assert stored == {onnx.TensorProto.INT8}
    assert names["files"]["int8"].size_bytes < names["files"]["float32"].size_bytes


def test_what_the_page_advises_helps_in_the_order_that_it_says(after):
    noise = after[0]["noise"]
    assert noise["the same, corrected"] > noise["int8, one scale per layer"] + 1
    assert noise["int4, AdaRound"] > noise["int4"]
    assert noise["int4, QuantEase"] > noise["int4"]


def test_the_layer_that_the_page_finds_is_the_one_to_repair(after):
    names, _ = after
    assert len(names["noise_of"]) == 6
    assert names["signal_to_noise"](names["repaired"]) > names["noise"]["int4"]


def test_mixed_bits_lie_between(after):
    names, _ = after
    noise, mixed = names["noise"], names["signal_to_noise"](names["mixed"])
    assert noise["int4"] + 1 < mixed < noise["int8"]
    assert {step.after for step in names["mixed"].plan} == {"int4", "int8"}


def test_training_on_takes_back_what_four_bits_lost(after):
    names, _ = after
    data = names["data"]
    assert evaluate(names["trained"], data.validation, data.task) > names["before"] - 0.02
    (images, _), *_ = data.validation
    with torch.no_grad():
        assert not torch.equal(names["trained"](images), names["graph"](images))
