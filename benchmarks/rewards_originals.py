"""What the published packages give on small random weights: run by `rewards.py`, under the packages' own Python.

    python rewards_originals.py FOLDER NAME [MPS'S REPOSITORY]

Knows nothing of smpo. Networks are the packages' own classes with their own preprocessing and tokenizers, made small:
random weights of the published layouts are written to FOLDER, nine pictures and prompts are scored one by one, and
FOLDER/NAME.json receives the scores and the versions.

The packages need two throw-away environments, made like this (Python 3.11):

    python -m venv A && A/bin/pip install torch torchvision hpsv2==1.2.0 openai-clip==1.0.1
    cp A/lib/python3.11/site-packages/{clip,hpsv2/src/open_clip}/bpe_simple_vocab_16e6.txt.gz  # hpsv2's wheel lacks it

    python -m venv B && B/bin/pip install "setuptools<81" wheel torch torchvision
    B/bin/pip install --no-build-isolation openai-clip==1.0.1 fairscale    # built, and imported, with pkg_resources
    B/bin/pip install transformers==4.44.2 einops
    B/bin/pip install --no-deps image-reward==1.5 timm==0.9.16    # it requires timm 0.6.13

    git clone https://github.com/Kwai-Kolors/MPS REPOSITORY

torchvision must be built for the torch beside it, best from the same index (both for CPUs, or both for one CUDA). Where
only another build is at hand, `import torchvision` ends with `operator torchvision::nms does not exist`. The packages
use its transforms alone, which are plain Python: a module that declares the names of the compiled operators, imported
early by a `.pth` file in site-packages, is then enough. The committed results were reproduced to the last digit so:

    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms", "roi_align", "_roi_align_backward", "roi_pool", ...):  # those that it requires
        operators.define(f"{name}(Tensor x) -> Tensor")
"""

from __future__ import annotations

import json
import sys
import types
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

WIDTH, SPACE, LAYERS, PATCH = 128, 64, 2, 32


def shaken(module: nn.Module, by: float = 0.1, *, half: bool = False) -> nn.Module:
    """Away from initial weights, which see hardly any difference. `half`: values that float16 can hold."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(by * torch.randn_like(parameter))
            if half:
                parameter.copy_(parameter.half().float())
    return module.eval()


# --------------------------------------------------------------------------------------- what others are made of


def make(folder: Path) -> dict[str, Any]:
    """CLIPs in transformers' layout with the true vocabulary: `gelu` as laion's, `quick` as OpenAI's."""
    import gzip

    from clip.simple_tokenizer import bytes_to_unicode, default_bpe

    merges = gzip.decompress(Path(default_bpe()).read_bytes()).decode().split("\n")[1 : 49152 - 256 - 2 + 1]
    return make_clips(folder, list(bytes_to_unicode().values()), merges)


def make_quick(folder: Path) -> dict[str, Any]:
    """The same with a vocabulary of letters alone, for which OpenAI's package isn't needed."""
    from tokenizers.pre_tokenizers import ByteLevel

    return make_clips(folder, sorted(ByteLevel.alphabet()), [])


def make_clips(folder: Path, letters: list[str], merges: list[str]) -> dict[str, Any]:
    from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTokenizer

    words = [*letters, *(f"{x}</w>" for x in letters), *("".join(pair.split()) for pair in merges)]
    words += ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({word: i for i, word in enumerate(words)}))
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    tokenizer = CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=77)
    for name, activation in (("gelu", "gelu"), ("quick", "quick_gelu")):
        torch.manual_seed(0)
        tower = {
            "hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_hidden_layers": LAYERS,
            "num_attention_heads": WIDTH // 64, "hidden_act": activation,
        }  # fmt: skip
        ends = {"bos_token_id": len(words) - 2, "eos_token_id": len(words) - 1}
        config = CLIPConfig(
            text_config={**tower, **ends, "vocab_size": len(words)},
            vision_config={**tower, "image_size": 224, "patch_size": PATCH},
            projection_dim=SPACE,
        )
        model = shaken(CLIPModel(config), half=True)
        with torch.no_grad():
            model.logit_scale.fill_(4.6052)
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
        CLIPImageProcessor().save_pretrained(folder / name)
    return {}


