"""A copy for a few rows answers the same and takes no memory of its own."""

import pytest
import torch
from torch import nn

from maskloop.interactive.few_rows import for_few_rows


@pytest.mark.parametrize("shape", [(1, 8), (3, 8), (2, 4, 8)], ids=str)
@torch.no_grad()
def test_for_few_rows_is_the_same_and_shares_weights(shape):
    module = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 8), nn.Linear(8, 16, bias=False))
    few = for_few_rows(module)
    rows = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(few(rows), module(rows))
    pairs = zip(few.parameters(), module.parameters(), strict=True)
    assert all(one is other for one, other in pairs)
    module[0].weight.zero_()
    torch.testing.assert_close(few(rows), module(rows))


def test_for_few_rows_leaves_the_module_as_it_is():
    module = nn.Sequential(nn.Linear(8, 32))
    assert type(for_few_rows(module)[0]) is not nn.Linear
    assert type(module[0]) is nn.Linear
