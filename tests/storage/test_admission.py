"""What may stand in a file: which ops, called with what, and how much of it. Files here are a stranger's, made by hand."""

import itertools

import pytest
import torch
from made_files import X, call, write
from torch import Tensor, nn

import penjing as pj
from penjing.graph import capture, load, propagation
from penjing.graph.channels.rules import RULES
from penjing.graph.cost import MACS
from penjing.graph.straight_through import TWINS
from penjing.storage import admission
from penjing.storage.admission import ADMITTED, REFUSED, name_of


def refused(path, why):
    with pytest.raises(pj.PenjingError, match=why):
        load(path)


def runs(path, **options):
    graph = load(path, **options)
    return graph(*graph.example_inputs())[0]


@pytest.fixture
def file(tmp_path):
    return tmp_path / "stranger.penjing"


# Which ops


def test_every_op_with_a_rule_a_cost_or_a_twin_is_admitted_or_refused_with_a_reason():
    """Whoever adds a rule decides whether a stranger's file may call that op: see storage/admission/_ops.py."""
    ops = {op for op in (*RULES, *MACS, *TWINS) if isinstance(op, torch._ops.OpOverload)}
    pytorchs = {name_of(op) for op in ops if op.namespace in ("aten", "quantized_decomposed")}
    assert not pytorchs - set(ADMITTED) - set(REFUSED)
    assert not set(ADMITTED) & set(REFUSED) and all(REFUSED.values())


def test_no_op_of_a_family_that_trusts_its_arguments_is_admitted():
    words = (
        "sparse",
        "nested",
        "cudnn",
        "mkldnn",
        "foreach",
        "csr",
        "coo",
        "as_strided",
        "from_file",
        "resize",
        "backward",
    )
    named = [name for name in ADMITTED if any(word in name.partition(".")[2] for word in words)]
    private = {name.split(".")[1] for name in ADMITTED if name.split(".")[1].startswith("_")}
    assert not named and not any(op._schema.is_mutable for op in ADMITTED.values())
    assert all(
        name.startswith(("__", "_upsample", "_softmax", "_log_softmax", "_to_copy", "_weight_norm", "_local"))
        for name in private
    )


@pytest.mark.parametrize(
    ("op", "args"),
    [
        ("aten._convert_indices_from_csr_to_coo.default", [X, X]),
        ("aten._stack.default", [[]]),
        ("aten._sparse_csr_tensor_unsafe.default", [X, X, X, [2, 2]]),
        ("aten.quantized_lstm_cell.default", [X]),
        ("aten.as_strided.default", [X, [2**20], [2**20]]),
        ("aten._foreach_add.Scalar", [[X], 1]),
        ("aten.bincount.default", [X]),
        ("aten._embedding_bag.default", [X, X, X]),
        ("aten.set.source_Tensor", [X, X]),
        ("aten.view.dtype", [X, {"dtype": "int8"}]),
    ],
)
def test_ops_that_trust_their_arguments_are_refused_by_name(file, op, args):
    refused(write(file, call(op, *args)), rf"the op '{op}' is not allowed")


def test_saving_refuses_what_loading_would(tmp_path):
    graph = capture(nn.Linear(2, 2), torch.randn(2, 2))
    node = next(node for node in graph.program.graph.nodes if node.op == "call_function")
    node.target, node.args = torch.ops.aten.as_strided.default, (node.args[0], [2], [1])
    with pytest.raises(pj.PenjingError, match=r"aten\.as_strided\.default can't be stored.*lower\(graph"):
        graph.save(tmp_path / "a.penjing")
    node.target, node.args = torch.ops.aten.avg_pool1d.default, (node.args[0], [2**17])
    with pytest.raises(pj.PenjingError, match=r"can't be stored.*kernel_size=\[131072\]"):
        graph.save(tmp_path / "a.penjing")
    assert not list(tmp_path.iterdir())


# Called with what


