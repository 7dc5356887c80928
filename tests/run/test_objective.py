"""The fastest or smallest model whose metric holds, by runs under one limit after another."""

import json
import shutil
from dataclasses import dataclass
from types import SimpleNamespace

import pytest

import penjing as pj
from penjing.run.clock import Clock
from penjing.run.objective import MOST, Try, check_objective, lowered_limit, next_share


def walk(least):
    """The tries where limits from a share on are kept."""
    tries = []
    while (share := next_share(tries)) is not None:
        tries.append(Try(share, share >= least))
    return tries


@pytest.mark.parametrize("least", [0.05, 0.2, 0.33, 0.49, 0.51, 0.7, 0.9])
def test_the_limit_closes_in_on_the_least_that_is_kept(least):
    tries = walk(least)
    assert len(tries) <= MOST and len({one.share for one in tries}) == len(tries)
    kept = [one.share for one in tries if one.kept]
    if least >= 0.1:
        assert kept == [] or min(kept) <= 1.25 * least
    assert all(0 < one.share < 1 for one in tries)


def test_where_none_is_kept_limits_get_looser_until_nothing_would_be_asked():
    assert [one.share for one in walk(2.0)] == [0.5, 0.714]


def test_the_first_steps_down():
    assert [one.share for one in walk(0.0)] == pytest.approx([0.5 * 0.7**step for step in range(MOST)], abs=2e-3)


@dataclass(frozen=True)
class Done:
    met: bool
    share: str


def content(folder):
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def runs(tmp_path):
    """Runs that keep a limit from a share on, and write as a run does."""
    made = []

    def lowered(least, out=tmp_path / "out", budget=None, minutes=None, fails_at=None, cut_at=None):
        def run(limited, place):
            share = limited.latency
            if share == fails_at:
                raise KeyboardInterrupt
            again = (place / ".penjing" / "finished.json").exists()
            made.append((share, again, sorted(path.name for path in place.rglob("*") if path.is_file())))
            (place / ".penjing" / "evidence").mkdir(parents=True, exist_ok=True)
            (place / ".penjing" / "evidence" / f"{share}.safetensors").touch()
            (place / ".penjing" / "run.json").write_text(share)
            (place / "model.onnx").write_text(share)
            if share != cut_at:
                (place / ".penjing" / "finished.json").touch()
            return Done(float(share.removesuffix("x")) >= least, share)

        said = []
        found = lowered_limit("latency", budget or pj.Budget(drop=0.01), out, run, Clock(minutes=minutes), said.append)
        return found, said

    return SimpleNamespace(lowered=lowered, made=made, out=tmp_path / "out")


def test_the_best_run_is_delivered_as_if_it_alone_had_been_made(runs):
    found, said = runs.lowered(0.3)
    assert found == Done(True, "0.32x")
    assert (runs.out / "model.onnx").read_text() == (runs.out / ".penjing" / "run.json").read_text() == "0.32x"
    assert (runs.out / ".penjing" / "finished.json").exists()
    assert said[-1].endswith("0.5x kept, 0.35x kept, 0.245x missed, 0.293x missed, 0.32x kept. Delivered: 0.32x.")


def test_what_was_found_out_about_the_original_serves_the_next_run(runs):
    runs.lowered(0.3)
    shares = [share for share, again, _ in runs.made if not again]
    assert f"{shares[0]}.safetensors" in runs.made[1][2]


def test_killed_runs_go_on_and_finished_ones_are_not_made_again(runs):
    with pytest.raises(KeyboardInterrupt):
        runs.lowered(0.3, fails_at="0.245x")
    found, _ = runs.lowered(0.3)
    fresh = [share for share, again, _ in runs.made if not again]
    assert len(fresh) == len(set(fresh)) and found.met


def test_a_run_that_was_cut_short_says_nothing_of_its_limit_and_ends_the_search(runs):
    found, _ = runs.lowered(0.3, cut_at="0.35x")
    assert found.share == "0.5x" and (runs.out / "model.onnx").read_text() == "0.5x"
    record = json.loads((runs.out / ".penjing" / "tries" / "objective.json").read_text())
    assert record["tries"] == [{"share": 0.5, "kept": True}]


