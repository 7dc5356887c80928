"""One run of `compress`, stage by stage: what each writes, what is read again, and what is left where it is killed.

The network is tiny. The candidate is taken without measuring any, and what is measured of the result is made up; all else is
done as for a user. Files are those of the target "torch", which are written in a moment; it computes nothing in integers, so
there is nothing to do in the stage that quantises.
"""

import copy
import importlib
import json
import re
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

import penjing as pj
from made_time import Time
from penjing import capabilities, load
from penjing.errors import PenjingError
from penjing.graph import Graph, Plan
from penjing.planning import MeasuredPlan, Solution
from penjing.run import stages
from penjing.run.workspace import Workspace
from penjing.techniques import level
from planning.blobs import points
from report.report_samples import report as sample

compress = importlib.import_module("penjing.compress")

# What a finished run leaves in `.penjing`, and what it leaves for the user.
INNER = {
    "run.json", "original.penjing", "original.pt2", "baseline.json", "choice.json", "taken.json", "pruned.penjing",
    "recover.checkpoint", "recovered.json", "recovered.penjing", "finished.json",
}  # fmt: skip
PRODUCTS = {"model.pt2", "model.penjing", "plan.json", "preprocess.json", "run.py", "report.json", "report.html"}


@pytest.fixture(scope="module")
def graph():
    torch.manual_seed(0)
    return pj.capture(nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 8)), torch.randn(2, 12))


@pytest.fixture(scope="module")
def data():
    return pj.Data(points(1, 192), points(1, 64), points(2, 64), pj.tasks.Classification(8), "points")


class Killed(BaseException):
    """Ends a run as `kill` does, as far as a test in the same process can."""


@dataclass
class Run:
    """Calls `compress` into one folder, and tells what the last call did.

    Attributes:
        share: share of the units that the candidate that is taken removes.
        made: what was made in the last call, in order: "lower original", "choose", …
        said: the lines for the user.
        kill: called before anything is made or written, with what; may raise.
        hear: called with each line for the user; may raise.
    """

    graph: Graph
    data: pj.Data
    out: Path
    share: float = 0.5

    def __post_init__(self):
        self.made, self.said = [], []
        self.kill = self.hear = lambda what: None

    def __call__(self, **changes):
        self.made, self.said = [], []
        given = {
            "data": self.data, "budget": pj.Budget(size="0.9x"), "epochs": 2, "lr": 0.1, "precision": "float32",
            "channels_last": False, "target": "torch", "out": self.out,
        }  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            self._listen(patch)
            return pj.compress(self.graph, progress=False, say=self._say, **given | changes)

    def inner(self):
        """The stages' files, without the folder of what evidence remembers and the log, which every call goes on with."""
        return {path.name for path in (self.out / ".penjing").iterdir() if path.is_file()} - {"log.txt"}

    def products(self):
        return {path.name for path in self.out.iterdir() if path.is_file()}

    def _say(self, line):
        self.said.append(line)
        self.hear(line)

    def _makes(self, what):
        self.made.append(what)
        self.kill(what)

    def _listen(self, patch):
        """Puts made-up choosing and measuring into place, and notes what is made."""
        lower, carried_out, recovered = compress.lower, compress.carried_out, compress.recovered
        deliver, judge, write = compress.deliver, compress.judge_original, compress.report.write
        write_json, save, settle = compress.write_json, Graph.save, Workspace.settle

        def lowered(small, target, path):
            self._makes(f"lower {path.stem}")
            return lower(small, target, path)

        def carries_out(small, options, given):
            self._makes("prune" if any(option.technique == "prune" for option in options) else "quantise")
            return carried_out(small, options, given)

        def noted(what, function):
            def call(*given, **options):
                self._makes(what)
                return function(*given, **options)

            return call

        def saves(small, path):
            self.kill(f"write {path.name}")
            return save(small, path)

        def writes_json(value, path):
            self.kill(f"write {path.name}")
            return write_json(value, path)

        def settles(space, decision, value, *later):
            self.kill(f"write {decision}")
            return settle(space, decision, value, *later)

        fakes = {
            "lower": lowered, "carried_out": carries_out, "write_json": writes_json,
            "judge_original": noted("judge", judge), "recovered": noted("recover", recovered),
            "deliver": noted("deliver", deliver), "verify": noted("verify", self._verified),
            "find_solver": lambda name: noted("choose", self._solution),
        }  # fmt: skip
        for name, fake in fakes.items():
            patch.setattr(compress, name, fake)
        patch.setattr(compress.report, "write", noted("report", write))
        patch.setattr(Graph, "save", saves)
        patch.setattr(Workspace, "settle", settles)

    def _solution(self, problem):
        technique, can = problem.techniques["prune"], capabilities.find(problem.deployment.target)
        levels = {}
        for option in technique.propose(problem.graph, problem.data, can, problem.scope):
            levels.setdefault(level(option, technique), []).append(option)
        wanted = 1 - self.share
        narrow = min(levels.values(), key=lambda options: abs(options[0].after / options[0].before - wanted))
        taken = MeasuredPlan(Plan(tuple(narrow)), 500, 0.5, 0.1, 5000, True)
        return Solution(taken, (taken,))

    @staticmethod
    def _verified(pair, data, budget, **how):
        content = sample()
        content["target"]["name"] = "torch"
        keys = ("target", "baseline", "compressed", "ratios", "parity", "integer_macs", "layers", "met")
        return {key: content[key] for key in keys} | {"missed": [], "warnings": []}