def as_open_clip(folder: Path) -> dict[str, torch.Tensor]:
    """A CLIP of transformers' layout in that of open_clip and OpenAI's package."""
    from transformers import CLIPModel

    state = CLIPModel.from_pretrained(folder).state_dict()
    found = {
        "logit_scale": state["logit_scale"],
        "text_projection": state["text_projection.weight"].T,
        "token_embedding.weight": state["text_model.embeddings.token_embedding.weight"],
        "positional_embedding": state["text_model.embeddings.position_embedding.weight"],
        "visual.proj": state["visual_projection.weight"].T,
        "visual.class_embedding": state["vision_model.embeddings.class_embedding"],
        "visual.positional_embedding": state["vision_model.embeddings.position_embedding.weight"],
        "visual.conv1.weight": state["vision_model.embeddings.patch_embedding.weight"],
    }
    for kind in ("weight", "bias"):
        found[f"ln_final.{kind}"] = state[f"text_model.final_layer_norm.{kind}"]
        found[f"visual.ln_pre.{kind}"] = state[f"vision_model.pre_layrnorm.{kind}"]
        found[f"visual.ln_post.{kind}"] = state[f"vision_model.post_layernorm.{kind}"]
        for old, new in (("text_model", ""), ("vision_model", "visual.")):
            for layer in range(LAYERS):
                here, there = f"{old}.encoder.layers.{layer}", f"{new}transformer.resblocks.{layer}"
                packed = [state[f"{here}.self_attn.{letter}_proj.{kind}"] for letter in "qkv"]
                found[f"{there}.attn.in_proj_{kind}"] = torch.cat(packed)
                found[f"{there}.attn.out_proj.{kind}"] = state[f"{here}.self_attn.out_proj.{kind}"]
                found[f"{there}.ln_1.{kind}"] = state[f"{here}.layer_norm1.{kind}"]
                found[f"{there}.ln_2.{kind}"] = state[f"{here}.layer_norm2.{kind}"]
                found[f"{there}.mlp.c_fc.{kind}"] = state[f"{here}.mlp.fc1.{kind}"]
                found[f"{there}.mlp.c_proj.{kind}"] = state[f"{here}.mlp.fc2.{kind}"]
    return {name: value.contiguous() for name, value in found.items()}


def questions(folder: Path) -> list[tuple[Path, str]]:
    prompts = json.loads((folder / "prompts.json").read_text())
    return list(zip(sorted((folder / "pictures").glob("*.png")), prompts, strict=True))


# ------------------------------------------------------------------------------------------------- the packages


def pickscore(folder: Path) -> list[float]:
    """As on PickScore's model page, with transformers' own classes."""
    from transformers import AutoModel, AutoProcessor

    processor = AutoProcessor.from_pretrained(folder / "gelu")
    model = AutoModel.from_pretrained(folder / "gelu")
    scores = []
    for file, prompt in questions(folder):
        settings = {"padding": True, "truncation": True, "max_length": 77, "return_tensors": "pt"}
        image = model.get_image_features(**processor(images=[Image.open(file)], **settings))
        text = model.get_text_features(**processor(text=prompt, **settings))
        # Since transformers 5 features come with the rest of the tower's output.
        image, text = (getattr(one, "pooler_output", one) for one in (image, text))
        image, text = image / image.norm(dim=-1, keepdim=True), text / text.norm(dim=-1, keepdim=True)
        scores.append(float(model.logit_scale.exp() * (text @ image.T)[0, 0]))
    return scores


