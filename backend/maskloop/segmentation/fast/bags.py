"""Weighted sums of table rows on the CPU, with a gradient that costs as little as the sums themselves.

The sums are a sparse matrix times a table. torch's own gradient of `embedding_bag` sorts the rows anew and
adds them one by one; here the transposed matrix comes from SciPy's counting sort and is a sum of rows again.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["bag_sums"]


def bag_sums(rows_nk: Tensor, table_rd: Tensor, weights_nk: Tensor) -> Tensor:
    """Return (N, D), for each n the sum over k of a weight times a row; differentiable, on the CPU.

    Args:
        rows_nk: int32, which rows.
        table_rd: of which they are.
        weights_nk: of the table's dtype.
    """
    if torch.is_grad_enabled() and (table_rd.requires_grad or weights_nk.requires_grad):
        sums_nd: Tensor = _BagSums.apply(rows_nk, table_rd, weights_nk)  # type: ignore[no-untyped-call]
        return sums_nd
    return _sums(rows_nk, table_rd, weights_nk)


class _BagSums(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows_nk: Tensor, table_rd: Tensor, weights_nk: Tensor) -> Tensor:
        ctx.save_for_backward(rows_nk, table_rd, weights_nk)
        return _sums(rows_nk, table_rd, weights_nk)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad_nd: Tensor) -> tuple[None, Tensor | None, Tensor | None]:
        rows_nk, table_rd, weights_nk = ctx.saved_tensors
        grad_nd = grad_nd.float().contiguous()
        table = weights = None
        if ctx.needs_input_grad[1]:
            table = _transposed_sums(rows_nk, weights_nk.float(), grad_nd, len(table_rd)).to(table_rd.dtype)
        if ctx.needs_input_grad[2]:
            weights = _products(rows_nk, grad_nd, table_rd.float()).to(weights_nk.dtype)
        return None, table, weights


def _sums(rows_nk: Tensor, table_rd: Tensor, weights_nk: Tensor) -> Tensor:
    return functional.embedding_bag(rows_nk, table_rd, mode="sum", per_sample_weights=weights_nk)


def _transposed_sums(rows_nk: Tensor, weights_nk: Tensor, values_nd: Tensor, rows: int) -> Tensor:
    """Return (R, D), for each row the sum of the values of all bags that it is in, by its weight there."""
    from scipy.sparse import csr_matrix  # used in training alone

    bags, size = rows_nk.shape
    starts = np.arange(0, bags * size + 1, size, dtype=np.int32)
    flat = weights_nk.reshape(-1).numpy(), rows_nk.reshape(-1).numpy(), starts
    by_row = csr_matrix(flat, shape=(bags, rows), copy=False).tocsc()
    return functional.embedding_bag(
        torch.from_numpy(by_row.indices),
        values_nd,
        torch.from_numpy(by_row.indptr),
        mode="sum",
        per_sample_weights=torch.from_numpy(by_row.data),
        include_last_offset=True,
    )


def _products(rows_nk: Tensor, left_nd: Tensor, right_rd: Tensor) -> Tensor:
    """Return (N, K): the products of each n with its rows."""
    _quiet_sparse()
    bags, size = rows_nk.shape
    starts = torch.arange(0, bags * size + 1, size, dtype=torch.int32)
    places = torch.sparse_csr_tensor(
        starts,
        rows_nk.reshape(-1),
        left_nd.new_zeros(bags * size),
        (bags, len(right_rd)),
        check_invariants=False,
    )
    products: Tensor = torch.sparse.sampled_addmm(places, left_nd, right_rd.T, beta=0.0).values()
    return products.view(bags, size)


@functools.cache
def _quiet_sparse() -> None:
    """Take the one warning that torch gives in each process, that its sparse matrices may still change."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.eye(1).to_sparse_csr()
