"""Lowers candidates and measures them on the target, the widest first, and takes the first that keeps the budget.

Latency is not monotone in width, and integers are not always faster, so nothing here trusts a count of operations.
"""

import time

from penjing.lines import Lasting
from penjing.planning.candidates import (
    Options,
    excess,
    in_words,
    levels,
    measure_level,
    original_of,
    preferred,
    tell_if_all_in_float,
)
from penjing.planning.journal import key_of, known, write_journal
from penjing.planning.measured_plan import MeasuredPlan
from penjing.planning.problem import Problem, Solution
from penjing.planning.solvers._registry import solvers


@solvers.register(source="Yang et al., NetAdapt, 2018 (measured latency decides); here for all layers at once")
def widest_that_fits(problem: Problem) -> Solution:
    """Measures each level, the mildest first, in floating point and in integers; takes the first that keeps the budget.

    If no candidate keeps the budget, the one that comes nearest is taken; after Ctrl-C, the nearest one so far.

    Raises:
        KeyboardInterrupt: Ctrl-C came before anything was measured.
    """
    original_of(problem)
    problem.folder.mkdir(parents=True, exist_ok=True)
    journal = known(problem.journal, problem.say)
    if journal:
        problem.say(f"Going on from {len(journal)} width{'' if len(journal) == 1 else 's'} measured before.")
    tell_if_all_in_float(problem)
    structure = levels(problem, "structure", problem.graph)
    longest, measured = problem.longest, list[MeasuredPlan]()
    complete, short = True, False
    for options in ((), *sorted(structure, key=_saved)):
        key = key_of(options)
        if key not in journal:
            if measured and longest > problem.left:
                problem.say("The time for measuring candidates is over.")
                short = True
                break
            start = time.monotonic()
            try:
                journal[key] = measure_level(problem, options)
            except KeyboardInterrupt:
                if not measured:
                    raise
                problem.say(
                    Lasting(f"Interrupted: going on with the best of the {len(measured)} candidates measured so far.")
                )
                complete = False
                break
            longest = max(longest, time.monotonic() - start)
            if problem.journal is not None:
                write_journal(problem.journal, journal.values())
        found = journal[key]
        for candidate in found:
            problem.say(in_words(candidate))
        measured += found
        taken = preferred(found)
        if taken is not None:
            return Solution(taken, tuple(measured))
    nearest = min(measured, key=lambda candidate: excess(problem, candidate))
    return Solution(nearest, tuple(measured), complete, short)


def _saved(options: Options) -> float:
    return sum(option.found.get("saves_params", 0.0) for option in options)
