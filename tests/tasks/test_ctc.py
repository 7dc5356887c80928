"""Tokens out of steps: the loss is PyTorch's, the best path is read as Graves reads it, and what doesn't fit is refused."""

import pytest
import torch
from torch.nn import functional as F

import penjing as pj
from penjing.errors import PenjingError
from penjing.tasks import CTC, evaluate, metric_words, shown_metric

INPUT = torch.zeros(2, 12, 3)
TOKENS = torch.tensor([[1, 2, 2], [3, -100, -100]])
LENGTHS = torch.tensor([12, 7])


def steps_of(*rows):
    return F.one_hot(torch.tensor(rows), 4).float()


def test_the_loss_is_that_of_the_steps_and_tokens_that_count():
    logits = torch.randn(2, 6, 4)
    task = CTC(subsampling=2)
    inputs, targets = task.split((INPUT, TOKENS, LENGTHS))
    assert inputs[0] is INPUT
    wanted = F.ctc_loss(
        logits.log_softmax(2).transpose(0, 1), TOKENS.clamp(min=0), torch.tensor([6, 4]), torch.tensor([3, 1])
    )
    assert float(task.loss(logits, targets)) == pytest.approx(float(wanted))
    whole = logits.clone()
    whole[1, 4:] = 100 * torch.randn(2, 4)  # beyond the second sample's length
    assert float(task.loss(whole, targets)) == pytest.approx(float(wanted))
    assert float(task.loss(logits.log_softmax(2), targets)) == pytest.approx(float(wanted), rel=1e-5)


def test_token_lengths_say_the_same_as_padding():
    task, longer = CTC(), torch.tensor([[1, 2, 2], [3, 9, 9]])
    _, targets = task.split((INPUT, longer, LENGTHS, torch.tensor([3, 1])))
    assert torch.equal(targets[0], TOKENS) and torch.equal(targets[1], LENGTHS)


def test_the_best_path_has_no_repeats_and_no_blanks_and_is_read_as_text():
    task = CTC(lambda tokens: "".join(" ab"[one - 1] for one in tokens))
    outputs = steps_of([2, 2, 0, 2, 1, 1, 3], [3, 0, 0, 0, 0, 0, 0])
    targets = (torch.tensor([[2, 2, 1, 3], [3, 3, -100, -100]]),)
    assert task.texts(outputs, targets) == (["aa b", "b"], ["aa b", "bb"])
    assert evaluate(lambda x: outputs, [(INPUT, *targets)], task) == pytest.approx(-1 / 3)
    by_characters = CTC(task.decode, metric="cer")
    value = evaluate(lambda x: outputs, [(INPUT, *targets)], by_characters)
    assert value == pytest.approx(-1 / 6) and by_characters.lower_is_better
    assert shown_metric(task, -0.25) == 0.25 and metric_words(by_characters, value) == "character error rate 0.1667"
    assert CTC().metric_name == "token error rate" and task.metric_name == "word error rate"


def test_a_network_that_says_nothing_leaves_every_word_out():
    task = CTC()
    for outputs in (torch.full((2, 6, 4), torch.nan), torch.zeros(2, 6, 4), steps_of([0] * 6, [0] * 6)):
        assert evaluate(lambda x, outputs=outputs: outputs, [(INPUT, TOKENS)], task) == -1.0 == task.constant([])


def test_steps_beyond_the_length_are_not_learned_from_a_teacher():
    torch.manual_seed(0)
    task = CTC(subsampling=2)
    teacher = torch.nn.Conv1d(3, 4, 2, stride=2)
    given = torch.randn(2, 3, 12)
    losses = []
    for noise in (0.0, 5.0):
        x = given.clone()
        x[1, :, 8:] += noise
        torch.manual_seed(1)
        network = torch.nn.Sequential(torch.nn.Conv1d(3, 4, 2, stride=2), Turned())
        told = []
        pj.recover(
            network, pj.Data([(x, TOKENS, LENGTHS)], None, None, task),
            teacher=torch.nn.Sequential(teacher, Turned()), epochs=2, lr=0.1, precision="float32", channels_last=False,
            progress=False, report=told.append,
        )  # fmt: skip
        losses.append([(epoch["losses"]["task"], epoch["losses"]["guidance"]) for epoch in told])
    assert torch.allclose(torch.tensor(losses[0]), torch.tensor(losses[1]), atol=1e-5)


class Turned(torch.nn.Module):
    def forward(self, x):
        return x.transpose(1, 2)


@pytest.mark.parametrize(
    ("outputs", "targets", "message"),
    [
        ((2, 6), (TOKENS,), r"logits \(N, steps, tokens\).*\(2, 6\)"),
        ((6, 2, 4), (TOKENS,), r"2 samples.*\(6, 2, 4\)\. The samples come first"),
        ((2, 6, 3), (TOKENS,), r"from 0 to 2 without the blank, 0.*sample 1 of a batch has 3 at 0"),
        ((2, 6, 4), (TOKENS.clamp(min=0),), r"sample 1 of a batch has 0 at 1.*pad with −100"),
        ((2, 6, 4), (torch.tensor([[1, -100, 2], [1, 2, 3]]),), r"sample 0 of a batch has 2 at 2"),
        ((2, 6, 4), (TOKENS, LENGTHS), r"length 12 has 12 steps with subsampling=1, but the model gives 6"),
        ((2, 3, 4), (TOKENS,), r"Sample 0 of a batch has 3 tokens, which need 4 steps, but the model gives it 3"),
    ],
)
def test_what_does_not_fit_is_refused_with_what_to_do(outputs, targets, message):
    with pytest.raises(PenjingError, match=message):
        CTC().loss(torch.randn(outputs), targets)


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": INPUT}, r"expects batches \(input, tokens\).*keys x"),
        ((INPUT, torch.tensor([1, 2, 3, 3])), r"tokens \(N, most tokens\).*Tensor\(4,\).*pad_sequence"),
        ((INPUT, TOKENS.float()), "integer tokens"),
        ((INPUT, TOKENS, torch.tensor([1])), r"lengths \(N,\)"),
    ],
)
def test_batches_of_another_form_are_refused(batch, message):
    with pytest.raises(PenjingError, match=message):
        CTC().split(batch)


def test_a_decode_that_fails_is_named_and_one_that_gives_no_text():
    outputs, targets = steps_of([1, 2], [3, 0]), (torch.tensor([[1, 2], [3, -100]]),)
    with pytest.raises(PenjingError, match="decode, asked for the text of tokens, raised KeyError"):
        CTC(lambda tokens: {}[tokens[0]]).metric().update(outputs, targets)
    with pytest.raises(PenjingError, match="must give a text for a list of tokens, not list"):
        CTC(lambda tokens: tokens).metric().update(outputs, targets)
    with pytest.raises(PenjingError, match="Did you mean 'wer'"):
        CTC(metric="were")
