"""Small networks of the published architectures, independent where that is possible, in the published layouts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from smpo.rewards.networks.aesthetic import linear_head
from smpo.rewards.networks.blip import BertShape, CrossBert, VisionTransformer
from smpo.rewards.networks.image_reward import ImageRewardNetwork
from smpo.rewards.networks.mps import CrossModel, MPSNetwork

CONDITION = "light, color"


def shaken(module: nn.Module, by: float = 0.1) -> nn.Module:
    """Away from the initial weights, which see hardly any difference."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return module.eval()


class OpenClip(nn.Module):
    """The network as open_clip writes it: names, packed attention, projections as matrices on the right."""

    def __init__(self) -> None:
        super().__init__()
        self.visual = nn.Module()
        self.visual.class_embedding = nn.Parameter(torch.randn(32))
        self.visual.positional_embedding = nn.Parameter(torch.randn(17, 32))
        self.visual.proj = nn.Parameter(torch.randn(32, 32))
        self.visual.conv1 = nn.Conv2d(3, 32, 8, 8, bias=False)
        self.visual.ln_pre, self.visual.ln_post = nn.LayerNorm(32), nn.LayerNorm(32)
        self.visual.transformer = self.blocks(heads=2)
        self.transformer = self.blocks(heads=4)
        self.token_embedding = nn.Embedding(514, 32)
        self.positional_embedding = nn.Parameter(torch.randn(24, 32))
        self.ln_final = nn.LayerNorm(32)
        self.text_projection = nn.Parameter(torch.randn(32, 32))
        self.logit_scale = nn.Parameter(torch.tensor(4.6))

    @staticmethod
    def blocks(heads: int) -> nn.Module:
        found = nn.Module()
        found.resblocks = nn.ModuleList()
        for _ in range(2):
            block = nn.Module()
            block.ln_1, block.ln_2 = nn.LayerNorm(32), nn.LayerNorm(32)
            block.attn = nn.MultiheadAttention(32, heads, batch_first=True)
            block.mlp = nn.Sequential()
            for name, part in (
                ("c_fc", nn.Linear(32, 64)),
                ("gelu", nn.GELU()),
                ("c_proj", nn.Linear(64, 32)),
            ):
                block.mlp.add_module(name, part)
            found.resblocks.append(block)
        return found

    @staticmethod
    def through(blocks: nn.Module, x: Tensor, mask: Tensor | None = None) -> Tensor:
        for block in blocks.resblocks:
            y = block.ln_1(x)
            x = x + block.attn(y, y, y, need_weights=False, attn_mask=mask)[0]
            x = x + block.mlp(block.ln_2(x))
        return x

    def forward(self, pixels: Tensor, ids: Tensor) -> Tensor:
        patches = self.visual.conv1(pixels).flatten(2).transpose(1, 2)
        x = torch.cat([self.visual.class_embedding.expand(len(pixels), 1, -1), patches], dim=1)
        x = self.through(self.visual.transformer, self.visual.ln_pre(x + self.visual.positional_embedding))
        image = self.visual.ln_post(x[:, 0]) @ self.visual.proj
        future = torch.full((24, 24), -torch.inf).triu(1)
        x = self.token_embedding(ids) + self.positional_embedding
        x = self.ln_final(self.through(self.transformer, x, future))
        text = x[torch.arange(len(ids)), ids.argmax(-1)] @ self.text_projection
        return F.cosine_similarity(image, text)


@pytest.fixture(scope="session")
def hps(tmp_path_factory: pytest.TempPathFactory) -> tuple[OpenClip, Path]:
    torch.manual_seed(0)
    network = shaken(OpenClip())
    folder = tmp_path_factory.mktemp("hps")
    torch.save({"epoch": 3, "name": "x", "state_dict": network.state_dict()}, folder / "HPS.pt")
    return network, folder


@pytest.fixture(scope="session")
def aesthetic(small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("aesthetic")
    head = shaken(linear_head(32), 0.05)
    torch.save({f"layers.{name}": value for name, value in head.state_dict().items()}, folder / "head.pth")
    return folder


@pytest.fixture(scope="session")
def image_reward(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("image-reward")
    letters = "abcdefghijklmnopqrstuvwxyz"
    words = [
        "[PAD]",
        "[UNK]",
        "[CLS]",
        "[SEP]",
        "[MASK]",
        *letters,
        *(f"##{x}" for x in letters),
        "cat",
        "&",
        ";",
    ]
    (folder / "vocab.txt").write_text("\n".join(words) + "\n")
    shape = BertShape(len(words) + 2, width=32, depth=2, heads=4, inner=48, positions=40, seen=128)
    torch.manual_seed(0)
    vision = VisionTransformer(side=32, patch=8, width=128, depth=2, heads=2, inner=96)
    network = shaken(ImageRewardNetwork(vision, CrossBert(shape), 32))
    left_over = {
        "blip.text_encoder.embeddings.position_ids": torch.arange(40)[None],
        "blip.vision_proj.weight": torch.zeros(4, 128),
    }
    torch.save({**network.state_dict(), **left_over}, folder / "ImageReward.pt")
    config = {"num_attention_heads": 4, "layer_norm_eps": 1e-12, "encoder_width": 768}
    (folder / "med_config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="session")
def mps(small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file
    from transformers import CLIPModel

    torch.manual_seed(0)
    network = MPSNetwork(CLIPModel.from_pretrained(small_clip), shaken(CrossModel(32, 2, 3, 40)))
    folder = tmp_path_factory.mktemp("mps")
    # As the port on the hub has it: one more name in front.
    save_file({f"mps.{k}": v.contiguous() for k, v in network.state_dict().items()}, folder / "model.safetensors")
    return folder
