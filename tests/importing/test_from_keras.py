"""Keras models in PyTorch against Keras' own answers."""

import os

import numpy as np
import pytest
import torch

import penjing as pj
from penjing.errors import PenjingError
from penjing.importing.keras.door import differences
from penjing.models import load_model

os.environ.setdefault("KERAS_BACKEND", "torch")
keras = pytest.importorskip("keras", reason="Keras isn't installed: pip install penjing[keras]")

from keras import layers  # noqa: E402

IMAGE, STEPS = (9, 8, 3), (7, 6)


def shaken(model):
    """Gives every weight random values, so that no layer is the identity."""
    generator = np.random.default_rng(0)
    for layer in model.weights:
        value = generator.normal(0, 0.4, layer.shape)
        layer.assign(np.abs(value) + 0.5 if "variance" in layer.path else value)
    return model


def of(shape, *stack):
    return shaken(keras.Sequential([keras.Input(shape, name="x"), *stack]))


def branches():
    x = keras.Input(IMAGE, name="x")
    y = layers.Conv2D(4, 3, padding="same", activation="relu", name="a")(x)
    z = layers.Conv2D(4, 1, name="b")(x)
    joined = layers.Concatenate()(
        [layers.Add()([y, z]), layers.Multiply()([y, z]), layers.Average()([y, z]), y * 2.0 + z]
    )
    squeezed = layers.Reshape((1, 1, 16))(layers.GlobalAveragePooling2D()(joined))
    return shaken(keras.Model(x, layers.Multiply()([joined, layers.Dense(16, activation="sigmoid")(squeezed)])))


def shared():
    x = keras.Input(IMAGE, name="x")
    twice = layers.Conv2D(3, 2, padding="same", name="twice")
    return shaken(keras.Model(x, twice(layers.ReLU()(twice(x)))))


def nested():
    inner = keras.Sequential(
        [keras.Input(IMAGE), layers.Conv2D(5, 3, name="c"), layers.ReLU(max_value=6)], name="inner"
    )
    x = keras.Input(IMAGE, name="x")
    return shaken(keras.Model(x, layers.Dense(3, activation="softmax")(layers.Flatten()(inner(x)))))


def adapted():
    layer = layers.Normalization()
    layer.adapt(np.random.default_rng(0).normal(2, 3, (20, *IMAGE)).astype("float32"))
    return keras.Sequential([keras.Input(IMAGE, name="x"), layer])


