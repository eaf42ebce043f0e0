"""The `runtime:` block: where and how a run happens. No part of its identity: it may not change a result."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from smpo.errors import SpecError
from smpo.experiment.block import Block
from smpo.spec.removed import without

__all__ = ["RuntimeSpec"]


class RuntimeSpec(Block):
    """Where and how a run happens. Never part of its identity."""

    device: Literal["auto", "cpu", "cuda", "mps"] = "auto"
    """What computes; `auto` takes a GPU where torch finds one."""
    devices: int = Field(1, ge=1)
    """Processes, one a device."""
    sharding: Literal["none", "fsdp"] = "none"
    """`fsdp`: each process keeps its share of a policy's master weights, of their optimiser's state and of their moving
    average (FSDP2). For networks that are trained whole and don't fit otherwise; the results are the same."""
    micro_batch: int | None = Field(None, gt=0)
    """Pairs a device holds at once; null takes the whole batch of the device. Where it doesn't divide that, the last
    micro-batch of an update is smaller: every pair counts the same."""
    window: int | None = Field(None, gt=0)
    """Pairs whose inversions are done together, so that no pass is half empty; null takes the whole batch of the
    device. Their latents and prompts have to fit into memory, no activations."""
    inversion_batch: int | None = Field(None, gt=0)
    """Images in one pass of an inversion, which keeps no activations; null takes those of a micro-batch."""
    even_batches: bool = False
    """Fill up an inversion's last pass, so that all have one shape: what `torch.compile` and CUDA graphs like."""
    threads: int | None = Field(None, ge=1)
    """CPU threads a process; null leaves torch's choice."""
    encode_batch: int = Field(32, gt=0)
    """Images at once while scoring, encoding and sampling."""
    workers: int | None = Field(None, ge=0)
    """Threads a process that decode and preprocess pictures ahead of the networks that score and encode them; null
    takes this process's share of the machine's CPUs, 0 none. The results are the same."""
    prepare: Literal["ahead", "first"] = "ahead"
    """When pairs are scored and encoded. `ahead`: those of the next 2,048 visits, before these train, so that the first
    updates don't wait for the last; `first`: those of all visits, before the first update. The results are the same."""
    gradient_checkpointing: bool | Literal["selective"] = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time.
    `selective` keeps what products, convolutions and attention give, and computes the cheap rest again: about 60 % of
    the memory of no checkpointing, for hardly any time."""
    offload_reference: bool = False
    """Keep the frozen reference of a full fine-tuning in pinned memory of the host. Its blocks are copied to the device
    one by one, each while the one before computes; two are there at a time. On a CPU it does nothing. A LoRA's
    reference is the policy's own network and needs no place."""
    vae_slicing: bool | None = None
    """Let the VAE encode and decode one picture at a time; null: from 512 pixels on."""
    vae_tiling: bool = False
    """Decode pictures that are larger than the VAE was trained on (512 pixels for SD 1, 1024 for SDXL) in overlapping
    tiles: less memory, and seams that can hardly be seen. Nothing is encoded in tiles."""
    compile: bool = False
    """Run inversions with compiled blocks (`torch.compile`): some three quarters of the work, without gradients. Passes
    that enter the loss aren't compiled, so that policy and reference compute alike. The first passes take minutes."""
    channels_last: bool = False
    """Memory layout of convolutions; on GPUs, together with `compile`."""
    attention: Literal["auto", "cudnn", "flash", "efficient", "math"] = "auto"
    """Kernel of attention, where it takes the shape; `auto` leaves the choice to torch."""
    shadow_weights: bool = False
    """Keep a 16-bit copy of a policy that is trained whole for inversions, instead of casting its weights at every
    pass. The same numbers; two bytes a parameter."""
    log_every: int = Field(1, gt=0)
    """Updates between points of the training curves."""
    checkpoint_every: int | None = Field(None, gt=0)
    """Updates between checkpoints; null means only at the end and on interruption."""
    keep: int = Field(2, ge=1)
    """Checkpoints that are kept: the newest ones."""
    keep_best: Literal["accuracy", "accuracy/votes", "margin"] | None = None
    """Keep one more: the state in which this was highest among the held-out pairs (`train.holdout`), at any look."""
    background_checkpoints: bool = True
    """Write checkpoints from a copy in the CPU's memory while training goes on; turn it off where memory is short."""
    preview_every: int | None = Field(None, gt=0)
    """Updates between preview grids; null means none before the end."""
    preview_images: int = Field(8, ge=1, le=64)
    """Prompts in a preview grid."""
    diagnose_every: int | None = Field(None, gt=0)
    """Updates between looks at the held-out pairs (`train.holdout`); null means ten in a run."""
    on_nan: Literal["stop", "skip", "roll-back"] = "stop"
    """After an update whose loss or gradient is not a number, which is never applied: `stop` the run, `skip` the
    update, or `roll-back` to the last checkpoint and leave out everything since. Its pairs are kept for an autopsy."""
    nan_limit: int = Field(10, ge=1)
    """Times a run may go on like that before it stops after all; three broken updates in a row stop it, too."""
    runs: str = "runs"
    """Folder of run folders and of the default tracking store."""
    cache: str = "runs/cache"
    """Folder of scores, latents and prompt embeddings, shared by all runs."""
    reuse_inversions: bool = False
    """Cache the results of inversions along the reference, and the reference's predictions there, for runs that invert
    the same pairs, as in sweeps. From the second run on only the policy runs."""
    tracking: str | None = None
    """MLflow tracking URI; null honours MLFLOW_TRACKING_URI, else sqlite under `runs`. `none` turns MLflow off."""

    @model_validator(mode="before")
    @classmethod
    def _earlier(cls, given: Any) -> Any:
        return without(given, {"prompts_once": False, "fused_qkv": False})

    @model_validator(mode="after")
    def _has_a_way_back(self) -> RuntimeSpec:
        if self.on_nan == "roll-back" and self.checkpoint_every is None:
            raise SpecError(
                "on_nan",
                "there is nothing to roll back to: checkpoints are written only at the end",
                related=["checkpoint_every"],
                help="`--set runtime.checkpoint_every=100`, or `on_nan: skip`",
            )
        return self
