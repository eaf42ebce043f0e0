"""What training costs on which GPU: the numbers behind the estimates of `smpo plan`, and where they come from.

FLOPs and parameters were counted on meta tensors of the public architectures (benchmarks/costs.py); they are exact for
these, at these resolutions. Memory is estimated by `smpo.app.memory`. What share of a GPU's peak is reached is not
counted: it was read off public results and a roofline model (NVIDIA's MLPerf v4.0 SD2 training, TensorRT and eager SDXL
on H100 and A100, MosaicML's SD2), for batched, eager, 16-bit training as smpo does it. Expect a quarter more or less;
the paper's own SDXL run (151 A800-hours, with the waiting of eight GPUs for the slowest pair in it) is met within that.
No torch here.

Encoders and rewards run in float32 whatever `train.precision` says, a reward unless its own `precision` says otherwise:
convolutions in TensorFloat-32, as torch leaves them, matrix products in full. GB are 10^9 bytes throughout. Reading
image files, text encoders and the optimiser's own arithmetic are not counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from smpo.app.memory import SLACK, adafactor_gb, memory_of

__all__ = [
    "ARCHITECTURES",
    "GPUS",
    "Architecture",
    "Gpu",
    "GpuCost",
    "Workload",
    "estimate",
    "known",
    "state_bytes",
]


@dataclass(frozen=True)
class Architecture:
    """A network at one resolution. TFLOP are for one image, a multiply and an add counted as two."""

    name: str
    parameters: int
    """Of the UNet."""
    resolution: int
    forward_tflop: float
    encode_tflop: float
    """The VAE's encoder."""
    decode_tflop: float
    encoders_gb: float
    """VAE and text encoders, in float32 as smpo keeps them."""
    latent: int
    """Numbers in an image's latent."""
    text: int
    """Numbers in a prompt's embeddings."""
    share: float
    """Of a GPU's 16-bit peak that is reached with several pairs at once."""
    share_of_one: float
    """... and with a single pair at a time, when the host can't launch kernels fast enough."""


ARCHITECTURES = (
    Architecture(
        "SD 1.5 at 512 px", 859_520_964, 512, 0.8033, 1.117, 2.51, encoders_gb=0.83, latent=4 * 64 * 64, text=77 * 768,
        share=0.29, share_of_one=0.18,
    ),
    Architecture(
        "SDXL at 1024 px", 2_567_463_684, 1024, 6.7612, 4.879, 10.47, encoders_gb=3.61,
        latent=4 * 128 * 128, text=77 * 2048 + 1280,
        share=0.36, share_of_one=0.28,
    ),
    Architecture(
        "SDXL at 512 px", 2_567_463_684, 512, 1.5888, 1.117, 2.51, encoders_gb=3.61,
        latent=4 * 64 * 64, text=77 * 2048 + 1280,
        share=0.33, share_of_one=0.22,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Gpu:
    """Datasheet values: memory, and dense peaks without sparsity in TFLOP/s."""

    name: str
    memory_gb: float
    peak_16: float
    peak_tf32: float
    peak_32: float


GPUS = (
    Gpu("24 GB (RTX 4090)", 25.7, 165, 82.6, 82.6),
    Gpu("48 GB (L40S)", 48.3, 362, 183, 91.6),
    Gpu("A100-80", 85.0, 312, 156, 19.5),
    Gpu("H100", 85.0, 989, 494, 67),
    Gpu("H200", 150.7, 989, 494, 67),
)
FULL_SHARE = 0.6
"""Of the float32 peak that matrix products of frozen rewards reach: without tensor cores it is easier to come near."""


@dataclass(frozen=True)
class Workload:
    """What a spec asks of the network."""

    pairs: int
    passes_per_pair: float
    """Forwards of one image, a backward counted as two."""
    encoded: float
    """Images that the VAE encodes."""
    sampling_passes: float
    """Forwards for the evaluation's and the previews' samples, in those of a picture of the network's own size."""
    samples: float
    diagnosis_passes: int
    """Forwards for looks at held-out pairs."""
    scoring_tflop: float
    """Of the reward, over the pairs that aren't scored yet."""
    judging_tflop: float
    """Of all judges, over the samples."""
    micro_batch: int
    levels: int
    """Timesteps at which a pair is looked at in one loss: so many times its activations are held."""
    share_of_device: int
    """Pairs a device takes per update; micro-batches divide it."""
    precision: Literal["fp32", "bf16", "fp16"]
    checkpointing: bool | Literal["selective"]
    trainable: int | None
    """Numbers of the adapter that is trained while the network stays as it is; None trains the network."""
    average: bool
    state_bytes: float
    """Of the optimiser, for each trained parameter."""
    reference: bool
    offloaded: bool = False
    """The reference waits in the CPU's memory between its passes."""
    dora: bool = False
    """The adapter measures the frozen weights, which then stay in float32."""
    shadow: bool = False
    """A 16-bit copy of the policy is kept."""
    window: int | None = None
    """Pairs that are inverted together; None: all that a device takes."""
    inverts: Literal["policy", "reference"] | None = "policy"
    """The network that an inversion follows; None where noise is drawn."""
    inversion_rows: int | None = None
    """Images in a pass of an inversion; None: those of a micro-batch."""
    means: bool = False
    """Whether a loss needs means over the update, so that all its pairs are prepared first."""
    attention_alone: bool = True
    """Whether an adapter sits on attention layers alone."""
    visits: int = 1
    """Timesteps at which a pair is looked at in an update."""
    processes: int = 1
    sharded: bool = False
    """Processes hold a part each of what belongs to training."""
    scoring_16: bool = False
    """Whether the reward runs in 16 bits."""


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


def known(parameters: int | None, resolution: int | None) -> Architecture | None:
    """The architecture with this many parameters, so that fine-tunes in a folder are recognised; None when it wasn't
    counted, or not at this resolution."""
    found = (one for one in ARCHITECTURES if (one.parameters, one.resolution) == (parameters, resolution))
    return next(found, None)


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
    fitting = [
        size for size in _divisors(work.share_of_device) if memory_of(network, work, size).reserved_gb <= room
    ]
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


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def state_bytes(optimiser: object, network: Architecture | None = None) -> float:
    """Bytes of optimiser state for each trained parameter: what the component says, else two float32 moments. With
    `network`, which is trained whole, the shapes of its tensors count, where the state depends on them."""
    if network is not None and getattr(optimiser, "factored", False):
        return adafactor_gb(network) * 1e9 / network.parameters
    return float(getattr(optimiser, "state_bytes", 8.0))
