"""How much of a device's memory a training takes at its highest moment. Never imports torch.

    allocated = held + highest moment                     (what tensors take)
    reserved  = allocated + fragments                     (what the allocator takes for them; `nvidia-smi` shows this)

Held all the time are weights as they are stored, the optimiser's state, encoders, and an update's pairs. The moments
are a micro-batch's loss (forward and backward of the policy), a pass of an inversion, and the optimiser's step. What a
pass takes is linear in its images; the lines were counted with torch's own allocator on networks of the true size
(`activations.json`, by `benchmarks/memory.py --count`), and whole trainings are held against these sums by
tests/pretended and benchmarks/results/pretended_memory.json. Not in it: the CUDA context (half a GB) and cuDNN's
workspaces, for which `SLACK` leaves a tenth of the card; and what rewards and the VAE take between updates, when there
are neither gradients nor activations.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from smpo.app.plan.workload import Architecture, Workload

__all__ = ["CARDS", "GB", "SLACK", "Memory", "adafactor_gb", "memory_of"]

GB = 1e9
CARDS = (12, 16, 24, 32, 40, 48, 80, 96, 141, 180)
"""Sizes in which cards are sold, in GB, each of at least so many 10^9 bytes."""
SLACK = 0.9
"""Share of a card that may be reserved."""
FRAGMENTS = {"everything": 0.03, "selective": 0.03, "checkpoints": 0.19}
"""Unused space between blocks, as a share of activations: many small blocks come and go where they are computed again
(with expandable segments; read off the same trainings)."""
FRAGMENTS_OF_CASTS = 0.27
"""The same of casts, which leave holes where they go before the backward."""
KEPT = {False: "everything", True: "checkpoints", "selective": "selective"}


@dataclass(frozen=True)
class Memory:
    """GB of one process on one device, at its highest moment: `loss`, `inversion` or `update`."""

    allocated_gb: float
    reserved_gb: float
    card_gb: int | None
    """The smallest of `CARDS` that it leaves room in; None where it is too large for all."""
    moment: str
    parts: Mapping[str, float] = field(default_factory=dict)
    """Of what is allocated:

    weights      policy and reference as they are stored
    training     optimiser's state, moving average, an adapter; gradients; with several processes DDP's buckets or,
                 sharded, this process's share of them beside gathered weights and whole gradients
    encoders     VAE and text encoders
    pairs        latents and embeddings of an update's pairs, and what a window of them was inverted to
    casts        16-bit copies of weights for the length of a pass
    activations  of a pass
    """

    def __str__(self) -> str:
        fits = "fits no card that is known" if self.card_gb is None else f"fits a {self.card_gb} GB card"
        size = f"{self.reserved_gb:.3g} GB of device memory (reserved; {self.allocated_gb:.3g} GB allocated)"
        return f"needs {size}, {fits}"


def memory_of(network: Architecture, work: Workload, micro_batch: int | None = None) -> Memory:
    """At the highest of its moments, with `micro_batch` pairs at once instead of the workload's."""
    micro = work.micro_batch if micro_batch is None else micro_batch
    held = {
        "weights": _stored(network, work) / GB,
        "training": _trained(network, work) * _beside(work) / GB,
        "encoders": network.encoders_gb,
        "pairs": _pairs(network, work, micro),
    }
    moments = {
        "loss": _loss(network, work, micro),
        "inversion": _inversion(network, work, micro),
        "update": {"training": _gradients(network, work)},
    }
    moment = max(moments, key=lambda name: sum(moments[name].values()))
    passing = moments[moment]
    parts = {name: held.get(name, 0.0) + passing.get(name, 0.0) for name in [*held, "casts", "activations"]}
    allocated = sum(parts.values())
    reserved = allocated + _fragments(work, parts)
    card = next((card for card in CARDS if reserved <= SLACK * card), None)
    return Memory(allocated, reserved, card, moment, parts)


def adafactor_gb(network: Architecture) -> float:
    """Adafactor's state of the whole network: rows and columns of each tensor's last two sides, which of a kernel of
    3 x 3 are two thirds of its numbers."""
    return float(network.counts["adafactor"])


# ---- moments --------------------------------------------------------------------------------------------------------


