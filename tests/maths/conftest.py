"""Golden values, computed in float64 by an independent script (`golden.json`), as tensors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import settings
from torch import Tensor

from smpo.maths.schedule import NoiseSchedule

# A loaded machine is slow, not wrong; and fifty examples of a law say nearly what a hundred do.
settings.register_profile("maths", deadline=None, max_examples=50)
settings.load_profile("maths")


@pytest.fixture(scope="session")
def golden() -> dict[str, Any]:
    return json.loads(Path(__file__).with_name("golden.json").read_text())


@pytest.fixture(scope="session")
def schedule() -> NoiseSchedule:
    """SD 1.5's and SDXL's."""
    return NoiseSchedule.scaled_linear()


@pytest.fixture(scope="session")
def close() -> Callable[..., None]:
    """Equality to 1e-10 in float64, or to what is asked."""

    def check(actual: Any, expected: Any, atol: float = 1e-10, rtol: float = 1e-10) -> None:
        torch.testing.assert_close(f64(actual), f64(expected), atol=atol, rtol=rtol)

    return check


def f64(values: Any) -> Tensor:
    return torch.as_tensor(values, dtype=torch.float64)
