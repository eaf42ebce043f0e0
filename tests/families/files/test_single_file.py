"""Single files, as they are shared: unpacked to what they were made from, with and without the original YAML."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DiffusionPipeline
from ruamel.yaml import YAML
from safetensors.torch import load_file, save_file

from smpo.components.models import StableDiffusion
from smpo.errors import MachineError, RunError
from smpo.families.loading import Extras, load_unet
from smpo.families.lora import Adapter
from smpo.kinds import Runtime
from tests.families.conftest import make_sd, make_sdxl
from tests.families.original_layout import single_file

UNET = {"in_channels": 4, "out_channels": 4, "model_channels": 32, "num_res_blocks": 1, "channel_mult": [1, 2],
        "attention_resolutions": [2]}  # fmt: skip
VAE = {"ch": 32, "ch_mult": [1, 2], "num_res_blocks": 1, "z_channels": 4, "in_channels": 3, "out_ch": 3}
STORIES: dict[str, dict[str, Any]] = {
    "sd1": {"linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000, "scale_factor": 0.18215,
            "unet_config": {"params": {**UNET, "num_heads": 2, "transformer_depth": 1, "context_dim": 64}}},
    "sd2": {"parameterization": "v", "linear_start": 0.00085, "linear_end": 0.012, "timesteps": 1000,
            "scale_factor": 0.18215,
            "unet_config": {"params": {**UNET, "num_heads": 2, "transformer_depth": 1, "context_dim": 64,
                                       "use_linear_in_transformer": True}}},
    "sdxl": {"scale_factor": 0.13025,
             "denoiser_config": {"params": {"num_idx": 1000, "scaling_config": {"target": "x.EpsScaling"}}},
             "network_config": {"params": {**UNET, "num_head_channels": 16, "transformer_depth": [1, 1],
                                           "context_dim": 2048, "num_classes": "sequential", "adm_in_channels": 0,
                                           "use_linear_in_transformer": True}}},
}  # fmt: skip


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path, Path]]:
    """Kind -> (the folder it was made from, the single file, the original YAML)."""
    top = tmp_path_factory.mktemp("originals")
    wide: dict[str, Any] = {"channels": (32, 64), "groups": 32}
    folders = {
        "sd1": make_sd(top / "sd1", width=64, **wide),
        "sd2": make_sd(top / "sd2", width=64, act="gelu", linear=True, prediction_type="v_prediction", **wide),
        "sdxl": make_sdxl(top / "sdxl", widths=(64, 128), moments=False, **wide),
    }
    openclip = {"sd1": None, "sd2": "text_encoder", "sdxl": "text_encoder_2"}
    found = {}
    for kind, folder in folders.items():
        pipeline = DiffusionPipeline.from_pretrained(folder, dtype=torch.float32)
        more = {}
        if kind == "sd2":  # the last of its text encoder's layers isn't used, and not in the folder
            stem = "cond_stage_model.model.transformer.resblocks.2."
            more = {f"{stem}mlp.c_fc.weight": torch.zeros(37, 64), f"{stem}ln_1.weight": torch.zeros(64)}
        file = single_file(pipeline, top / f"{kind}.safetensors", openclip=openclip[kind], more=more)
        story = {"model": {"params": {**STORIES[kind], "first_stage_config": {"params": {"ddconfig": VAE}}}}}
        YAML().dump(story, top / f"{kind}.yaml")
        found[kind] = (folder, file, top / f"{kind}.yaml")
    return found


def same_weights(one: Any, other: Any) -> bool:
    ours, theirs = ({name.removeprefix("text_model."): v for name, v in m.state_dict().items()} for m in (one, other))
    return ours.keys() == theirs.keys() and all(torch.equal(value, theirs[name]) for name, value in ours.items())


@pytest.mark.parametrize("kind", ["sd1", "sd2", "sdxl"])
def test_a_single_file_is_the_folder_it_was_made_from(
    originals: dict[str, tuple[Path, Path, Path]], kind: str, tmp_path: Path
) -> None:
    folder, file, _ = originals[kind]
    runtime = Runtime(cache=tmp_path)
    single = load_unet(file, runtime=runtime, extras=Extras(config=str(folder)))
    plain = load_unet(folder, runtime=runtime)
    for part in ("unet", "vae", *plain.stack.encoders):
        assert same_weights(getattr(single.stack.pipeline, part), getattr(plain.stack.pipeline, part)), part
    assert single.schedule.prediction == plain.schedule.prediction
    assert torch.equal(single.schedule.alphas_cumprod, plain.schedule.alphas_cumprod)
    assert single.latent_shape == plain.latent_shape
    ours, theirs = (one.encode_prompts(["a red circle", ""]) for one in (single, plain))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert f"from_single_file({str(file)!r}" in single.opening.lines[0]

    again = load_unet(file, runtime=runtime, extras=Extras(config=str(folder)))
    assert again.weights_key == single.weights_key
    assert len([p for p in (tmp_path / "models").iterdir() if p.is_dir()]) == 1, "unpacked once"


@pytest.mark.parametrize("kind", ["sd1", "sd2"])
def test_the_original_yaml_wants_only_a_tokenizer(
    originals: dict[str, tuple[Path, Path, Path]], kind: str, tmp_path: Path
) -> None:
    """No hub, no diffusers configuration: everything but the vocabulary is in the file and its YAML."""
    folder, file, story = originals[kind]
    words = tmp_path / "words"
    shutil.copytree(folder / "tokenizer", words / "tokenizer")
    runtime = Runtime(cache=tmp_path / "cache")
    extras = Extras(config=str(words), original_config=str(story))
    single = load_unet(file, runtime=runtime, resolution=32, extras=extras)
    plain = load_unet(folder, runtime=runtime)
    for part in ("unet", "vae", "text_encoder"):
        assert same_weights(getattr(single.stack.pipeline, part), getattr(plain.stack.pipeline, part)), part
    assert single.schedule.prediction == ("v_prediction" if kind == "sd2" else "epsilon")
    assert torch.equal(single.schedule.alphas_cumprod, plain.schedule.alphas_cumprod)
    prompts = ["a red circle", "a much longer prompt than the first one is", ""]
    ours, theirs = (one.encode_prompts(prompts)["text"] for one in (single, plain))
    assert torch.equal(ours, theirs), "layers, heads and activation were read off right"
    x, t = torch.randn(2, 4, 16, 16), torch.tensor([3, 800])
    hidden = {"encoder_hidden_states": theirs[:2], "return_dict": False}
    with torch.no_grad():
        assert torch.equal(single.network(x, t, **hidden)[0], plain.network(x, t, **hidden)[0])


def test_sdxl_from_its_yaml(originals: dict[str, tuple[Path, Path, Path]], tmp_path: Path) -> None:
    """The tiny UNet's width isn't one by which diffusers knows SDXL, so it is asked about the encoders alone."""
    from smpo.families.files.checkpoint_layouts import layout_of, scheduler_config, text_config
    from smpo.weights import read_shapes

    folder, file, story = originals["sdxl"]
    shapes = read_shapes(file)
    layout = layout_of(shapes, file)
    assert layout.pipeline == "StableDiffusionXLPipeline"
    for part in layout.encoders:
        told = json.loads((folder / part / "config.json").read_text())
        ids = {name: told[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
        found = text_config(shapes, layout, part, ids)
        differing = {name: (value, told[name]) for name, value in found.items() if told[name] != value}
        assert not differing, part
    config = scheduler_config(YAML(typ="safe").load(story), shapes)
    assert (config["beta_start"], config["beta_end"], config["prediction_type"]) == (
        0.00085,
        0.012,
        "epsilon",
    )


def test_velocity_and_zero_snr_are_marked_in_the_file(
    originals: dict[str, tuple[Path, Path, Path]], tmp_path: Path
) -> None:
    folder, file, _ = originals["sdxl"]
    marked = tmp_path / "marked.safetensors"
    save_file({**load_file(file), "v_pred": torch.tensor([]), "ztsnr": torch.tensor([])}, marked)
    single = load_unet(marked, runtime=Runtime(cache=tmp_path), extras=Extras(config=str(folder)))
    assert single.schedule.prediction == "v_prediction" and float(single.schedule.alphas_cumprod[-1]) == 0
    assert single.stack.pipeline.scheduler.config.timestep_spacing == "trailing"


def test_half_files_stay_half_on_disk(originals: dict[str, tuple[Path, Path, Path]], tmp_path: Path) -> None:
    folder, file, _ = originals["sd1"]
    half = tmp_path / "half.safetensors"
    save_file({name: value.half() for name, value in load_file(file).items()}, half)
    single = load_unet(half, runtime=Runtime(cache=tmp_path), extras=Extras(config=str(folder)))
    (stored,) = tmp_path.glob("models/*/unet/*.safetensors")
    assert {value.dtype for value in load_file(stored).values()} == {torch.float16}
    assert {value.dtype for value in single.network.state_dict().values()} == {torch.float32}


def test_a_lora_on_a_single_file_says_how_it_is_opened(
    originals: dict[str, tuple[Path, Path, Path]], tmp_path: Path
) -> None:
    folder, file, _ = originals["sd1"]
    runtime = Runtime(cache=tmp_path / "cache")
    single = load_unet(file, runtime=runtime, adapter=Adapter(rank=2), extras=Extras(config=str(folder)))
    lines = single.save(tmp_path / "lora")
    assert lines[1] == "from diffusers import StableDiffusionPipeline"
    assert lines[2].startswith("pipe = StableDiffusionPipeline.from_single_file(")
    assert "load_lora_weights" in lines[3]


def test_what_is_wrong_with_a_file_is_said(
    originals: dict[str, tuple[Path, Path, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, file, story = originals["sd1"]
    runtime = Runtime(cache=tmp_path / "cache")

    def refused(path: Path, kind: type[Exception], match: str, **extras: str) -> str:
        with pytest.raises(kind, match=match) as caught:
            load_unet(path, runtime=runtime, extras=Extras(**extras))
        return str(getattr(caught.value, "help", ""))

    refused(tmp_path / "gone.safetensors", MachineError, "there is no file")
    pickle = tmp_path / "model.ckpt"
    pickle.write_bytes(b"\x80\x02}q\x00.")
    assert "never opens pickles" in refused(pickle, MachineError, "is not a safetensors file")
    lora = tmp_path / "lora.safetensors"
    save_file({"lora_unet_x.lora_down.weight": torch.zeros(2)}, lora)
    assert "the model it was made for" in refused(lora, RunError, "is a LoRA")
    bare = tmp_path / "bare.safetensors"
    save_file({"model.diffusion_model.out.2.bias": torch.zeros(2)}, bare)
    refused(bare, RunError, "without text encoders")
    save_file({"something.else": torch.zeros(2)}, bare)
    refused(bare, RunError, "no UNet in the original layout")

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "empty"))
    helped = refused(file, MachineError, r"configuration of SD 1 \(`model.config`\).*is not on this machine")
    assert "hf download stable-diffusion-v1-5/stable-diffusion-v1-5 --revision 451f4fe16113" in helped
    words = tmp_path / "words"
    shutil.copytree(folder / "tokenizer", words / "tokenizer")
    assert "original_config" in refused(file, MachineError, "has no unet", config=str(words))
    shutil.rmtree(words / "tokenizer")
    refused(file, MachineError, "has no tokenizer", config=str(words), original_config=str(story))
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("name: an experiment of smpo\n")
    refused(file, RunError, "is not the YAML of an original model", config=str(folder), original_config=str(wrong))
    other = originals["sdxl"][0]
    refused(file, RunError, "can't be unpacked as SD 1", config=str(other))
    assert not list((tmp_path / "cache").glob("models/*/")), "nothing half made is left behind"


def test_facts_and_checks_without_torch(originals: dict[str, tuple[Path, Path, Path]]) -> None:
    folder, file, _ = originals["sd1"]
    model = StableDiffusion(weights=str(file), config=str(folder))
    plain = StableDiffusion(weights=str(folder))
    assert model.check() is None
    assert model.facts().parameters == plain.facts().parameters == model.facts().trainable
    assert model.facts().resolution == plain.facts().resolution == 32
    pickle = file.with_suffix(".yaml")
    assert "weights are read from .safetensors" in str(StableDiffusion(weights=str(pickle)).check())
    gone = StableDiffusion(weights="models/gone.safetensors").check()
    assert gone == "there is no file `models/gone.safetensors`", "not a hub id, though it looks like one"
    story = StableDiffusion(weights=str(file), config=str(folder), original_config="gone.yaml").check()
    assert story == "there is no file `gone.yaml` (model.original_config)"
