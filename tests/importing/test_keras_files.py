"""`.keras` files that a stranger could send: each is refused before Keras makes what it asks for."""

import json
import os
import zipfile

import pytest
import torch

import penjing as pj
from penjing.errors import PenjingError

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="Keras isn't installed: pip install penjing[keras]")

from keras import layers  # noqa: E402


def network():
    keras.utils.set_random_seed(0)
    kernel = {"kernel_regularizer": "l2", "kernel_constraint": "max_norm", "kernel_initializer": "he_normal"}
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(4, **kernel)], name="inner")
    inner.compile("adam", keras.losses.MeanSquaredError())
    model = keras.Sequential([keras.Input((3,)), inner, layers.Dense(2)])
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.CosineDecay(0.1, 10)), "mse", [keras.metrics.AUC()])
    return model


def written(path, change=None, more=None, packing=zipfile.ZIP_STORED):
    """Writes a network's file with its description changed and members added; returns its path."""
    network().save(path)
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    config = json.loads(parts["config.json"])
    if change is not None:
        change(config["config"]["layers"])
    parts["config.json"] = json.dumps(config).encode()
    with zipfile.ZipFile(path, "w", packing) as archive:
        for name, content in (parts | (more or {})).items():
            archive.writestr(name, content)
    return path


def test_a_file_with_initialisers_and_a_compiled_model_inside_is_read(tmp_path):
    path = written(tmp_path / "net.keras")
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    wanted = keras.models.load_model(path, compile=False).predict(x.numpy(), verbose=0)
    torch.testing.assert_close(pj.from_keras(path)(x).detach(), torch.tensor(wanted))


def test_a_lambda_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Lambda(lambda x: x + 1, name="sly")])
    model.save(tmp_path / "code.keras")
    with pytest.raises(PenjingError, match="the layer 'sly' is a Lambda"):
        pj.from_keras(tmp_path / "code.keras")


@pytest.mark.parametrize(
    "named, error",
    [
        ({"module": "subprocess", "class_name": "Popen"}, r"names subprocess\.Popen, which is no class of Keras' own"),
        ({"class_name": "TorchModuleWrapper"}, r"names keras\.layers\.TorchModuleWrapper .*has no form"),
        ({"class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}, "StringLookup .*has no form"),
        ({"module": "keras.utils", "class_name": "function", "config": "get_file"}, r"names keras\.utils\.function"),
        ({"registered_name": "own>Dense"}, "registered as own>Dense"),
        ({"class_name": ["Dense"]}, "can't be read as a .keras file|has no form"),
    ],
)
def test_a_class_without_a_form_is_refused_before_it_is_made(named, error, tmp_path):
    path = written(tmp_path / "net.keras", lambda found: found[-1].update(named))
    with pytest.raises(PenjingError, match=error):
        pj.from_keras(path)


@pytest.mark.parametrize("units", [(2**28,), (8000, 8000)])
def test_layers_larger_than_the_weights_are_refused_before_they_are_made(units, tmp_path):
    def change(found):
        dense = found.pop()
        for number, count in enumerate(units):
            found.append(dense | {"config": dense["config"] | {"units": count, "name": f"dense_{number}"}})

    add_weight = keras.Layer.add_weight
    with pytest.raises(PenjingError, match="bytes of weights can't hold as many"):
        pj.from_keras(written(tmp_path / "net.keras", change))
    assert keras.Layer.add_weight is add_weight


def test_an_archive_that_unpacks_to_far_more_is_refused(tmp_path):
    path = written(tmp_path / "net.keras", more={"assets/zeros": bytes(2**25)}, packing=zipfile.ZIP_DEFLATED)
    with pytest.raises(PenjingError, match="more than 100 times as many"):
        pj.from_keras(path)


@pytest.mark.parametrize("name", ["/tmp/there", "../there", "assets/../../there", "C:/there"])
def test_a_member_that_would_be_unpacked_elsewhere_is_refused(name, tmp_path):
    with pytest.raises(PenjingError, match="would be unpacked elsewhere"):
        pj.from_keras(written(tmp_path / "net.keras", more={name: b"x"}))


@pytest.mark.parametrize("version", ["2.15.0", "3.12.0", "3.15.0"])
def test_a_keras_older_than_the_tested_one_is_refused(version, monkeypatch):
    monkeypatch.setattr(keras, "__version__", version)
    with pytest.raises(PenjingError, match=rf"{version} is installed: pip install 'keras>=3\.15\.1'"):
        pj.from_keras(network())
