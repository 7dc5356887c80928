"""What calibration and training data tell of a graph: each pass over the data is made here, for every technique.

`Evidence` binds a graph to its data. `feature_maps` says where channels can be seen, `gates` what the loss says of them, `gram`
how the inputs of layers vary together, `curvature` how gradients change, and `loss_change` what the loss gains when units go.
"""

from penjing.evidence.evidence import Evidence
from penjing.evidence.reader import Inputs

__all__ = ["Evidence", "Inputs"]
