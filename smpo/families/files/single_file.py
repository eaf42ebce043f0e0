"""Single-file checkpoints, the form in which most models are shared, unpacked once into the folder layout.

diffusers converts the weights (`from_single_file`); what the file lacks is laid out for it first: configurations and
tokenizers. They come from a folder or hub repository in the diffusers layout (`config`; its weights aren't needed), or,
with the original YAML at hand, from that and from the shapes in the file, so that only the tokenizer is needed from
elsewhere, and no hub.

The folder is filed in the cache by content, in the precision of the file. Everything after it (variants, the reference
that is fetched later, keys of caches) sees a folder like any other.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock

from smpo.errors import MachineError, RunError
from smpo.families.files.checkpoint_layouts import Layout, layout_of, scheduler_config, text_config
from smpo.families.files.saved_folder import replaced_folder, without_paths
from smpo.weights import content_key, locate, quiet, read_json, read_shapes, tokenizer_of

__all__ = ["unpacked"]

_VERSION = "single-file/1"
"""Part of the key: raise it when files are unpacked differently."""
_TEXTS = ("model_index.json", "*/*.json", "*/*.txt")


def unpacked(file: Path, *, config: str | None, original: str | None, cache: Path) -> Path:
    """The folder, in the diffusers layout, that `file` stands for; made when it isn't there yet.

    `config`: folder or hub id with configurations and tokenizers; None takes the repository of the file's layout.
    `original`: the YAML that the file was trained with. Raises `MachineError` for what isn't here, `RunError` for
    files that smpo can't train.
    """
    if not file.is_file():
        raise MachineError(f"there is no file {file} with the model", help="`hf download OWNER/NAME FILE` gets one")
    shapes = read_shapes(file)
    layout = layout_of(shapes, file)
    texts = _texts(layout, config, whole=original is None)
    story = _original(original)
    facts = {"version": _VERSION, "layout": layout.name, "original": story}
    sources = [path for pattern in _TEXTS for path in sorted(texts.glob(pattern))]
    names = [str(path.relative_to(texts)) for path in sources]
    folder = cache / "models" / content_key({**facts, "texts": names}, [file, *sources])
    with FileLock(_made(folder.parent) / f"{folder.name}.lock"):
        if not (folder / "model_index.json").is_file():
            with replaced_folder(folder) as fresh:
                scaffold = _made(fresh / "scaffold")
                _lay_out(scaffold, layout, texts, shapes, story)
                _convert(file, layout, scaffold, original, fresh)
                shutil.rmtree(scaffold)
    return folder


def _texts(layout: Layout, config: str | None, *, whole: bool) -> Path:
    """The folder with configurations (all of them if `whole`) and tokenizers."""
    wanted = _TEXTS if whole else tuple(f"{part}/*" for part in (*layout.tokenizers, *layout.encoders))
    patterns = [pattern for pattern in wanted if not pattern.endswith("*")] or [*_TEXTS]
    place, revision = (config, None) if config else (layout.repository, layout.revision)
    what = f"the configuration of {layout.name} (`model.config`)"
    folder = locate(place, what=what, patterns=patterns, revision=revision)
    needed = [*layout.tokenizers, *(("unet", "vae", "scheduler", *layout.encoders) if whole else ())]
    for part in needed:
        if not any((folder / part).glob("*.json")):
            raise MachineError(
                f"{folder} has no {part}, which {layout.name} needs beside the file",
                help="`model.config` takes a folder in the diffusers layout; its weights aren't needed"
                + ("; with `model.original_config` the tokenizers alone will do" if whole else ""),
            )
    return folder


def _original(path: str | None) -> dict[str, Any] | None:
    """The original YAML, as plain data."""
    if path is None:
        return None
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        story = YAML(typ="safe", pure=True).load(Path(path).expanduser())
    except (OSError, YAMLError) as error:
        raise MachineError(f"`model.original_config`: {path} can't be read: {error}") from error
    if not isinstance(story, dict) or not isinstance(story.get("model"), dict):
        raise RunError(
            f"{path} is not the YAML of an original model: it has no `model:` block",
            help="v1-inference.yaml, v2-inference-v.yaml and sd_xl_base.yaml look as is expected",
        )
    return story


def _lay_out(
    scaffold: Path,
    layout: Layout,
    texts: Path,
    shapes: dict[str, tuple[int, ...]],
    story: dict[str, Any] | None,
) -> None:
    """A folder of configurations and tokenizers without weights, as `from_single_file` wants to find it."""
    for pattern in _TEXTS:
        for source in texts.glob(pattern):
            if ".safetensors.index" not in source.name:
                target = scaffold / source.relative_to(texts)
                _made(target.parent)
                shutil.copyfile(source, target)
    classes = {part: ["transformers", cls] for part, (_, cls) in layout.encoders.items()}
    classes |= {part: ["transformers", "CLIPTokenizer"] for part in layout.tokenizers}
    classes |= {"unet": ["diffusers", "UNet2DConditionModel"], "vae": ["diffusers", "AutoencoderKL"]}
    schedule = scaffold / "scheduler" / "scheduler_config.json"
    if story is not None:
        _write(schedule, scheduler_config(story, shapes))
        for part, tokenizer in zip(layout.encoders, layout.tokenizers, strict=True):
            if not (scaffold / part / "config.json").is_file():
                ids = _special_ids(texts / tokenizer)
                _write(scaffold / part / "config.json", text_config(shapes, layout, part, ids))
    elif "v_pred" in shapes or "ztsnr" in shapes:
        told: dict[str, Any] = {"prediction_type": "v_prediction"} if "v_pred" in shapes else {}
        told |= {"rescale_betas_zero_snr": True, "timestep_spacing": "trailing"} if "ztsnr" in shapes else {}
        _write(schedule, {**read_json(schedule), "_class_name": "DDIMScheduler", **told})
    classes["scheduler"] = ["diffusers", read_json(schedule).get("_class_name", "DDIMScheduler")]
    index = {name: value for name, value in read_json(scaffold / "model_index.json").items() if name[0] != "_"}
    kept = {name: value for name, value in index.items() if not isinstance(value, list)}
    _write(scaffold / "model_index.json", {"_class_name": layout.pipeline, **kept, **classes})


def _special_ids(tokenizer: Path) -> dict[str, int]:
    from transformers import CLIPTokenizer

    found = tokenizer_of(CLIPTokenizer, "the tokenizer", tokenizer)
    return {name: getattr(found, name) for name in ("bos_token_id", "eos_token_id", "pad_token_id")}


def _convert(file: Path, layout: Layout, scaffold: Path, original: str | None, target: Path) -> None:
    import diffusers

    pipeline_class: Any = getattr(diffusers, layout.pipeline)
    options: dict[str, Any] = {} if original is None else {"original_config": str(Path(original).expanduser())}
    if layout.pipeline == "StableDiffusionPipeline":
        options |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    try:
        with quiet():
            pipeline = pipeline_class.from_single_file(
                str(file), config=str(scaffold), local_files_only=True, dtype=_stored(file), **options
            )
            pipeline.save_pretrained(target, safe_serialization=True)
    except (OSError, ValueError, KeyError, RuntimeError, AttributeError, TypeError) as error:
        raise RunError(
            f"{file} can't be unpacked as {layout.name}: {str(error).strip().splitlines()[0]}",
            help="does `model.config`, or `model.original_config`, belong to this file?",
        ) from error
    without_paths(target)


def _stored(file: Path) -> torch.dtype:
    """The precision of most of the file's weights, so that unpacking neither rounds nor swells them."""
    from safetensors import safe_open

    with safe_open(file, "pt") as tensors:
        names = sorted(tensors.keys())
        kinds = [tensors.get_slice(name).get_dtype() for name in names if ".weight" in name]
    common = max(set(kinds), key=kinds.count) if kinds else "F32"
    return {"F16": torch.float16, "BF16": torch.bfloat16}.get(common, torch.float32)


def _write(path: Path, content: dict[str, Any]) -> None:
    _made(path.parent)
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder
