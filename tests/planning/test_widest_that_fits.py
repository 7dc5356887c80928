"""The choice on a pretended device: what is lowered is only counted, and latencies are what a test wants them to be."""

import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from made_time import Time
from penjing.budget import Budget
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.graph import Cost, Graph, Option, capture
from penjing.planning import Deployment, Problem, Solution, find_solver
from penjing.pruning.technique import Pruning
from penjing.quantization import ConstantActivations
from penjing.quantization.technique import Quantization, _check_it_was_pruning
from penjing.tasks import Classification
from penjing.techniques import Scope

MEASURING = "penjing.planning.candidates"


@dataclass(frozen=True)
class File:
    """A lowered model of the pretended device: 4 bytes per parameter, or 1 in integers."""

    path: Path
    params: int
    kind: str  # "float", "integer" or "mixed"

    @property
    def size_bytes(self) -> int:
        return self.params * (4 if self.kind == "float" else 1)


@dataclass(frozen=True)
class Quantised:
    graph: Graph
    in_float: tuple[str, ...]

    def cost(self) -> Cost:
        return self.graph.cost()


class Rounding(Quantization):
    """Proposes as quantisation does; what comes of the options is a test's to say."""

    def __init__(self, quantize: Callable[..., Quantised]) -> None:
        super().__init__()
        self._quantize = quantize

    def draft(self, graph: Graph, options: Sequence[Option], data: Data | None):
        if data is None or data.calibration is None:
            return None
        try:
            return self._quantize(graph, tuple(options[0].setting["in_float"]), options[0].setting["target"])
        except ConstantActivations as dead:
            _check_it_was_pruning(graph, dead)
            return None


def rounded(graph: Graph, in_float: tuple[str, ...], target: str) -> Quantised:
    return Quantised(graph, in_float)


@pytest.fixture(scope="module")
def graph() -> Graph:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 32, 3), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Flatten(), nn.Linear(512, 4))
    return capture(model, torch.randn(2, 3, 8, 8))


@pytest.fixture
def chosen(graph, monkeypatch, tmp_path) -> Callable[..., Solution]:
    """Returns a function that chooses for a budget, where a model takes `latency(kind, share of parameters)` of 1 ms."""

    def lower(model, target, path):
        path.write_text("lowered")
        if isinstance(model, Quantised):
            return File(path, model.graph.cost().params, "mixed" if model.in_float else "integer")
        return File(path, model.cost().params, "float")

    def run(
        budget: Budget,
        latency: Callable[[str, float], float],
        slower: tuple[str, ...] = (),
        data: bool = True,
        quantize: Callable[..., Quantised] = rounded,
        timed: Callable[[float], None] = lambda seconds: None,
        target: str = "onnxruntime",
        **options,
    ):
        full = graph.cost().params

        def measure_together(files, **options):
            timed(options["seconds"])
            assert "original" in files, "candidates are measured side by side with the original"
            return {
                name: SimpleNamespace(latency_ms=SimpleNamespace(undisturbed=latency(file.kind, file.params / full)))
                for name, file in files.items()
            }

        def profile(file, threads, batch):
            times = {"0": 100.0, "2": 100.0} | ({name: 500.0 for name in slower} if file.kind != "float" else {})
            return [SimpleNamespace(module=name, macs=1, latency_us=time) for name, time in times.items()]

        for name, fake in {"lower": lower, "measure_together": measure_together, "profile": profile}.items():
            monkeypatch.setattr(importlib.import_module(MEASURING), name, fake)
        loader = [(torch.zeros(2, 3, 8, 8), torch.zeros(2))] if data else None
        original = lower(graph, target, tmp_path / "original")
        problem = Problem(
            graph, Data(None, loader, None, Classification(4)), original, budget, Deployment(target),
            {"prune": Pruning(), "quantize": Rounding(quantize)}, Scope(), tmp_path / "candidates",
        )  # fmt: skip
        made = find_solver("widest_that_fits")(replace(problem, **options))
        assert list((tmp_path / "candidates").iterdir()) == [], "candidates are removed again"
        return made

    return run


def integers_are_slow(kind: str, share: float) -> float:
    return share if kind == "float" else 3 * share


def integers_are_fast(kind: str, share: float) -> float:
    return share if kind == "float" else 0.5 * share


def test_without_limits_the_original_stays(chosen):
    made = chosen(Budget(), integers_are_slow)
    assert (made.taken.as_row()["amount"], made.taken.as_row()["integer"], made.taken.meets) == (0.0, False, True)
    assert [candidate.as_row()["integer"] for candidate in made.measured] == [False, True]


def test_integers_are_taken_where_they_are_faster(chosen):
    taken = chosen(Budget(), integers_are_fast).taken
    assert (taken.as_row()["amount"], taken.as_row()["integer"], taken.latency) == (0.0, True, 0.5)


def test_integers_that_are_faster_within_the_noise_are_not_worth_it(chosen):
    assert not chosen(Budget(), lambda kind, share: share * (1 if kind == "float" else 0.99)).taken.as_row()["integer"]


def test_the_least_pruned_candidate_that_keeps_the_budget_is_taken(chosen):
    made = chosen(Budget(latency="0.7x"), integers_are_slow)
    assert made.taken.meets and not made.taken.as_row()["integer"] and made.taken.as_row()["amount"] > 0
    assert made.taken.latency <= 0.7 * 0.95
    wider = made.measured[:-2]
    assert wider and all(candidate.latency > 0.7 * 0.95 for candidate in wider)
    assert made.taken in made.measured[-2:]


def test_a_candidate_must_keep_the_budget_with_a_margin(chosen):
    def others_take(milliseconds):
        return lambda kind, share: 1.0 if share == 1.0 and kind == "float" else milliseconds

    assert not chosen(Budget(latency="0.8x"), others_take(0.96 * 0.8)).taken.meets
    assert chosen(Budget(latency="0.8x"), others_take(0.94 * 0.8)).taken.meets


def test_absolute_limits_are_kept_too(chosen):
    assert chosen(Budget(latency="0.6ms"), integers_are_slow).taken.latency_ms <= 0.6 * 0.95
    assert chosen(Budget(size="4kB"), integers_are_fast).taken.size_bytes <= 4000 * 0.95


@pytest.mark.parametrize("share", ["0.7x", "0.4x"])
@pytest.mark.parametrize("limit", ["macs", "peak_memory", "largest_tensor", "energy"])
def test_a_limit_on_what_is_counted_is_kept_exactly(chosen, graph, limit, share):
    made = chosen(Budget(**{limit: share}), integers_are_slow)
    assert made.taken.meets and made.taken.counted[limit] <= float(share[:-1]) * graph.cost().by_limit[limit]
    wider = [one for one in made.measured if one.params > made.taken.params]
    assert wider and all(one.counted[limit] > float(share[:-1]) * graph.cost().by_limit[limit] for one in wider)


def test_a_candidate_must_keep_all_limits_together(chosen, graph):
    both = Budget(latency="0.9x", macs="0.3x")
    taken = chosen(both, integers_are_fast).taken
    assert taken.meets and taken.counted["macs"] <= 0.3 * graph.cost().macs and taken.latency <= 0.9


def test_where_a_count_can_not_get_so_small_the_nearest_candidate_is_taken(chosen):
    made = chosen(Budget(layers=2), integers_are_fast)
    assert not made.taken.meets and made.taken.counted["layers"] == 3 and not any(one.meets for one in made.measured)


def test_slow_integers_stay_where_only_they_keep_the_size(chosen):
    taken = chosen(Budget(size="0.3x"), integers_are_slow).taken
    assert taken.as_row()["integer"] and taken.as_row()["amount"] == 0 and taken.meets and taken.latency == 3


def test_without_data_for_ranges_only_float_is_tried(chosen):
    made = chosen(Budget(size="0.3x"), integers_are_fast, data=False)
    assert (
        not any(candidate.as_row()["integer"] for candidate in made.measured)
        and made.taken.meets
        and made.taken.as_row()["amount"] > 0
    )


def test_for_a_target_without_integers_only_float_is_tried_and_it_says_so(chosen):
    lines = []
    made = chosen(Budget(latency="0.3x"), integers_are_fast, target="torch", say=lines.append)
    assert not any(candidate.as_row()["integer"] for candidate in made.measured) and made.taken.meets
    assert lines[0] == "torch computes nothing in integers, so every candidate is in floating point."


def test_candidates_are_quantised_for_the_target_that_they_are_measured_on(chosen):
    asked = []

    def quantize(thin, in_float, target):
        asked.append(target)
        return Quantised(thin, in_float)

    chosen(Budget(), integers_are_fast, target="onnxruntime", quantize=quantize)
    assert asked == ["onnxruntime"]


def test_an_activation_of_the_original_that_never_changes_is_an_error(chosen):
    def dead(*given, **options):
        raise ConstantActivations("The output of '0' is 0 everywhere.")

    with pytest.raises(ConstantActivations, match="'0'"):
        chosen(Budget(latency="0.5x"), integers_are_fast, quantize=dead)


def test_where_pruning_left_something_dead_only_float_is_tried(chosen, graph, caplog):
    def dead_if_pruned(thin, in_float, target):
        if thin.cost().params < graph.cost().params:
            raise ConstantActivations("The output of '0' is 0 everywhere.")
        return Quantised(thin, in_float)

    made = chosen(Budget(latency="0.3x"), integers_are_fast, quantize=dead_if_pruned)
    assert {candidate.as_row()["integer"] for candidate in made.measured if candidate.as_row()["amount"]} == {False}
    assert made.taken.meets
    assert "pruning left something dead: The output of '0'" in caplog.text


def test_latency_that_grows_where_channels_go_does_not_mislead(chosen):
    def latency(kind, share):
        return 1.0 if share == 1.0 else 2.0 - share if share > 0.3 else 0.1

    made = chosen(Budget(latency="0.5x"), latency)
    assert made.taken.meets and made.taken.latency == 0.1


def test_where_nothing_keeps_the_budget_the_nearest_is_taken_and_says_so(chosen):
    made = chosen(Budget(latency="0.01x"), integers_are_fast)
    assert not made.taken.meets
    assert made.taken.latency == min(candidate.latency for candidate in made.measured)
    assert len(made.measured) >= 6


def test_the_nearest_is_the_one_whose_worst_limit_is_missed_least(chosen):
    # In integers it is 300 times too slow and almost small enough; in float 4 times too large and fast enough.
    made = chosen(Budget(latency="1x", size="0.001x"), lambda kind, share: 0.1 if kind == "float" else 300.0)
    assert not made.taken.as_row()["integer"]


def test_layers_that_are_slower_in_integers_stay_in_float_where_that_pays(chosen):
    def latency(kind, share):
        return {"float": 1.0, "integer": 0.8, "mixed": 0.6}[kind]

    made = chosen(Budget(latency="0.9x"), latency, slower=("0",))
    assert made.taken.as_row()["in_float"] == ["0"] and made.taken.as_row()["integer"] and made.taken in made.measured
    made = chosen(
        Budget(latency="0.9x"), lambda kind, share: latency(kind, share) if kind != "mixed" else 0.8, slower=("0",)
    )
    assert made.taken.as_row()["in_float"] == []


def test_a_mixture_that_alone_keeps_the_budget_saves_channels(chosen):
    kinds = {"float": 1.0, "integer": 0.8, "mixed": 0.5}
    made = chosen(Budget(latency="0.6x"), lambda kind, share: kinds[kind] * share, slower=("0",))
    assert made.taken.as_row()["in_float"] == ["0"] and made.taken.as_row()["amount"] == 0.0


def test_a_choice_is_plain_json_and_comes_back(chosen):
    made = chosen(Budget(latency="0.7x"), integers_are_slow)
    assert Solution.from_json(json.loads(json.dumps(made.to_json()))) == made


class Stopwatch:
    """Counts what is measured; may stop the run there."""

    def __init__(self, latency, stop_at=None, stop=KeyboardInterrupt):
        self.calls, self.latency, self.stop_at, self.stop = 0, latency, stop_at, stop

    def __call__(self, kind, share):
        self.calls += 1
        if self.calls == self.stop_at:
            raise self.stop
        return self.latency(kind, share)


class Killed(BaseException):
    pass


def test_what_was_measured_before_a_kill_is_not_measured_again(chosen, tmp_path):
    budget, journal = Budget(latency="0.01x"), tmp_path / "candidates.json"
    whole = Stopwatch(integers_are_slow)
    expected = chosen(budget, whole)
    first = Stopwatch(integers_are_slow, stop_at=8, stop=Killed)  # three files are measured for each width
    with pytest.raises(Killed):
        chosen(budget, first, journal=journal)
    assert len(json.loads(journal.read_text())) == 2
    rest = Stopwatch(integers_are_slow)
    assert chosen(budget, rest, journal=journal) == expected
    assert rest.calls == whole.calls - 6
    again = Stopwatch(integers_are_slow)
    assert chosen(budget, again, journal=journal) == expected and again.calls == 0


def test_ctrl_c_takes_the_best_so_far_and_the_next_call_goes_on(chosen, tmp_path):
    budget, journal, lines = Budget(latency="0.01x"), tmp_path / "candidates.json", []
    made = chosen(budget, Stopwatch(integers_are_slow, stop_at=8), journal=journal, say=lines.append)
    assert not made.complete and len(made.measured) == 4 and not made.taken.meets
    assert made.taken.latency == min(candidate.latency for candidate in made.measured)
    assert "best of the 4 candidates measured so far" in lines[-1]
    assert not Solution.from_json(json.loads(json.dumps(made.to_json()))).complete
    assert chosen(budget, Stopwatch(integers_are_slow), journal=journal).complete


def test_ctrl_c_before_anything_was_measured_stops(chosen, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        chosen(Budget(latency="0.01x"), Stopwatch(integers_are_slow, stop_at=2), journal=tmp_path / "j.json")
    assert not (tmp_path / "j.json").exists()


@pytest.mark.parametrize("content", ["", "{", "7", "[[]]", "[[{}]]", '{"a": 1}', "[[7]]"])
def test_a_damaged_journal_is_told_and_measured_again(chosen, tmp_path, content):
    journal, lines = tmp_path / "candidates.json", []
    journal.write_text(content)
    made = chosen(Budget(), integers_are_slow, journal=journal, say=lines.append)
    assert made.taken.as_row()["amount"] == 0 and "is damaged" in lines[0]
    assert len(json.loads(journal.read_text())) == 1


def test_behind_the_deadline_only_the_first_width_is_measured(chosen):
    lines = []
    made = chosen(Budget(latency="0.01x"), integers_are_slow, deadline=0.0, say=lines.append)
    assert {candidate.as_row()["amount"] for candidate in made.measured} == {0.0} and "is over" in lines[-1]
    assert made.short_of_time and Solution.from_json(made.to_json()) == made


@pytest.mark.parametrize(("left", "seconds"), [(None, 6.0), (1000, 6.0), (20, 2.0), (1, 0.5), (-5, 0.5)])
def test_files_are_timed_for_as_long_as_there_is_time(chosen, monkeypatch, left, seconds):
    module = importlib.import_module("penjing.planning.problem")
    asked = []
    monkeypatch.setattr(module, "time", Time(100.0))

    def latency(kind, share):
        return share

    chosen(Budget(), latency, deadline=None if left is None else 100.0 + left, timed=asked.append)
    assert asked == [pytest.approx(seconds)]


def test_a_choice_that_keeps_the_budget_was_not_short_of_time(chosen):
    assert not chosen(Budget(), integers_are_slow, deadline=0.0).short_of_time


def test_in_more_time_only_widths_that_were_not_measured_are(chosen, tmp_path):
    journal = tmp_path / "candidates.json"
    first = chosen(Budget(latency="0.01x"), integers_are_slow, deadline=0.0, journal=journal)
    lines = []
    more = chosen(Budget(latency="0.01x"), integers_are_slow, journal=journal, say=lines.append)
    assert lines[0] == "Going on from 1 width measured before." and not more.short_of_time
    assert more.measured[: len(first.measured)] == first.measured and len(more.measured) > len(first.measured)


def test_no_width_is_begun_that_takes_longer_than_is_left_by_what_it_took_before(chosen, tmp_path, monkeypatch):
    journal = tmp_path / "candidates.json"
    first = chosen(Budget(latency="0.01x"), integers_are_slow, deadline=0.0, journal=journal)
    monkeypatch.setattr(importlib.import_module("penjing.planning.problem"), "time", Time(100.0))
    more = chosen(Budget(latency="0.01x"), integers_are_slow, deadline=1100.0, longest=2000.0, journal=journal)
    assert more.short_of_time and more.measured == first.measured


@pytest.mark.parametrize(
    "record",
    [None, [], {}, {"taken": None, "measured": []}, {"taken": {"amount": 0.5}, "measured": []}],
)
def test_what_is_no_choice_is_refused(record):
    with pytest.raises(PenjingError):
        Solution.from_json(record)


@pytest.mark.parametrize("name", ["complete", "short_of_time", "taken", "measured"])
def test_a_choice_that_lacks_a_part_is_refused(chosen, name):
    record = json.loads(json.dumps(chosen(Budget(), integers_are_fast).to_json()))
    del record[name]
    with pytest.raises(PenjingError, match=name):
        Solution.from_json(record)


@pytest.mark.parametrize(("name", "value"), [("latency", "half"), ("params", 0.5), ("meets", 1), ("size_bytes", "0")])
def test_a_choice_with_a_value_of_the_wrong_kind_is_refused(chosen, name, value):
    record = json.loads(json.dumps(chosen(Budget(), integers_are_slow).to_json()))
    record["taken"][name] = value
    with pytest.raises(PenjingError, match=name):
        Solution.from_json(record)
