"""All choices of a small assignment, to compare with."""

import itertools


def every(problem):
    """Yields each choice that keeps the implications."""
    for options in itertools.product(*map(range, problem.options.values())):
        taken = dict(zip(problem.options, options, strict=True))
        if problem.allows(taken):
            yield taken
