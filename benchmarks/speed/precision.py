"""float32 without TensorFloat-32, for comparisons that allow no more than float32's rounding."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["full_float32"]


@contextmanager
def full_float32() -> Iterator[None]:
    """Turns TensorFloat-32 off for matrix products *and* convolutions, and restores both flags afterwards.

    torch's defaults differ: products in full, convolutions in TensorFloat-32, whose mantissa of 10 bits leaves relative
    errors of 5e-4. Both flags go through `allow_tf32`: torch refuses to read one that was set through
    `fp32_precision`.
    """
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = False
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before
