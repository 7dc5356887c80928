"""How the task's loss and the guidance become one step."""

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from penjing.distillation import Balance, balances


def scalar(value: float) -> Tensor:
    return torch.tensor(value, requires_grad=True)


def backward(loss: Tensor) -> None:
    loss.backward()


@pytest.mark.parametrize("name", balances)
def test_a_balance_has_a_source_and_works_with_its_defaults(name: str) -> None:
    balance = balances[name].function()
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    balance.backward((weight**2).sum(), (weight - 3).square().sum(), [weight], backward)
    assert balances[name].source and balances[name].summary
    assert torch.isfinite(weight.grad).all() and weight.grad.any()
    assert all(math.isfinite(value) for value in balance.measured().values())


@pytest.mark.parametrize("name", balances)
def test_what_a_balance_remembers_is_in_its_state(name: str) -> None:
    balance, other = balances[name].function(), balances[name].function()
    weight = nn.Parameter(torch.tensor([1.0, 2.0]))
    for step in range(3):
        balance.backward((weight * (step + 1)).square().sum(), -weight.sum() * 4, [weight], backward)
    other.load_state_dict(balance.state_dict())
    assert other.measured() == balance.measured()
    assert other.combined(scalar(3.0), scalar(5.0)).item() == balance.combined(scalar(3.0), scalar(5.0)).item()


# Fixed


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_a_fixed_weight_divides_one_between_task_and_guidance(weight: float) -> None:
    task, guidance = scalar(2.0), scalar(10.0)
    loss = balances["fixed"].function(weight).combined(task, guidance)
    loss.backward()
    assert loss.item() == pytest.approx((1 - weight) * 2 + weight * 10)
    assert task.grad.item() == pytest.approx(1 - weight) and guidance.grad.item() == pytest.approx(weight)


# Auto


def followed(pairs: Sequence[tuple[float, float]]) -> tuple[Balance, list[tuple[float, float, float]]]:
    """Returns an automatic balance, and for each step both running means and the weight, computed by the definition."""
    balance, found, task, guidance = balances["auto"].function(), [], 0.0, 0.0
    for step, (one, other) in enumerate(pairs, start=1):
        share = max(0.01, 1 / step)
        task, guidance = task + share * (one - task), guidance + share * (other - guidance)
        weight = min(1.0, task / guidance)
        loss = balance.combined(scalar(one), scalar(other))
        assert loss.item() == pytest.approx(one + weight * other, rel=1e-4)
        found.append((task, guidance, weight))
    return balance, found


def losses(seed: int, steps: int, scale: float) -> list[tuple[float, float]]:
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.rand(steps, 2, generator=generator) + 0.1
    fall = torch.linspace(1, 0.2, steps)
    return [
        (one, scale * other) for one, other in zip((drawn[:, 0] * fall).tolist(), drawn[:, 1].tolist(), strict=True)
    ]


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0])
def test_the_running_guidance_never_exceeds_the_running_task_loss(scale: float) -> None:
    balance, found = followed(losses(12, 300, scale))
    for task, guidance, weight in found:
        assert weight * guidance <= task * (1 + 1e-6)
    assert balance.measured()["balance"] == pytest.approx(found[-1][2], rel=1e-3)


def test_a_large_guidance_is_brought_to_the_size_of_the_task() -> None:
    _, found = followed(losses(13, 300, 100.0))
    assert all(weight * guidance == pytest.approx(task) for task, guidance, weight in found)


def test_a_small_guidance_is_not_blown_up() -> None:
    _, found = followed(losses(14, 300, 0.01))
    assert all(weight == 1 for _, _, weight in found)


def test_a_negative_task_loss_turns_no_student_away_from_its_teacher() -> None:
    balance = balances["auto"].function()
    assert balance.combined(scalar(-2.0), scalar(10.0)).item() == pytest.approx(-2 + 0.2 * 10)


def test_the_automatic_weight_has_no_gradient() -> None:
    task, guidance = scalar(1.0), scalar(4.0)
    balances["auto"].function().combined(task, guidance).backward()
    assert task.grad.item() == 1 and guidance.grad.item() == pytest.approx(0.25)


# Uncertainty