MODELS = {
    "convolution": lambda: of(IMAGE, layers.Conv2D(5, 3, strides=2)),
    "convolution, same": lambda: of(IMAGE, layers.Conv2D(5, (3, 2), padding="same", dilation_rate=2)),
    "convolution, same, strided": lambda: of(IMAGE, layers.Conv2D(5, 3, strides=2, padding="same", use_bias=False)),
    "convolution, grouped": lambda: of(IMAGE, layers.Conv2D(6, 3, groups=3, activation="gelu")),
    "depthwise": lambda: of(IMAGE, layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", strides=2)),
    "separable": lambda: of(IMAGE, layers.SeparableConv2D(5, 3, depth_multiplier=2, padding="same", activation="tanh")),
    "transposed": lambda: of(IMAGE, layers.Conv2DTranspose(4, 3, strides=2, padding="same")),
    "transposed, valid": lambda: of(IMAGE, layers.Conv2DTranspose(4, 2, strides=3)),
    "steps": lambda: of(
        STEPS, layers.Conv1D(5, 3, padding="causal"), layers.BatchNormalization(), layers.MaxPooling1D(2)
    ),
    "norms": lambda: of(IMAGE, layers.BatchNormalization(scale=False), layers.LayerNormalization()),
    "max pooling": lambda: of(IMAGE, layers.MaxPooling2D(3, 2, padding="same")),
    "mean pooling": lambda: of(IMAGE, layers.AveragePooling2D(3, 2, padding="same")),
    "global pooling": lambda: of(IMAGE, layers.GlobalMaxPooling2D(keepdims=True)),
    "padding": lambda: of(IMAGE, layers.ZeroPadding2D(((1, 2), (0, 3))), layers.Cropping2D(1), layers.UpSampling2D(2)),
    "upsampling": lambda: of(IMAGE, layers.UpSampling2D(2, interpolation="bilinear")),
    "flattened for dense": lambda: of(
        IMAGE, layers.Flatten(), layers.Dropout(0.3), layers.Dense(4, activation="softmax")
    ),
    "flattened": lambda: of(IMAGE, layers.Flatten(), layers.ReLU()),
    "dense over channels": lambda: of(IMAGE, layers.Dense(4), layers.PReLU(shared_axes=(1, 2)), layers.Softmax()),
    "order": lambda: of(IMAGE, layers.Permute((2, 1, 3)), layers.Reshape((12, 18)), layers.Dense(3, activation="silu")),
    "scales": lambda: of(
        IMAGE, layers.Rescaling(1 / 127.5, offset=-1), layers.LeakyReLU(0.1), layers.Activation("hard_sigmoid")
    ),
    "normalization": adapted,
    "branches": branches,
    "called twice": shared,
    "nested": nested,
    "LSTM": lambda: of(STEPS, layers.LSTM(5, return_sequences=True), layers.LSTM(4)),
    "GRU": lambda: of(STEPS, layers.GRU(5, return_sequences=True), layers.GRU(4)),
    "both ways": lambda: of(
        STEPS, layers.Bidirectional(layers.LSTM(5, return_sequences=True)), layers.Bidirectional(layers.GRU(4))
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_answers_as_keras_does(name):
    model = MODELS[name]()
    graph = pj.from_keras(model)
    x = np.random.default_rng(1).normal(size=(3, *model.input_shape[1:])).astype("float32")
    with torch.no_grad():
        made = graph(torch.tensor(x)).numpy()
    np.testing.assert_allclose(made, model.predict(x, verbose=0), rtol=1e-4, atol=1e-5)
    assert graph.batch is None


def small():
    conv = {"padding": "same", "use_bias": False}
    x = keras.Input((32, 32, 3), name="image")
    y = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(16, 3, **conv, name="stem")(x)))
    z = layers.Activation("relu")(layers.BatchNormalization()(layers.Conv2D(16, 3, **conv, name="block")(y)))
    y = layers.Add()([y, layers.Conv2D(16, 3, **conv, name="out")(z)])
    return shaken(keras.Model(x, layers.Dense(10, name="head")(layers.Flatten()(layers.AveragePooling2D(8)(y)))))


def test_a_model_is_pruned_and_quantised_like_one_of_pytorchs():
    data = pj.data.digits()
    graph = pj.from_keras(small(), channels_first=True)
    assert {"stem.weight", "block.weight", "out.weight", "head.weight"} <= {
        name for name, _ in graph.named_parameters()
    }
    assert not any("permute" in str(node.target) for node in graph.program.graph.nodes)
    assert [group.units for group in pj.channels(graph).groups] == [16, 16]
    pruned = pj.prune(graph, amount=0.5)
    assert [group.units for group in pj.channels(pruned).groups] == [8, 8]
    quantised = pj.quantize(pruned, data)
    assert sum("quantize_per" in str(node.target) for node in quantised.program.graph.nodes) > 6


def test_a_file_is_a_model_and_data_say_where_its_channels_stand(tmp_path):
    model = small()
    model.save(tmp_path / "net.keras")
    loaded = load_model(str(tmp_path / "net.keras"), data=pj.data.digits())
    assert loaded.name == "net" and loaded.example_inputs[0].shape == (2, 3, 32, 32)
    x = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = model.predict(x.permute(0, 2, 3, 1).numpy(), verbose=0)
    np.testing.assert_allclose(loaded.graph()(x).detach().numpy(), wanted, rtol=1e-4, atol=1e-4)
    assert load_model(str(tmp_path / "net.keras")).example_inputs[0].shape == (2, 32, 32, 3)


def test_a_layer_keeps_its_name_behind_a_padding_and_its_weights_where_it_is_called_twice():
    graph = pj.from_keras(shared())
    assert [name for name, _ in graph.named_parameters()] == ["twice.weight", "twice.bias"]


def test_a_layer_without_a_form_is_named_with_what_to_do():
    x = keras.Input(STEPS)
    model = keras.Model(x, layers.MultiHeadAttention(2, 4, name="mixing")(x, x))
    with pytest.raises(
        PenjingError, match=r"The layer 'mixing' \(MultiHeadAttention\) can't be read: .*ends before it"
    ):
        pj.from_keras(model)
    with pytest.raises(PenjingError, match="'own' has no form"):
        pj.from_keras(keras.Sequential([keras.Input(STEPS), layers.Dense(3, activation=own)]))


def own(x):
    return x * 2


def test_what_has_no_graph_of_layers_is_refused():
    with pytest.raises(PenjingError, match="has no graph of layers"):
        pj.from_keras(keras.Sequential([layers.Dense(3)]))
    with pytest.raises(PenjingError, match="is no Keras model"):
        pj.from_keras(3)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x89HDF\r\n", bytes(100)])
def test_a_damaged_file_is_refused(content, tmp_path):
    (tmp_path / "net.keras").write_bytes(content)
    with pytest.raises(PenjingError, match=r"net\.keras can't be read as a \.keras file"):
        pj.from_keras(tmp_path / "net.keras")
    with pytest.raises(PenjingError, match="There is no file"):
        pj.from_keras(tmp_path / "none.keras")


def test_small_channels_are_compared_beside_large_ones_and_infinity_hides_nothing():
    wanted = np.array([[1e4, 1.0, np.inf, np.nan], [2e4, 0.5, 3.0, np.nan]])
    assert not differences(wanted * (1 + 1e-5), wanted).any()
    made = wanted.copy()
    made[1] = [2e4 + 5, 0.8, 3.1, 0]
    np.testing.assert_array_equal(differences(made, wanted), [[False] * 4, [False, True, True, True]])
    assert differences(-wanted, wanted)[0, 2] and differences(np.full_like(wanted, np.inf), wanted)[1, 2]
