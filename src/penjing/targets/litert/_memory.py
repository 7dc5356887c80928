"""Peak memory of a model in LiteRT."""

import numpy as np

from penjing.targets._fresh_memory import fresh_memory
from penjing.targets._records import Artifact

_LOAD = """
interpreter = Interpreter(model_path=path, num_threads=threads)
interpreter.allocate_tensors()
places = [given["index"] for given in interpreter.get_input_details()]
results = [made["index"] for made in interpreter.get_output_details()]

def call():
    for place, array in zip(places, inputs.values()):
        interpreter.set_tensor(place, array)
    interpreter.invoke()
    return [interpreter.get_tensor(place) for place in results]
"""


def memory(artifact: Artifact, threads: int, inputs: dict[str, np.ndarray]) -> tuple[int, int] | None:
    """Returns (peak resident bytes of the process, those of them that came after the imports), or None off Linux."""
    given = {spec.name: inputs[spec.name] for spec in artifact.inputs}  # in the order of the file's inputs
    return fresh_memory(artifact, threads, given, "from ai_edge_litert.interpreter import Interpreter", _LOAD)