@pytest.fixture(scope="module")
def whole(graph, data, tmp_path_factory):
    """A run that went through without a stop. Tests don't change its folder."""
    run = Run(graph, data, tmp_path_factory.mktemp("whole") / "out")
    run()
    return run


@pytest.fixture
def again(whole, tmp_path):
    """A copy of that run, which is not quite finished: the last file, which says so, is missing."""
    shutil.copytree(whole.out, tmp_path / "out")
    (tmp_path / "out" / ".penjing" / stages.FINISHED).unlink()
    return Run(whole.graph, whole.data, tmp_path / "out")


def kill_at(what):
    def kill(now):
        if now == what:
            raise Killed

    return kill


def weights(folder, name="model.penjing"):
    return load(folder / name).tensors()


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())


def same_result(one, other):
    """Whether two runs gave the same: the plan, the weights, and what the file for the runtime computes, to the last bit."""
    x = torch.randn(4, 12, generator=torch.Generator().manual_seed(0))
    outputs = [pj.targets.run(pj.targets.open_artifact(out / "model.pt2", "torch"), x) for out in (one, other)]
    plans = [(out / "plan.json").read_bytes() for out in (one, other)]
    return torch.equal(*outputs) and plans[0] == plans[1] and same(weights(one), weights(other))


# A run without a stop

MADE = [
    "lower original", "judge", "choose", "prune", "recover", "quantise", "lower model", "deliver", "verify", "report",
]  # fmt: skip


def test_each_stage_is_made_once_and_in_order(whole):
    assert whole.made == MADE


def test_stages_and_epochs_are_told_as_they_come(whole, tmp_path):
    heard = []
    run = Run(whole.graph, whole.data, tmp_path / "out")
    run(on_stage=heard.append, report=lambda epoch: heard.append(epoch["epoch"]))
    assert heard == [
        "capture",
        "profile",
        "profile",
        "choose",
        "prune",
        "recover",
        1,
        2,
        "quantise",
        "lower",
        "verify",
        "report",
    ]


def test_every_stage_leaves_its_file_and_the_user_the_products(whole):
    assert whole.inner() == INNER and whole.products() == PRODUCTS


def test_the_stages_files_hold_the_network_as_it_stood_then(whole, graph):
    original, pruned, recovered = (
        weights(whole.out / ".penjing", f"{name}.penjing") for name in ("original", "pruned", "recovered")
    )
    assert same(original, graph.tensors())
    assert pruned["0.weight"].shape == recovered["0.weight"].shape == (16, 12)
    kept = [row for row in graph.tensors()["0.weight"] if any(torch.equal(row, one) for one in pruned["0.weight"])]
    assert len(kept) == 16, "pruning took rows away and changed none"
    assert not torch.equal(pruned["0.weight"], recovered["0.weight"])


def test_the_report_counts_the_seconds_of_every_stage_that_was_measured_before_it(whole):
    told = json.loads((whole.out / "report.json").read_text())
    assert set(told["seconds"]) == {
        "capture", "profile", "choose", "prune", "recover", "quantise", "lower", "verify",
    }  # fmt: skip
    record = json.loads((whole.out / ".penjing" / "run.json").read_text())["seconds"]
    assert record.keys() - told["seconds"].keys() == {"report"}


