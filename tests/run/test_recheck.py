"""A finished result measured again, on a made-up runtime, beside what its report says."""

import copy
import hashlib
from types import SimpleNamespace

import pytest

from penjing import report
from penjing.budget import Budget
from penjing.data import Data
from penjing.errors import PenjingError
from penjing.run import recheck as module
from penjing.run.baseline import Baseline
from penjing.run.recheck import recheck
from penjing.tasks import Classification
from report.report_samples import report as sample

DATA = Data(None, None, [1], Classification(3))


def put(value, key, content):
    """Sets `content["a"]["b"]` for the key "a.b"."""
    *outer, last = key.split(".")
    for name in outer:
        content = content[name]
    content[last] = value


@pytest.fixture
def again(tmp_path, monkeypatch):
    """Returns a function that measures a made-up result again, with other values of some keys than those reported."""
    asked = {}

    def run(changed=None, reported=None):
        model = b"a lowered model"
        (tmp_path / "model.onnx").write_bytes(model)
        written = sample()
        written["metric_name"] = "accuracy"
        written["provenance"]["outputs"] = {"model.onnx": hashlib.sha256(model).hexdigest()}
        for key, value in (reported or {}).items():
            put(value, key, written)
        report.write(written, tmp_path)
        measured = copy.deepcopy(report.read(tmp_path))
        for key, value in (changed or {}).items():
            put(value, key, measured)

        def verify(pair, data, budget, **how):
            asked.update(how, pair=pair, data=data, budget=budget)
            return measured

        monkeypatch.setattr(module, "verify", verify)
        monkeypatch.setattr(module, "judge_original", lambda file, data, threads: Baseline(0.5))
        monkeypatch.setattr(module, "open_artifact", lambda path, target: SimpleNamespace(path=path, target=target))
        monkeypatch.setattr(module, "load", lambda path: path)
        return recheck(tmp_path, DATA), asked

    return run


def test_the_same_file_with_the_same_metrics_agrees_whatever_the_latency(again):
    found, _ = again({"compressed.latency_ms.median": 99.0, "ratios.latency": 0.01})
    assert found.agrees and found.same_file


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("compressed.metric", 0.9740),
        ("baseline.metric", 0.9777),
        ("compressed.metric", None),
        ("parity.agreement_with_original", 0.98),
        ("parity.agreement_with_original", None),
    ],
)
def test_another_metric_does_not_agree_though_the_file_is_the_same(again, key, value):
    found, _ = again({key: value})
    assert found.same_file and not found.agrees


def test_metrics_that_differ_by_rounding_are_the_same(again):
    assert again({"compressed.metric": 0.9741 + 5e-7})[0].agrees


@pytest.mark.parametrize("outputs", [{}, {"model.onnx": "0" * 64}, None])
def test_another_file_than_the_one_reported_does_not_agree_though_its_metrics_do(again, outputs):
    found, _ = again(reported={"provenance.outputs": outputs})
    assert not found.same_file and not found.agrees


@pytest.mark.parametrize("met", [True, False])
def test_whether_the_budget_is_met_is_said_of_the_new_measurement(again, met):
    found, _ = again({"met": met}, reported={"met": not met})
    assert found.met is met and found.reported["met"] is not met


def test_it_is_measured_as_it_was_and_judged_by_the_budget_that_was_asked_for(again, tmp_path):
    _, asked = again(reported={"target.threads": 2, "target.batch": 4, "budget": {"size": "0.25x", "drop": 1.5}})
    assert (asked["threads"], asked["batch"], asked["data"]) == (2, 4, DATA)
    assert asked["budget"] == Budget(size="0.25x", drop="1.5 units"), "what was asked for once needs no unit again"
    pair, inner = asked["pair"], tmp_path / ".penjing"
    assert (pair.original, pair.original_file.path) == (inner / "original.penjing", inner / "original.onnx")
    assert (pair.compressed, pair.compressed_file.path) == (tmp_path / "model.penjing", tmp_path / "model.onnx")


@pytest.mark.parametrize(("settings", "trained"), [({}, True), ({"trained": False}, False), ({"trained": True}, True)])
def test_whether_weights_were_given_is_read_from_the_report(again, settings, trained):
    assert again(reported={"settings": settings})[1]["trained"] is trained


def test_rows_show_reported_and_new_side_by_side_and_say_what_was_not_measured(again):
    found, _ = again({"compressed.metric": None, "ratios.latency": 2.0})
    assert found.rows() == [
        ("baseline: accuracy", "0.9778", "0.9778"),
        ("baseline: latency, ms", "0.8420", "0.8420"),
        ("baseline: bytes", "1,103,420", "1,103,420"),
        ("compressed: accuracy", "0.9741", "not measured"),
        ("compressed: latency, ms", "0.3660", "0.3660"),
        ("compressed: bytes", "139,870", "139,870"),
        ("times faster", "2.3005", "2.0000"),
        ("share of MACs in integers", "0.9764", "0.9764"),
    ]


def test_a_folder_without_a_report_is_refused(tmp_path):
    with pytest.raises(PenjingError, match=r"There is no report\.json in"):
        recheck(tmp_path, DATA)


def test_a_result_whose_file_is_gone_is_refused(tmp_path):
    report.write(sample(), tmp_path)
    with pytest.raises(PenjingError, match=r"There is no file .*original\.onnx"):
        recheck(tmp_path, DATA)
