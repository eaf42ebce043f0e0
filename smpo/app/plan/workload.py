"""Architectures, GPUs and the counted work of a run: the input of time and memory estimates."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

__all__ = ["ARCHITECTURES", "GPUS", "Architecture", "Gpu", "Workload", "known"]


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
    counts: Mapping[str, Any] = field(repr=False, compare=False)
    """GB of a pass: of an image, and beside (`activations.json`, by `benchmarks/memory.py --count`)."""


_COUNTS = json.loads(Path(__file__).with_name("activations.json").read_text(encoding="utf-8"))["gb_per_image"]
ARCHITECTURES = (
    Architecture(
        "SD 1.5 at 512 px", 859_520_964, 512, 0.8033, 1.117, 2.51, encoders_gb=0.83, latent=4 * 64 * 64, text=77 * 768,
        share=0.29, share_of_one=0.18, counts=_COUNTS["SD 1.5 at 512 px"],
    ),
    Architecture(
        "SDXL at 1024 px", 2_567_463_684, 1024, 6.7612, 4.879, 10.47, encoders_gb=3.61,
        latent=4 * 128 * 128, text=77 * 2048 + 1280,
        share=0.36, share_of_one=0.28, counts=_COUNTS["SDXL at 1024 px"],
    ),
    Architecture(
        "SDXL at 512 px", 2_567_463_684, 512, 1.5888, 1.117, 2.51, encoders_gb=3.61,
        latent=4 * 64 * 64, text=77 * 2048 + 1280,
        share=0.33, share_of_one=0.22, counts=_COUNTS["SDXL at 512 px"],
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


@dataclass(frozen=True)
class Workload:
    """The work of a spec for the network."""

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
    """Timesteps of a pair in one loss: so many times its activations are held."""
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
    """Timesteps of a pair in an update."""
    processes: int = 1
    sharded: bool = False
    """Processes hold a part each of what belongs to training."""
    scoring_16: bool = False
    """Whether the reward runs in 16 bits."""


def known(parameters: int | None, resolution: int | None) -> Architecture | None:
    """The architecture with this many parameters, so that fine-tunes in a folder are recognised; None when it wasn't
    counted, or not at this resolution."""
    found = (one for one in ARCHITECTURES if (one.parameters, one.resolution) == (parameters, resolution))
    return next(found, None)
