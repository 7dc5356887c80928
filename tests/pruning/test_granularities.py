"""Granularities that mask: what stands or falls together, exact amounts, zeros that stay."""

import copy
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.utils import prune as torch_prune

from penjing import load
from penjing.errors import PenjingError
from penjing.graph import Place, capture
from penjing.graph.weights import weights
from penjing.pruning import criteria, granularities, prune
from penjing.pruning.granularities._registry import find
from penjing.report import words
from penjing.training import recover

NAMES = [
    "element", "vector", "vector:column", "kernel", "pattern", "rectangle:2x2", "patterns:4x3", "1:2", "2:4", "3:3",
    "block:2x3", "block:1x1",
]  # fmt: skip
SHRINK = [name for name in NAMES if find(name).entry.shrink]
AMOUNT = [name for name in NAMES if not find(name).stays]  # those whose names don't say it
BY_WEIGHT = [name for name, entry in criteria.items() if entry.level == "weight"]


def test_every_masking_granularity_is_tested_here():
    masking = {name for name, entry in granularities.items() if entry.removes == "weights"}
    assert {find(name).entry.name for name in NAMES} == masking


class Mixed(nn.Module):
    """One layer of each kind that multiplies; their inputs are the weights' axes 1, 0, 1, 1 and 1."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.up = nn.Conv2d(4, 6, (3, 2), padding=1), nn.ConvTranspose2d(6, 8, 3)
        self.linear, self.table = nn.Linear(8, 12), nn.Parameter(torch.randn(12, 4))
        self.lstm = nn.LSTM(4, 4, batch_first=True)

    def forward(self, x):
        x = torch.relu(self.up(torch.relu(self.conv(x))))
        return self.lstm(self.linear(x.flatten(2).mT) @ self.table)[0]


@pytest.fixture(scope="module")
def mixed():
    torch.manual_seed(5)
    return capture(Mixed(), torch.randn(2, 4, 6, 6))


def rows(graph, granularity):
    """For each weight that has them, the positions in it that stand or fall together."""
    chosen, found = find(granularity), {}
    for weight in weights(graph):
        tensor = graph.tensor(weight.name)
        positions = weight.view(torch.arange(tensor.numel()).reshape(tensor.shape))
        view = chosen.entry.function(positions, **chosen.arguments)
        if view is not None:
            found[weight.name] = view
    return found


# Views


def test_weights_are_those_of_all_layers_that_multiply_as_outputs_by_inputs(mixed):
    assert {weight.name: weight.shape for weight in weights(mixed)} == {
        "conv.weight": (6, 4, 3, 2),
        "up.weight": (8, 6, 3, 3),
        "linear.weight": (12, 8),
        "table": (4, 12),
        "lstm.weight_ih_l0": (16, 4),
        "lstm.weight_hh_l0": (16, 4),
    }
    values = mixed.tensor("up.weight")
    view = next(weight for weight in weights(mixed) if weight.name == "up.weight").view(values)
    assert torch.equal(view, values.transpose(0, 1))


def test_tied_weights_are_there_once_and_tables_to_look_up_in_stay():
    class Language(nn.Module):
        def __init__(self):
            super().__init__()
            self.embedding, self.inner, self.head = nn.Embedding(7, 5), nn.Linear(5, 5), nn.Linear(5, 7)
            self.again = self.inner
            self.head.weight = self.embedding.weight

        def forward(self, x):
            return self.head(self.again(self.inner(self.embedding(x))))

    graph = capture(Language(), torch.randint(7, (2, 4)))
    (weight,) = weights(graph)
    assert graph.tensor(weight.name) is graph.tensor("inner.weight")


@pytest.mark.parametrize("name", NAMES)
def test_rows_are_a_partition_of_the_weight(name, mixed):
    found = rows(mixed, name)
    assert found
    for weight, view in found.items():
        assert torch.equal(view.flatten().sort().values, torch.arange(mixed.tensor(weight).numel()))


def test_rows_are_what_their_names_say(mixed):
    def first(name, weight="conv.weight"):
        tensor = mixed.tensor(weight)
        flags = torch.zeros(tensor.numel(), dtype=torch.bool)
        flags[rows(mixed, name)[weight][0]] = True
        return {tuple(place) for place in flags.reshape(tensor.shape).nonzero().tolist()}

    assert first("element") == {(0, 0, 0, 0)}
    assert first("vector") == {(0, 0, 0, j) for j in range(2)}
    assert first("vector:column") == {(0, 0, i, 0) for i in range(3)}
    assert first("kernel") == {(0, 0, i, j) for i in range(3) for j in range(2)}
    assert first("pattern") == {(o, i, 0, 0) for o in range(6) for i in range(4)}
    assert "linear.weight" not in rows(mixed, "block:2x3")
    assert first("block:2x4", "linear.weight") == {(o, i) for o in range(2) for i in range(4)}
    assert first("block:2x4", "table") == {(o, i) for o in range(2) for i in range(4)}


# Masks


@settings(max_examples=15, deadline=None)
@given(amount=st.floats(0, 1, exclude_max=True), ties=st.booleans(), allocation=st.sampled_from(["uniform", "global"]))
@pytest.mark.parametrize("name", [name for name in AMOUNT if name not in SHRINK])
def test_rows_are_kept_or_removed_whole_and_exactly_as_many_as_asked_for(name, amount, ties, allocation, mixed):
    graph = copy.deepcopy(mixed)
    found = rows(graph, name)
    if ties:
        with torch.no_grad():
            for parameter in graph.parameters():
                parameter.fill_(1.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        small = prune(graph, amount, granularity=name, allocation=allocation)
    assert small.masks.keys() <= found.keys()
    removed = dict.fromkeys(found, 0)
    for weight, mask in small.masks.items():
        kept = mask.flatten()[found[weight]]
        assert torch.equal(kept.all(1), kept.any(1))
        removed[weight] = int((~kept[:, 0]).sum())
        before, after = graph.tensor(weight).detach(), small.tensor(weight).detach()
        assert torch.equal(after, before * mask) and (ties is False or torch.equal(after != 0, mask))
    sizes = {weight: len(view) for weight, view in found.items()}
    if allocation == "uniform":
        wanted = {weight: min(math.floor(amount * size + 0.5), size - 1) for weight, size in sizes.items()}
        assert removed == wanted
    else:
        total = sum(sizes.values())
        assert sum(removed.values()) == min(math.floor(amount * total + 0.5), total - len(sizes))
    assert {n: t.shape for n, t in small.tensors().items()} == {n: t.shape for n, t in mixed.tensors().items()}


@settings(max_examples=4, deadline=None)
@given(amount=st.floats(0, 1, exclude_max=True), criterion=st.sampled_from(["l1", "l2", "random"]))
@pytest.mark.parametrize("name", NAMES)
def test_what_stays_and_what_went_are_all_of_each_weight_as_the_plan_says(name, amount, criterion, mixed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        small = prune(mixed, amount if name in AMOUNT else None, granularity=name, criterion=criterion)
    steps = {step.place.path: step for step in small.plan}
    for weight in weights(mixed):
        whole, left = mixed.tensor(weight.name).numel(), small.tensor(weight.name).numel()
        zeros = int((~small.masks[weight.name]).sum()) if weight.name in small.masks else 0
        step = steps.get(weight.place)
        assert (step.before, step.after) == (whole, left - zeros) if step else left - zeros == whole
        assert torch.count_nonzero(small.tensor(weight.name)) == left - zeros


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("name", "n", "m"), [("1:2", 1, 2), ("2:4", 2, 4), ("1:4", 1, 4)])
def test_n_of_every_m_weights_along_the_inputs_stay(name, n, m, ties, mixed):
    graph = copy.deepcopy(mixed)
    if ties:
        with torch.no_grad():
            for parameter in graph.parameters():
                parameter.fill_(1.0)
    with pytest.warns() if m == 4 else pytest.MonkeyPatch.context():
        small = prune(graph, granularity=name)
    for weight, axis in [("conv.weight", 1), ("linear.weight", 1), ("table", 1), ("lstm.weight_hh_l0", 1)]:
        kept = (small.tensor(weight) != 0).movedim(axis, -1).unflatten(-1, (-1, m))
        assert (kept.sum(-1) == n).all() and torch.equal(small.tensor(weight) != 0, small.masks[weight])
        magnitudes = small.tensor(weight).abs().movedim(axis, -1).unflatten(-1, (-1, m)).detach()
        gone = graph.tensor(weight).abs().movedim(axis, -1).unflatten(-1, (-1, m)).detach().masked_fill(kept, 0)
        assert (magnitudes.masked_fill(~kept, math.inf).min(-1).values >= gone.max(-1).values).all()


def test_two_of_four_is_what_torch_ao_makes(chain_model):
    from torch.ao.pruning import WeightNormSparsifier

    model = nn.Sequential(nn.Linear(16, 12), nn.ReLU(), nn.Linear(12, 8))
    small = prune(capture(model, torch.randn(2, 16)), granularity="2:4")
    theirs = WeightNormSparsifier(sparsity_level=1.0, sparse_block_shape=(1, 4), zeros_per_block=2)
    theirs.prepare(model, [{"tensor_fqn": "0.weight"}, {"tensor_fqn": "2.weight"}])
    theirs.step()
    theirs.squash_mask()
    for name in ("0.weight", "2.weight"):
        torch.testing.assert_close(small.tensor(name).detach(), model.get_parameter(name).detach())


def test_elements_and_kernels_are_those_that_torch_prunes(chain, chain_model):
    small = prune(chain, 0.3, criterion="l1", granularity="element")
    kernels = prune(chain, 0.5, granularity="kernel")
    for layer in ("conv1", "conv2"):
        theirs = copy.deepcopy(chain_model.get_submodule(layer))
        torch_prune.l1_unstructured(theirs, "weight", math.floor(0.3 * theirs.weight.numel() + 0.5))
        assert torch.equal(small.masks[f"{layer}.weight"], theirs.weight_mask.bool())
        flat = nn.Conv2d(1, 1, 1)
        flat.weight = nn.Parameter(chain.tensor(f"{layer}.weight").detach().flatten(0, 1))
        torch_prune.ln_structured(flat, "weight", len(flat.weight) // 2, 2, 0)
        ours = kernels.masks[f"{layer}.weight"]
        assert torch.equal(ours, flat.weight_mask.bool().reshape(ours.shape))


def test_pruning_again_counts_what_is_gone_and_keeps_it_gone(mixed):
    once = prune(mixed, 0.3, granularity="element")
    for criterion in ("l2", "random"):
        twice = prune(once, 0.6, granularity="element", criterion=criterion)
        for name, mask in twice.masks.items():
            assert not (mask & ~once.masks[name]).any()
            assert int((~mask).sum()) == math.floor(0.6 * mask.numel() + 0.5)


def test_patterns_choose_layers_and_the_plan_counts_weights(chain):
    small = prune(chain, 0.5, granularity="element", include=["conv*"], exclude=["conv2"])
    assert list(small.masks) == ["conv1.weight"]
    (step,) = small.plan
    assert (step.place, step.before, step.after) == (Place("weight", "conv1"), 162, 81)
    assert step.setting["keep"] == 81 and words(step.to_json()) == "element, l2, uniform"
    assert chain.masks == {} and not chain.plan and prune(chain, 0.0, granularity="element").masks == {}


@pytest.mark.parametrize("name", [name for name in NAMES if name not in SHRINK])
def test_masks_survive_training_exactly_and_copies_and_files_keep_them(name, chain, data, tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("warnings.warn", lambda *_, **__: None)
        small = prune(chain, None if find(name).stays else 0.5, granularity=name)
    masks = {weight: mask.clone() for weight, mask in small.masks.items()}
    if name != "3:3":
        assert masks
    before = copy.deepcopy(small)
    recover(small, data, epochs=4, lr=0.05, progress=False, channels_last=False, precision="float32")  # 12 steps
    small.save(tmp_path / "small.penjing")
    for one in (small, copy.deepcopy(small), load(tmp_path / "small.penjing")):
        assert one.masks.keys() == masks.keys()
        for weight, mask in masks.items():
            assert torch.equal(one.masks[weight], mask)
            assert (one.tensor(weight)[~mask] == 0).all()
            assert not torch.equal(one.tensor(weight), before.tensor(weight)) and (one.tensor(weight)[mask] != 0).all()


@pytest.mark.parametrize("criterion", BY_WEIGHT)
def test_every_criterion_of_weights_works_at_every_granularity(criterion, chain, data):
    for name in ("element", "kernel", "patterns:4x3", "3:6"):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("warnings.warn", lambda *_, **__: None)
            small = prune(
                chain, None if find(name).stays else 0.5, criterion=criterion, granularity=name, data=data, seed=1
            )
        assert not small.masks["conv2.weight"].all()


def test_channels_of_masked_weights_go_with_their_masks(chain):
    small = prune(prune(chain, 0.5, granularity="element"), 0.5)
    assert small.masks["conv2.weight"].shape == small.tensor("conv2.weight").shape == (4, 3, 3, 3)
    assert torch.equal(small.tensor("conv2.weight") != 0, small.masks["conv2.weight"])


# What can't be


def test_layers_that_do_not_divide_are_skipped_and_named(chain):
    with pytest.warns(UserWarning, match="granularity='2:4' does not fit, so these stay: conv1, conv2"):
        small = prune(chain, granularity="2:4")
    assert list(small.masks) == ["head.weight"]
    assert [(step.place.path, words(step.to_json())) for step in small.plan if "skipped" in words(step.to_json())] == [
        ("conv1", "2:4, l2, uniform; skipped: does not fit 6×3×3×3"),
        ("conv2", "2:4, l2, uniform; skipped: does not fit 8×6×3×3"),
    ]
    with pytest.raises(PenjingError, match=r"'1:5' fits no layer of this model \(conv1: does not fit 6×3×3×3; conv2"):
        prune(chain, granularity="1:5")


@pytest.mark.parametrize("option", [{"amount": 0.5}, {"allocation": "global"}])
def test_a_granularity_that_says_its_amount_takes_no_other(option, chain):
    with pytest.raises(PenjingError, match="'2:4' already says how much stays: leave amount"):
        prune(chain, granularity="2:4", **option)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("5:4", "keeps 5 of every 4 weights: the first number must be from 1 to 4"),
        ("0:4", "keeps 0 of every 4"),
        ("block", "needs its numbers, as in 'block:4x4'"),
        ("n:m", "needs its numbers, as in '2:4'"),
        ("rectangle", "needs its numbers, as in 'rectangle:1x3'"),
        ("patterns", "needs its numbers, as in 'patterns:8x4'"),
        ("rectangle:1x3x3x3", "Unknown granularity"),
        ("block:0x4", "Unknown granularity 'block:0x4'. Did you mean 'block'"),
        ("kernels", "Unknown granularity 'kernels'. Did you mean 'kernel'"),
    ],
)
def test_names_that_make_no_sense_are_refused(name, says, chain):
    with pytest.raises(PenjingError, match=says):
        prune(chain, granularity=name)


def test_an_amount_is_asked_for(chain):
    with pytest.raises(PenjingError, match="amount is the share of units to remove, 0 ≤ amount < 1, not None"):
        prune(chain, granularity="element")


@pytest.mark.parametrize("criterion", ["taylor", "bn_scale"])
def test_a_criterion_of_channels_says_that_it_can_t_score_weights(criterion, chain, data):
    with pytest.raises(PenjingError, match=f"'{criterion}' scores single channels, not single weights.*l1, l2"):
        prune(chain, 0.5, criterion=criterion, granularity="element", data=data)


def test_a_weight_that_is_no_number_is_an_error_that_names_the_layer(chain):
    broken = copy.deepcopy(chain)
    with torch.no_grad():
        broken.tensor("conv2.weight")[0, 0, 0, 0] = math.nan
    with pytest.raises(PenjingError, match=r"'l2' gives scores that aren't numbers for conv2"):
        prune(broken, 0.5, granularity="element")


def test_options_about_channels_are_refused_by_masks(chain):
    with pytest.raises(PenjingError, match="speak of channels, and granularity='element' sets single weights to zero"):
        prune(chain, 0.5, granularity="element", round_to=8)


def test_a_model_without_layers_is_refused():
    graph = capture(nn.ReLU(), torch.randn(2, 5))
    with pytest.raises(PenjingError, match="No weight can be pruned"):
        prune(graph, 0.5, granularity="element")
