"""Several budgets from one measuring: one folder each, what later runs take over, what a kill leaves, what is refused."""

import pytest

import penjing as pj
from penjing.errors import PenjingError
from penjing.sweep import limited_budgets
from test_stages_of_compress import MADE, Killed, Run, data, graph  # noqa: F401  fixtures

NUMBERS = MADE[MADE.index("quantise") :]


class Sweeping(Run):
    """Calls `sweep` as `Run` calls `compress`."""

    def __call__(self, budgets=("0.95x", "0.9x"), **changes):
        self.made, self.said = [], []
        given = {
            "limit": "size", "epochs": 1, "lr": 0.1, "precision": "float32", "channels_last": False, "target": "torch",
            "out": self.out, "progress": False,
        }  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            self._listen(patch)
            return pj.sweep(self.graph, data=self.data, budgets=budgets, say=self._say, **given | changes)


@pytest.fixture
def sweeping(graph, data, tmp_path):  # noqa: F811
    return Sweeping(graph, data, tmp_path / "front")


def test_each_limit_gets_a_folder_and_each_run_begins_with_the_one_before(sweeping):
    found = sweeping()
    assert [one.out for one in found.results] == [sweeping.out / "0.95x", sweeping.out / "0.9x"]
    assert sweeping.made == [*MADE, "choose", *NUMBERS]
    first, second = (one.report for one in found.results)
    assert first.get("started_from") is None and second["started_from"] == str(sweeping.out / "0.95x")
    assert first["budget"] == {"size": "0.95x"} and second["budget"] == {"size": "0.9x"}


def test_every_point_is_a_saved_network_and_the_page_leads_to_each(sweeping):
    found = sweeping()
    page = (sweeping.out / "index.html").read_text()
    for one in found.results:
        assert pj.load(one.out / "model.penjing").cost() == one.graph.cost()
        assert f'href="{one.out.name}/report.html"' in page
    assert [row.name for row in found.comparison.rows] == [str(one.out) for one in found.results]


def test_a_sweep_that_was_killed_goes_on_with_the_run_that_was_cut(sweeping):
    def kill(what):
        if sweeping.made.count("lower model") == 2:
            raise Killed

    sweeping.kill = kill
    with pytest.raises(Killed):
        sweeping()
    assert not (sweeping.out / "index.html").exists()
    sweeping.kill = lambda what: None
    found = sweeping()
    assert "lower original" not in sweeping.made and "recover" not in sweeping.made
    assert len(found.results) == 2 and (sweeping.out / "index.html").exists()


def test_a_sweep_that_is_finished_is_only_read_and_another_limit_is_added_to_it(sweeping):
    sweeping()
    sweeping()
    assert sweeping.made == []
    found = sweeping(budgets=("0.95x", "0.9x", "0.85x"))
    assert sweeping.made == ["choose", *NUMBERS] and len(found.comparison.rows) == 3


def test_other_settings_in_the_same_folder_are_refused(sweeping):
    sweeping()
    with pytest.raises(PenjingError, match="epochs"):
        sweeping(epochs=2)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"budgets": ["0.5x"]}, "needs two limits or more"),
        ({"budgets": ["0.5x", "0.5x"]}, "'0.5x' is given twice"),
        ({"budgets": ["0.5x", "soon"]}, "latency='soon' is no budget"),
        ({"budgets": ["0.5x", "5 ms"]}, "write it without spaces"),
        ({"budgets": ["0.5x", "0.3x"], "limit": "latencies"}, "Unknown limit 'latencies'.*Did you mean 'latency'"),
        ({"budgets": ["0.5x", "0.3x"], "budget": pj.Budget(latency="1ms")}, "leave one of them out"),
        (
            {"budgets": ["0.5x", "0.3x"], "limit": "peak_memory", "budget": pj.Budget(peak_memory="L2")},
            "leave one of them out",
        ),
        ({"budgets": ["0.5x", "0.3x"], "epoch": 3}, "argument of sweep 'epoch'.*Did you mean 'epochs'"),
        ({"budgets": ["0.5x", "0.3x"], "dry_run": True}, "dry_run=… belongs to a single run"),
        ({"budgets": "0.5x,0.3x"}, "budgets"),
    ],
)
def test_bad_input_is_told_before_anything_is_made(graph, data, tmp_path, changes, words):  # noqa: F811
    with pytest.raises(PenjingError, match=words):
        pj.sweep(graph, data=data, out=tmp_path / "front", **changes)
    assert not (tmp_path / "front").exists()


def test_folders_of_something_else_are_refused(sweeping, graph, data, tmp_path):  # noqa: F811
    sweeping()
    with pytest.raises(PenjingError, match="holds a single run: name another folder for the sweep"):
        pj.sweep(graph, data=data, budgets=["0.5x", "0.3x"], out=sweeping.out / "0.9x")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    with pytest.raises(PenjingError, match="holds no sweep"):
        pj.sweep(graph, data=data, budgets=["0.5x", "0.3x"], out=tmp_path / "mine")


def test_further_limits_hold_for_all_runs():
    found = limited_budgets(["0.5x", "0.3x"], "latency", pj.Budget(drop=0.01))
    assert found == {text: pj.Budget(latency=text, drop=0.01) for text in ("0.5x", "0.3x")}
