"""What a training holds on a device at its peak, in the backward pass of the policy. Never imports torch.

benchmarks/memory.py counts activations of the public architectures on meta tensors, and holds these sums against what
small trainings really allocated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smpo.app.costs import Architecture, Workload

__all__ = ["GB", "memory_gb", "memory_parts"]

GB = 1e9


def memory_gb(network: Architecture, work: Workload, micro_batch: int | None = None) -> float:
    """Sum of the parts, with `micro_batch` pairs at once instead of the workload's."""
    return sum(memory_parts(network, work, micro_batch).values())


def memory_parts(network: Architecture, work: Workload, micro_batch: int | None = None) -> dict[str, float]:
    """GB by what they are for, of one process on one device.

    weights      policy and reference as they are stored, and their casts to 16 bits for the length of a pass
    training     gradients, the optimiser's state, a moving average, an adapter; with several processes DDP's buckets
                 or, sharded, what this process holds of them beside gathered weights and whole gradients
    encoders     VAE and text encoders
    activations  what the backward needs of a micro-batch; or, where that is more, a reference that is brought over
    pairs        latents and embeddings of an update's pairs, and what a window of them was inverted to
    """
    micro = work.micro_batch if micro_batch is None else micro_batch
    activations = 2 * work.levels * micro * _each(network, work)
    reference = network.parameters * (4 if work.precision == "fp32" else 2) / GB if work.offloaded else 0.0
    return {
        "weights": network.parameters * _stored(work) / GB,
        "training": _trained(network, work) * _beside(work) / GB,
        "encoders": network.encoders_gb,
        "activations": max(activations, reference),
        "pairs": _pairs(network, work),
    }


def _trained(network: Architecture, work: Workload) -> int:
    return network.parameters if work.trainable is None else work.trainable


def _beside(work: Workload) -> float:
    """Bytes for each trained parameter: gradient, optimiser, average; an adapter's own weights too.

    DDP has buckets beside the gradients, through which it sums them. FSDP has none: it sums block by block, after which
    the whole gradients of a block are gone. Weights are gathered for the length of an update, so the master weights are
    dealt out beside them; gradients of the micro-batches so far stay whole (`smpo.engine.sharding`).
    """
    gathered = 4 * (work.trainable is not None)
    dealt = work.state_bytes + 4 * work.average
    if work.sharded and work.processes > 1:
        return 4 + gathered + (4 + dealt) / work.processes
    return 4 + gathered + dealt + 4 * (work.processes > 1)


def _stored(work: Workload) -> int:
    """Bytes for each of the network's parameters, those of an adapter aside: they are few."""
    half = work.precision != "fp32"
    if work.trainable is not None:  # the reference is the same network; DoRA measures it in float32
        return (4 + 2 * half) if work.dora else (2 if half else 4)
    own = 4 + 2 * half * (1 + work.shadow)
    return own + (2 if half else 4) * (work.reference and not work.offloaded)


def _each(network: Architecture, work: Workload) -> float:
    """Activations of one image."""
    full = work.precision == "fp32"
    if work.checkpointing == "selective":  # autocast keeps some in float32 already: not twice, but 1.6 times
        return network.selective_gb * (2 / 1.25 if full else 1)
    if work.checkpointing:
        return network.wide_checkpointed_gb if full else network.checkpointed_gb
    return network.wide_gb if full else network.activations_gb


def _pairs(network: Architecture, work: Workload) -> float:
    """An update's pairs are on the device from its start, and a window of them is joined and inverted."""
    share = work.share_of_device
    window = share if work.window is None else min(max(work.window, work.micro_batch), share)
    moments = 2 * network.latent + network.text
    visits = work.visits * (3 * network.latent + network.text * (work.visits > 1))
    return 2 * 4 * (share * moments + window * (moments + visits)) / GB
