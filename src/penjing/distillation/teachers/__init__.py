"""Teachers: whose answers a student learns from. One file each."""

from penjing.distillation.teachers import _confidence, _cross_modal, _data_free, _ema, _mean, _one, _stored  # noqa: F401  registers
from penjing.distillation.teachers._confidence import Confidence
from penjing.distillation.teachers._cross_modal import CrossModal
from penjing.distillation.teachers._data_free import data_free
from penjing.distillation.teachers._ema import Ema
from penjing.distillation.teachers._mean import Mean
from penjing.distillation.teachers._one import One
from penjing.distillation.teachers._registry import Lesson, Run, Say, Teacher, TeacherEntry, teachers
from penjing.distillation.teachers._stored import Stored
from penjing.distillation.teachers.doors import TAUGHT_BY, TaughtBy, check_joining, joining, taught_by

__all__ = [
    "TAUGHT_BY",
    "Confidence",
    "CrossModal",
    "Ema",
    "Lesson",
    "Mean",
    "One",
    "Run",
    "Say",
    "Stored",
    "TaughtBy",
    "Teacher",
    "TeacherEntry",
    "check_joining",
    "data_free",
    "joining",
    "taught_by",
    "teachers",
]