@pytest.mark.parametrize(
    "node",
    [
        call("aten.relu.default"),
        call("aten.relu.default", X, X),
        call("aten.relu.default", X, inplace=True),
        call("aten.relu.default", "x"),
        call("aten.relu.default", [X]),
        call("aten.relu.default", 1.5, name="z") | {"target": "aten.matmul.default", "args": [1.5, X]},
        call("aten.cat.default", []),
        call("aten.cat.default", [X, 1]),
        call("aten.cat.default", [X] * 5000),
        call("aten.sum.dim_IntList", X, [64]),
        call("aten.sum.dim_IntList", X, [0], dtype={"dtype": "qint8"}),
        call("aten.gelu.default", X, approximate="fast"),
        call("aten.einsum.default", "é->", [X]),
        call("aten.einsum.default", "ab->a", [X], path=[7, 9]),
        call("aten.flatten.using_ints", X, 0.5),
        call("aten.rand.default", [2], pin_memory=True),
        call("aten.max_pool1d.default", X, [0]),
        call("aten.max_pool1d.default", X, [2], [2], [0], [2**20]),
        call("aten.max_pool2d.default", X, [2, 2, 2]),
        call("aten.pixel_shuffle.default", X, 2**20),
        call("aten.grid_sampler.default", X, X, 7, 9, False),
        call("aten.mse_loss.default", X, X, 7),
        call("aten.pad.default", X, [1, 1], "mirror"),
        call("aten.unsqueeze.default", X, 2**40),
        call("aten.mul.Scalar", X, 2**80),
        call("aten.mul.Scalar", X, True, name="z") | {"args": [X, {"slice": [0, 1, 1]}]},
    ],
    ids=lambda node: f"{node['target']}({node['args']},{node['kwargs']})"[:70],
)
def test_arguments_that_are_none_of_the_schema_or_beyond_all_bounds_are_refused_before_shapes_are_looked_at(
    file, monkeypatch, node
):
    monkeypatch.setattr(propagation, "propagate", lambda *_: pytest.fail("shapes were propagated"))
    refused(write(file, node), "argument|type")


@pytest.mark.parametrize(
    ("nodes", "dtype"),
    [
        ([call("aten.div.Tensor_mode", X, X, rounding_mode="trunc")], "int64"),
        ([call("aten.div.Tensor_mode", X, -1, rounding_mode="trunc")], "int32"),
        ([call("aten.div.Scalar_mode", X, -1, rounding_mode="trunc")], "int64"),
    ],
)
def test_a_division_that_would_trap_the_processor_is_refused(file, nodes, dtype):
    refused(write(file, *nodes, dtype=dtype), "other than -1")
    assert runs(write(file, call("aten.div.Tensor_mode", X, 2, rounding_mode="trunc"), dtype=dtype)).dtype == getattr(
        torch, dtype
    )


@pytest.mark.parametrize("free", [(), (0,)], ids=["constant", "of another size"])
def test_a_divisor_that_is_computed_may_not_become_the_one_that_traps(file, free):
    divisor = [call("aten.sym_size.int", X, 0, name="n"), call("operator.sub", {"node": "n"}, 3, name="d")]
    shape = (3, 3) if free else (2, 3)
    division = call("aten.div.Scalar_mode", X, {"node": "d"}, rounding_mode="trunc")
    refused(write(file, *divisor, division, dtype="int64", shape=shape, free=free), "other than -1")
    size = call("aten.div.Scalar_mode", X, {"node": "n"}, rounding_mode="trunc")
    assert runs(write(file, *divisor, size, dtype="int64", shape=shape, free=free)).shape == shape


@pytest.mark.parametrize("argument", ["stride", "padding", "dilation"])
def test_computed_integers_have_the_bounds_of_written_ones(file, argument):
    window = {"kernel_size": [2, 2], "stride": [2, 2], "padding": [0, 0], "dilation": [1, 1]}
    window[argument] = [{"node": "large"}] * 2
    large = call("operator.mul", 2**20, 2**20, name="large")
    refused(
        write(file, large, call("aten.max_pool2d.default", X, *window.values()), shape=(1, 1, 4, 4)), "is not within"
    )


