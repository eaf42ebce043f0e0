"""The kohya twin of a LoRA: names at the true sizes, against three readers' rules; the header that tools sort by."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from smpo.families.files import kohya
from smpo.families.loading import load_unet
from smpo.families.lora import ATTENTION, Adapter
from smpo.kinds import Runtime
from tests.families.original_layout import unet_name
from tests.families.published import SD15, SD21, SDXL, on_meta

EVERYTHING = (
    *ATTENTION, "proj_in", "proj_out", "ff.net.0.proj", "ff.net.2", "conv1", "conv2", "conv_shortcut", "time_emb_proj",
    "downsamplers.0.conv", "upsamplers.0.conv", "time_embedding.linear_1", "add_embedding.linear_2", "conv_in",
    "conv_out",
)  # fmt: skip


def modules(unet: Any, targets: tuple[str, ...]) -> list[str]:
    return [name for name, _ in unet.named_modules() if any(f".{name}".endswith(f".{end}") for end in targets)]


def twin(unet: Any, targets: tuple[str, ...], alpha: float = 7.0) -> dict[str, torch.Tensor]:
    one = torch.zeros(1)
    layers = {f"{name}.{part}.weight": one for name in modules(unet, targets) for part in ("lora_A", "lora_B")}
    return kohya.layout(layers, alpha, unet)


def test_sd15_keys_are_the_published_ones() -> None:
    keys = twin(on_meta(SD15), ATTENTION)
    assert len(keys) == 3 * 128, "16 blocks, two attentions each, four matrices each"
    for name in (
        "lora_unet_down_blocks_0_attentions_0_transformer_blocks_0_attn1_to_q",
        "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_v",
        "lora_unet_up_blocks_3_attentions_2_transformer_blocks_0_attn2_to_out_0",
    ):
        assert {f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"} <= keys.keys()
        assert float(keys[f"{name}.alpha"]) == 7.0


def test_sdxl_keys_are_the_published_ones() -> None:
    keys = twin(on_meta(SDXL), ATTENTION)
    assert len(keys) == 3 * 560, "70 blocks"
    blocks = {key.split("_transformer_blocks_")[0].removeprefix("lora_unet_") for key in keys}
    expected = [
        "input_blocks_4_1",
        "input_blocks_5_1",
        "input_blocks_7_1",
        "input_blocks_8_1",
        "middle_block_1",
    ]
    assert blocks == {*expected, *(f"output_blocks_{i}_1" for i in range(6))}
    for name in (
        "lora_unet_input_blocks_4_1_transformer_blocks_0_attn1_to_q",
        "lora_unet_middle_block_1_transformer_blocks_9_attn2_to_v",
        "lora_unet_output_blocks_5_1_transformer_blocks_1_attn2_to_out_0",
    ):
        assert {f"{name}.lora_down.weight", f"{name}.lora_up.weight", f"{name}.alpha"} <= keys.keys()


@pytest.mark.parametrize("config", [SD15, SDXL], ids=["sd15", "sdxl"])
def test_diffusers_finds_every_module_again(config: dict[str, Any]) -> None:
    """Its own reader of such files, at the true size, for layers of every kind."""
    from diffusers.loaders.lora_conversion_utils import (
        _convert_non_diffusers_lora_to_diffusers,
        _maybe_map_sgm_blocks_to_diffusers,
    )

    unet = on_meta(config)
    expected = modules(unet, EVERYTHING)
    keys = _maybe_map_sgm_blocks_to_diffusers(twin(unet, EVERYTHING), unet.config)
    found, alphas = _convert_non_diffusers_lora_to_diffusers(keys)

    def module(key: str) -> str:
        plain = key.removeprefix("unet.").replace(".processor.", ".")
        for ending in (".lora.down.weight", ".lora.up.weight", "_lora.down.weight", "_lora.up.weight"):
            plain = plain.removesuffix(ending)
        return plain + ".0" if plain.endswith(".to_out") else plain

    assert {module(key) for key in found} == set(expected) and len(found) == 2 * len(expected)
    assert len(alphas) == len(expected) and set(alphas.values()) == {7.0}


def test_sdxl_modules_have_their_authors_names() -> None:
    """The map with which single-file checkpoints are written in `test_single_file.py`, and diffusers reads them."""
    unet = on_meta(SDXL)
    for name in modules(unet, EVERYTHING):
        assert kohya.original_name(name, 2) == unet_name(f"{name}.weight", unet).removesuffix(".weight"), name


def test_the_header_says_what_the_file_is_for(
    sd_folder: Path, v_folder: Path, sdxl_folder: Path, tmp_path: Path
) -> None:
    told = {}
    for name, folder in (("sd", sd_folder), ("v", v_folder), ("xl", sdxl_folder)):
        load_unet(folder, adapter=Adapter(rank=2, alpha=7.0), runtime=Runtime()).save(tmp_path / name)
        file = tmp_path / name / "kohya" / "lora.safetensors"
        with safe_open(file, "pt") as stream:
            told[name] = stream.metadata()
        content = file.read_bytes()
        header = int.from_bytes(content[:8], "little")
        digest = hashlib.sha256(content[8 + header :]).hexdigest()
        assert told[name]["sshs_model_hash"] == digest and told[name]["modelspec.hash_sha256"] == f"0x{digest}"
        assert told[name]["ss_network_dim"] == "2" and told[name]["ss_network_alpha"] == "7.0"
        assert told[name]["modelspec.resolution"] == "32x32"
        assert json.loads(content[8 : 8 + header])["__metadata__"]["format"] == "pt"
    assert [one["ss_base_model_version"] for one in told.values()] == ["sd_v1", "sd_v1", "sdxl_base_v1-0"]
    assert told["xl"]["modelspec.architecture"] == "stable-diffusion-xl-v1-base/lora"
    assert told["sd"]["modelspec.architecture"] == "stable-diffusion-v1/lora"
    assert [one["modelspec.prediction_type"] for one in told.values()] == ["epsilon", "v", "epsilon"]


@pytest.mark.parametrize(
    ("prediction", "version"), [("epsilon", "sd_v2"), ("v_prediction", "sd_v2_v")], ids=["base", "768-v"]
)
def test_sd2_is_told_by_its_width(prediction: str, version: str, tmp_path: Path) -> None:
    from diffusers import DDIMScheduler

    unet = on_meta(SD21)
    layers = {"mid_block.attentions.0.proj_in.lora_A.weight": torch.zeros(1)}
    scheduler = DDIMScheduler(prediction_type=prediction)
    kohya.write(tmp_path / "it", layers, rank=1, alpha=1.0, unet=unet, scheduler=scheduler, side=768)
    with safe_open(tmp_path / "it", "pt") as stream:
        told = stream.metadata()
    assert told["ss_base_model_version"] == version and told["ss_v2"] == "True"