def hps_network() -> tuple[nn.Module, Any]:
    """HPSv2's fork of open_clip, its own preprocessing included."""
    from hpsv2.src.open_clip import create_model_and_transforms, factory

    factory._MODEL_CONFIGS["small"] = {
        "embed_dim": SPACE,
        "vision_cfg": {"image_size": 224, "layers": LAYERS, "width": WIDTH, "patch_size": PATCH, "head_width": 64},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": WIDTH, "heads": WIDTH // 64, "layers": LAYERS},
    }  # fmt: skip
    torch.manual_seed(0)
    network, _, preprocess = create_model_and_transforms(
        "small", light_augmentation=True, aug_cfg={}, output_dict=True, with_score_predictor=False,
        with_region_predictor=False,
    )  # fmt: skip
    return network, preprocess


def hps_scores(folder: Path, weights: Path) -> list[float]:
    """Through the package's own `score`, which reads the checkpoint anew for each picture."""
    from hpsv2 import img_score

    img_score.model_dict["model"], img_score.model_dict["preprocess_val"] = hps_network()
    given = {"cp": str(weights)}
    return [float(img_score.score(str(file), prompt, **given)[0]) for file, prompt in questions(folder)]


def hpsv2(folder: Path) -> list[float]:
    network = shaken(hps_network()[0])
    (folder / "hps").mkdir(exist_ok=True)
    torch.save({"state_dict": network.state_dict()}, folder / "hps" / "HPS.pt")
    return hps_scores(folder, folder / "hps" / "HPS.pt")


def hpsv2_rough(folder: Path) -> list[float]:
    """As before torchvision 0.17, whose resizing of tensors didn't antialias."""
    from hpsv2.src.open_clip import transform

    resize = transform.F.resize
    transform.F.resize = lambda *args, **settings: resize(*args, **{**settings, "antialias": False})
    return hps_scores(folder, folder / "hps" / "HPS.pt")


def clip_score_h14(folder: Path) -> list[float]:
    """As Diffusion-DPO's repository computes it: a CLIP through HPS's fork of open_clip."""
    torch.save({"state_dict": as_open_clip(folder / "gelu")}, folder / "h14.pt")
    return hps_scores(folder, folder / "h14.pt")


def openai(folder: Path) -> None:
    """`clip.load` gives a small network instead of downloading the large one."""
    import clip
    from clip.model import build_model

    network = build_model(as_open_clip(folder / "quick"))
    clip.load = lambda *_, **__: (network, clip.clip._transform(224))


def clip_score_l14(folder: Path) -> list[float]:
    without_trainer()
    openai(folder)
    from ImageReward.models.CLIPScore import CLIPScore

    judge = CLIPScore(None)
    return [judge.score(prompt, str(file)) for file, prompt in questions(folder)]


def aesthetic(folder: Path) -> list[float]:
    without_trainer()
    openai(folder)
    from ImageReward.models.AestheticScore import MLP, AestheticScore

    judge = AestheticScore(None)
    torch.manual_seed(0)
    judge.mlp = shaken(MLP(SPACE), 0.05)
    torch.save(judge.mlp.state_dict(), folder / "head.pth")
    return [judge.score(prompt, str(file)) for file, prompt in questions(folder)]


def image_reward(folder: Path) -> list[float]:
    without_trainer()
    import transformers
    from ImageReward.ImageReward import MLP, ImageReward
    from ImageReward.models.BLIP import blip_pretrain
    from ImageReward.models.BLIP.vit import VisionTransformer

    here = folder / "image-reward"
    here.mkdir(exist_ok=True)
    letters = "abcdefghijklmnopqrstuvwxyz0123456789"
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{x}" for x in letters), "cat", "&"]
    (here / "vocab.txt").write_text("\n".join(words) + "\n")

    def tokenizer() -> Any:
        found = transformers.BertTokenizer.from_pretrained(here)
        found.add_special_tokens({"bos_token": "[DEC]"})
        found.add_special_tokens({"additional_special_tokens": ["[ENC]"]})
        return found

    def vision(*_: Any) -> tuple[nn.Module, int]:
        sizes = {"img_size": 224, "patch_size": PATCH, "embed_dim": WIDTH, "depth": LAYERS, "num_heads": 2}
        return VisionTransformer(**sizes), WIDTH

    blip_pretrain.init_tokenizer, blip_pretrain.create_vit = tokenizer, vision
    config = {
        "architectures": ["BertModel"], "attention_probs_dropout_prob": 0.1, "hidden_act": "gelu",
        "hidden_dropout_prob": 0.1, "hidden_size": SPACE, "initializer_range": 0.02, "intermediate_size": 4 * SPACE,
        "layer_norm_eps": 1e-12, "max_position_embeddings": 64, "model_type": "bert", "num_attention_heads": 4,
        "num_hidden_layers": LAYERS, "pad_token_id": 0, "type_vocab_size": 2, "vocab_size": len(words) + 2,
        "encoder_width": WIDTH, "add_cross_attention": True,
    }  # fmt: skip
    (here / "med_config.json").write_text(json.dumps(config))
    torch.manual_seed(0)
    judge = ImageReward(str(here / "med_config.json"))
    judge.mlp = MLP(SPACE)
    shaken(judge)
    torch.save(judge.state_dict(), here / "ImageReward.pt")
    return [judge.score(prompt, Image.open(file)) for file, prompt in questions(folder)]


