"""Places, options and plans: data that reads and writes plan.json."""

import json

import pytest
from torch import nn

from penjing.errors import PenjingError
from penjing.graph import Option, Place, Plan
from penjing.graph.places import MOST_NESTED, Architecture, unknown_place

OPTION = Option(Place("group", "conv1"), "prune", {"keep": 3, "include": ["conv*"]}, 6, 3, {"least": 3})
RECORD = {
    "place": {"kind": "group", "path": "conv1"},
    "technique": "prune",
    "setting": {"keep": 3, "include": ["conv*"]},
    "before": 6,
    "after": 3,
    "found": {"least": 3},
}


def test_a_group_a_branch_a_weight_and_a_value_of_one_path_are_four_places():
    assert len({Place(kind, "conv1") for kind in ("group", "branch", "weight", "value")}) == 4
    assert Place("group", "conv1") == Place("group", "conv1") and str(Place("value", "conv1")) == "conv1"


def test_a_plan_is_what_stands_in_its_file(tmp_path):
    plan = Plan((OPTION, Option(Place("weight", "head"), "quantize", {"weights": "int8"}, "float32", "int8")))
    plan.write(tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text())[0] == RECORD
    assert Plan.read(tmp_path / "plan.json") == plan == Plan.from_json(plan.to_json())
    assert [option.place.path for option in plan.of("quantize")] == ["head"]
    assert (plan + plan.options[:1]).options[2] == OPTION
    assert not Plan() and len(plan) == 2, "adding to a plan makes another"


def test_a_list_of_options_is_a_plan_of_no_named_model(tmp_path):
    (tmp_path / "plan.json").write_text(json.dumps([RECORD]))
    assert Plan.read(tmp_path / "plan.json") == Plan((OPTION,)) and Plan((OPTION,)).architecture is None


def test_a_plan_keeps_its_architecture_through_all_that_is_done_with_it(tmp_path):
    model = nn.Linear(3, 2)
    architecture = Architecture.of("Net", dict(model.named_parameters()))
    plan = Plan((OPTION,), architecture)
    plan.write(tmp_path / "plan.json")
    more = plan
    more += [OPTION]
    others = (more, plan.of("quantize"), plan.having([]), Plan.read(tmp_path / "plan.json"))
    assert {other.architecture for other in others} == {architecture} and str(architecture) == "Net (8 parameters)"


def test_architectures_are_told_apart_by_names_and_shapes_and_not_by_values():
    def tensors(model):
        return {**dict(model.named_parameters()), **dict(model.named_buffers())}

    same, again = (Architecture.of("a", tensors(nn.Linear(3, 2))) for _ in range(2))
    wider, normed = (Architecture.of("a", tensors(one)) for one in (nn.Linear(3, 4), nn.BatchNorm1d(3)))
    moved = Architecture.of("a", {f"0.{name}": tensor for name, tensor in tensors(nn.Linear(3, 2)).items()})
    tied = nn.Linear(3, 3).weight
    assert same == again and len({one.tensors for one in (same, wider, normed, moved)}) == 4
    assert Architecture.of("a", {"one": tied, "two": tied}).params == 9, "tied parameters count once"


def nested(depth):
    return {"a": nested(depth - 1)} if depth else 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"place": "conv1"}, "'plan.options[1].place' must be an object, and is 'conv1'"),
        (
            {"place": {"kind": "layer", "path": "conv1"}},
            "'plan.options[1].place.kind' must be 'branch' or 'group' or 'value' or 'weight', and is 'layer'",
        ),
        ({"place": {"kind": "group", "path": 3}}, "'plan.options[1].place.path' must be a string, and is 3"),
        ({"technique": None}, "'plan.options[1].technique' must be a string, and is null"),
        ({"technique": ""}, "'plan.options[1].technique' must be a string of length >= 1"),
        ({"setting": "filter, l2"}, "'plan.options[1].setting' must be an object, and is 'filter, l2'"),
        ({"found": []}, "'plan.options[1].found' must be an object, and is []"),
        ({"more": 1}, "'plan.options[1]' has the unknown key 'more'"),
        ({"setting": nested(MOST_NESTED + 1)}, "nested too deep"),
        ({"before": float("inf")}, "no number of JSON"),
    ],
)
def test_what_is_no_step_is_refused_with_the_reason(tmp_path, change, said):
    (tmp_path / "plan.json").write_text(json.dumps([RECORD, RECORD | change]))
    with pytest.raises(PenjingError, match="holds no plan") as caught:
        Plan.read(tmp_path / "plan.json")
    assert said in str(caught.value)


@pytest.mark.parametrize("content", ["", "[", "{}", "3", "[[]]", "[" * 100_000, '[{"place": NaN}]', "\x00\xff"])
def test_damaged_files_are_refused(tmp_path, content):
    (tmp_path / "plan.json").write_bytes(content.encode("latin1"))
    with pytest.raises(PenjingError, match="holds no plan"):
        Plan.read(tmp_path / "plan.json")


def test_a_step_without_its_setting_or_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(PenjingError, match=r"'option\.setting' is missing"):
        Option.from_json({key: value for key, value in RECORD.items() if key != "setting"})
    with pytest.raises(PenjingError, match="There is no file"):
        Plan.read(tmp_path / "plan.json")


def test_a_place_that_is_not_there_is_told_with_the_nearest():
    there = [Place("group", "layer1.conv1"), Place("weight", "layer1.conv2"), Place("group", "head")]
    assert "the nearest is 'layer1.conv1'" in str(unknown_place(Place("group", "layer1.conv"), there, "Net"))
    assert "'layer1.conv2' is a weight there" in str(unknown_place(Place("group", "layer1.conv2"), there, "Net"))
    assert "it has no branch" in str(unknown_place(Place("branch", "block"), there, "Net"))