def _loss(network: Architecture, work: Workload, micro: int) -> dict[str, float]:
    """The policy's forward with gradients, or its backward, whichever takes more. Gradients of the micro-batches before
    are there, if there were any; those of the first grow as its activations go."""
    images = 2 * work.levels * micro
    forward, backward = _lines(network, work)
    first = micro * work.levels >= work.share_of_device * work.levels and not work.means
    gradients = 0.0 if first else _gradients(network, work)
    copies = 2 * network.parameters / GB  # the rest of `beside` is of activations: it goes with them
    passes: list[dict[str, float]] = [
        {"casts": min(beside, copies), "activations": each * images + max(beside - copies, 0.0)}
        for each, beside in (forward, backward)
    ]
    larger: dict[str, float] = max(passes, key=lambda parts: sum(parts.values()))
    return {"training": gradients, **larger}


def _inversion(network: Architecture, work: Workload, micro: int) -> dict[str, float]:
    """A pass of the policy without gradients; from the second window on beside the gradients of the first."""
    if work.inverts is None:
        return {}
    usual = 2 * work.levels * micro
    rows = min(work.inversion_rows or usual, 2 * work.visits * _window(work, micro))
    whole = work.trainable is None and not work.shadow and work.precision != "fp32" and work.inverts == "policy"
    return {
        "training": _gradients(network, work) if _window(work, micro) < work.share_of_device else 0.0,
        "casts": 2 * network.parameters / GB if whole else 0.0,
        "activations": rows * network.counts["plain"][_bits(work)],
    }


def _lines(network: Architecture, work: Workload) -> list[tuple[float, float]]:
    """`(GB an image, GB beside)` of a forward with gradients, and of its backward."""
    adapter = "LoRA on attention" if work.attention_alone else "LoRA on all layers"
    trained = "whole" if work.trainable is None else "DoRA on attention" if work.dora else adapter
    return [tuple(line) for line in network.counts[trained][KEPT[work.checkpointing]][_bits(work)]]


def _bits(work: Workload) -> str:
    return "32" if work.precision == "fp32" else "16"


def _fragments(work: Workload, parts: Mapping[str, float]) -> float:
    kept = KEPT[work.checkpointing]
    casts = parts["casts"] * FRAGMENTS_OF_CASTS * (kept != "everything")
    return parts["activations"] * FRAGMENTS[kept] + casts


# ---- what is held ---------------------------------------------------------------------------------------------------


def _trained(network: Architecture, work: Workload) -> int:
    return network.parameters if work.trainable is None else work.trainable


def _beside(work: Workload) -> float:
    """Bytes for each trained parameter: optimiser, average, an adapter's own weights; and DDP's buckets.

    DDP has buckets beside the gradients, through which it sums them. FSDP has none: it sums block by block, after which
    the whole gradients of a block are gone. Weights are gathered for the length of an update, so the master weights are
    dealt out beside them; gradients of the micro-batches so far stay whole (`smpo.engine.sharding`).
    """
    gathered = 4 * (work.trainable is not None)
    dealt = work.state_bytes + 4 * work.average
    if work.sharded and work.processes > 1:
        return gathered + (4 + dealt) / work.processes
    return gathered + dealt + 4 * (work.processes > 1)


def _gradients(network: Architecture, work: Workload) -> float:
    return 4 * _trained(network, work) / GB


def _stored(network: Architecture, work: Workload) -> float:
    """Bytes of policy and reference; those of an adapter aside, which are few."""
    half = work.precision != "fp32"
    frozen = 2 if half else 4
    if work.trainable is not None:  # the reference is the same network; DoRA measures it in float32
        return network.parameters * (4 if work.dora else frozen)
    held = network.parameters * (4 + 2 * half * work.shadow)
    if not work.reference:
        return held
    if work.offloaded:
        return held + GB * float(network.counts[f"offloaded {_bits(work)}"])
    return held + network.parameters * frozen


def _pairs(network: Architecture, work: Workload, micro: int) -> float:
    """An update's pairs are on the device from its start, and a window of them is joined and inverted. An objective
    with means over the update keeps all inversions."""
    share, window = work.share_of_device, _window(work, micro)
    moments = 2 * network.latent + network.text
    visits = work.visits * (3 * network.latent + network.text * (work.visits > 1))
    kept = share * work.visits * 5 * network.latent * work.means
    joined = moments * (window > micro)
    return 2 * 4 * (share * moments + window * (joined + visits) + kept) / GB


def _window(work: Workload, micro: int) -> int:
    share = work.share_of_device
    return share if work.window is None else min(max(work.window, micro), share)