def test_of_a_finished_run_nothing_is_made_again(whole, tmp_path):
    shutil.copytree(whole.out, tmp_path / "out")
    run = Run(whole.graph, whole.data, tmp_path / "out")
    result = run()
    assert run.made == [] and run.said[-1].endswith("holds this run, finished.")
    assert same(result.graph.tensors(), weights(whole.out)) and result.report["headline"] == result.headline
    assert same_result(run.out, whole.out)


# A kill, at each stage of one and the same run

# What is about to be made or written when the run is killed; the files that have come into `.penjing` since the kill before;
# and what the next call makes first.
KILLS = [
    ("write original.penjing", ["run.json"], "lower original"),
    ("lower original", ["original.penjing"], "lower original"),
    ("judge", ["original.pt2"], "judge"),
    ("write baseline.json", [], "judge"),
    ("choose", ["baseline.json"], "choose"),
    ("write choice.json", [], "choose"),
    ("write taken.json", ["choice.json"], "prune"),
    ("prune", ["taken.json"], "prune"),
    ("write pruned.penjing", [], "prune"),
    ("recover", ["pruned.penjing"], "recover"),
    ("write recovered.penjing", ["recover.checkpoint", "recovered.json"], "recover"),
    ("quantise", ["recovered.penjing"], "quantise"),
    ("lower model", [], "quantise"),
    ("deliver", [], "quantise"),
    ("verify", [], "quantise"),
    ("report", [], "quantise"),
    ("write finished.json", [], "quantise"),
]


@dataclass
class Stop:
    """What a kill left, and what the killed call had made or was about to make."""

    inner: set[str]
    products: set[str]
    made: list[str]


@pytest.fixture(scope="module")
def killed(graph, data, tmp_path_factory):
    """One run, killed at every place in turn and then gone on with to its end; returns it, and a `Stop` for each place."""
    run = Run(graph, data, tmp_path_factory.mktemp("killed") / "out")
    stops = {}
    for place, _, _ in KILLS:
        run.kill = kill_at(place)
        with pytest.raises(Killed):
            run()
        stops[place] = Stop(run.inner(), run.products(), run.made)
    run.kill = lambda what: None
    run()
    return run, stops


@pytest.mark.parametrize("place", [place for place, _, _ in KILLS])
def test_a_kill_leaves_the_whole_files_of_the_stages_before_and_nothing_else(killed, place):
    names = [name for name, _, _ in KILLS]
    before = {file for _, files, _ in KILLS[: names.index(place) + 1] for file in files}
    assert killed[1][place].inner == before


@pytest.mark.parametrize(("number", "first"), [(number, first) for number, (_, _, first) in enumerate(KILLS)])
def test_the_next_call_begins_with_what_was_not_finished(killed, number, first):
    run, stops = killed
    calls = [*(stop.made for stop in stops.values()), run.made][1:]
    assert calls[number][0] == first


def test_before_the_end_there_is_no_report_of_a_result(killed):
    seen = {place: stop.products for place, stop in killed[1].items()}
    for place in ("quantise", "lower model"):
        assert seen[place] == set(), place
    assert seen["deliver"] == {"model.pt2"}
    assert seen["verify"] == seen["report"] == PRODUCTS - {"report.json", "report.html"}
    assert seen["write finished.json"] == PRODUCTS


def test_killed_at_every_stage_in_turn_the_run_ends_as_one_that_never_was(killed, whole):
    run, _ = killed
    assert run.inner() == INNER and run.products() == PRODUCTS
    assert same_result(run.out, whole.out)
    names = ("original.penjing", "pruned.penjing", "recovered.penjing")
    assert all(same(*(weights(one.out / ".penjing", name) for one in (run, whole))) for name in names)


def test_a_lock_is_left_by_no_kill(killed):
    assert all("lock" not in stop.inner for stop in killed[1].values())


def test_killed_in_the_middle_of_training_it_goes_on_from_the_last_epoch_and_ends_alike(again, whole):
    for name in ("recovered.penjing", "recovered.json", "recover.checkpoint"):
        (again.out / ".penjing" / name).unlink()

    def kill(line):
        if "epoch 2" in line:
            raise Killed

    again.hear = kill
    with pytest.raises(Killed):
        again()
    assert again.inner() == INNER - {"recovered.json", "recovered.penjing", "finished.json"}
    again.hear = lambda line: None
    again()
    told = [line.partition(":")[0] for line in again.said]
    assert "  epoch 2" in told and "  epoch 1" not in told
    assert again.made == MADE[MADE.index("recover") :] and same_result(again.out, whole.out)