def test_the_uncertainties_gradient_is_one_minus_the_loss_over_the_variance() -> None:
    balance = balances["uncertainty"].function()
    with torch.no_grad():
        balance.log_variances.copy_(torch.tensor([0.5, -1.0]))
    task, guidance = scalar(2.0), scalar(10.0)
    loss = balance.combined(task, guidance)
    loss.backward()
    assert loss.item() == pytest.approx(2 * math.exp(-0.5) + 0.5 + 10 * math.exp(1) - 1)
    assert balance.log_variances.grad.tolist() == pytest.approx([1 - 2 * math.exp(-0.5), 1 - 10 * math.exp(1)])
    assert [task.grad.item(), guidance.grad.item()] == pytest.approx([math.exp(-0.5), math.exp(1)])


def test_the_uncertainties_come_to_rest_where_the_variances_are_the_losses() -> None:
    balance = balances["uncertainty"].function()
    optimizer = torch.optim.SGD(balance.parameters(), 0.1)
    for _ in range(300):
        optimizer.zero_grad()
        balance.combined(torch.tensor(2.0), torch.tensor(10.0)).backward()
        optimizer.step()
    assert balance.log_variances.exp().tolist() == pytest.approx([2.0, 10.0], rel=1e-4)
    assert balance.measured()["balance"] == pytest.approx(2.0 / 10.0, rel=1e-4)


# Gradient surgery


def step(balance: Balance, task: Sequence[float], guidance: Sequence[float], before: float | None = None) -> Tensor:
    """Returns the gradient of two parameters, of which linear losses have the gradients that are asked for."""
    parameters = [nn.Parameter(torch.zeros(2)), nn.Parameter(torch.zeros(1))]
    if before is not None:
        for parameter in parameters:
            parameter.grad = torch.full_like(parameter, before)
    flat = torch.cat(parameters)
    balance.backward((flat * torch.tensor(task)).sum(), (flat * torch.tensor(guidance)).sum(), parameters, backward)
    return torch.cat([parameter.grad for parameter in parameters])


def test_conflicting_gradients_lose_what_points_against_the_other() -> None:
    g, h = torch.tensor([1.0, 0.0, 2.0]), torch.tensor([-2.0, 3.0, 0.0])
    dot = -2.0  # g · h; g · g = 5, h · h = 13
    projected_g, projected_h = g - dot / 13 * h, h - dot / 5 * g
    assert projected_g @ h == pytest.approx(0, abs=1e-6) and projected_h @ g == pytest.approx(0, abs=1e-6)
    balance = balances["pcgrad"].function()
    torch.testing.assert_close(step(balance, g.tolist(), h.tolist()), projected_g + projected_h)


def test_gradients_that_agree_are_added_as_they_are() -> None:
    balance = balances["pcgrad"].function()
    assert step(balance, [1.0, 0.0, 2.0], [2.0, 1.0, 0.0]).tolist() == [3.0, 1.0, 2.0]


def test_gradients_that_were_there_are_added_to() -> None:
    balance = balances["pcgrad"].function()
    assert step(balance, [1.0, 0.0, 2.0], [2.0, 1.0, 0.0], before=0.5).tolist() == [3.5, 1.5, 2.5]


def test_a_parameter_that_one_loss_does_not_reach_takes_the_others_gradient() -> None:
    one, other, none = (nn.Parameter(torch.ones(1)) for _ in range(3))
    balances["pcgrad"].function().backward(3 * one.sum(), 4 * other.sum(), [one, other, none], backward)
    assert one.grad.item() == 3 and other.grad.item() == 4 and none.grad is None


def test_losses_that_share_a_graph_can_be_told_apart() -> None:
    weight = nn.Parameter(torch.tensor([1.0]))
    inner = weight.exp()
    balances["pcgrad"].function().backward(inner.sum(), (2 * inner).sum(), [weight], backward)
    assert weight.grad.item() == pytest.approx(3 * math.e)


def test_the_share_of_steps_with_a_conflict_is_measured() -> None:
    balance = balances["pcgrad"].function()
    assert balance.measured() == {}
    for guidance in ([-1.0, 0, 0], [1.0, 0, 0], [0.0, 1, 0], [-1.0, 5, 0]):
        step(balance, [1.0, 0.0, 0.0], guidance)
    assert balance.measured() == {"conflicts": 0.5}


def test_gradient_surgery_alone_says_that_it_is_one() -> None:
    assert {name for name in balances if balances[name].function.surgery} == {"pcgrad"}
