"""The skeleton of a spec: which slots exist and what surrounds them.

Slots are annotated with a kind's base class (`objective: Objective`); `smpo.registry.bind` closes them over what is
registered. Fields under `runtime`, and the labels, are not part of a run's identity: they may not change a result.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, WithJsonSchema, model_validator

from smpo.errors import SpecError
from smpo.kinds import Inversion, Model, Objective, Optimiser, PairData, PromptSet, Reward, Smoothing
from smpo.registry.component import slot
from smpo.spec.identity import Neutral

__all__ = ["EvaluateSpec", "ExperimentSpec", "RuntimeSpec", "TrainSpec"]

_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,79}$"


def _is_a_name(text: str) -> str:
    if not re.fullmatch(_NAME, text):
        raise SpecError(
            "",
            "a name has letters, digits, `-`, `_` and `.`, starts with a letter or digit, and is at most 80 long",
            help=f"such as `name: {meant}`" if (meant := _made_fit(text)) else None,
        )
    return text


def _made_fit(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "-", text).strip("-_.")[:80]


Name = Annotated[str, AfterValidator(_is_a_name), WithJsonSchema({"type": "string", "pattern": _NAME})]
"""Folders are called so, and the MLflow experiment."""


_TAKEN = ("artifacts", "cache", "evaluations")
"""What else lies in the folder of runs, beside MLflow's database."""


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class TrainSpec(_Block):
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
    its own. They share one walk of the inversion: cheaper per loss, and the same expected gradient, but losses of one
    pair resemble each other (`smpo measure rho` tells how much)."""
    stratified: Annotated[bool, Neutral(False)] = False
    """Spread the timesteps of an update's pairs evenly over the range instead of drawing each by itself: the same
    expected gradient with less variance."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of policy and reference alike; weights that are trained stay in fp32."""
    holdout: Annotated[int, Neutral(0)] = Field(0, ge=0)
    """Pairs that are kept out of training, with all that share an image with them, to ask during training what the
    policy prefers. Which ones doesn't depend on the seed."""
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
            raise SpecError(
                "t_max", f"t_max {self.t_max} must be above t_min {self.t_min}", related=["t_min"]
            )
        return self


class EvaluateSpec(_Block):
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


class RuntimeSpec(_Block):
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
    gradient_checkpointing: bool | Literal["selective"] = False
    """Compute activations again in the backward pass instead of keeping them: less memory, a third more time.
    `selective` keeps what products, convolutions and attention give, and computes the cheap rest again: about 60 % of
    the memory of no checkpointing, for hardly any time."""
    offload_reference: bool = False
    """Keep the frozen reference of a full fine-tuning in the CPU's memory and move it to the device for each of its
    passes. A LoRA's reference is the policy's own network and needs no place."""
    vae_slicing: bool | None = None
    """Let the VAE encode and decode one picture at a time; null: from 512 pixels on."""
    vae_tiling: bool = False
    """Decode pictures that are larger than the VAE was trained on (512 pixels for SD 1, 1024 for SDXL) in overlapping
    tiles: less memory, and seams that can hardly be seen. Nothing is encoded in tiles."""
    compile: bool = False
    """Compile the blocks of policy and reference (`torch.compile`); the first passes then take minutes. With gradients
    the policy's blocks are fused, and rounded, in another way than the reference's: by 6e-7 in fp32; not measured in
    16 bits, where the loss may notice."""
    channels_last: bool = False
    """Memory layout of convolutions; on GPUs, together with `compile`."""
    attention: Literal["auto", "cudnn", "flash", "efficient", "math"] = "auto"
    """Kernel of attention, where it takes the shape; `auto` leaves the choice to torch."""
    prompts_once: bool = False
    """Compute keys and values of the prompts once for each window of inversions, instead of at every pass. Costs
    memory: what the network's cross-attention makes of a prompt, for each row of the window (SDXL in 16 bits: 28 MB).
    Not with `compile`."""
    fused_qkv: bool = False
    """One product instead of three for queries, keys and values, in inversions. Not with `compile`."""
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
    """Times a run may go on like that before it stops after all."""
    runs: str = "runs"
    """Folder of run folders and of the default tracking store."""
    cache: str = "runs/cache"
    """Folder of scores, latents and prompt embeddings, shared by all runs."""
    reuse_inversions: bool = False
    """Keep what inversions along the reference found in the cache, and what the reference said there, for runs that
    invert the same pairs; sweeps do. From the second run on only the policy is asked."""
    tracking: str | None = None
    """MLflow tracking URI; null honours MLFLOW_TRACKING_URI, else sqlite under `runs`. `none` turns MLflow off."""

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


