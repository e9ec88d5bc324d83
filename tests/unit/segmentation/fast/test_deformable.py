import pytest
import torch
from torch.nn import functional

from maskloop.segmentation.fast.deformable import embedding_bag_sums


def make_bags(bags, size, rows, width, dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    rows_nk = torch.randint(rows, (bags, size), generator=generator, dtype=torch.int32)
    table_rd = torch.randn(rows, width, generator=generator).to(dtype).requires_grad_()
    weights_nk = torch.rand(bags, size, generator=generator).to(dtype).requires_grad_()
    return rows_nk, table_rd, weights_nk


@pytest.mark.parametrize(
    ("bags", "size", "rows", "width"),
    [(50, 12, 30, 8), (1, 1, 1, 1), (4, 3, 200, 32)],
    ids=["rows used often", "one", "rows never used"],
)
def test_bag_sums_and_their_gradients_are_those_of_embedding_bag(bags, size, rows, width):
    rows_nk, table_rd, weights_nk = make_bags(bags, size, rows, width)
    wanted = functional.embedding_bag(rows_nk, table_rd, mode="sum", per_sample_weights=weights_nk)
    sums = embedding_bag_sums(rows_nk, table_rd, weights_nk)
    torch.testing.assert_close(sums, wanted)
    asked = table_rd, weights_nk
    theirs = torch.autograd.grad(wanted.square().sum(), asked)
    ours = torch.autograd.grad(sums.square().sum(), asked)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def test_bag_sums_half_precision_gradients_have_its_dtype_and_are_near():
    rows_nk, table_rd, weights_nk = make_bags(50, 12, 30, 8, torch.bfloat16)
    exact = [one.detach().float().requires_grad_() for one in (table_rd, weights_nk)]
    ours = torch.autograd.grad(
        embedding_bag_sums(rows_nk, table_rd, weights_nk).float().sum(), (table_rd, weights_nk)
    )
    wanted = torch.autograd.grad(embedding_bag_sums(rows_nk, *exact).sum(), exact)
    for one, other in zip(ours, wanted, strict=True):
        assert one.dtype == torch.bfloat16
        torch.testing.assert_close(one.float(), other, rtol=0.02, atol=0.05)


def test_bag_sums_only_one_part_learns():
    rows_nk, table_rd, weights_nk = make_bags(5, 3, 4, 2)
    embedding_bag_sums(rows_nk, table_rd.detach(), weights_nk).sum().backward()
    assert table_rd.grad is None
    assert weights_nk.grad is not None
