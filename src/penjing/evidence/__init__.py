"""What calibration and training data tell of a graph: each pass over the data is made here, for every technique.

`reader` turns a user's data into batches. `Evidence` binds a graph to its data: values, gradients and losses, batch by batch.
`observation` feeds statistics of inner values. `feature_maps` says where channels can be seen, `gates` what the loss says of
them, `gram` and `moments` how the inputs of layers vary together, `curvature` how gradients change, and `loss_change` what the
loss gains when units go.

Data that come from `remembering` have a memory: what passes over them gave is found once, for all verbs that are given them,
and kept in a folder across a kill where one is named.
"""

from penjing.evidence.evidence import Evidence
from penjing.evidence.memory import Memory, memory_of, remembering
from penjing.evidence.reader import Inputs

__all__ = ["Evidence", "Inputs", "Memory", "memory_of", "remembering"]
