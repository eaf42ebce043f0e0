"""The cost of training by GPU: the numbers behind the estimates of `smpo plan`, and their sources.

FLOPs and parameters were counted on meta tensors of the public architectures (benchmarks/costs.py); they are exact for
these, at these resolutions. Memory is estimated by `smpo.app.plan.gpu_memory`. The reached share of a GPU's peak is not
counted: it was read off public results and a roofline model (NVIDIA's MLPerf v4.0 SD2 training, TensorRT and eager SDXL
on H100 and A100, MosaicML's SD2), for batched, eager, 16-bit training as smpo does it. Expect a quarter more or less;
the paper's own SDXL run (151 A800-hours, with the waiting of eight GPUs for the slowest pair in it) is met within that.
No torch here.

Encoders and rewards run in float32 whatever `train.precision` is, a reward unless its own `precision` is another:
convolutions in TensorFloat-32, as torch leaves them, matrix products in full. GB are 10^9 bytes throughout. Reading
image files, text encoders and the optimiser's own arithmetic are not counted.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smpo.app.plan.gpu_memory import SLACK, adafactor_gb, memory_of
from smpo.app.plan.workload import Architecture, Gpu, Workload

__all__ = ["GpuCost", "costs_by_gpu", "estimate", "state_bytes"]


FULL_SHARE = 0.6
"""Of the float32 peak that matrix products of frozen rewards reach: without tensor cores it is easier to come near."""


@dataclass(frozen=True)
class GpuCost:
    """One GPU's estimate."""

    gpu: str
    hours: float
    """GPU-hours in all: the sum of the next three."""
    training_hours: float
    preparing_hours: float
    """Scores and latents that aren't cached yet."""
    judging_hours: float
    """Samples, their scores, and looks at held-out pairs."""
    seconds_per_pair: float
    memory_gb: float
    """Reserved."""
    fits: bool
    largest_micro_batch: int | None
    """Of those that divide a device's share of the batch; None when not even one pair fits."""


def estimate(network: Architecture, work: Workload, gpu: Gpu) -> GpuCost:
    """Hours and memory of a spec on one kind of GPU."""
    peak = gpu.peak_32 if work.precision == "fp32" else gpu.peak_16
    reached = peak * (network.share_of_one if work.micro_batch == 1 else network.share)
    recomputed = 2 * work.levels if work.checkpointing is True else 0
    pair = network.forward_tflop * (work.passes_per_pair + recomputed) / reached
    pictures, scores = gpu.peak_tf32 * network.share, gpu.peak_32 * FULL_SHARE
    training = work.pairs * pair / 3600
    rated = gpu.peak_16 * network.share if work.scoring_16 else scores
    preparing = (network.encode_tflop * work.encoded / pictures + work.scoring_tflop / rated) / 3600
    passes = network.forward_tflop * (work.sampling_passes + work.diagnosis_passes) / (peak * network.share)
    judging = (passes + network.decode_tflop * work.samples / pictures + work.judging_tflop / scores) / 3600
    memory = memory_of(network, work).reserved_gb
    room = gpu.memory_gb * SLACK
    fitting = [size for size in _divisors(work.share_of_device) if memory_of(network, work, size).reserved_gb <= room]
    return GpuCost(
        gpu=gpu.name,
        hours=training + preparing + judging,
        training_hours=training,
        preparing_hours=preparing,
        judging_hours=judging,
        seconds_per_pair=pair,
        memory_gb=memory,
        fits=memory <= room,
        largest_micro_batch=max(fitting, default=None),
    )


def costs_by_gpu(plans: Iterable[Iterable[GpuCost]]) -> dict[str, tuple[GpuCost, ...]]:
    """GPU -> the cost of each plan. A GPU on which some plan fits at no micro-batch is left out; no GPU is there if the
    network of some plan is unknown (its costs are empty)."""
    by_plan = [{cost.gpu: cost for cost in costs if cost.largest_micro_batch is not None} for costs in plans]
    first, *others = by_plan
    return {gpu: tuple(costs[gpu] for costs in by_plan) for gpu in first if all(gpu in costs for costs in others)}


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def state_bytes(optimiser: object, network: Architecture | None = None) -> float:
    """Bytes of optimiser state for each trained parameter: the component's own, else two float32 moments. With
    `network`, which is trained whole, the shapes of its tensors count, where the state depends on them."""
    if network is not None and getattr(optimiser, "factored", False):
        return adafactor_gb(network) * 1e9 / network.parameters
    return float(getattr(optimiser, "state_bytes", 8.0))
