import pytest
import torch
from oracle import check, share_left

from networks.attention import Decoder, Encoder, Packed, Windows
from penjing.errors import PenjingError
from penjing.graph import capture, channels


def sizes(found):
    return {group.name: group.units for group in found.groups}


@pytest.mark.parametrize("fused_op", [True, False])
@pytest.mark.parametrize(("units", "count"), [("heads", 4), ("features", 4)])
def test_heads_or_features_of_a_fused_projection_go(fused_op, units, count):
    torch.manual_seed(0)
    graph, found, small = check(Encoder(fused_op), torch.randn(2, 5, 5), units=units)
    (group,) = [g for g in found.groups if g.name == "attention.qkv"]
    assert group.units == count
    carried = {entry.tensor for entry in group.entries}
    assert ("attention.table" in carried) == (units == "heads")
    assert share_left(graph, small) < 0.35


def test_the_scale_stays_the_trained_one_when_features_go():
    torch.manual_seed(0)
    _graph, _found, small = check(Encoder(), torch.randn(2, 5, 5), units="features")
    (node,) = [n for n in small.program.graph.nodes if "scaled_dot_product" in str(n.target)]
    assert node.kwargs["scale"] == pytest.approx(4**-0.5)


@pytest.mark.parametrize("enable_gqa", [True, False])
@pytest.mark.parametrize("units", ["heads", "features"])
def test_key_heads_go_with_the_query_heads_they_serve(enable_gqa, units):
    torch.manual_seed(0)
    tokens = torch.randint(0, 20, (2, 7))
    graph, found, small = check(Decoder(enable_gqa=enable_gqa, norm=False), tokens, units=units)
    (group,) = [g for g in found.groups if g.name == "attentions.0.q"]
    assert group.units == 2  # two key heads, or two pairs of rotated features
    assert share_left(graph, small) < 0.45


def test_a_decoder_with_norms_loses_half_of_everything():
    torch.manual_seed(0)
    graph, _found, small = check(Decoder(layers=1), torch.randint(0, 20, (2, 7)), exact=False)
    assert share_left(graph, small) < 0.4


@pytest.mark.parametrize("units", ["heads", "features"])
def test_windows_are_rolled_and_merged(units):
    torch.manual_seed(0)
    graph, _found, small = check(Windows(), torch.randn(2, 3, 8, 8), units=units)
    assert share_left(graph, small) < 0.4


@pytest.mark.parametrize("units", ["auto", "features"])
def test_the_packed_weight_of_pytorchs_attention_is_cut(units):
    torch.manual_seed(0)
    graph, _found, small = check(Packed(), torch.randn(2, 4, 5), units=units)
    assert share_left(graph, small) < 0.45


def test_auto_takes_what_leaves_the_fewest_parameters():
    torch.manual_seed(0)
    graph = capture(Encoder().eval(), torch.randn(2, 5, 5))
    everything = {units: channels(graph, units=units) for units in ("auto", "heads", "features")}
    carried = {units: sum(g.units // 2 * g.params for g in found.groups) for units, found in everything.items()}
    assert carried["auto"] >= max(carried.values()) - 1e-9
    with pytest.raises(PenjingError, match="units"):
        channels(graph, units="head")


@pytest.mark.parametrize("units", ["auto", "heads", "features"])
def test_an_encoder_whose_output_is_the_stream_loses_heads_and_inner_features(units):
    class Headless(Encoder):
        def forward(self, x):
            x = torch.cat([self.cls.expand(x.shape[0], -1, -1), self.embed(x)], 1) + self.positions
            x = x + self.attention(x)
            return x + self.down(self.up(x).relu())

    torch.manual_seed(0)
    _, found, small = check(Headless(), torch.randn(2, 5, 5), units=units)
    assert {g.name: g.units for g in found.groups} == {"attention.qkv": 4, "up": 24}
    assert small.tensor("attention.qkv.weight").shape == (24, 16)
    assert {p.op for p in found.pinned if (p.tensor, p.axis) == ("attention.proj.weight", 0)} == {"output"}
