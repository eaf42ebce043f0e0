"""The blocks `evaluate:`, `train:` and `runtime:` of a spec."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from smpo.errors import SpecError
from smpo.kinds import Optimiser, PromptSet, Reward
from smpo.registry.component import slot
from smpo.spec.identity import Neutral
from smpo.spec.removed import without

__all__ = ["Block", "EvaluateSpec", "RuntimeSpec", "TrainSpec"]


class Block(BaseModel):
    """Unknown settings are errors, nothing changes after reading, and docstrings of fields are their descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _whole(sizes: list[tuple[int, int]] | None) -> list[tuple[int, int]] | None:
    """Latents have an eighth of a picture's sides, in all published autoencoders."""
    for i, (width, height) in enumerate(sizes or ()):
        if min(width, height) < 8 or width % 8 or height % 8:
            raise SpecError(str(i), f"a picture of {width} x {height} has sides that aren't multiples of 8")
    return sizes


class EvaluateSpec(Block):
    """How policy and base are compared: the same prompts, the same seeds, every listed reward."""

    prompts: PromptSet
    rewards: list[Reward] = Field(min_length=1)
    """Judges. The reward that made the labels is marked and should not be alone."""
    guidance: float = Field(7.5, ge=0)
    """Classifier-free guidance that people will sample with; 1 means none."""
    steps: int = Field(50, gt=0)
    """Sampling steps."""
    images: int = Field(1, ge=1)
    """Images a prompt; scores are averaged within the prompt before prompts are compared."""
    seed: int = Field(1000, ge=0, lt=2**31)
    """First seed; each prompt and image has its own, the same for every model."""
    limit: int | None = Field(None, gt=0)
    """Use only so many prompts, spread evenly over the set."""
    sizes: Annotated[list[tuple[int, int]] | None, Field(min_length=1), AfterValidator(_whole), Neutral(None)] = None
    """Width and height of the pictures, such as `[[1024, 1024], [832, 1216]]`; null draws the model's own square. Of
    several, each prompt begins with one that its text decides, and its further images go through the others in turn."""

    @property
    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Heights and widths of the pictures; none for the model's own."""
        return tuple((height, width) for width, height in self.sizes or ())


class TrainSpec(Block):
    """What is optimised, for how long, on which stream of samples."""

    steps: int = Field(gt=0)
    """Optimiser updates."""
    batch: int = Field(gt=0)
    """Pairs per update, over all devices. Accumulation is derived from it."""
    lr: float = Field(gt=0)
    """Peak learning rate, as the optimiser sees it (not multiplied by the batch)."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """Shape of the learning rate after the warm-up; linear and cosine end at zero."""
    warmup: int = Field(0, ge=0)
    """Updates over which the learning rate rises linearly from zero."""
    warmup_from: Annotated[Literal["first", "zero"], Neutral("first")] = "first"
    """Rate of the warm-up's first update: its `first` share of the peak, so that it moves already, or `zero`, as
    diffusers' schedules have it (so has the official code); the peak then comes one update later."""
    clip: float | None = Field(1.0, gt=0)
    """Largest global norm of the gradient; null turns clipping off."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Order, timesteps, noise, dropout and augmentation follow from it. Runs that differ only here form a group."""
    prompt_dropout: float = Field(0.0, ge=0, le=1)
    """Share of pairs that are trained with the empty prompt (SmPO uses 0.2)."""
    flip: bool | Literal["apart"] = False
    """Mirror half of the pairs, winner and loser together; `apart` lets each image have its own coin, as the official
    code does, so that a preference may be learnt for a side."""
    crop: Literal["centre", "random"] = "centre"
    """Where non-square images are cut, the same for both; random crops can't be cached."""
    posterior: Literal["sample", "mean"] = "sample"
    """Draw latents from the VAE's posterior at each visit, as the official code does, or use its mean."""
    t_min: int = Field(0, ge=0)
    """Smallest timestep that is drawn. Near 0 the inverted noise is poorly determined (method 2c)."""
    t_max: int | None = Field(None, ge=1)
    """Largest timestep that is drawn; null means the last of the schedule."""
    timesteps_per_pair: Annotated[int, Neutral(1)] = Field(1, ge=1, le=64)
    """Timesteps at which each pair is looked at, one in each of as many equal parts of the range, each with a loss of
    its own. They share one walk of the inversion: cheaper per loss, and the same expected gradient, but gradients of
    one pair correlate, so that two such losses are worth less than two pairs."""
    stratified: Annotated[bool, Neutral(False)] = False
    """Spread the timesteps of an update's pairs evenly over the range instead of drawing each by itself: the same
    expected gradient with less variance."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of policy and reference alike; weights that are trained stay in fp32. fp16 scales the loss, and
    repeats an update whose gradients overflow with a smaller scale; bf16 needs neither."""
    holdout: Annotated[int, Neutral(0)] = Field(0, ge=0)
    """Pairs that are kept out of training, with all that share an image with them, on which the policy's preferences
    are measured during training. The choice of pairs doesn't depend on the seed."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Decay of an exponential moving average of the policy; when set, the average is evaluated and saved."""
    optimiser: Optimiser = slot("adamw")

    @property
    def halves(self) -> bool:
        """Whether what encoders made is stored in 16 bits: where networks compute in 16 bits, which rounds more. In
        fp32 it is stored as it is."""
        return self.precision != "fp32"

    @model_validator(mode="after")
    def _consistent(self) -> TrainSpec:
        if self.warmup > self.steps:
            raise SpecError(
                "warmup",
                f"the warm-up of {self.warmup} updates is longer than the run of {self.steps}",
                related=["steps"],
            )
        if self.t_max is not None and self.t_max <= self.t_min:
            raise SpecError("t_max", f"t_max {self.t_max} must be above t_min {self.t_min}", related=["t_min"])
        return self


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
