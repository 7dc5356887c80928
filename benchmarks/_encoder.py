"""A transformer encoder as BERT is built, small enough to be trained within minutes."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

import penjing as pj
from _django_messages import CLASS, LANGUAGES, LONGEST, PAD, VOCABULARY

WIDTH, HEADS, DROPOUT = 64, 4, 0.1


class Encoder(nn.Module):
    """Token ids `(N, positions)` in, a score for each language out, read at the first token; padding is masked."""

    def __init__(self, layers: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCABULARY, WIDTH, padding_idx=PAD)
        self.positions = nn.Embedding(LONGEST, WIDTH)
        self.norm, self.dropout = nn.LayerNorm(WIDTH), nn.Dropout(DROPOUT)
        layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 4 * WIDTH, DROPOUT, "gelu", batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, len(LANGUAGES))
        for embedding in (
            self.tokens,
            self.positions,
        ):  # as BERT does; PyTorch's own scale would drown what attention adds
            nn.init.normal_(embedding.weight, std=0.02)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns logits `(N, languages)`."""
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.dropout(self.norm(self.tokens(tokens) + self.positions(places)))
        return self.head(self.encoder(x, src_key_padding_mask=tokens == PAD)[:, 0])


class Remembered(nn.Module):
    """A teacher that is asked once for each message: padding is masked, so its answer is the same in every batch."""

    def __init__(self, teacher: pj.Graph, batches: Iterable[tuple[Tensor, Tensor]]) -> None:
        super().__init__()
        self.teacher, self.places = teacher, dict[tuple[int, ...], int]()
        answers: list[Tensor] = []
        with torch.no_grad():
            for tokens, _ in batches:
                for message, answer in zip(tokens.tolist(), teacher(tokens), strict=True):
                    self.places[_message(message)] = len(answers)  # languages may share a message
                    answers.append(answer)
        self.register_buffer("answers", torch.stack(answers), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Returns the teacher's logits."""
        return self.answers[[self.places[_message(message)] for message in tokens.tolist()]]


def _message(tokens: list[int]) -> tuple[int, ...]:
    return tuple(token for token in tokens if token != PAD)


def encoder(layers: int, seed: int, teacher: pj.Graph | None = None, taken: tuple[int, ...] = ()) -> pj.Graph:
    """Returns a new encoder, captured.

    Args:
        layers: how many.
        seed: of the initial weights.
        teacher: where given, embeddings, head and some layers begin as the teacher's.
        taken: which of the teacher's layers, one for each layer.
    """
    torch.manual_seed(seed)
    network = Encoder(layers)
    if teacher is not None:
        weights = dict(teacher.state_dict())
        named = {name: value for name, value in weights.items() if not name.startswith("encoder.layers.")}
        for place, layer in enumerate(taken):
            prefix = f"encoder.layers.{layer}."
            of_layer = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
            named |= {f"encoder.layers.{place}.{name}": value for name, value in of_layer.items()}
        network.load_state_dict(named)
    example = torch.tensor([[CLASS, *range(3, 12), PAD], [CLASS, VOCABULARY - 1, *[PAD] * 9]])
    return pj.capture(network, example, dynamic={"tokens": (0, 1)})
