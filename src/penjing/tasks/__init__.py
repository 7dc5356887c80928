"""What a network is for: how a batch is split into inputs and targets, the loss, and a metric where higher is better."""

from penjing.tasks._classification import Classification
from penjing.tasks._compared import compared_of, heads_of, judged_of, parts_of
from penjing.tasks._ctc import CTC
from penjing.tasks._detection import Detection
from penjing.tasks._evaluate import agreement, evaluate, likeness
from penjing.tasks._inputs import by_name, each_input, run_on, sample_count
from penjing.tasks._likeness import DECISIONS, EQUAL, R2, TOP_ONE, Likeness, answered, answers_of
from penjing.tasks._multi_label import MultiLabel
from penjing.tasks._multi_task import MultiTask
from penjing.tasks._outputs import first_tensor
from penjing.tasks._positions import IGNORED, counted_of
from penjing.tasks._registry import TaskEntry, tasks
from penjing.tasks._regression import Regression
from penjing.tasks._segmentation import Segmentation
from penjing.tasks._sequence_classification import SequenceClassification
from penjing.tasks._targets import has_rows, is_additive, joined, moved, rows_of
from penjing.tasks._task import Metric, Task, metric_words, shown_metric
from penjing.tasks._token_classification import TokenClassification
from penjing.tasks._unlabelled import Unlabelled

__all__ = [
    "CTC",
    "DECISIONS",
    "EQUAL",
    "IGNORED",
    "R2",
    "TOP_ONE",
    "Classification",
    "Detection",
    "Likeness",
    "Metric",
    "MultiLabel",
    "MultiTask",
    "Regression",
    "Segmentation",
    "SequenceClassification",
    "Task",
    "TaskEntry",
    "TokenClassification",
    "Unlabelled",
    "agreement",
    "answered",
    "answers_of",
    "by_name",
    "compared_of",
    "counted_of",
    "each_input",
    "evaluate",
    "first_tensor",
    "has_rows",
    "heads_of",
    "is_additive",
    "joined",
    "judged_of",
    "likeness",
    "metric_words",
    "moved",
    "parts_of",
    "rows_of",
    "run_on",
    "sample_count",
    "shown_metric",
    "tasks",
]
