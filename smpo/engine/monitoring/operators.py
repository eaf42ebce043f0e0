"""Which operators of torch a pass runs, and the first one by which policy and reference differ.

Equal weights give equal outputs where both run the same operators on tensors of the same shapes, strides and dtypes:
kernels are chosen by these. Operators that only look at a tensor differently, cast it or make an empty one aren't
listed; a different layout shows in the operator that reads it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import SequenceMatcher
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from smpo.engine.step import ReferenceBatch
from smpo.kinds import Denoiser

__all__ = ["compared_operators", "first_difference", "operators_of", "unlike_operator"]

UNLISTED = ("detach", "_to_copy", "alias", "empty", "empty_like")
"""These compute nothing. `copy_` brings the blocks of a reference in host memory."""
INSERTED = 40
"""Operators that an adapter adds in one place, at most; DoRA's norms take some twenty."""


class _Log(TorchDispatchMode):
    lines: list[str]

    def __torch_dispatch__(self, operator: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = operator(*args, **(kwargs or {}))
        name = operator._overloadpacket._qualified_op_name.split("::")[-1]
        if not operator.is_view and name not in UNLISTED and not _moves_weights(name, args):
            described = [_described(one) for one in (*args, *(kwargs or {}).values())]
            self.lines.append(f"{name}({', '.join(described)})")
        return output


def _moves_weights(name: str, args: Any) -> bool:
    """Whether this copies a block of bytes: weights of a reference that is kept in the host's memory."""
    return name == "copy_" and args[0].dtype == torch.uint8


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        shape, strides = (",".join(map(str, one)) for one in (value.shape, value.stride()))
        return f"{str(value.dtype).removeprefix('torch.')}[{shape}] strides [{strides}]"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_described, value))}]"
    return str(value)


def operators_of(run: Callable[[], Any]) -> list[str]:
    """The operators that `run` dispatches, in order, each with its arguments; tensors as dtype, shape and strides."""
    log = _Log()  # type: ignore[no-untyped-call]
    lines: list[str] = []
    log.lines = lines
    with log:
        run()
    return lines


def compared_operators(prepared: ReferenceBatch, denoiser: Denoiser) -> tuple[list[str], list[str]]:
    """Operators of the policy's pass with gradients, and of the reference's, on one micro-batch."""
    x, t, about = prepared.x_t, prepared.predicted.t, prepared.conditioning
    with torch.enable_grad():
        policy = operators_of(lambda: denoiser.predict(x, t, about))
    with torch.no_grad():
        return policy, operators_of(lambda: denoiser.predict(x, t, about, reference=True))


def first_difference(policy: Sequence[str], reference: Sequence[str]) -> tuple[str, str] | None:
    """The policy's and the reference's operator where the two part; None where each of the reference's is among the
    policy's, in order. The policy may run others between them, as an adapter does."""
    if _within(reference, policy):
        return None
    steps = SequenceMatcher(None, policy, reference, autojunk=False).get_opcodes()
    parted = [step for step in steps if step[0] in ("replace", "insert")] or [
        step for step in steps if step[0] != "equal"
    ]
    _, mine, _, theirs, _ = parted[0]
    return policy[mine] if mine < len(policy) else "none", (reference[theirs] if theirs < len(reference) else "none")


def _within(reference: Sequence[str], policy: Sequence[str]) -> bool:
    """Whether `policy` is `reference` with at most `INSERTED` others in one place."""
    place = 0
    for wanted in reference:
        ahead = policy[place : place + INSERTED + 1]
        if wanted not in ahead:
            return False
        place += ahead.index(wanted) + 1
    return len(policy) - place <= INSERTED


def unlike_operator(prepared: ReferenceBatch, denoiser: Denoiser) -> str:
    """A sentence with the operator that differs first, from two more passes."""
    policy, reference = compared_operators(prepared, denoiser)
    found = first_difference(policy, reference)
    if found is None:
        return f"both run the same {len(reference)} operators on tensors of the same shapes, strides and dtypes"
    return f"the first operator that differs is {found[0]} in the policy and {found[1]} in the reference"
