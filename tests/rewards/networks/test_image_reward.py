"""ImageReward against transformers' BLIP with a linear head."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from smpo.kinds import Runtime
from smpo.rewards.networks.image_reward import load_image_reward
from smpo.rewards.networks.preprocessing import ShortSide

Pictures = list[Image.Image]


def test_image_reward_is_transformers_blip_with_a_linear_head(
    image_reward: Path, images: Pictures, prompts: list[str]
) -> None:
    from transformers import BertTokenizer, BlipTextConfig, BlipVisionConfig
    from transformers.models.blip.modeling_blip import BlipVisionModel
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    scorer = load_image_reward(image_reward, file="ImageReward.pt", tokenizer=image_reward, runtime=Runtime(batch=4))
    tensors = torch.load(image_reward / "ImageReward.pt", weights_only=True)
    vision = BlipVisionModel(
        BlipVisionConfig(
            hidden_size=128, intermediate_size=96, num_hidden_layers=2, num_attention_heads=2, image_size=32,
            patch_size=8, layer_norm_eps=1e-6,
        )
    ).eval()  # fmt: skip
    stem = "blip.visual_encoder."
    names = {
        "cls_token": "embeddings.class_embedding",
        "pos_embed": "embeddings.position_embedding",
        "patch_embed.proj": "embeddings.patch_embedding",
        "blocks": "encoder.layers",
        "norm1": "layer_norm1",
        "norm2": "layer_norm2",
        "attn.qkv": "self_attn.qkv",
        "attn.proj": "self_attn.projection",
    }
    renamed = {}
    for name, value in tensors.items():
        if name.startswith(stem):
            new = name.removeprefix(stem)
            for old, other in names.items():
                new = new.replace(old, other)
            renamed[new.replace("norm.", "post_layernorm.") if new.startswith("norm.") else new] = value
    vision.load_state_dict(renamed)
    text = BlipTextModel(
        BlipTextConfig(
            vocab_size=62, hidden_size=32, encoder_hidden_size=128, intermediate_size=48, num_hidden_layers=2,
            num_attention_heads=4, max_position_embeddings=40, layer_norm_eps=1e-12, hidden_act="gelu",
            is_decoder=True,
        ),
        add_pooling_layer=False,
    ).eval()  # fmt: skip
    stem = "blip.text_encoder."
    missing = text.load_state_dict(
        {name.removeprefix(stem): value for name, value in tensors.items() if name.startswith(stem)},
        strict=False,
    )
    assert not missing.missing_keys
    tokens = BertTokenizer.from_pretrained(image_reward)(
        prompts, padding="max_length", truncation=True, max_length=35, return_tensors="pt"
    )
    pixels = torch.from_numpy(np.stack([ShortSide(32)(image) for image in images]))
    with torch.no_grad():
        seen = vision(pixels).last_hidden_state
        x = text(
            input_ids=tokens.input_ids, attention_mask=tokens.attention_mask, encoder_hidden_states=seen,
            encoder_attention_mask=torch.ones(seen.shape[:2]), is_decoder=False,
        ).last_hidden_state[:, 0]  # fmt: skip
    for layer in (0, 2, 4, 6, 7):
        x = x @ tensors[f"mlp.layers.{layer}.weight"].T + tensors[f"mlp.layers.{layer}.bias"]
    expected = (x[:, 0] - 0.16717362830052426) / 1.0333394966054072
    assert float(expected.std()) > 1e-2
    torch.testing.assert_close(scorer(images, prompts), expected, rtol=1e-5, atol=1e-5)


def test_image_reward_reads_35_tokens(image_reward: Path, images: Pictures) -> None:
    scorer = load_image_reward(image_reward, file="ImageReward.pt", tokenizer=image_reward, runtime=Runtime())
    one = [images[0]]
    assert torch.equal(scorer(one, ["cat " * 33 + "a"]), scorer(one, ["cat " * 33 + "b"]))
    assert not torch.equal(scorer(one, ["cat " * 32 + "a"]), scorer(one, ["cat " * 32 + "b"]))