def without_trainer() -> None:
    """ImageReward's trainer brings a diffusers of its time; scoring needs none of it."""
    sys.modules["ImageReward.ReFL"] = types.ModuleType("ImageReward.ReFL")
    sys.modules["ImageReward.ReFL"].__all__ = []


def mps(folder: Path) -> list[float]:
    """As the repository's evaluation script goes about it, in float32: it halves pictures and masks, for a GPU."""
    from safetensors.torch import save_file
    from torch.nn import functional as F
    from trainer.models.clip_model import XCLIPModel
    from trainer.models.cross_modeling import Cross_model
    from transformers import AutoTokenizer, CLIPImageProcessor

    clip = XCLIPModel.from_pretrained(folder / "gelu").eval()
    torch.manual_seed(0)
    cross = shaken(Cross_model(dim=SPACE, layer_num=4, heads=3), 0.05)
    named = {"model": clip, "cross_model": cross}
    state = {f"{name}.{k}": v for name, part in named.items() for k, v in part.state_dict().items()}
    (folder / "mps").mkdir(exist_ok=True)
    state = {name: v.clone().contiguous() for name, v in state.items()}
    save_file(state, folder / "mps" / "model.safetensors")
    tokenizer = AutoTokenizer.from_pretrained(folder / "gelu")
    processor = CLIPImageProcessor.from_pretrained(folder / "gelu")
    condition = (folder / "condition.txt").read_text()
    padded = {"max_length": 77, "padding": "max_length", "truncation": True, "return_tensors": "pt"}

    def ids(text: str) -> torch.Tensor:
        return tokenizer(text, **padded).input_ids

    scores = []
    for file, prompt in questions(folder):
        words, whole = clip.get_text_features(ids(prompt))
        wanted, _ = clip.get_text_features(ids(condition))
        picture = processor(Image.open(file).convert("RGB"), return_tensors="pt")
        image = clip.get_image_features(picture.pixel_values)
        alike = torch.einsum("bid,bjd->bji", words, wanted).max(dim=1, keepdim=True)[0]
        mask = torch.where(alike / alike.max() > 0.3, 0.0, -torch.inf).repeat(1, image.shape[1], 1)
        seen = F.normalize(cross(image, words, mask)[:, 0], dim=-1)
        scores.append(float(clip.logit_scale.exp() * (F.normalize(whole, dim=-1) @ seen.T)[0, 0]))
    return scores


PACKAGES = ("torch", "torchvision", "transformers", "timm", "hpsv2", "image-reward", "openai-clip", "pillow")


def main() -> None:
    sys.path[:0] = sys.argv[3:]
    answer(Path(sys.argv[1]), sys.argv[2])


def answer(folder: Path, name: str) -> None:
    """Writes FOLDER/NAME.json: what the function of this name returns, and the versions."""
    torch.set_num_threads(1)
    with torch.no_grad():
        found = globals()[name.replace("-", "_")](folder)
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    (folder / f"{name}.json").write_text(json.dumps({"scores": found, "versions": versions}))


if __name__ == "__main__":
    main()
