import torch

from penjing.graph import capture
from penjing.targets import layers_of


class Spectral(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(6, 4)

    def forward(self, x):
        return torch.fft.rfft(self.linear(x)).abs()


def test_a_layer_that_holds_an_op_of_unknown_macs_says_so():
    rows = layers_of(capture(Spectral().eval(), torch.randn(2, 6)).cost(), [])
    assert {name: (row["macs"], row["counted"]) for name, row in rows.items()} == {
        "linear": (24, True),
        "fft_rfft": (0, False),
    }
