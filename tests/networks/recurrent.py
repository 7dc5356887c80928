"""Recurrent classifiers."""

import torch
from torch import nn


class Recurrent(nn.Module):
    """Embedded tokens through a recurrent layer; the last step and the final state are read."""

    def __init__(self, layer, width=6, vocabulary=12):
        super().__init__()
        self.embed, self.layer = nn.Embedding(vocabulary, layer.input_size), layer
        out = (getattr(layer, "proj_size", 0) or layer.hidden_size) * (2 if layer.bidirectional else 1)
        self.mix, self.head = nn.Linear(out, 8), nn.Linear(8 + out, 3)

    def forward(self, tokens):
        x = self.embed(tokens)
        x, states = self.layer(x if self.layer.batch_first else x.transpose(0, 1))
        hidden = states[0] if isinstance(states, tuple) else states
        directions = 2 if self.layer.bidirectional else 1
        final = torch.cat([hidden[-i] for i in range(1, directions + 1)], -1)
        last = x[:, -1] if self.layer.batch_first else x[-1]
        return self.head(torch.cat([torch.relu(self.mix(last)), final], -1))