def test_offsets_of_bags_must_be_a_range(file):
    tensors = {"table": torch.randn(4, 2), "words": torch.tensor([0, 1, 2]), "places": torch.tensor([0, 2**40, 2])}
    bag = ("aten.embedding_bag.padding_idx", {"node": "table"}, {"node": "words"})
    rest = (False, 0, False, None, False, None)
    first = call("operator.getitem", {"node": "y"}, 0, name="z")
    refused(write(file, call(*bag, {"node": "places"}, *rest), first, tensors=tensors), "offsets")
    even = call("aten.arange.start_step", 0, 3, 1, name="even")
    path = write(file, even, call(*bag, {"node": "even"}, *rest), first, tensors=tensors)
    torch.testing.assert_close(runs(path), tensors["table"][:3])


@pytest.mark.parametrize("wrong", range(4))
def test_weights_of_recurrent_layers_must_fit_one_another(file, wrong):
    weights = [torch.randn(12, 3), torch.randn(12, 4), torch.randn(12), torch.randn(12)]
    nodes = [{"node": f"w{place}"} for place in range(4)]
    step = call("aten.gru.input", X, {"node": "h"}, nodes, True, 1, 0.0, False, False, True)
    first = call("operator.getitem", {"node": "y"}, 0, name="z")
    state = {"h": torch.zeros(1, 2, 4)}

    def path():
        return write(file, step, first, shape=(2, 5, 3), tensors={f"w{i}": w for i, w in enumerate(weights)} | state)

    assert runs(path()).shape == (2, 5, 4)
    weights[wrong] = weights[wrong][:7]
    refused(path(), "weights|node|shapes")


@pytest.mark.parametrize(
    ("scales", "why"), [([1e-320, 1e-320], "no scale"), ([64.0, 64.0], "doesn't fit"), ([float("inf")] * 2, "no scale")]
)
def test_scales_of_resizing_must_be_those_of_the_sizes(file, scales, why):
    scales = [{"float": "inf"} if scale == float("inf") else scale for scale in scales]
    node = call("aten.upsample_bilinear2d.default", X, [4, 4], False, *scales)
    refused(write(file, node, shape=(1, 1, 4, 4)), why)


N = {"node": "n"}
ALL_BUT_ONE = [call("aten.sym_size.int", X, 0, name="n"), call("operator.sub", N, 1, name="one")]
SQUARE = [*ALL_BUT_ONE, call("operator.mul", {"node": "one"}, {"node": "one"}, name="square")]
SQUARE.append(call("operator.add", {"node": "square"}, 1, name="m"))
"""At the example's size, 2, m equals n; at 100 it is 9,802."""


def zeros(name, *shape):
    return call("aten.zeros.default", list(shape), name=name)


def states(state):
    weights = {"a": torch.zeros(16, 3), "b": torch.zeros(16, 4), "c": torch.zeros(16), "d": torch.zeros(16)}
    nodes = [{"node": name} for name in weights]
    lstm = call("aten.lstm.input", X, [state, state], nodes, True, 1, 0.0, False, False, True)
    return [lstm, call("operator.getitem", {"node": "y"}, 0, name="z")], weights


@pytest.mark.parametrize(
    ("nodes", "shape", "tensors"),
    [
        (
            [
                zeros("values", 1, {"node": "m"}, 4),
                zeros("keys", 1, N, 4),
                call(
                    "aten.scaled_dot_product_attention.default", {"node": "keys"}, {"node": "keys"}, {"node": "values"}
                ),
            ],
            (2, 3),
            {},
        ),
        (states({"node": "constant"})[0], (2, 5, 3), states(X)[1] | {"constant": torch.zeros(1, 2, 4)}),
        ([zeros("computed", 1, {"node": "m"}, 4), *states({"node": "computed"})[0]], (2, 5, 3), states(X)[1]),
        (
            [
                zeros("v", {"node": "m"}, 3),
                zeros("g", N, 1),
                call("aten._weight_norm.default", {"node": "v"}, {"node": "g"}),
            ],
            (2, 3),
            {},
        ),
        (
            [call("aten._upsample_bilinear2d_aa.default", X, [{"node": "m"}, 4], False, 1.0, 1.0)],
            (2, 1, 2, 4),
            {},
        ),
    ],
    ids=["attention", "constant state", "computed state", "weight norm", "resizing"],
)
def test_sizes_that_a_kernel_takes_for_equal_must_be_so_at_every_batch(file, nodes, shape, tensors):
    refused(write(file, *SQUARE, *nodes, shape=shape, free=[0], tensors=tensors), "size|shape")