class ExperimentSpec(_Block):
    """One experiment: a model, pairs, a reward that smooths them, an inversion, an objective, and how it is judged."""

    name: Name
    """Shown and searchable; the MLflow experiment. Not part of the identity."""
    notes: str = ""
    """Free text for people; goes to the tracker. Not part of the identity."""
    tags: dict[str, str] = Field(default_factory=dict)
    """Labels to search runs by in the tracker. Not part of the identity."""

    model: Model
    data: PairData
    reward: Reward | None = None
    """Scores the training pairs for smoothings that need it."""
    objective: Objective
    smoothing: Smoothing
    inversion: Inversion
    train: TrainSpec
    evaluate: EvaluateSpec | None = None
    """How policy and base are compared at the end; without it nothing is sampled or judged."""
    runtime: RuntimeSpec = Field(default_factory=RuntimeSpec)

    also_called: ClassVar[Mapping[str, str]] = {
        "learning_rate": "train.lr", "lr_max": "train.lr", "max_lr": "train.lr", "batch_size": "train.batch",
        "train_batch_size": "train.batch", "global_batch": "train.batch", "global_batch_size": "train.batch",
        "per_device_train_batch_size": "runtime.micro_batch", "per_device_batch_size": "runtime.micro_batch",
        "micro_batch_size": "runtime.micro_batch", "max_steps": "train.steps", "max_train_steps": "train.steps",
        "num_steps": "train.steps", "updates": "train.steps", "iterations": "train.steps",
        "lr_scheduler": "train.schedule", "lr_scheduler_type": "train.schedule", "scheduler": "train.schedule",
        "warmup_steps": "train.warmup", "lr_warmup_steps": "train.warmup", "max_grad_norm": "train.clip",
        "grad_clip": "train.clip", "gradient_clipping": "train.clip", "mixed_precision": "train.precision",
        "dtype": "train.precision", "ema_decay": "train.ema", "use_ema": "train.ema", "random_flip": "train.flip",
        "proportion_empty_prompts": "train.prompt_dropout", "caption_dropout": "train.prompt_dropout",
        "optimizer": "train.optimiser", "beta_dpo": "objective.beta", "dpo_beta": "objective.beta",
        "loss": "objective", "loss_type": "objective", "method": "objective", "algorithm": "objective",
        "dataset": "data", "dataset_name": "data", "datasets": "data", "train_data_dir": "data.path",
        "pretrained_model_name_or_path": "model.weights", "model_name": "model.weights",
        "checkpoint": "model.weights", "reward_model": "reward", "scorer": "reward",
        "guidance_scale": "evaluate.guidance", "cfg": "evaluate.guidance", "cfg_scale": "evaluate.guidance",
        "num_inference_steps": "evaluate.steps", "eval": "evaluate", "evaluation": "evaluate",
        "num_gpus": "runtime.devices", "num_processes": "runtime.devices", "gpus": "runtime.devices",
        "world_size": "runtime.devices", "save_steps": "runtime.checkpoint_every",
        "checkpointing_steps": "runtime.checkpoint_every", "save_total_limit": "runtime.keep",
        "load_best_model_at_end": "runtime.keep_best",
        "metric_for_best_model": "runtime.keep_best",
        "logging_steps": "runtime.log_every", "output_dir": "runtime.runs", "cache_dir": "runtime.cache",
        "tracking_uri": "runtime.tracking", "experiment": "name", "experiment_name": "name", "run_name": "name",
        "description": "notes", "defaults": "extends", "_base_": "extends", "base": "extends",
        "inherit": "extends", "imports": "uses",
        "gradient_accumulation_steps": "it follows from `train.batch`, `runtime.devices` and `runtime.micro_batch`",
        "accumulate": "it follows from `train.batch`, `runtime.devices` and `runtime.micro_batch`",
        "epochs": "length is counted in updates: `train.steps`",
        "num_train_epochs": "length is counted in updates: `train.steps`",
        "report_to": "runs report to MLflow: `runtime.tracking`", "_target_": "a component is named by `use:`",
        "class_path": "a component is named by `use:`", "init_args": "settings stand beside `use:`",
    }  # fmt: skip
    """Words of other frameworks, and what they are here: the path of a setting, or a sentence. For errors only."""

    @property
    def needs_reference(self) -> bool:
        """Whether training asks the frozen original at all."""
        return self.objective.needs_reference or self.inversion.needs_reference

    @property
    def _of_the_schedule(self) -> str:
        """The setting that brings the schedule, where the model has one for it."""
        return "model.weights" if "weights" in self.model.model_fields_set else "model"

    @property
    def _even_batch(self) -> int:
        """The next batch that can be dealt evenly."""
        return -(-self.train.batch // self.runtime.devices) * self.runtime.devices

    def _shardable(self) -> None:
        """What isn't known to give the same numbers on a policy in parts is refused."""
        keepers = {
            "train.precision": self.train.precision == "fp16",
            "train.optimiser": not self.train.optimiser.shardable,
            "runtime.compile": self.runtime.compile,
            "runtime.shadow_weights": self.runtime.shadow_weights,
            "inversion.eight_bit": self.inversion.eight_bit,
        }
        for where, wanted in keepers.items():
            if wanted:
                raise SpecError(
                    "runtime.sharding",
                    f"`fsdp` and the `{where}` chosen here haven't been brought together",
                    related=[where],
                    help="`-s runtime.sharding=none`, or the default of the other",
                )

    @model_validator(mode="after")
    def _consistent(self) -> ExperimentSpec:
        if self.name.lower() in _TAKEN or self.name.lower().startswith("mlflow.db"):
            raise SpecError(
                "name", f"the runs of `{self.name}` would lie in a folder that smpo needs for itself"
            )
        if self.smoothing.needs_reward and self.reward is None:
            raise SpecError(
                "smoothing",
                f"smoothing `{self.smoothing.use}` needs scores, and no reward is chosen",
                related=["reward"] if "reward" in self.model_fields_set else [],
                help="add a line such as `reward: pickscore`, or use `smoothing: hard`",
            )
        if self.data.bucketed and not self.objective.sampling().paired:
            raise SpecError(
                "data.buckets",
                f"`{self.objective.use}` is shown single images side by side, and buckets are chosen for pairs",
                related=["objective"],
                help="leave out `data.buckets`",
            )
        timesteps = self.model.facts().timesteps
        if timesteps is not None:
            if self.inversion.max_steps() > timesteps:
                raise SpecError(
                    "inversion.steps",
                    f"the inversion has {self.inversion.max_steps()} steps, the model's schedule only {timesteps}",
                    related=[self._of_the_schedule],
                    help=f"`-s inversion.steps={timesteps}`",
                )
            if (self.train.t_max or 0) >= timesteps or self.train.t_min >= timesteps - 1:
                where = "train.t_max" if (self.train.t_max or 0) >= timesteps else "train.t_min"
                raise SpecError(
                    where,
                    f"timesteps of this model run from 0 to {timesteps - 1}",
                    related=[self._of_the_schedule],
                )
        if self.runtime.keep_best is not None and not self.train.holdout:
            raise SpecError(
                "runtime.keep_best",
                "the best checkpoint is found by held-out pairs, and none are held out",
                related=["train.holdout"] if "holdout" in self.train.model_fields_set else [],
                help="`-s train.holdout=200`",
            )
        if self.inversion.remembers and self.runtime.devices > 1:
            raise SpecError(
                "runtime.devices",
                f"inversion `{self.inversion.use}` remembers what its process has seen: the result would depend on "
                "which device sees what",
                related=["inversion.use"],
                help="`runtime.devices: 1`, or an inversion without a memory",
            )
        if self.runtime.sharding == "fsdp":
            self._shardable()
        if self.train.batch % self.runtime.devices:
            raise SpecError(
                "train.batch",
                f"a batch of {self.train.batch} pairs can't be dealt evenly to {self.runtime.devices} devices",
                related=["runtime.devices"],
                help=f"`-s train.batch={self._even_batch}`, or other `runtime.devices`",
            )
        return self
