import pytest
import torch

from maskloop.learning.training.weight_average import WeightAverage


def make(decay, seed=0):
    torch.manual_seed(seed)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    return model, optimizer, WeightAverage(optimizer, decay)


def train(model, optimizer, steps, first=0):
    """Take steps and return the weights after each."""
    seen = []
    for step in range(first, first + steps):
        torch.manual_seed(100 + step)
        optimizer.zero_grad()
        model(torch.randn(5, 3)).square().sum().backward()
        optimizer.step()
        seen.append([weight.detach().clone() for weight in model.parameters()])
    return seen


def slow_average(seen, decay):
    average = seen[0]
    for step, weights in enumerate(seen[1:], start=2):
        kept = min(decay, (1 + step) / (10 + step))
        average = [kept * old + (1 - kept) * new for old, new in zip(average, weights, strict=True)]
    return average


@pytest.mark.parametrize("decay", [0.3, 0.9, 0.999])
def test_weight_average_is_that_of_the_slow_formula(decay):
    model, optimizer, average = make(decay)
    expected = slow_average(train(model, optimizer, 12), decay)
    average.apply()
    for weight, value in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(weight.detach(), value)


def test_weight_average_applied_restores_the_weights():
    model, optimizer, average = make(0.9)
    last = train(model, optimizer, 5)[-1]
    with average.applied():
        assert not torch.equal(next(model.parameters()), last[0])
    assert all(torch.equal(weight, value) for weight, value in zip(model.parameters(), last, strict=True))


def test_weight_average_goes_on_from_a_saved_state():
    whole, optimizer, average = make(0.9)
    train(whole, optimizer, 8)
    average.apply()
    model, optimizer, _ = make(0.9)
    train(model, optimizer, 5)
    saved = optimizer.state_dict()
    resumed, other, average = make(0.9, seed=1)
    resumed.load_state_dict(model.state_dict())
    other.load_state_dict(saved)
    train(resumed, other, 3, first=5)
    average.apply()
    for weight, value in zip(resumed.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(weight, value)


def test_weight_average_weight_without_gradient_stays():
    model, optimizer, average = make(0.5)
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    train(model, optimizer, 3)
    average.apply()
    assert torch.equal(model[0].weight, before)
