"""Searches by Optuna's samplers: proposals become trials, which a file keeps across a kill.

Optuna is imported only once such a search is asked for.
"""

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from penjing.errors import PenjingError
from penjing.planning.exploration import Evaluated, Evaluations, Exploration

if TYPE_CHECKING:
    from optuna import Study
    from optuna.samplers import BaseSampler
    from optuna.trial import FrozenTrial

ASKED = 3  # times the evaluations that proposals are asked for; of a small problem all were seen long before
PLACES, NETWORK, TAKEN = "places", "network", "taken"  # what is noted with a study, and with a trial


def check_installed(package: str, solver: str) -> None:
    """Makes sure that a package is there.

    Raises:
        PenjingError: it isn't installed.
    """
    if importlib.util.find_spec(package) is None:
        raise PenjingError(
            f"The solver '{solver}' needs a package that isn't installed, {package}: pip install 'penjing[search]'. The solvers "
            "'milp', 'greedy' and 'random' need none."
        )


def run_trials(
    asked: Exploration,
    solver: str,
    sampler: Callable[[int], "BaseSampler"],
    values: Callable[[Evaluated], Sequence[float]],
    objectives: int = 1,
) -> Evaluations:
    """Evaluates what a sampler proposes, until the evaluations are used up.

    A trial's parameters are those of the repaired choice, so that the sampler learns from what was evaluated. Each trial has a
    sampler of its own seed, so that a search that was killed goes on as if it hadn't been.

    Args:
        asked: the problem.
        solver: the solver's name.
        sampler: makes the sampler of a trial from its seed.
        values: what is to be small of a choice.
        objectives: how many values that are.

    Raises:
        PenjingError: the storage holds the trials of another problem.
    """
    check_installed("optuna", solver)
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    found = Evaluations(asked)
    space = {
        place: optuna.distributions.IntDistribution(0, len(some) - 1)
        for place, some in asked.open.items()
        if len(some) > 1
    }
    kept = None if asked.storage is None else _kept(asked, asked.storage, solver, objectives)
    study = optuna.create_study(directions=["minimize"] * objectives)
    for trial in [] if kept is None else kept.get_trials(deepcopy=False):
        study.add_trial(trial)
        found.note(_read(asked, trial))
    for number in range(len(study.get_trials(deepcopy=False)), ASKED * asked.evaluations):
        if found.ended:
            break
        study.sampler = sampler(asked.seed * ASKED * asked.evaluations + number)
        if number < len(asked.starts):
            study.enqueue_trial({place: asked.number(place, asked.starts[number][place]) for place in space})
        proposal = study.ask(space)
        one = found.of(asked.chosen(proposal.params))
        asked_for = study.tell(proposal, state=optuna.trial.TrialState.FAIL)
        trial = optuna.create_trial(
            params={place: asked.number(place, one.taken[place]) for place in space},
            distributions=space,
            values=list(values(one)),
            system_attrs=asked_for.system_attrs,
            user_attrs={TAKEN: [*one.taken.values(), one.damage, one.excess]},
        )
        study.add_trial(trial)
        if kept is not None:
            kept.add_trial(trial)
    return found


def _read(asked: Exploration, trial: "FrozenTrial") -> Evaluated:
    """Returns what was evaluated in a trial that a file kept."""
    *taken, damage, excess = trial.user_attrs[TAKEN]
    return Evaluated(dict(zip(asked.problem.options, taken, strict=True)), damage, excess)


def _kept(asked: Exploration, path: Path, solver: str, objectives: int) -> "Study":
    """Returns the study in a file to which trials are added.

    Raises:
        PenjingError: the file isn't a storage of Optuna's, or holds the trials of another problem.
    """
    import optuna

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        storage = optuna.storages.RDBStorage(f"sqlite:///{path}")
        summaries = optuna.get_all_study_summaries(storage, include_best_trial=False)
    except Exception as error:  # of SQLAlchemy or SQLite, which isn't our business
        raise PenjingError(
            f"{path} can't be read as Optuna's storage ({error}): remove it, or name another file."
        ) from error
    for one in summaries:
        if one.user_attrs.get(PLACES) != asked.identity:
            raise PenjingError(
                f"{path} holds the trials of another problem: the study '{one.study_name}' is of "
                f"{one.user_attrs.get(NETWORK, 'a problem that Penjing did not write')}, with other places or options than this "
                f"one, of {asked.network}. Remove the file, or name another."
            )
    study = optuna.create_study(
        study_name=f"{solver} {asked.version}",
        storage=storage,
        directions=["minimize"] * objectives,
        load_if_exists=True,
    )
    study.set_user_attr(PLACES, asked.identity)
    study.set_user_attr(NETWORK, asked.network)
    return study
