"""Several widths in one set of weights: switched, taken apart, trained together, kept in files."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

from penjing import zoo
from penjing.adaptive import Sandwich, SandwichTask, Slimmable
from penjing.errors import PenjingError
from penjing.graph import capture, channels, remove
from penjing.graph.edit.surgery import kept_indices
from penjing.pruning import prune
from penjing.quantization import quantize
from penjing.targets import session
from penjing.tasks import Classification, Regression, Unlabelled, evaluate
from penjing.verbs import slimmable

PLAIN = {"precision": "float32", "channels_last": False}


def outputs(model, x, **more):
    with torch.no_grad():
        return model(x, **more)


@pytest.fixture(scope="module")
def slim(trained, digits):
    return slimmable(
        trained, [1.0, 0.25, 0.5], data=digits, epochs=4, lr=0.05, training=PLAIN, progress=False, include=["*"]
    )


@pytest.fixture
def x():
    return torch.randn(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))


# Switching


def test_a_width_computes_what_its_graph_computes_to_the_bit(slim, x):
    for place, width in enumerate(slim.widths):
        graph = slim.graph(place)
        slim.width = place
        assert torch.equal(outputs(slim, x), outputs(graph, x)) and slim.widths[slim.width] == width
        assert torch.equal(outputs(slim, x, width=2), outputs(slim.graph(2), x))  # one call alone
        assert torch.equal(outputs(slim, x), outputs(graph, x))
    slim.width = 2


def test_a_network_of_many_groups_computes_at_every_width_what_its_graphs_compute(digits):
    torch.manual_seed(2)
    model = zoo.resnet20()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias)
    graph, x = capture(model.eval(), torch.randn(2, 3, 16, 16)), torch.randn(3, 3, 16, 16)
    found = slimmable(graph, [0.3, 0.6, 0.9], data=digits, epochs=0)
    for place in range(3):
        assert torch.equal(outputs(found, x, width=place), outputs(found.graph(place), x))


def test_weights_are_there_once_and_norms_for_each_width(slim, trained):
    shared = sum(p.numel() for p in slim.wide.parameters())
    assert shared == sum(p.numel() for p in trained.parameters())
    assert {name.partition(".")[2].rpartition(".")[0] for name in slim.slim.state_dict()} == {
        "bn",
        "block.1",
        "block.4",
    }
    counts = {place: [group.units for group in channels(slim.graph(place)).groups] for place in range(3)}
    assert counts == {0: [2, 4, 4], 1: [4, 8, 8], 2: [8, 16, 16]}
    means = [slim.graph(place).tensor("bn.running_var") for place in range(3)]
    assert not torch.allclose(means[0], means[1][: len(means[0])]) and len(means[2]) == 8


def test_a_change_of_a_shared_weight_reaches_every_width(slim, x):
    changed = copy.deepcopy(slim)
    before = [outputs(changed, x, width=place) for place in range(3)]
    with torch.no_grad():
        changed.wide.tensor("head.bias").add_(1)
    for place in range(3):
        torch.testing.assert_close(outputs(changed, x, width=place), before[place] + 1)
    assert torch.equal(outputs(slim, x), before[2])


def test_a_change_that_torch_doesnt_count_reaches_every_width(slim, x):
    changed = copy.deepcopy(slim)
    before = outputs(changed, x, width=0)
    changed.wide.tensor("stem.weight").data.mul_(3)
    after = outputs(changed, x, width=0)
    assert torch.equal(after, outputs(changed.graph(0), x)) and not torch.equal(after, before)


def test_a_narrow_width_keeps_the_channels_that_the_criterion_ranks_first_and_a_wider_one_keeps_these_too(
    trained, digits
):
    found = slimmable(trained, [0.25, 0.5, 1.0], data=digits, epochs=0, criterion="l1", exclude=["stem"])
    weight = trained.tensor("block.0.weight").detach()
    best = weight.abs().sum((1, 2, 3)).argsort(descending=True)
    for place, kept in ((0, 4), (1, 8)):
        own = found.graph(place).tensor("block.0.weight").detach()
        torch.testing.assert_close(own, weight[best[:kept].sort().values])
        torch.testing.assert_close(
            own, prune(trained, 1 - kept / 16, criterion="l1", exclude=["stem"]).tensor("block.0.weight")
        )
    assert [(str(step.place), step.after) for step in found.graph(0).plan] == [("block.0", 4), ("last", 4)]


def test_kept_indices_are_those_of_the_tensors_that_remove_leaves(trained):
    found = channels(trained)
    units = {0: np.array([1, 5]), 2: np.array([0, 3, 9])}
    small = remove(trained, found, units)
    for name, kept in kept_indices(trained, found, units).items():
        tensor = trained.tensor(name)
        for axis, indices in enumerate(kept):
            tensor = tensor if indices is None else tensor.index_select(axis, torch.from_numpy(indices))
        assert torch.equal(tensor, small.tensor(name))


# Training


def test_every_width_learns(slim, digits):
    found = [evaluate(slim.graph(place), digits.validation, digits.task) for place in range(3)]
    assert found[0] > 0.25 and found[1] > 0.6 and found[2] > 0.8  # the narrowest has two channels in front


def test_the_loss_is_the_widests_by_labels_and_the_others_divergence_from_it():
    generator = torch.Generator().manual_seed(3)
    narrow, middle, wide = (torch.randn(6, 4, generator=generator, requires_grad=True) for _ in range(3))
    labels = torch.randint(4, (6,), generator=generator)
    loss = SandwichTask(Classification()).loss((narrow, middle, wide), labels)
    taught = wide.detach().softmax(1)
    by_hand = F.cross_entropy(wide, labels) + sum(
        (taught * (taught.log() - made.log_softmax(1))).sum(1).mean() for made in (narrow, middle)
    )
    torch.testing.assert_close(loss, by_hand)
    loss.backward()
    alone = torch.autograd.grad(F.cross_entropy(wide, labels), wide)[0]
    torch.testing.assert_close(wide.grad, alone)  # the widest doesn't learn from the narrower ones


def test_values_are_learned_as_they_are():
    made, wide, target = (torch.randn(5, 2, generator=torch.Generator().manual_seed(seed)) for seed in range(3))
    loss = SandwichTask(Regression()).loss((made, wide), target)
    torch.testing.assert_close(loss, Regression().loss(wide, target) + F.mse_loss(made, wide))


def test_of_many_widths_a_step_takes_four_with_the_narrowest_and_the_widest(trained, digits, x):
    found = slimmable(trained, [0.25, 0.4, 0.5, 0.65, 0.8, 1.0], data=digits, epochs=0)
    every = [outputs(found, x, width=place) for place in range(6)]
    sandwich, seen = Sandwich(found).eval(), set()
    assert all(torch.equal(one, made) for one, made in zip(every, outputs(sandwich, x), strict=True))
    sandwich.training = True  # but not the norms, so that outputs tell the widths
    for seed in range(20):
        torch.manual_seed(seed)
        chosen = [next(i for i, one in enumerate(every) if torch.equal(one, made)) for made in outputs(sandwich, x)]
        assert chosen[0] == 0 and chosen[-1] == 5 and len(chosen) == 4 and chosen == sorted(set(chosen))
        seen |= set(chosen)
    assert seen == set(range(6))


def test_a_killed_training_goes_on_to_the_same_weights(trained, digits, tmp_path):
    class Killed(Exception):
        pass

    class Steps:
        same_throughout = True

        def __init__(self, limit):
            self.limit = limit

        def __call__(self, graph, progress):
            if progress > self.limit:
                raise Killed

    def run(limit, file):
        more = {**PLAIN, "callbacks": [Steps(limit)]}
        return slimmable(
            trained, [0.5, 1.0], data=digits, epochs=2, lr=0.05, checkpoint=file, training=more, progress=False
        )

    whole = run(1.0, tmp_path / "whole.ckpt")
    with pytest.raises(Killed):
        run(0.7, tmp_path / "file.ckpt")
    again = run(1.0, tmp_path / "file.ckpt")
    assert all(torch.equal(one, again.state_dict()[name]) for name, one in whole.state_dict().items())


# Files


def test_a_folder_holds_the_network(slim, x, tmp_path):
    slim.save(tmp_path / "slim")
    again = Slimmable.load(tmp_path / "slim")
    assert again.widths == slim.widths and again.settings == slim.settings
    for place in range(3):
        assert torch.equal(outputs(again, x, width=place), outputs(slim, x, width=place))


@pytest.mark.parametrize("file", ["widest.penjing", "norms.safetensors", "slimmable.json"])
def test_a_folder_that_is_damaged_or_lacks_a_file_is_refused(file, slim, tmp_path):
    slim.save(tmp_path)
    (tmp_path / file).write_bytes(b"{}")
    with pytest.raises(PenjingError):
        Slimmable.load(tmp_path)
    (tmp_path / file).unlink()
    with pytest.raises(PenjingError, match=f"there is no file {file}"):
        Slimmable.load(tmp_path)


def test_a_folder_of_parts_that_dont_belong_together_is_refused(slim, tmp_path):
    slim.save(tmp_path / "slim")
    content = json.loads((tmp_path / "slim" / "slimmable.json").read_text())
    for wrong in (
        {"counts": [[2, 4, 0], *content["counts"][1:]]},
        {"counts": content["counts"][1:]},
        {"ranks": [content["ranks"][0], content["ranks"][1], [0] * 16]},
        {"ranks": content["ranks"][1:]},
    ):
        (tmp_path / "slim" / "slimmable.json").write_text(json.dumps(content | wrong))
        with pytest.raises(PenjingError, match="doesn't belong to the network"):
            Slimmable.load(tmp_path / "slim")
    (tmp_path / "slim" / "slimmable.json").write_text(json.dumps(content))
    norms = load_file(tmp_path / "slim" / "norms.safetensors")
    save_file({name: norm[:1] for name, norm in norms.items()}, tmp_path / "slim" / "norms.safetensors")
    with pytest.raises(PenjingError, match="its norms differ"):
        Slimmable.load(tmp_path / "slim")


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"widths": [0.25, 1.0, 1.0]}, "from narrow to wide"),
        ({"widths": [0.5, 0.25, 1.0]}, "from narrow to wide"),
        ({"widths": [0.0, 0.5, 1.0]}, "above 0 and at most 1"),
        ({"widths": [0.25, 0.5, 2.0]}, "above 0 and at most 1"),
        ({"settings": {}}, "is missing"),
        ({"settings.criterion": {}}, "'settings.criterion' must be a string"),
        ({"settings.seed": "x"}, "'settings.seed' must be a whole number"),
        ({"settings.units": "rows"}, "'settings.units' must be 'auto' or"),
        ({"settings.more": 1}, "unknown key 'more'"),
    ],
)
def test_a_strangers_record_is_checked(wrong, says, slim, tmp_path):
    slim.save(tmp_path)
    content = json.loads((tmp_path / "slimmable.json").read_text())
    for name, value in wrong.items():
        outer, _, inner = name.partition(".")
        content[outer] = {**content[outer], inner: value} if inner else value
    (tmp_path / "slimmable.json").write_text(json.dumps(content))
    with pytest.raises(PenjingError, match=r"slimmable\.json can't be used") as error:
        Slimmable.load(tmp_path)
    assert says in str(error.value)


def test_each_width_is_lowered_to_a_file(slim, x, tmp_path):
    files = slim.lower("onnxruntime", tmp_path)
    assert [one.path.name for one in files] == ["width-0.25.onnx", "width-0.5.onnx", "width-1.onnx"]
    for place, artifact in enumerate(files):
        torch.testing.assert_close(session(artifact)(x), outputs(slim, x, width=place), atol=1e-5, rtol=1e-5)


# What makes no sense


@pytest.mark.parametrize(
    ("widths", "says"),
    [
        ([0.5, 1.5], "it must be shares of the channels, above 0 and at most 1"),
        ([0.0, 1.0], "it must be shares of the channels, above 0 and at most 1"),
        ([0.02, 1.0], r"keeps none of the 8 channels of .*: take a share of 0.0625 or more"),
        ([0.5, 0.5, 1.0], "hold 0.5 twice"),
        ([1.0], "leave nothing to switch"),
        ([0.5, 0.51], "widths 0.5 and 0.51 keep the same channels"),
    ],
)
def test_widths_that_make_no_sense_are_refused(widths, says, trained, digits):
    with pytest.raises(PenjingError, match=says):
        slimmable(trained, widths, data=digits, epochs=0)


def test_a_width_that_isnt_there_is_refused(slim, x):
    for wrong in (3, -1, True, 0.5):
        with pytest.raises(PenjingError, match=r"it must be the position of a width: 0 \(0.25\), 1 \(0.5\), 2 \(1\)"):
            slim.width = wrong
        with pytest.raises(PenjingError, match="position of a width"):
            slim(x, width=wrong)


def test_what_cant_have_several_widths_is_refused(trained, digits):
    with pytest.raises(PenjingError, match="The graph is quantised"):
        slimmable(quantize(trained, digits), [0.5, 1.0], data=digits)
    with pytest.raises(PenjingError, match="has masks of single weights"):
        slimmable(prune(trained, 0.5, granularity="element"), [0.5, 1.0], data=digits)
    with pytest.raises(PenjingError, match="The data has no labels"):
        slimmable(trained, [0.5, 1.0], data=replace(digits, task=Unlabelled()))
    with pytest.raises(PenjingError, match="Unknown argument in training="):
        slimmable(trained, [0.5, 1.0], data=digits, training={"leraning_rate": 1})
    with pytest.raises(PenjingError, match=r"it must be a captured graph, .* or what penjing.compress returned"):
        slimmable(nn.Linear(2, 2), [0.5, 1.0], data=digits)


def test_a_result_stands_for_its_graph(trained, digits, x):
    class Holder:
        graph = trained

    found = slimmable(Holder(), [0.5, 1.0], data=digits, epochs=0)
    torch.testing.assert_close(outputs(found, x), outputs(trained, x))