def test_states_of_the_batch_of_their_sequence_are_equal_at_every_batch(file):
    nodes, tensors = states({"node": "state"})
    path = write(file, *ALL_BUT_ONE[:1], zeros("state", 1, N, 4), *nodes, shape=(2, 5, 3), free=[0], tensors=tensors)
    assert load(path)(torch.zeros(7, 5, 3))[0].shape == (7, 5, 4)


# Numbers


@pytest.mark.parametrize("function", ["pow", "mul"])
def test_powers_of_a_size_end_even_where_it_is_one_in_the_example(file, function):
    """At 3 samples, two to the power of 64 to the power of 12 would never be computed to its end."""
    chain = [
        call(
            f"operator.{function}", {"node": f"n{i}"}, 64 if function == "pow" else {"node": f"n{i}"}, name=f"n{i + 1}"
        )
        for i in range(12)
    ]
    first = call("operator.sub", N, 1, name="n0")
    end = call("aten.mul.Tensor", X, {"node": "n12"})
    refused(write(file, ALL_BUT_ONE[0], first, *chain, end, free=[0]), "product of more than 64 sizes")


@pytest.mark.parametrize(
    "node",
    [
        call("operator.pow", 10, 10**8),
        call("operator.pow", 2, 65),
        call("operator.mul", "a", 4 * 10**9),
        call("operator.mod", "%4000000000d", 1),
        call("operator.mul", [0], 10**10),
        call("operator.add", "a", "b"),
        call("operator.add", [X], [X]),
        call("operator.mul", X, 2),
        call("operator.getitem", "text", 0),
        call("operator.getitem", X, 0),
        call("operator.add", 1),
        call("operator.neg", 1, 2),
        call("operator.add", 1, b=2),
        call("torch.sym_max", "a", "b"),
        call("math.ceil", "1"),
    ],
    ids=lambda node: f"{node['target']}({node['args']})"[:60],
)
def test_numbers_have_an_arithmetic_and_nothing_else_has(file, node):
    refused(write(file, node), "takes numbers|takes tensors|exponent|number of arguments")


def test_a_chain_of_products_ends_where_a_number_has_63_bits(file):
    size = call("aten.sym_size.int", X, 0, name="n0")
    chain = [call("operator.mul", {"node": f"n{i}"}, 2**10, name=f"n{i + 1}") for i in range(10)]
    end = call("aten.mul.Tensor", X, {"node": "n10"})
    refused(write(file, size, *chain, end, free=[0]), "63 bits")
    refused(write(file, size, *chain, end), "63 bits")


def test_a_number_is_an_expression_of_few_terms(file):
    nodes = [call("aten.sym_size.int", X, 0, name="size"), call("operator.add", {"node": "size"}, 1, name="t0")]
    for i in range(40):
        nodes.append(call("operator.floordiv", {"node": "size"}, i + 2, name=f"part{i}"))
        nodes.append(call("operator.add", {"node": f"t{i}"}, {"node": f"part{i}"}, name=f"t{i + 1}"))
    refused(write(file, *nodes, call("aten.mul.Tensor", X, {"node": "t40"}), free=[0]), "terms")


def test_what_is_read_out_of_tensors_is_no_size(file):
    item = call("aten.item.default", {"node": "huge"}, name="n")
    tensors = {"huge": torch.tensor(2**40)}
    refused(write(file, item, call("aten.ones.default", [{"node": "n"}]), tensors=tensors), "type")
    refused(write(file, item, call("operator.pow", {"node": "n"}, 2)), "huge|exponent")
    doubled = call("operator.mul", {"node": "n"}, {"node": "n"}, name="m")
    refused(
        write(file, item, doubled, call("aten.mul.Tensor", X, {"node": "m"}), tensors=tensors),
        "only when the graph runs",
    )
    scaled = runs(write(file, item, call("aten.mul.Tensor", X, {"node": "n"}), tensors={"huge": torch.tensor(2.0)}))
    assert scaled.shape == (2, 3)


