"""HPSv2, ImageReward, LAION's aesthetic predictor and MPS against computations written down independently.

Small random weights of the true architectures, in the published layouts. The same was done once with the published
packages' own code in environments apart (docs/rewards.md has the numbers); here the other side is plain formulas,
torch's own attention, or transformers' BLIP.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from smpo.errors import MachineError
from smpo.kinds import Runtime, Scorer
from smpo.rewards.aesthetic import linear_head, load_aesthetic_scorer
from smpo.rewards.blip import BertShape, CrossBert, VisionTransformer
from smpo.rewards.clip_like import load_clip_scorer
from smpo.rewards.image_reward import ImageRewardNetwork, load_image_reward
from smpo.rewards.mps import CrossModel, MPSNetwork, load_mps
from smpo.rewards.pictures import ShortSide, WholePicture

CONDITION = "light, color"
Pictures = list[Image.Image]


def shaken(module: nn.Module, by: float = 0.1) -> nn.Module:
    """Away from the initial weights, which see hardly any difference."""
    torch.manual_seed(1)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn_like(parameter))
    return module.eval()


# ------------------------------------------------------------------------------------------------- HPSv2


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


@pytest.fixture(scope="module")
def hps(tmp_path_factory: pytest.TempPathFactory) -> tuple[OpenClip, Path]:
    torch.manual_seed(0)
    network = shaken(OpenClip())
    folder = tmp_path_factory.mktemp("hps")
    torch.save({"epoch": 3, "name": "x", "state_dict": network.state_dict()}, folder / "HPS.pt")
    return network, folder


def hps_scorer(folder: Path, clip: Path, **settings: Any) -> Scorer:
    return load_clip_scorer(
        folder, file="HPS.pt", processor=clip, pictures="whole", runtime=Runtime(batch=2), **settings
    )


@pytest.mark.parametrize("antialias", [True, False])
def test_hps_is_open_clips_cosine(
    hps: tuple[OpenClip, Path], small_clip: Path, images: Pictures, prompts: list[str], antialias: bool
) -> None:
    from transformers import CLIPTokenizer

    network, folder = hps
    words = [prompt.replace("&amp;", "&") for prompt in prompts]  # open_clip's tokenizer resolves entities
    tokens = CLIPTokenizer.from_pretrained(small_clip)(
        words, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
    ).input_ids
    tokens[tokens.cumsum(1).eq(0)] = 0
    layout = WholePicture(32, antialias)
    pixels = torch.from_numpy(np.stack([layout(image) for image in images]))
    with torch.no_grad():
        expected = network(pixels, tokens)
    found = hps_scorer(folder, small_clip, antialias=antialias)(images, prompts)
    assert float(expected.std()) > 0.01
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)


def test_hps_keys_tell_checkpoints_and_antialiasing_apart(
    hps: tuple[OpenClip, Path], small_clip: Path, tmp_path: Path
) -> None:
    network, folder = hps
    key = hps_scorer(folder, small_clip).key
    assert key == hps_scorer(folder, small_clip).key
    assert key != hps_scorer(folder, small_clip, antialias=False).key
    with torch.no_grad():
        network.text_projection[0, 0] += 1
    torch.save({"state_dict": network.state_dict()}, tmp_path / "HPS.pt")
    with torch.no_grad():
        network.text_projection[0, 0] -= 1
    assert key != hps_scorer(tmp_path, small_clip).key


def test_a_checkpoint_of_another_architecture_is_named(
    hps: tuple[OpenClip, Path], small_clip: Path, tmp_path: Path
) -> None:
    tensors = hps[0].state_dict()
    tensors["visual.proj"] = torch.zeros(32, 8)
    tensors["score_predictor"] = torch.zeros(1)
    torch.save({"state_dict": tensors}, tmp_path / "HPS.pt")
    with pytest.raises(
        MachineError, match=r"score_predictor is unknown; visual_projection\.weight is of another shape"
    ):
        hps_scorer(tmp_path, small_clip)
    with pytest.raises(MachineError, match=r"has no HPS_v2\.1\.pt") as caught:
        load_clip_scorer(tmp_path, file="HPS_v2.1.pt", processor=small_clip, runtime=Runtime())
    assert "it has HPS.pt" in (caught.value.help or "")


def test_files_that_would_run_code_are_refused(small_clip: Path, tmp_path: Path) -> None:
    torch.save(nn.Linear(2, 2), tmp_path / "HPS.pt")  # a pickled module, as MPS publishes
    with pytest.raises(MachineError, match="does not run code from weight files") as caught:
        hps_scorer(tmp_path, small_clip)
    assert "save_file" in (caught.value.help or "")


# --------------------------------------------------------------------------------------- LAION aesthetic


@pytest.fixture(scope="module")
def aesthetic(small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("aesthetic")
    head = shaken(linear_head(32), 0.05)
    torch.save({f"layers.{name}": value for name, value in head.state_dict().items()}, folder / "head.pth")
    return folder


def test_aesthetic_score_is_one_affine_map_of_the_unit_embedding(
    aesthetic: Path, small_clip: Path, images: Pictures, prompts: list[str]
) -> None:
    from transformers import CLIPModel

    scorer = load_aesthetic_scorer(aesthetic, file="head.pth", clip=small_clip, runtime=Runtime(batch=4))
    head = torch.load(aesthetic / "head.pth", weights_only=True)
    pixels = torch.from_numpy(np.stack([ShortSide(32)(image) for image in images]))
    with torch.no_grad():
        model = CLIPModel.from_pretrained(small_clip)
        embedding = model.visual_projection(model.vision_model(pixels).pooler_output).double()
    x = embedding / embedding.norm(dim=-1, keepdim=True)
    for layer in (0, 2, 4, 6, 7):  # as numbered in the published file
        x = x @ head[f"layers.{layer}.weight"].double().T + head[f"layers.{layer}.bias"].double()
    found = scorer(images, prompts)
    assert float(x.std()) > 1e-3
    torch.testing.assert_close(found.double(), x[:, 0], rtol=1e-5, atol=1e-6)
    assert torch.equal(found, scorer(images, prompts[::-1]))  # it never sees the prompt


# ------------------------------------------------------------------------------------------- ImageReward


@pytest.fixture(scope="module")
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


def test_image_reward_is_transformers_blip_with_a_linear_head(
    image_reward: Path, images: Pictures, prompts: list[str]
) -> None:
    from transformers import BertTokenizer, BlipTextConfig, BlipVisionConfig
    from transformers.models.blip.modeling_blip import BlipVisionModel
    from transformers.models.blip.modeling_blip_text import BlipTextModel

    scorer = load_image_reward(
        image_reward, file="ImageReward.pt", tokenizer=image_reward, runtime=Runtime(batch=4)
    )
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


# --------------------------------------------------------------------------------------------------- MPS


@pytest.fixture(scope="module")
def mps(small_clip: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    from safetensors.torch import save_file
    from transformers import CLIPModel

    torch.manual_seed(0)
    network = MPSNetwork(CLIPModel.from_pretrained(small_clip), shaken(CrossModel(32, 2, 3, 40)))
    folder = tmp_path_factory.mktemp("mps")
    # As the port on the hub has it: one more name in front.
    save_file(
        {f"mps.{k}": v.contiguous() for k, v in network.state_dict().items()}, folder / "model.safetensors"
    )
    return folder


def mps_by_hand(
    folder: Path, clip: Path, image: Image.Image, prompt: str, threshold: float
) -> tuple[float, int]:
    """One picture, as the evaluation scripts go about it; heads and positions one by one."""
    from safetensors.torch import load_file
    from transformers import CLIPModel, CLIPTokenizer
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    model = CLIPModel.from_pretrained(clip)
    w = {k.removeprefix("mps.cross_model."): v for k, v in load_file(folder / "model.safetensors").items()}
    tokenizer = CLIPTokenizer.from_pretrained(clip)

    def texts(text: str) -> tuple[Tensor, Tensor]:
        ids = tokenizer(
            text, padding="max_length", truncation=True, max_length=24, return_tensors="pt"
        ).input_ids
        out = model.text_model(ids)
        return model.text_projection(out[0])[0], model.text_projection(out[1])[0]

    def norm(x: Tensor, name: str) -> Tensor:
        return (
            (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt() * w[name]
        )

    def gate(x: Tensor) -> Tensor:
        value, opening = x[:, :40], x[:, 40:]
        return opening / (1 + torch.exp(-opening)) * value

    def turned(x: Tensor) -> Tensor:
        place = torch.arange(len(x))[:, None] / 10000 ** (torch.arange(32) / 32)
        return torch.cat(
            [
                x[:, :32] * place.cos() - x[:, 32:] * place.sin(),
                x[:, 32:] * place.cos() + x[:, :32] * place.sin(),
            ],
            1,
        )

    with torch.no_grad():
        tokens, whole = texts(prompt)
        wanted, _ = texts(CONDITION)
        alike = (wanted @ tokens.T).max(dim=0).values
        mask = torch.where(alike / alike.max() > threshold, 0.0, -torch.inf)
        pixels = CLIPImageProcessorPil.from_pretrained(clip)(image, return_tensors="pt").pixel_values
        x = model.visual_projection(model.vision_model(pixels)[0])[0]
        for layer in range(2):
            stem = f"layers.{layer}.0.fn."
            y = norm(x, stem + "norm.weight")
            q = y @ w[stem + "to_q.weight"].T
            k, v = (tokens @ w[stem + "to_kv.weight"].T).split(64, 1)
            heads = [((q[:, h * 64 : h * 64 + 64] @ k.T) / 8 + mask).softmax(-1) @ v for h in range(3)]
            inner = gate(y @ w[stem + "ff.0.weight"].T) @ w[stem + "ff.2.weight"].T
            x = torch.cat(heads, 1) @ w[stem + "to_out.weight"].T + inner + x
            stem = f"layers.{layer}.1.fn."
            q, k, v, inner = (norm(x, stem + "norm.weight") @ w[stem + "fused_attn_ff_proj.weight"].T).split(
                (192, 64, 64, 80), 1
            )
            heads = [(turned(q[:, h * 64 : h * 64 + 64]) @ turned(k).T / 8).softmax(-1) @ v for h in range(3)]
            out = torch.cat(heads, 1) @ w[stem + "attn_out.weight"].T
            x = out + gate(inner) @ w[stem + "ff_out.1.weight"].T + x
        score = model.logit_scale.exp() * F.cosine_similarity(x[0], whole, dim=0)
    return float(score), int(mask.isinf().sum())


@pytest.mark.parametrize("threshold", [0.01, 0.3, 0.9])
def test_mps_is_the_evaluation_scripts_formula(
    mps: Path, small_clip: Path, images: Pictures, prompts: list[str], threshold: float
) -> None:
    scorer = load_mps(
        mps, file="model.safetensors", clip=small_clip, condition=CONDITION, threshold=threshold,
        runtime=Runtime(batch=4),
    )  # fmt: skip
    by_hand = [
        mps_by_hand(mps, small_clip, image, prompt, threshold)
        for image, prompt in zip(images, prompts, strict=True)
    ]
    expected = torch.tensor([score for score, _ in by_hand])
    assert float(expected.std()) > 0.05
    assert threshold < 0.9 or any(masked for _, masked in by_hand), "some words should be masked"
    torch.testing.assert_close(scorer(images, prompts), expected, rtol=1e-4, atol=1e-5)


# ----------------------------------------------------------------------------------------- laws of all


@pytest.fixture(scope="module")
def makers(
    hps: tuple[OpenClip, Path], aesthetic: Path, image_reward: Path, mps: Path, small_clip: Path
) -> dict[str, Callable[[int], Scorer]]:
    def runtime(batch: int) -> Runtime:
        return Runtime(batch=batch)

    return {
        "hps": lambda n: load_clip_scorer(
            hps[1], file="HPS.pt", processor=small_clip, pictures="whole", runtime=runtime(n)
        ),
        "clip-openai": lambda n: load_clip_scorer(small_clip, pictures="openai", runtime=runtime(n)),
        "aesthetic": lambda n: load_aesthetic_scorer(
            aesthetic, file="head.pth", clip=small_clip, runtime=runtime(n)
        ),
        "image-reward": lambda n: load_image_reward(
            image_reward, file="ImageReward.pt", tokenizer=image_reward, runtime=runtime(n)
        ),
        "mps": lambda n: load_mps(
            mps, file="model.safetensors", clip=small_clip, condition=CONDITION, threshold=0.3, runtime=runtime(n)
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", ["hps", "clip-openai", "aesthetic", "image-reward", "mps"])
def test_scores_depend_on_picture_and_prompt_alone(
    makers: dict[str, Callable[[int], Scorer]], name: str, images: Pictures, prompts: list[str]
) -> None:
    scorer, other = makers[name](3), makers[name](64)
    together = scorer(images, prompts)
    assert together.dtype == torch.float32 and together.shape == (6,) and not together.requires_grad
    assert together.device.type == "cpu" and scorer.key == other.key
    assert torch.equal(together, scorer(images, prompts))
    order = [5, 3, 0, 4, 1, 2]
    shuffled = other([images[i] for i in order], [prompts[i] for i in order])
    torch.testing.assert_close(shuffled, together[order], rtol=1e-5, atol=1e-5)
    alone = torch.cat([scorer([one], [text]) for one, text in zip(images, prompts, strict=True)])
    torch.testing.assert_close(alone, together, rtol=1e-5, atol=1e-5)
    assert torch.equal(scorer([np.asarray(images[1])], [prompts[1]]), scorer([images[1]], [prompts[1]]))
    assert scorer([], []).shape == (0,)
    with pytest.raises(ValueError, match="1 pictures for 2 prompts"):
        scorer(images[:1], prompts[:2])


def test_keys_differ_between_all_of_them(makers: dict[str, Callable[[int], Scorer]]) -> None:
    keys = [make(1).key for make in makers.values()]
    assert len({*keys}) == len(keys) and all(len(key) == 32 for key in keys)
