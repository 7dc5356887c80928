"""Sequences of tokens out of longer sequences of steps, as in speech and handwriting, without knowing which step says what."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from penjing.checks import FUNCTION, check, optional, whole
from penjing.errors import PenjingError, unknown_name
from penjing.raised import raised
from penjing.tasks._inputs import inputs_of
from penjing.tasks._likeness import Answers, answered
from penjing.tasks._outputs import describe, first_tensor
from penjing.tasks._positions import IGNORED
from penjing.tasks._registry import tasks
from penjing.tasks._task import Metric

Rate = Literal["wer", "cer"]
Targets = tuple[Tensor, ...]


@tasks.register(source="Graves et al., Connectionist Temporal Classification, ICML 2006", better="lower")
class CTC:
    """Tokens out of steps: the CTC loss, and the word error rate of the best path.

    Batches are `(input, tokens)`, `(input, tokens, lengths)` or `(input, tokens, lengths, token_lengths)`, with `((input, ...),
    …)` for several inputs. Tokens are integers `(N, most tokens)`, −100 behind a sample's last one where there are no token
    lengths. The network's first output holds logits, or logarithms of probabilities, `(N, steps, tokens and blank)`. Steps
    beyond a sample's length count for nothing, neither in loss and metric nor where a teacher is learned from.

    Args:
        decode: makes the text of a list of tokens; words are what stands between spaces. Without it each token is a word.
        blank: the token that means none.
        subsampling: how many steps of the input make one of the output: lengths are divided by it, rounded up.
        metric: "wer", wrong words over words; or "cer", wrong characters over characters. Wrong are those that were put in, left
            out or exchanged (Levenshtein 1966).

    Attributes:
        lower_is_better: the metric is an error; its values are negative in all computing, as those of `Regression`.

    Example:
        >>> import torch
        >>> task = CTC(decode=lambda tokens: "".join(" ab"[token - 1] for token in tokens))
        >>> steps = torch.nn.functional.one_hot(torch.tensor([[2, 2, 0, 1, 3, 0, 3]]), 4).float()
        >>> metric = task.metric()
        >>> metric.update(steps, (torch.tensor([[2, 1, 3]]),))  # "a bb" where "a b" is right
        >>> float(metric.compute())
        -0.5
    """

    labelled = True
    lower_is_better = True
    answers: Answers = "classes"

    def __init__(
        self,
        decode: Callable[[list[int]], str] | None = None,
        blank: int = 0,
        subsampling: int = 1,
        metric: Rate = "wer",
    ) -> None:
        """Takes how tokens become text, and how steps are counted.

        Raises:
            PenjingError: the metric's name is unknown, or an argument isn't allowed.
        """
        check({"decode": decode, "blank": blank, "subsampling": subsampling}, _RULES)
        if metric not in get_args(Rate):
            raise unknown_name("metric of CTC", str(metric), get_args(Rate))
        self.decode, self.blank, self.subsampling = decode, blank, subsampling
        self._metric: Rate = metric
        words = "word" if decode is not None else "token"
        self.metric_name = f"{words if metric == 'wer' else 'character'} error rate"

    def __repr__(self) -> str:
        return f"CTC(blank={self.blank}, subsampling={self.subsampling}, metric={self._metric!r})"

    def split(self, batch: Any) -> tuple[tuple[Tensor, ...], Targets | None]:
        """Returns the inputs, and the tokens (−100 behind the last) with the inputs' lengths if there are some.

        Raises:
            PenjingError: the batch is of another form.
        """
        if isinstance(batch, Tensor):
            return (batch,), None
        inputs = inputs_of(batch[0]) if isinstance(batch, tuple | list) and batch else None
        rest = list(batch[1:]) if inputs is not None else []
        if len(rest) == 1 and isinstance(rest[0], tuple | list):
            rest = list(rest[0])
        if inputs is None or len(rest) > 3 or not all(isinstance(one, Tensor) for one in rest):
            raise PenjingError(
                "CTC expects batches (input, tokens), (input, tokens, lengths) or (input, tokens, lengths, token_lengths), but "
                f"the loader gave {describe(batch)}."
            )
        if not rest:
            return inputs, None
        tokens = rest[0]
        if tokens.ndim != 2 or tokens.is_floating_point() or any(one.shape != tokens.shape[:1] for one in rest[1:]):
            raise PenjingError(
                "CTC needs integer tokens (N, most tokens), padded with −100, and lengths (N,), but the loader gave "
                f"{describe(rest)}. Tokens in one row, one sample behind another, must be padded: "
                "torch.nn.utils.rnn.pad_sequence(…, batch_first=True, padding_value=-100)."
            )
        tokens = tokens.long()
        if len(rest) == 3:
            behind = torch.arange(tokens.shape[1], device=tokens.device) >= rest[2].to(tokens.device)[:, None]
            tokens = tokens.masked_fill(behind, IGNORED)
        return inputs, (tokens, *rest[1:2])

    def loss(self, outputs: Any, targets: Targets) -> Tensor:
        """Returns the mean over samples of the loss per token.

        Raises:
            PenjingError: shapes or tokens don't fit, or a sample has too few steps for its tokens.
        """
        logits, steps = self.checked(outputs, targets)
        tokens = targets[0].to(logits.device)
        counts = (tokens != IGNORED).sum(1)
        # Between two equal tokens stands a blank.
        needed = counts + ((tokens[:, 1:] == tokens[:, :-1]) & (tokens[:, 1:] != IGNORED)).sum(1)
        if bool((needed > steps).any()):
            at = int((needed > steps).nonzero()[0])
            raise PenjingError(
                f"Sample {at} of a batch has {int(counts[at])} tokens, which need {int(needed[at])} steps, but the model gives "
                f"it {int(steps[at])}. Leave such samples out, or let the model give more steps (less subsampling)."
            )
        log_probabilities = logits.float().log_softmax(2).transpose(0, 1)
        return F.ctc_loss(log_probabilities, tokens.clamp(min=0), steps, counts, blank=self.blank)

    def metric(self) -> Metric:
        """Returns a fresh metric, of torchmetrics; it is the negative of an error."""
        from penjing.tasks._text_errors import METRICS  # torchmetrics takes longer to import than all of Penjing

        return METRICS[self._metric](self)

    def constant(self, targets: Iterable[Targets]) -> float:
        """Returns the metric of a network that answers nothing: every word is left out."""
        return -1.0

    def compared(self, outputs: Any) -> Tensor:
        """Returns the logits with their tokens along axis 1, `(N, tokens, steps)`."""
        return self._logits(outputs).transpose(1, 2)

    def counted_steps(self, outputs: Any, targets: Targets) -> Tensor | None:
        """Returns which steps of the outputs count, boolean `(N, steps)`; None where there are no lengths.

        Args:
            outputs: of the network.
            targets: as `split` gives them.
        """
        if len(targets) == 1:
            return None
        logits, steps = self.checked(outputs, targets)
        return torch.arange(logits.shape[1], device=logits.device) < steps[:, None]

    def texts(self, outputs: Any, targets: Targets) -> tuple[list[str], list[str]]:
        """Returns what the network says by its best path, and what is right, as texts.

        Raises:
            PenjingError: shapes or tokens don't fit, or `decode` fails.
        """
        logits, steps = self.checked(outputs, targets)
        best = torch.where(answered(logits.transpose(1, 2)), logits.argmax(2), self.blank).cpu()
        said = [row[:count].unique_consecutive() for row, count in zip(best, steps.tolist(), strict=True)]
        right = [row[row != IGNORED] for row in targets[0].cpu()]
        return [self._text(row[row != self.blank].tolist()) for row in said], [
            self._text(row.tolist()) for row in right
        ]

    def _text(self, tokens: list[int]) -> str:
        if self.decode is None:
            return " ".join(map(str, tokens))
        try:
            text: Any = self.decode(tokens)
        except Exception as error:
            raise raised("CTC's decode, asked for the text of tokens, raised", error) from error
        if not isinstance(text, str):
            raise PenjingError(f"CTC's decode must give a text for a list of tokens, not {type(text).__name__}.")
        return text

    def _logits(self, outputs: Any) -> Tensor:
        logits = first_tensor(outputs)
        if logits.ndim != 3:
            raise PenjingError(f"CTC needs logits (N, steps, tokens) from the model, but got {tuple(logits.shape)}.")
        return logits

    def checked(self, outputs: Any, targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Returns logits `(N, steps, tokens)` and how many steps of each sample count, `(N,)`.

        Raises:
            PenjingError: they don't fit the targets.
        """
        logits, tokens = self._logits(outputs), targets[0]
        samples, most, known = logits.shape
        if samples != len(tokens):
            hint = " The samples come first: transpose(0, 1)." if most == len(tokens) else ""
            raise PenjingError(
                f"CTC needs logits (N, steps, tokens) for the {len(tokens)} samples of the batch, but the model gives "
                f"{tuple(logits.shape)}.{hint}"
            )
        wrong = (((tokens < 0) | (tokens >= known)) & (tokens != IGNORED)) | (tokens == self.blank)
        wrong[:, 1:] |= (tokens[:, 1:] != IGNORED) & (tokens[:, :-1] == IGNORED)
        if bool(wrong.any()):
            at = wrong.nonzero()[0].tolist()
            raise PenjingError(
                f"CTC needs tokens from 0 to {known - 1} without the blank, {self.blank}, and −100 behind the last, but sample "
                f"{at[0]} of a batch has {int(tokens[tuple(at)])} at {at[1]}. Give blank=, or pad with −100, or give "
                "token lengths."
            )
        if len(targets) == 1:
            return logits, torch.full((samples,), most, device=logits.device)
        steps = -(-targets[1].to(logits.device).long() // self.subsampling)
        if bool((steps > most).any()):
            raise PenjingError(
                f"A sample of length {int(targets[1].max())} has {int(steps.max())} steps with subsampling={self.subsampling}, "
                f"but the model gives {most}: {tuple(logits.shape)}. Give subsampling=, input steps for one output step."
            )
        return logits, steps


_RULES = {"decode": optional(FUNCTION), "blank": whole(0, 2**20), "subsampling": whole(1, 2**20)}
