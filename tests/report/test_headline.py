"""The one sentence."""

import pytest
import report_samples
from hypothesis import given
from hypothesis import strategies as st

from penjing import report


def test_a_good_run_is_said_in_one_sentence() -> None:
    said = report.headline(report_samples.report())
    assert said == "2.3× faster, 7.9× smaller, −0.4 points, on ONNX Runtime, 1 thread, batch 1."


def test_unlabelled_slower_and_bigger_are_said_plainly() -> None:
    said = report.headline(report_samples.unlabelled())
    assert said == "1.2× slower, 1.05× bigger, 98.2 % of answers unchanged, on ONNX Runtime, 1 thread, batch 1."


def test_what_was_not_measured_is_said_to_be_so() -> None:
    said = report.headline(report_samples.bare())
    assert said == "Speed not measured, size not measured, accuracy not measured, on elsewhere."


def test_a_result_equal_to_the_original_is_the_same_in_words() -> None:
    sample = report_samples.report(ratios={"latency": 1.004, "size": 1.0, "params": 1.0, "macs": 1.0})
    sample["compressed"] = sample["baseline"]
    assert report.headline(sample).startswith("Same speed, same size, same accuracy, on ONNX Runtime")


def test_a_metric_that_is_no_share_keeps_its_own_units() -> None:
    sample = report_samples.report(metric_name="PSNR")
    sample["baseline"]["metric"], sample["compressed"]["metric"] = 31.2, 30.88
    assert "−0.32 PSNR, on" in report.headline(sample)


def test_several_threads_and_a_gain() -> None:
    sample = report_samples.report()
    sample["target"] |= {"threads": 4, "batch": 8}
    sample["compressed"]["metric"] = sample["baseline"]["metric"] + 0.0012
    assert report.headline(sample).endswith("+0.1 points, on ONNX Runtime, 4 threads, batch 8.")


def test_the_measure_that_stands_in_for_the_metric_is_named() -> None:
    sample = report_samples.unlabelled()
    for measure, words in (
        ("R²", "98.2 % of the outputs' variance (R²) kept"),
        ("equal values", "of values unchanged"),
    ):
        sample["parity"]["agreement_measure"] = measure
        assert words in report.headline(sample)
    sample["parity"]["agreement_measure"] = "decisions at 0.5"
    assert "98.2 % of decisions (at 0.5) unchanged" in report.headline(sample)


def test_an_accuracy_that_an_untrained_original_kept_is_no_news() -> None:
    sample = report_samples.report(learned=False)
    sample["compressed"]["metric"] = sample["baseline"]["metric"]
    assert "with nothing to lose" in report.headline(sample) and "same accuracy" not in report.headline(sample)


def test_a_metric_that_is_no_number_is_not_hidden_behind_an_agreement() -> None:
    sample = report_samples.report()
    sample["compressed"]["metric"] = None
    assert "accuracy not measured" in report.headline(sample) and "unchanged" not in report.headline(sample)


@given(
    st.floats(min_value=1e-6, max_value=1e6), st.floats(min_value=0, max_value=1), st.floats(min_value=0, max_value=1)
)
def test_faster_is_only_said_of_what_is_faster(ratio: float, before: float, after: float) -> None:
    sample = report_samples.bare()
    sample["ratios"]["latency"] = ratio
    sample["baseline"]["metric"], sample["compressed"]["metric"] = before, after
    said = report.headline(sample)
    assert ("faster" in said) <= (ratio > 1)
    assert ("slower" in said) <= (ratio < 1)
    assert ("−" in said) <= (after < before)
    assert "1.0× " not in said and "1.00× " not in said


@pytest.mark.parametrize(("interval", "said"), [([0.97, 1.1], "Same speed"), ([1.01, 1.1], "1.06× faster")])
def test_a_speed_up_whose_interval_holds_1_is_no_gain(interval: list[float], said: str) -> None:
    sample = report_samples.report()
    sample["ratios"] |= {"latency": 1.06, "latency_interval": interval}
    assert report.headline(sample).startswith(f"{said}, ")


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (-0.2, -0.21, "5.0 % more mean absolute error"),
        (-0.2, -0.15, "25 % less mean absolute error"),
        (-0.2, -0.20001, "same mean absolute error"),
        (-0.2, -0.2, "same mean absolute error"),
        (0.0, -0.25, "+0.2500 mean absolute error"),
    ],
)
def test_an_error_rises_or_falls_by_a_share_of_what_it_was(before: float, after: float, said: str) -> None:
    sample = report_samples.report(metric_name="mean absolute error", lower_is_better=True)
    sample["baseline"]["metric"], sample["compressed"]["metric"] = before, after
    assert said in report.headline(sample)


def test_points_of_another_metric_than_accuracy_are_named() -> None:
    sample = report_samples.report(metric_name="R²")
    assert "points of R²," in report.headline(sample) and "points," in report.headline(report_samples.report())
