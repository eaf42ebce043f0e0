"""Counts behind the estimates of `smpo plan`: parameters, forwards, adapters and scorers of public architectures.

    python benchmarks/costs.py            # writes benchmarks/results/costs.json

Nothing is downloaded and no weights are made: networks are built on torch's meta device from the numbers of their
published configurations, and FLOP are counted by `torch.utils.flop_counter`, a multiply and an add as two.
`tests/app/plan/test_gpu_time.py` compares the file with the tables that plans use (smpo/app/plan/gpu_time.py,
smpo/components/model_facts.py, smpo/components/rewards/facts.py).
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import torch
from output import add_arguments, target, write
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

TARGETS = ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2", "proj_in", "proj_out")

SD15 = {
    "sample_size": 64, "cross_attention_dim": 768, "attention_head_dim": 8,
    "block_out_channels": (320, 640, 1280, 1280),
}  # fmt: skip
SD21 = {
    "sample_size": 96, "cross_attention_dim": 1024, "attention_head_dim": [5, 10, 20, 20],
    "block_out_channels": (320, 640, 1280, 1280), "use_linear_projection": True,
}  # fmt: skip
SDXL = {
    "sample_size": 128, "cross_attention_dim": 2048, "attention_head_dim": [5, 10, 20],
    "block_out_channels": (320, 640, 1280), "transformer_layers_per_block": [1, 2, 10],
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"), "use_linear_projection": True,
    "addition_embed_type": "text_time", "addition_time_embed_dim": 256, "projection_class_embeddings_input_dim": 2816,
}  # fmt: skip
UNETS = {"SD 1.5": (SD15, 512), "SD 2.1": (SD21, 768), "SDXL": (SDXL, 1024)}

CLIPS = {
    "CLIP ViT-L/14": {
        "projection_dim": 768,
        "vision": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
                   "intermediate_size": 4096, "patch_size": 14, "image_size": 224},
        "text": {"hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072},
    },
    "CLIP ViT-H/14": {
        "projection_dim": 1024,
        "vision": {"hidden_size": 1280, "num_hidden_layers": 32, "num_attention_heads": 16,
                   "intermediate_size": 5120, "patch_size": 14, "image_size": 224},
        "text": {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096},
    },
}  # fmt: skip


def flops(run: Any) -> float:
    """TFLOP of a call."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        run()
    return counter.get_total_flops() / 1e12


def unet(config: dict[str, Any], pixels: int) -> dict[str, Any]:
    from diffusers import UNet2DConditionModel

    with torch.device("meta"):
        network = UNet2DConditionModel(**config)
        x, text = (
            torch.empty(1, 4, pixels // 8, pixels // 8),
            torch.empty(1, 77, config["cross_attention_dim"]),
        )
        extra = {"text_embeds": torch.empty(1, 1280), "time_ids": torch.empty(1, 6)}
        t = torch.empty(1)
    added = {"added_cond_kwargs": extra} if "addition_embed_type" in config else {}
    return {
        "parameters": sum(one.numel() for one in network.parameters()),
        "pixels": pixels,
        "forward_tflop": round(flops(lambda: network(x, t, text, **added)), 4),
        "adapters": {target: widths(network, target) for target in TARGETS},
    }


def widths(network: nn.Module, target: str) -> list[int]:
    """Sums of inputs and of outputs over the layers called so: a LoRA of rank r has r (inputs + outputs) numbers, DoRA
    one more for each output."""
    found = [
        module.weight
        for name, module in network.named_modules()
        if isinstance(module, nn.Linear | nn.Conv2d) and (name == target or name.endswith(f".{target}"))
    ]
    return [sum(one[0].numel() for one in found), sum(len(one) for one in found)]


def vae(pixels: int) -> dict[str, float]:
    """The autoencoder that SD 1.5, 2.1 and SDXL share in shape."""
    from diffusers import AutoencoderKL

    with torch.device("meta"):
        network = AutoencoderKL(
            block_out_channels=(128, 256, 512, 512), layers_per_block=2, sample_size=512,
            down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        ).eval()  # fmt: skip
        pictures, latents = torch.empty(1, 3, pixels, pixels), torch.empty(1, 4, pixels // 8, pixels // 8)
    return {
        "encode_tflop": round(flops(lambda: network.encode(pictures)), 3),
        "decode_tflop": round(flops(lambda: network.decode(latents)), 3),
    }


def clip(config: dict[str, Any]) -> dict[str, float]:
    from transformers import CLIPConfig, CLIPModel, CLIPTextConfig, CLIPVisionConfig

    whole = CLIPConfig(
        text_config=CLIPTextConfig(projection_dim=config["projection_dim"], **config["text"]).to_dict(),
        vision_config=CLIPVisionConfig(projection_dim=config["projection_dim"], **config["vision"]).to_dict(),
        projection_dim=config["projection_dim"],
    )
    with torch.device("meta"):
        network = CLIPModel(whole).eval()
        pixels = torch.empty(1, 3, 224, 224)
        words = torch.zeros(1, 77, dtype=torch.long)
    return {
        "picture_tflop": round(flops(lambda: network.vision_model(pixels)), 4),
        "prompt_tflop": round(flops(lambda: network.text_model(words)), 4),
    }


def main(words: list[str] | None = None) -> None:
    import diffusers
    import transformers

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    options = parser.parse_args(words)
    unets = {"SD 1.5": UNETS["SD 1.5"]} if options.quick else {**UNETS, "SDXL at 512 px": (SDXL, 512)}
    clips = dict(list(CLIPS.items())[: 1 if options.quick else None])
    result = {
        "counted_with": {
            "torch": torch.__version__.split("+")[0],
            "diffusers": diffusers.__version__,
            "transformers": transformers.__version__,
        },
        "unets": {name: unet(config, pixels) for name, (config, pixels) in unets.items()},
        "vae": {str(pixels): vae(pixels) for pixels in ((512,) if options.quick else (512, 768, 1024))},
        "scorers": {name: clip(config) for name, config in clips.items()},
    }
    write(target(options, "costs.json"), result)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
