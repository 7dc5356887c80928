"""Evidence about a graph from calibration and training data: all techniques make their passes over the data here.

`reader` turns a user's data into batches. `Evidence` binds a graph to its data and yields values, gradients and losses
batch by batch. `observation` feeds inner values to statistics. `feature_maps` finds the values in which channels
appear, `gates` gives the loss's derivatives by gates on channels, `gram` and `moments` tell how the inputs of layers
vary together, `curvature` gives Hessian products, and `loss_change` measures how much the loss grows when units are
removed.

Data that `remembering` returns have a memory: each result of a pass over them is computed once for all verbs that
receive them. Where a folder is named, the results are kept there and survive a kill.
"""

from penjing.evidence.evidence import Evidence
from penjing.evidence.memory import Memory, memory_of, remembering
from penjing.evidence.reader import Inputs

__all__ = ["Evidence", "Inputs", "Memory", "memory_of", "remembering"]
