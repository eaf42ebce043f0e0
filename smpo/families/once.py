"""What needs computing only once while weights stand still: during the inversion of a window of pairs.

A network is then asked a dozen times about the same prompts. Keys and values of cross-attention depend on the prompt
alone, so they are computed for all rows of the window at the first pass and looked up in the others. Queries, keys and
values of self-attention are three products with the same input, which one product with stacked weights gives at once.
Both are exact up to the order of summation, and both are for passes without gradients, whose weights don't move.

A window is told from the next by its `Conditioning`: what was made for one dies with it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from smpo.kinds import Conditioning

__all__ = ["Once"]

Forward = Callable[[Tensor], Tensor]


class Once:
    """Sits in the attention layers of `network`, whose modules and parameters keep their names. Outside `during` they
    do what they always did. Not for compiled networks, whose layers are no longer called."""

    def __init__(self, network: nn.Module, *, prompts: bool, fused: bool) -> None:
        from diffusers.models.attention import BasicTransformerBlock

        self._windows: dict[tuple[int, bool], dict[int, Tensor]] = {}
        self._known: dict[int, Tensor] = {}
        self._cond: Conditioning | None = None
        for module in network.modules():
            if not isinstance(module, BasicTransformerBlock):
                continue
            if fused and module.attn1 is not None:
                self._stack(module.attn1)
            if prompts and module.attn2 is not None:
                for layer in (module.attn2.to_k, module.attn2.to_v):
                    self._look_up(layer)

    @contextmanager
    def during(self, cond: Conditioning, *, reference: bool) -> Iterator[None]:
        """For one pass about `cond`, if that is some rows of a window. `reference`: which of the two networks that one
        module may be."""
        if cond.window is None or torch.is_grad_enabled():
            yield
            return
        key = id(cond.window), reference
        if key not in self._windows:
            weakref.finalize(cond.window, self._windows.pop, key, None)
        self._known, self._cond = self._windows.setdefault(key, {}), cond
        try:
            yield
        finally:
            self._known, self._cond = {}, None

    def _look_up(self, layer: Any) -> None:
        exact: Forward = layer.forward

        def forward(x: Tensor, *rest: Any) -> Tensor:
            if self._cond is None:
                return exact(x, *rest)
            if id(layer) not in self._known:
                assert self._cond.window is not None
                self._known[id(layer)] = exact(self._cond.window.tensors["text"].to(x.dtype))
            return self._known[id(layer)][self._cond.rows]

        layer.forward = forward

    def _stack(self, attention: Any) -> None:
        layers = (attention.to_q, attention.to_k, attention.to_v)
        if not all(type(layer) is nn.Linear for layer in layers):
            return  # an adapter's layers add to theirs
        first: Forward = layers[0].forward
        waiting = dict[int, Tensor]()

        def stacked(kind: str) -> Tensor | None:
            parts = [getattr(layer, kind) for layer in layers]
            return None if any(part is None for part in parts) else torch.cat([p.detach() for p in parts])

        def query(x: Tensor) -> Tensor:
            if self._cond is None:
                return first(x)
            key = id(attention)
            if key not in self._known:
                weight = stacked("weight")
                assert weight is not None
                self._known[key] = weight
                if (bias := stacked("bias")) is not None:
                    self._known[-key] = bias
            out = nn.functional.linear(x, self._known[key], self._known.get(-key))
            q, k, v = torch.split(out, [layer.out_features for layer in layers], dim=-1)
            waiting.update({1: k, 2: v})
            return q

        def handed(place: int) -> Forward:
            exact: Forward = layers[place].forward

            def forward(x: Tensor) -> Tensor:
                return exact(x) if self._cond is None else waiting.pop(place)

            return forward

        layers[0].forward, layers[1].forward, layers[2].forward = query, handed(1), handed(2)
