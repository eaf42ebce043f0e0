"""Tiny genuine pipelines, made on the spot: 18 thousand parameters of UNet, no hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image


def tiny_tokenizer(length: int = 77) -> Any:
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import CLIPTokenizer

    alphabet = sorted(ByteLevel.alphabet())
    tokens = [*alphabet, *(c + "</w>" for c in alphabet), "<|startoftext|>", "<|endoftext|>"]
    return CLIPTokenizer(vocab={t: i for i, t in enumerate(tokens)}, merges=[], model_max_length=length)


def _text_config(tokenizer: Any, width: int, **options: Any) -> Any:
    from transformers import CLIPTextConfig

    return CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4 if width < 64 else width // 64,  # all true ones have heads of 64
        projection_dim=width,
        max_position_embeddings=tokenizer.model_max_length,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **options,
    )


def _vae(**options: Any) -> Any:
    from diffusers import AutoencoderKL

    return AutoencoderKL(
        block_out_channels=(32, 64),
        latent_channels=4,
        norm_num_groups=32,
        sample_size=32,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        **options,
    )


def _scheduler(**options: Any) -> Any:
    from diffusers import DDIMScheduler

    return DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        **options,
    )


def make_sd(
    folder: Path,
    *,
    channels: tuple[int, int] = (4, 8),
    groups: int = 2,
    width: int = 32,
    act: str = "quick_gelu",
    linear: bool = False,
    **scheduler: Any,
) -> Path:
    """A StableDiffusionPipeline of 32 px, latents 4 x 16 x 16. `width`, `act`: of the text encoder."""
    from diffusers import StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    unet = UNet2DConditionModel(
        block_out_channels=channels,
        layers_per_block=1,
        sample_size=16,
        norm_num_groups=groups,
        cross_attention_dim=width,
        attention_head_dim=2,
        use_linear_projection=linear,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
    )
    StableDiffusionPipeline(
        vae=_vae(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, width, hidden_act=act)),
        tokenizer=tokenizer,
        unet=unet,
        scheduler=_scheduler(**scheduler),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def make_sdxl(
    folder: Path,
    *,
    channels: tuple[int, int] = (8, 16),
    groups: int = 2,
    widths: tuple[int, int] = (32, 32),
    moments: bool = True,
) -> Path:
    """A StableDiffusionXLPipeline of 32 px, with two text encoders; `moments`: of the latents, in the VAE."""
    from diffusers import StableDiffusionXLPipeline, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    unet = UNet2DConditionModel(
        block_out_channels=channels,
        layers_per_block=1,
        sample_size=16,
        norm_num_groups=groups,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        attention_head_dim=(2, 4),
        use_linear_projection=True,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        transformer_layers_per_block=(1, 1),
        projection_class_embeddings_input_dim=6 * 8 + widths[1],
        cross_attention_dim=sum(widths),
    )
    StableDiffusionXLPipeline(
        vae=_vae(latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.9, 1.1, 1.0, 1.2]) if moments else _vae(),
        text_encoder=CLIPTextModel(_text_config(tokenizer, widths[0])),
        text_encoder_2=CLIPTextModelWithProjection(_text_config(tokenizer, widths[1], hidden_act="gelu")),
        tokenizer=tokenizer,
        tokenizer_2=tokenizer,
        unet=unet,
        scheduler=_scheduler(),
        add_watermarker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def sd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sd(tmp_path_factory.mktemp("sd") / "base")


@pytest.fixture(scope="session")
def v_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sd(tmp_path_factory.mktemp("v") / "base", prediction_type="v_prediction", rescale_betas_zero_snr=True)


@pytest.fixture(scope="session")
def sdxl_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_sdxl(tmp_path_factory.mktemp("sdxl") / "base")


@pytest.fixture(scope="session")
def pictures() -> list[Image.Image]:
    """Three pictures of three shapes."""
    numbers = np.random.default_rng(0)
    return [
        Image.fromarray(numbers.integers(0, 256, (height, width, 3), dtype=np.uint8))
        for height, width in ((32, 32), (48, 32), (40, 64))
    ]
