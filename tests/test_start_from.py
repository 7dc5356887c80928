"""A run of `compress` that begins with an earlier one: what isn't made again, what is trained on, what is refused."""

import copy
from dataclasses import replace

import pytest
import torch

import penjing as pj
from penjing.errors import PenjingError
from penjing.planning import Deployment, MeasuredPlan, Problem, read_journal, write_journal
from penjing.run import earlier, stages
from penjing.run.differences import differences
from penjing.run.workspace import Workspace
from penjing.techniques import Scope
from planning.blobs import points
from test_stages_of_compress import MADE, Run, again, data, graph, same, weights, whole  # noqa: F401  fixtures

ORIGINAL = ["lower original", "judge"]
NUMBERS = MADE[MADE.index("quantise") :]


@pytest.fixture
def later(whole, tmp_path):  # noqa: F811
    return Run(whole.graph, whole.data, tmp_path / "later")


def test_another_budget_measures_no_original_and_trains_nothing_again(later, whole):  # noqa: F811
    result = later(start_from=whole.out, budget=pj.Budget(size="0.95x"))
    assert later.made == ["choose", *NUMBERS]
    assert same(weights(later.out), weights(whole.out))
    assert result.report["started_from"] == str(whole.out) and result.report["budget"] == {"size": "0.95x"}
    assert any("Taken over: " in line and "the weights that it trained" in line for line in later.said)


def test_the_earlier_folder_may_go_and_stays_as_it_was(later, whole):  # noqa: F811
    before = {path: path.read_bytes() for path in whole.out.rglob("*") if path.is_file()}
    later(start_from=whole.out, budget=pj.Budget(size="0.95x"))
    assert before == {path: path.read_bytes() for path in whole.out.rglob("*") if path.is_file()}
    assert not any(path.is_symlink() for path in later.out.rglob("*"))


def test_where_another_candidate_is_chosen_nothing_trained_serves(later, whole):  # noqa: F811
    later.share = 0.25
    later(start_from=whole.out, budget=pj.Budget(size="0.95x"))
    assert later.made == ["choose", "prune", "recover", *NUMBERS]
    assert not (later.out / ".penjing" / stages.START).exists()


def test_other_epochs_begin_with_the_weights_that_were_trained(later, whole):  # noqa: F811
    begun = []

    def hear(line):
        if "Training begins with the weights" in line:
            begun.append(line)

    later.hear = hear
    result = later(start_from=whole.out, epochs=1)
    assert later.made == ["choose", "recover", *NUMBERS] and len(begun) == 1
    assert any("had trained" in note for note in result.report["notes"])
    trained, before = weights(later.out), weights(whole.out)
    fresh = Run(whole.graph, whole.data, later.out.with_name("fresh"))
    fresh(epochs=1)

    def far(one):
        return sum((one[name] - before[name]).abs().sum() for name in before)

    assert not same(trained, before) and far(trained) < far(weights(fresh.out))


def test_another_target_takes_the_trained_weights_and_no_measurement(later, whole):  # noqa: F811
    later(start_from=whole.out, target="onnxruntime")
    assert later.made == [*ORIGINAL, "choose", *NUMBERS]
    assert any("Not all of it serves: target was torch and is onnxruntime" in line for line in later.said)


def test_other_data_take_the_original_s_file_alone(later, whole):  # noqa: F811
    later(start_from=whole.out, data=replace(whole.data, validation=points(3, 64)))
    assert later.made == [one for one in MADE if one != "lower original"]
    assert any("Not all of it serves: the data 'points' differ" in line for line in later.said)


def test_a_run_that_begins_with_another_one_goes_on_after_a_stop(later, whole):  # noqa: F811
    def kill(what):
        if what == "verify":
            raise KeyboardInterrupt

    later.kill = kill
    with pytest.raises(KeyboardInterrupt):
        later(start_from=whole.out)
    later.kill = lambda what: None
    later(start_from=whole.out)
    assert later.made == ["quantise", "lower model", "deliver", "verify", "report"]
    assert not any("Taken over" in line for line in later.said)


def test_the_estimate_counts_what_is_taken_over(again, later):  # noqa: F811
    fresh = later(dry_run=True)
    level = [MeasuredPlan(pj.Plan(), 10, 0.5, 0.5, 100, True)]
    write_journal(again.out / ".penjing" / stages.CANDIDATES, [level] * 4)
    expected = later(start_from=again.out, dry_run=True)
    assert expected.minutes_choose < fresh.minutes_choose and not later.out.exists()


def test_the_model_is_that_of_the_earlier_run_where_none_is_given(whole, tmp_path):  # noqa: F811
    result = pj.compress(
        data=whole.data, start_from=whole.out, budget=pj.Budget(size="0.9x"), epochs=2, lr=0.1, precision="float32",
        channels_last=False, target="torch", out=tmp_path / "out", say=lambda line: None, dry_run=True,
    )  # fmt: skip
    assert result.minutes_train >= 0


def test_what_can_not_begin_so_is_refused_in_plain_words(later, whole, tmp_path):  # noqa: F811
    with pytest.raises(PenjingError, match="is the folder of the earlier run itself"):
        later(start_from=whole.out, out=whole.out)
    with pytest.raises(PenjingError, match="holds no run of compress"):
        later(start_from=tmp_path)
    with pytest.raises(PenjingError, match="nothing names them: give data"):
        later(start_from=whole.out, data=None)
    with pytest.raises(PenjingError, match="compress needs data, or an earlier run"):
        later(data=None)
    other = copy.deepcopy(whole.graph)
    with torch.no_grad():
        other.tensor("0.bias")[0] += 1
    with pytest.raises(PenjingError, match=r"isn't the one of the run in .*: the weights differ"):
        Run(other, whole.data, later.out)(start_from=whole.out)
    assert not later.out.exists()


def test_differences_name_files_and_never_hashes():
    one, two = {"model": "a" * 64, "data": "cats 12ab"}, {"model": "b" * 64, "data": "cats 34cd"}
    before = {"inputs": {"weights_file": "1", "model_source_file": "5"}, "structure": "s"}
    found = differences(one, two, before, before | {"inputs": {"weights_file": "2", "model_source_file": "5"}})
    assert found["model"] == "the weights file differs" and found["data"].startswith("the data 'cats' differ")
    assert differences(one, two, before, before)["model"] == "the weights differ"
    assert differences(one, two, before, before | {"structure": "t"})["model"] == "the network has other layers"
    assert differences(one, two, {}, {})["model"] == "the model's weights or layers differ"


def test_measured_candidates_are_judged_by_the_new_limits(whole, tmp_path):  # noqa: F811
    space = Workspace(tmp_path / "out", {})
    file = whole.out / ".penjing" / "original.pt2"
    problem = Problem(
        whole.graph, whole.data, pj.targets.open_artifact(file, "torch"), pj.Budget(latency="0.5x"), Deployment("torch"), {},
        Scope(), tmp_path, journal=space.inner / stages.CANDIDATES,
    )  # fmt: skip
    fast, slow = (MeasuredPlan(pj.Plan(), 10, share, share, 100, share > 0.5) for share in (0.4, 0.6))
    write_journal(space.inner / stages.MEASURED_EARLIER, [[fast, slow]])
    earlier.judge_anew(space, problem)
    assert [one.meets for one in read_journal(problem.journal)[0]] == [True, False]
    assert not (space.inner / stages.MEASURED_EARLIER).exists()