# How much


@pytest.mark.parametrize(
    "node",
    [
        call("aten.zeros.default", [2**20, 2**20]),
        call("aten.repeat.default", X, [2**30, 1]),
        call("aten.constant_pad_nd.default", X, [2**30, 2**30]),
        call("aten.arange.default", 2**40),
        call("aten.one_hot.default", {"node": "i"}, 2**31 - 1),
    ],
    ids=lambda node: node["target"],
)
def test_values_that_take_too_much_memory_are_refused_and_named(file, node):
    refused(write(file, node, tensors={"i": torch.tensor([0, 1])}), r"'y' .* bytes to run.*load\(path, largest=")


def test_all_values_that_are_alive_at_once_are_bounded(file):
    """Sixteen tensors of a hundredth of the bound each are fine one after the other, and too many side by side."""
    makes = [call("aten.zeros.default", [10, 262144], name=f"z{i}") for i in range(16)]
    sums = [call("aten.sum.default", {"node": f"z{i}"}, name=f"s{i}") for i in range(16)]
    total = call("aten.stack.default", [{"node": f"s{i}"} for i in range(16)])
    in_turn = [node for pair in zip(makes, sums, strict=True) for node in pair]
    assert runs(write(file, *in_turn, total), largest=40 * 2**20).shape == (16,)
    with pytest.raises(pj.PenjingError, match="bytes at once"):
        load(write(file, *makes, *sums, total), largest=40 * 2**20)


def test_a_view_keeps_what_it_shows(file):
    nodes = []
    for i in range(16):
        nodes += [
            call("aten.zeros.default", [10, 262144], name=f"z{i}"),
            call("aten.select.int", {"node": f"z{i}"}, 1, 0, name=f"v{i}"),
        ]
    with pytest.raises(pj.PenjingError, match="bytes at once"):
        load(
            write(file, *nodes, call("aten.stack.default", [{"node": f"v{i}"} for i in range(16)])), largest=40 * 2**20
        )


Z, IMAGE = {"node": "z"}, {"node": "image"}


@pytest.mark.parametrize(
    "nodes",
    [
        [call("aten.matmul.default", {"node": one}, Z, name=two) for one, two in itertools.pairwise("zabcdy")],
        [call("aten.conv2d.default", IMAGE, IMAGE, None, [1, 1], [2000, 2000])],
        [call("aten.avg_pool2d.default", IMAGE, [2000, 2000], [1, 1])],
        [call("aten.matrix_power.default", Z, 3)],
    ],
    ids=lambda nodes: nodes[0]["target"],
)
def test_more_work_than_a_graph_of_its_memory_has_is_refused(file, nodes):
    big = [
        call("aten.zeros.default", [4000, 4000], name="z"),
        call("aten.zeros.default", [1, 1, 4000, 4000], name="image"),
    ]
    with pytest.raises(pj.PenjingError, match="multiplications"):
        load(write(file, *big, *nodes), largest=2**28)


def test_inputs_alone_are_bounded_before_any_is_made(file):
    refused(write(file, call("aten.relu.default", X), shape=(2**15, 2**15)), "inputs take 4,294,967,296 bytes")


# How long


def test_deep_files_ask_pytorch_once_for_calls_that_are_alike(file, monkeypatch):
    asked = []
    original = propagation._Propagator.call_function
    monkeypatch.setattr(
        propagation._Propagator, "call_function", lambda self, *call: asked.append(call) or original(self, *call)
    )
    chain = [call("aten.relu.default", X, name="n0")]
    chain += [call("aten.relu.default", {"node": f"n{i}"}, name=f"n{i + 1}") for i in range(2000)]
    assert runs(write(file, *chain, free=[0])).shape == (2, 3)
    assert len(asked) < 5