# What is read again, and what is made again

READ = {
    "original.penjing": [],
    "original.pt2": ["lower original"],
    "baseline.json": ["judge"],
    "choice.json": ["choose"],
    "pruned.penjing": ["prune"],
    "recovered.penjing": ["recover"],
    "recovered.json": ["recover"],
}


def test_whole_files_are_read_and_their_stages_not_made_again(again, whole):
    again()
    assert again.made == MADE[MADE.index("quantise") :] and same_result(again.out, whole.out)
    assert not any("damaged" in line for line in again.said)


@pytest.mark.parametrize(
    ("file", "share"), [*((file, 0.6) for file in READ), ("original.pt2", 0.0), ("choice.json", 0.0)]
)
def test_a_file_that_is_cut_off_is_told_and_its_stage_alone_made_again(again, whole, file, share):
    path = again.out / ".penjing" / file
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    again.kill = kill_at("quantise")
    with pytest.raises(Killed):
        again()
    assert again.made == [*READ[file], "quantise"]
    (told,) = (line for line in again.said if "is damaged, so" in line)
    assert told.startswith(f"{path.with_name(file.replace('recovered.json', 'recovered.penjing'))} is damaged")
    if file.endswith(".penjing"):
        assert same(*(weights(one.out / ".penjing", file) for one in (again, whole)))
    elif file in ("choice.json", "recovered.json"):  # the baseline tells how long it took to judge
        # Of a training that was done already, its details tell only that it went on at its end.
        before, after = ({**record, "details": None} if file == "recovered.json" else record
                         for record in map(json.loads, (content, path.read_bytes())))  # fmt: skip
        assert before == after


@pytest.mark.parametrize(("file", "later"), [("original.pt2", "original.penjing"), ("pruned.penjing", "choice.json")])
def test_a_file_of_another_kind_in_a_stage_s_place_is_damaged_too(again, file, later):
    shutil.copy(again.out / ".penjing" / later, again.out / ".penjing" / file)
    again.kill = kill_at("quantise")
    with pytest.raises(Killed):
        again()
    assert again.made == [*READ[file], "quantise"]


@pytest.mark.parametrize("name", ["model.pt2", "model.penjing", "report.json"])
def test_of_a_finished_run_a_damaged_product_is_told_and_made_again(whole, tmp_path, name):
    run = Run(whole.graph, whole.data, Path(shutil.copytree(whole.out, tmp_path / "out")))
    (run.out / name).write_bytes((run.out / name).read_bytes()[:100])
    run.kill = kill_at("lower model")
    with pytest.raises(Killed):
        run()
    assert any("A file of the finished run is damaged, so it is made again" in line for line in run.said)
    assert run.made == ["quantise", "lower model"] and "finished.json" not in run.inner()


def test_what_was_made_for_another_candidate_is_made_again(again, whole):
    again.share = 0.25
    (again.out / ".penjing" / "choice.json").unlink()
    again()
    assert again.made == MADE[MADE.index("choose") :]
    assert weights(again.out)["0.weight"].shape == (24, 12)
    assert not any("Going on with" in line and "checkpoint" in line for line in again.said)


def test_the_same_candidate_chosen_again_keeps_what_was_made_for_it(again, whole):
    (again.out / ".penjing" / "choice.json").unlink()
    again()
    assert again.made == ["choose", *MADE[MADE.index("quantise") :]] and same_result(again.out, whole.out)


# Another request

CHANGES = {
    "budget": {"budget": pj.Budget(size="0.8x")},
    "epochs": {"epochs": 3},
    "lr": {"lr": 0.2},
    "seed": {"seed": 1},
    "criterion": {"criterion": "l2"},
    "exclude": {"exclude": ["2"]},
    "threads": {"threads": 2},
    "min_channels": {"min_channels": 2},
    "target": {"target": "onnxruntime"},
}


