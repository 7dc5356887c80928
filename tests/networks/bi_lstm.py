"""A text classifier: embedded tokens through three bidirectional LSTM layers, pooled over the sequence."""

import torch
from torch import nn


class BiLSTMClassifier(nn.Module):
    def __init__(self, vocabulary=40, width=24, hidden=32, layers=3, classes=5):
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.lstm = nn.LSTM(width, hidden, layers, batch_first=True, bidirectional=True, dropout=0.1)
        self.mix, self.head = nn.Linear(4 * hidden, 2 * hidden), nn.Linear(2 * hidden, classes)

    def forward(self, tokens):
        steps, (hidden, _) = self.lstm(self.embed(tokens))
        final = torch.cat([hidden[-2], hidden[-1]], -1)
        return self.head(torch.tanh(self.mix(torch.cat([steps.amax(1), final], -1))))
