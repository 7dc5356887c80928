"""Which stages of a run are finished, by the files that are there."""

import pytest

from penjing.run import stages
from penjing.run.workspace import Workspace

INNER = {
    "capture": [stages.ORIGINAL],
    "profile": ["original.onnx", stages.BASELINE],
    "choose": [stages.CHOICE],
    "prune": [stages.PRUNED],
    "recover": [stages.RECOVERED],
}
PRODUCTS = ("report.json", "report.html", "model.penjing", "model.onnx", "run.py", "plan.json")
ALL = (*INNER, "quantise", "lower", "verify", "report")


@pytest.fixture
def space(tmp_path):
    """A folder in which every file of every stage is there."""
    made = Workspace(tmp_path, {})
    for files in (*INNER.values(), [stages.FINISHED]):
        for file in files:
            (made.inner / file).touch()
    for file in PRODUCTS:
        (made.out / file).touch()
    return made


def finished(space):
    return stages.finished(space.held(), (".onnx",))


def test_with_every_file_all_stages_are_finished(space):
    assert finished(space) == ALL and stages.is_finished(space.held(), (".onnx",))


@pytest.mark.parametrize("product", PRODUCTS)
def test_a_run_without_one_of_its_products_is_not_finished(space, product):
    (space.out / product).unlink()
    assert not stages.is_finished(space.held(), (".onnx",)) and finished(space) == tuple(INNER)


def test_a_run_that_never_said_that_it_is_finished_is_not(space):
    (space.inner / stages.FINISHED).unlink()
    assert not stages.is_finished(space.held(), (".onnx",)) and finished(space) == tuple(INNER)


@pytest.mark.parametrize(("stage", "file"), [(stage, file) for stage, files in INNER.items() for file in files])
def test_behind_a_missing_file_no_stage_counts_though_its_own_files_are_there(space, stage, file):
    (space.inner / stages.FINISHED).unlink()
    (space.inner / file).unlink()
    assert finished(space) == ALL[: ALL.index(stage)]


def test_of_a_target_with_several_files_each_counts(space):
    held, several = space.held(), (".onnx", ".data")
    assert not stages.is_finished(held, several) and stages.finished(held, several) == ("capture",)
    (space.inner / "original.data").touch()
    assert stages.finished(held, several) == tuple(INNER)
    (space.out / "model.data").touch()
    assert stages.finished(held, several) == ALL


def test_a_folder_in_the_place_of_a_file_is_no_file(space):
    (space.out / "plan.json").unlink()
    (space.out / "plan.json").mkdir()
    assert not stages.is_finished(space.held(), (".onnx",))


def test_what_several_stages_were_cut_short_by_is_kept_apart(space):
    stages.note_cut(space, 1.0, [stages.CHOICE], True)
    stages.note_cut(space, 2.0, [stages.RECOVERED, stages.CHECKPOINT], True)
    assert stages.outlived(space.held(), 1.0) == ()
    assert stages.outlived(space.held(), 1.5) == (stages.CHOICE,)
    assert stages.outlived(space.held(), 3.0) == (stages.CHOICE, stages.RECOVERED, stages.CHECKPOINT)


def test_where_nothing_was_cut_short_nothing_is_written(space):
    stages.note_cut(space, 1.0, [stages.CHOICE], False)
    assert not (space.inner / stages.CUT).exists()