def test_calls_that_are_alike_in_shapes_but_not_in_constants_are_asked_for_each(file):
    nodes = [call("aten.add.Tensor", X, 1, name="a"), call("aten.add.Tensor", X, 1.0, name="b")]
    nodes += [call("aten.gt.Scalar", X, 0.0, name="c"), call("aten.gt.Scalar", X, -0.0, name="d")]
    both = call("aten.cat.default", [{"node": "a"}, {"node": "b"}])
    assert runs(write(file, *nodes, both, dtype="int64")).dtype == torch.float32


def test_shapes_of_a_file_are_never_found_by_running_an_op(file, monkeypatch):
    """An op that PyTorch can't find shapes for without data is refused, not run on made-up data."""
    monkeypatch.setitem(admission.ADMITTED, "aten.histc.default", torch.ops.aten.histc.default)
    path = write(file, call("aten.histc.default", X, 2**30))
    with pytest.raises(pj.PenjingError):
        load(path)


def test_two_names_that_python_takes_for_one_are_refused(file):
    same = call("aten.relu.default", X, name="ﬁ"), call("aten.sum.default", X, name="fi")
    refused(write(file, *same), "no name of a node")
    refused(
        write(file, call("aten.relu.default", X, name="y"), call("aten.sum.default", X, name="y")),
        "another node has it",
    )


class Unwritten(nn.Module):
    """Makes tensors without values, by each of the three ops, and fills them before it returns them."""

    def forward(self, x: Tensor) -> Tensor:
        parts = [torch.empty(x.shape[0], 4), torch.empty_like(x), x.new_empty(x.shape)]
        for part in parts:
            part[:, :3] = x[:, :3]
            part[:, 3:] = 2 * x[:, 3:]
        return torch.cat(parts, 1)


def test_memory_that_nobody_wrote_is_zero_in_a_graph_and_has_no_op_in_a_file(tmp_path):
    graph = capture(Unwritten(), (torch.ones(2, 4),))
    targets = [str(node.target) for node in graph.program.graph.nodes]
    made = {"aten.zeros.default", "aten.zeros_like.default", "aten.new_zeros.default"}
    assert made <= set(targets) and not any("empty" in target for target in targets)
    graph.save(tmp_path / "m.penjing")
    expected = torch.tensor([1.0, 1.0, 1.0, 2.0]).repeat(3, 3)
    torch.testing.assert_close(load(tmp_path / "m.penjing")(torch.ones(3, 4)), expected)


def test_a_file_that_asks_for_such_memory_is_refused(file):
    refused(write(file, call("aten.empty_like.default", X)), "it gives memory as it was found")


@pytest.mark.parametrize("limits", [(1, 127), (-128, -1), (5, 5), (0, 0), (-1000, 127)])
def test_limits_of_a_range_found_at_run_time_must_hold_zero_and_fit(file, limits):
    node = call("quantized_decomposed.choose_qparams.tensor", X, *limits, 1e-5, {"dtype": "int8"})
    first = call("operator.getitem", {"node": "y"}, 0, name="z")
    refused(write(file, node, first), "no limits of torch.int8 around 0")


def test_a_file_of_more_nodes_opens_where_the_caller_trusts_it(tmp_path):
    nodes = [{**call("aten.relu.default", X), "name": f"n{number}"} for number in range(9000)]
    path = write(tmp_path / "m.penjing", *nodes)
    refused(path, "9,002 nodes, and 4,096 are allowed; if you trust it, pass largest=")
    assert len(load(path, largest=2**31).program.graph.nodes) < 9002  # what nothing reads is left out


def test_a_large_file_may_have_more_nodes(tmp_path):
    nodes = [{**call("aten.relu.default", X), "name": f"n{number}"} for number in range(5000)]
    weights = {"w": torch.zeros(5 * 2**20)}
    assert load(write(tmp_path / "large.penjing", *nodes, tensors=weights)).input_names == ["x"]
    refused(write(tmp_path / "small.penjing", *nodes), "5,002 nodes, and 4,096 are allowed")
