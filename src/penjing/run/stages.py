"""The files that stages leave in `out/.penjing`, so that a run goes on behind the last one that is finished."""

from penjing.run.workspace import Held

ORIGINAL = "original.penjing"  # the original's lowered file has the same name, with the target's suffix
BASELINE = "baseline.json"  # the original's metric
CANDIDATES = "candidates.json"  # what was measured so far
CHOICE = "choice.json"
TAKEN = "taken.json"  # the candidate that the files below were made for
PRUNED = "pruned.penjing"
CHECKPOINT = "recover.checkpoint"
RECOVERED = "recovered.penjing"
TRAINING = "recovered.json"  # how that training went
FINISHED = "finished.json"


def lowered(suffix: str) -> str:
    """Returns the name of the original's lowered file."""
    return f"original{suffix}"


def finished(held: Held, suffix: str) -> tuple[str, ...]:
    """Returns the names of the stages that are done."""
    files = {
        "capture": (ORIGINAL,),
        "profile": (lowered(suffix), BASELINE),
        "choose": (CHOICE,),
        "prune": (PRUNED,),
        "recover": (RECOVERED,),
    }
    if is_finished(held, suffix):
        return (*files, "quantise", "lower", "verify", "report")
    return tuple(stage for stage, names in files.items() if held.has(*names))


def is_finished(held: Held, suffix: str) -> bool:
    """Whether there is nothing left to do."""
    products = ("report.json", "report.html", "model.penjing", f"model{suffix}", "run.py", "plan.json")
    return held.has(FINISHED) and all((held.out / name).is_file() for name in products)