def test_the_first_run_cut_short_is_delivered_unfinished(runs):
    found, _ = runs.lowered(0.3, cut_at="0.5x")
    assert found.share == "0.5x" and not (runs.out / ".penjing" / "finished.json").exists()


def test_where_no_limit_is_kept_the_loosest_is_delivered(runs):
    found, _ = runs.lowered(2.0)
    assert not found.met and found.share == "0.714x"


def test_where_time_is_short_there_is_one_run(runs):
    found, said = runs.lowered(0.0, minutes=0.0)
    assert found.share == "0.5x" and any("no time for another run" in line for line in said)


def test_a_folder_with_other_runs_is_refused_and_left_alone(runs):
    runs.lowered(0.3)
    before = content(runs.out)
    with pytest.raises(pj.PenjingError, match="another objective or budget"):
        runs.lowered(0.3, budget=pj.Budget(drop=0.02))
    assert content(runs.out) == before


def test_a_folder_with_a_single_run_is_refused_and_left_alone(runs):
    (runs.out / ".penjing").mkdir(parents=True)
    (runs.out / ".penjing" / "run.json").write_text("mine")
    with pytest.raises(pj.PenjingError, match="holds a run without this objective"):
        runs.lowered(0.3)
    assert content(runs.out) == {".penjing/run.json": "mine"} and runs.made == []


@pytest.mark.parametrize(
    "damaged",
    ["", "{", "[]", "{}", '{"settings": {}, "tries": [{"share": 0.5}]}', '{"settings": {}, "tries": [{"share": -1, "kept": 1}]}'],
)  # fmt: skip
def test_a_damaged_record_is_told_and_finished_runs_are_only_read(runs, damaged):
    runs.lowered(0.3)
    before, made = content(runs.out), len(runs.made)
    (runs.out / ".penjing" / "tries" / "objective.json").write_text(damaged)
    found, said = runs.lowered(0.3)
    assert "objective.json is damaged" in said[0] and "all limits are tried again" in said[0]
    assert found == Done(True, "0.32x") and content(runs.out) == before
    assert all(again for _, again, _ in runs.made[made:])


def test_a_search_that_goes_on_reads_a_finished_run_first_which_refuses_other_settings(runs):
    with pytest.raises(KeyboardInterrupt):
        runs.lowered(0.3, fails_at="0.245x")
    made = len(runs.made)
    runs.lowered(0.3)
    assert runs.made[made][:2] == ("0.35x", True) and runs.made[made + 1][:2] == ("0.245x", False)


def test_what_was_delivered_before_goes_and_a_killed_delivery_is_no_finished_run(runs, monkeypatch):
    runs.lowered(0.3, cut_at="0.35x")
    (runs.out / ".penjing" / "recover.checkpoint").touch()
    copy, copied = shutil.copyfile, []

    def killed(source, target):
        copied.append(source)
        if source.name == "model.onnx":
            raise KeyboardInterrupt
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", killed)
    with pytest.raises(KeyboardInterrupt):
        runs.lowered(0.3)
    assert (runs.out / ".penjing" / "run.json").exists() and not (runs.out / ".penjing" / "finished.json").exists()
    assert (runs.out / "model.onnx").read_text() == "0.5x"
    monkeypatch.setattr(shutil, "copyfile", copy)
    runs.lowered(0.3)
    assert (runs.out / "model.onnx").read_text() == "0.32x"
    assert (runs.out / ".penjing" / "finished.json").exists()
    assert not (runs.out / ".penjing" / "recover.checkpoint").exists()


@pytest.mark.parametrize(
    ("objective", "budget", "words"),
    [
        ("latencyy", pj.Budget(drop=0.01), "Unknown objective 'latencyy'.*Did you mean 'latency'"),
        ("latency", pj.Budget(), "needs drop="),
        ("size", pj.Budget(drop=0.01, size="0.5x"), "leave size=… out"),
    ],
)
def test_an_objective_that_makes_no_sense_is_refused(objective, budget, words):
    with pytest.raises(pj.PenjingError, match=words):
        check_objective(objective, budget)
