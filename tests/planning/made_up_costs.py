"""Small assignments with made-up costs, for tests of searches."""

import itertools

import numpy as np

from penjing.planning.assignment import Assignment, Joint

OPTIONS = {"a": 3, "b": 4, "c": 3, "branch": 2, "d": 4}
GONE = [(("branch", 1), ("d", 3)), (("d", 3), ("branch", 1))]  # with the branch goes what lies inside


def made_up_costs(seed: int) -> Assignment:
    """Returns five places in a row, each of whose options costs together with its neighbour's; the first option harms nothing."""
    generator = np.random.default_rng(seed)
    names = list(OPTIONS)
    joints = []
    for name, count in OPTIONS.items():
        joints.append(Joint((name,), {"damage": np.sort(np.append(0.0, generator.uniform(0.01, 1, count - 1)))}))
    for one, other in itertools.pairwise(names):
        shape = OPTIONS[one], OPTIONS[other]
        narrower = np.add.outer(np.linspace(1, 0.3, shape[0]), np.linspace(1, 0.3, shape[1]))
        joints.append(Joint((one, other), {"ms": narrower * generator.uniform(0.7, 1, shape)}))
    return Assignment(OPTIONS, joints, GONE, {"ms": 0.5})


def limits_of(problem: Assignment, share: float) -> dict[str, float]:
    """Returns a limit on the milliseconds: a share of those of the unchanged places."""
    return {"ms": share * problem.total("ms", dict.fromkeys(problem.options, 0))}