def test_another_request_is_refused_by_name_and_changes_nothing(whole):
    before = {path: path.read_bytes() for path in whole.out.rglob("*") if path.is_file()}
    run = Run(whole.graph, whole.data, whole.out)
    for name, changes in CHANGES.items():
        name = "size" if name == "budget" else name
        with pytest.raises(PenjingError, match=rf"holds another run \({name} was .* and is .*start_from='"):
            run(**changes)
    with pytest.raises(PenjingError, match=r"holds another run \(the data 'points' differ: other samples.*made it\.$"):
        run(data=replace(whole.data, validation=points(3, 64)))
    with pytest.raises(PenjingError, match=r"holds another run \(the data were 'points' and are 'dots'"):
        run(data=replace(whole.data, name="dots"))
    other = copy.deepcopy(whole.graph)
    with torch.no_grad():
        other.tensor("0.bias")[0] += 1
    with pytest.raises(PenjingError, match=r"holds another run \(the weights differ\)"):
        Run(other, whole.data, whole.out)()
    assert run.made == []
    assert before == {path: path.read_bytes() for path in whole.out.rglob("*") if path.is_file()}


def test_a_dry_run_makes_nothing_and_tells_what_is_finished(again):
    before = sorted(again.out.rglob("*"))
    expected = again(dry_run=True)
    assert again.made == [] and sorted(again.out.rglob("*")) == before
    assert expected.finished == ("capture", "profile", "choose", "prune", "recover") and expected.minutes_train == 0


# Time


@pytest.fixture
def time(monkeypatch):
    """Time that stands still but for what a test lets pass."""
    made = Time(1000.0)
    run = ("run.clock", "run.workspace", "run.baseline", "run.estimate")
    for name in (*run, "training.deadline", "training.run", "training.beginning", "planning.problem"):
        monkeypatch.setattr(f"penjing.{name}.time", made)
    return made


class Timed:
    """A loader that takes a second for each batch."""

    def __init__(self, batches, time):
        self.batches, self.time = batches, time

    def __len__(self):
        return len(self.batches)

    def __iter__(self):
        for batch in self.batches:
            self.time.sleep(1.0)
            yield batch


def test_a_limit_bounds_the_time_of_the_whole_call(graph, data, tmp_path, time):
    run, ends = Run(graph, replace(data, train=Timed(data.train, time)), tmp_path / "out"), []

    def verified(pair, data, budget, **how):
        ends.append(how["deadline"])
        return Run._verified(pair, data, budget)

    run._verified = verified
    result = run(max_minutes=2.0, began=time.now, epochs=1000)
    assert ends == [1000.0 + 120.0]
    assert time.now < ends[0], "all 3000 steps would have taken 3000 seconds"
    assert any("Shortening the training from 3000 to" in line for line in result.report["training_details"])
    shortened = r"cut this run short: training was shortened to [\d,]+ of 3,000 steps\."
    assert any(re.search(shortened, note) for note in result.report["notes"]), result.report["notes"]
    assert "shortened to end within 2 min where it can be" in run.said[0]


def test_a_limit_that_was_passed_is_told_with_by_how_much(graph, data, tmp_path, time):
    run = Run(graph, data, tmp_path / "out")

    def verified(pair, data, budget, **how):
        time.now = how["deadline"] + 7.0
        return Run._verified(pair, data, budget)

    run._verified = verified
    notes = run(max_minutes=2.0, began=time.now).report["notes"]
    assert "The limit of 2 min was passed by 7 s, to measure and verify this result." in notes


def test_the_time_before_the_call_counts_where_its_beginning_is_given(graph, data, tmp_path, time):
    run = Run(graph, data, tmp_path / "out")
    run.kill = kill_at("quantise")
    with pytest.raises(Killed):
        run(max_minutes=2.0, began=time.now - 119.0)
    told = json.loads((run.out / ".penjing" / "recovered.json").read_text())
    assert told["notes"] == ["The deadline has passed: no training."] and told["short_of_time"]


def test_more_time_makes_again_what_was_cut_short_and_nothing_else(graph, data, tmp_path, time, whole):
    run = Run(graph, data, tmp_path / "out")
    run(max_minutes=0.1, began=time.now - 60.0)
    run(max_minutes=0.1)
    assert run.made == [] and "finished" in run.said[-1], "in the same time nothing would be different"
    result = run()
    assert run.made == MADE[MADE.index("recover") :] and "There is more time than before" in "".join(run.said)
    assert same_result(run.out, whole.out) and not any("short" in note for note in result.report["notes"])
