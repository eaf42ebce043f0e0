"""One check for everything that a model draws: numbers that are not finite would become black pixels, and be judged."""

from __future__ import annotations

from torch import Tensor

from smpo.errors import RunError

__all__ = ["require_finite"]


def require_finite(drawn: Tensor) -> None:
    """Raises `RunError` where a decoded picture or point holds a number that is not finite."""
    if not drawn.isfinite().all():
        raise RunError(
            "the model drew something that isn't finite",
            help="its weights, its adapter or its schedule (`model.prediction`, `model.zero_terminal_snr`) is at "
            "fault; a network that overflows in fp16 needs `--set train.precision=bf16`",
        )
