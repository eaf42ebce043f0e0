"""Models: recipes whose `load` brings a policy and its frozen reference into memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from smpo.components.locations import locate, missing
from smpo.components.model_facts import (
    file_facts,
    folder_facts,
    half_pipeline,
    no_pipeline,
    states_no_size,
    tensors,
    unusable_schedule,
)
from smpo.errors import SpecError
from smpo.kinds import Denoiser, Model, ModelFacts, Runtime
from smpo.registry.component import register
from smpo.spec.identity import Neutral
from smpo.weights import is_weight_file

__all__ = ["LoRA", "Plane", "StableDiffusion"]

ATTENTION = ("to_q", "to_k", "to_v", "to_out.0")


class LoRA(BaseModel):
    """A low-rank adapter. The reference is the same network with the adapter off."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    rank: int = Field(8, ge=1, le=1024)
    """Inner dimension of the update."""
    alpha: float | None = Field(None, gt=0)
    """The update is scaled by alpha / rank; null means alpha = rank."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout on the adapter's input, during the loss forward only."""
    targets: list[str] = Field(default_factory=lambda: list(ATTENTION), min_length=1)
    """Names of the linear layers that get an adapter."""
    dora: bool = False
    """Weight-decomposed adapters (DoRA)."""


@register
class StableDiffusion(Model):
    """A UNet latent-diffusion pipeline (SD 1.x, 2.x, SDXL; epsilon or v-prediction): a folder in the diffusers layout,
    a hub repository, or a single file in the original layout."""

    use: Literal["stable-diffusion"] = "stable-diffusion"
    version: ClassVar[int] = 1
    sized: ClassVar[bool] = True

    weights: str
    """Folder, hub id (owner/name), single `.safetensors` file, or `smpo:...` for what ships with smpo."""
    revision: str | None = None
    """Commit or tag on the hub; pin it."""
    variant: str | None = None
    """Weight file variant, such as fp16."""
    resolution: int | None = Field(None, ge=8, le=4096)
    """Side of the training images in pixels; null takes the pipeline's own."""
    lora: LoRA | None = None
    """Train a low-rank adapter; null trains the whole UNet."""
    config: Annotated[str | None, Neutral(None)] = None
    """For a single file: folder or hub id with configurations and tokenizers in the diffusers layout; its weights
    aren't needed. Null takes the repository of SD 1.5, SD 2.1 or SDXL, whichever fits."""
    original_config: Annotated[str | None, Neutral(None)] = None
    """For a single file: the YAML that it was trained with. `config` is then needed for the tokenizers alone."""
    vae: Annotated[str | None, Neutral(None)] = None
    """Folder or hub id with another autoencoder, such as madebyollin/sdxl-vae-fp16-fix."""
    vae_revision: Annotated[str | None, Neutral(None)] = None
    """Commit or tag of `vae` on the hub."""
    prediction: Annotated[Literal["epsilon", "v_prediction"] | None, Neutral(None)] = None
    """The network's parameterisation, where its scheduler's configuration has another value or none."""
    zero_terminal_snr: Annotated[bool | None, Neutral(None)] = None
    """Whether the schedule ends in pure noise (Lin et al. 2023), where the scheduler's configuration has another
    value."""
    compare: Annotated[Literal["epsilon", "output"], Neutral("epsilon")] = "epsilon"
    """In which space the errors of policy and reference are compared: of the noise, so that beta means the same for all
    models, or of the network's own `output`, which for velocities weighs an error by 1 / alpha-bar more."""
    sizes: Annotated[Literal["real", "square"], Neutral("real")] = "real"
    """SDXL's size conditioning: the `real` sizes of images and cuts, or, as by the official SmPO code, that each is a
    whole `square` of the right size."""

    def load(self, runtime: Runtime) -> Denoiser:
        from smpo.families.loading import Extras, load_unet
        from smpo.families.lora import Adapter
        from smpo.families.pipelines import LoadOptions

        adapter = None
        if self.lora is not None:
            alpha = self.lora.alpha or float(self.lora.rank)
            adapter = Adapter(**dict(self.lora) | {"alpha": alpha, "targets": tuple(self.lora.targets)})
        return load_unet(
            locate(self.weights),
            revision=self.revision,
            variant=self.variant,
            resolution=self.resolution,
            adapter=adapter,
            runtime=runtime,
            extras=Extras(
                config=self.config and locate(self.config),
                original_config=self.original_config,
                vae=self.vae and locate(self.vae),
                vae_revision=self.vae_revision,
            ),
            reading=LoadOptions(
                prediction=self.prediction,
                zero_terminal_snr=self.zero_terminal_snr,
                compare=self.compare,
                sizes=self.sizes,
            ),
        )

    def facts(self) -> ModelFacts:
        place = Path(locate(self.weights))
        found = file_facts(place, self.config) if is_weight_file(self.weights) else folder_facts(place, self.weights)
        lora = self.lora
        if lora is None:
            return found.adapted(self.weights, self.resolution, whole=True)
        size = found.adapter_size(lora.rank, lora.targets, dora=lora.dora)
        facts = found.adapted(self.weights, self.resolution, whole=False, trainable=size, wide=lora.dora)
        return replace(facts, attention_alone=set(lora.targets) <= set(ATTENTION))

    def check(self) -> str | None:
        needed = [(self.weights, self.revision), (self.vae, self.vae_revision), (self.config, None)]
        if self.original_config and not Path(self.original_config).expanduser().is_file():
            return f"there is no file `{self.original_config}` (model.original_config)"
        folder = Path(locate(self.weights))
        return (
            next(
                (why for place, revision in needed if place and (why := missing(place, revision=revision))),
                None,
            )
            or no_pipeline(folder, self.weights)
            or half_pipeline(folder, self.weights, variant=self.variant, own_vae=self.vae is None)
            or unusable_schedule(folder, prediction=self.prediction, zero_terminal_snr=self.zero_terminal_snr)
            or self._no_size(folder)
        )

    def _no_size(self, folder: Path) -> str | None:
        if self.resolution is None and states_no_size(folder):
            return f"the UNet of `{self.weights}` states no size (sample_size): `model.resolution` is needed"
        return None

    def read(self) -> Mapping[str, Sequence[str]]:
        """Repositories hold the same weights several times: in other precisions, for other libraries, in one file."""
        end = f".{self.variant}.safetensors" if self.variant else ".safetensors"
        network, encoder = f"diffusion_pytorch_model{end}", f"model{end}"
        texts = ["*.json", "*.txt"]
        weights = [f"unet/{network}", f"vae/{network}", f"text_encoder*/{encoder}"]
        return {"weights": [*weights, *texts], "vae": [f"*{network}", *texts], "config": texts}

    @model_validator(mode="after")
    def _of_one_piece(self) -> StableDiffusion:
        single = is_weight_file(self.weights)
        for name in ("config", "original_config"):
            if getattr(self, name) is not None and not single:
                raise SpecError(name, f"`{name}` belongs to single files; `{self.weights}` brings its own")
        if single and (self.revision or self.variant):
            name = "revision" if self.revision else "variant"
            raise SpecError(name, f"a single file has no {name}", related=["weights"])
        if self.vae_revision is not None and self.vae is None:
            raise SpecError("vae_revision", "there is no `vae` that it could be the revision of")
        return self


@register
class Plane(Model):
    """The plane world's model: a small MLP that denoises points. Trains in seconds; for statistics over seeds."""

    use: Literal["plane"] = "plane"
    version: ClassVar[int] = 1

    weights: str = "smpo:worlds/plane/weights/base.safetensors"
    """The pre-trained base; `smpo:...` ships with smpo."""

    def load(self, runtime: Runtime) -> Denoiser:
        from smpo.families.plane import load_plane

        return load_plane(
            Path(locate(self.weights)),
            device=runtime.device,
            precision=runtime.precision,
            hold_reference=runtime.reference,
        )

    def facts(self) -> ModelFacts:
        count = tensors(Path(locate(self.weights)))
        return ModelFacts(self.weights, timesteps=1000, parameters=count or None, trainable=count or None)

    def check(self) -> str | None:
        return missing(self.weights)
