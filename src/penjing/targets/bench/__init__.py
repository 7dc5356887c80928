"""The places where lowered models are measured: each bench is one file here, and `measure` uses the one it is given."""

from penjing.targets.bench._bench import Bench, EnergyMeter, Job
from penjing.targets.bench._fresh_process import FreshProcess
from penjing.targets.bench._measuring import MEMORY_CALLS, REQUEST, RESULT
from penjing.targets.bench._program import PROGRAM, write_program, write_request
from penjing.targets.bench._this_process import ThisProcess

__all__ = [
    "MEMORY_CALLS",
    "PROGRAM",
    "REQUEST",
    "RESULT",
    "Bench",
    "EnergyMeter",
    "FreshProcess",
    "Job",
    "ThisProcess",
    "write_program",
    "write_request",
]
