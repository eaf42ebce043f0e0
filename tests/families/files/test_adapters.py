"""A LoRA file is applied as a whole, at its own scale, or refused; the base is never judged in its place."""

import json

import pytest
import torch
from diffusers import StableDiffusionPipeline, StableDiffusionXLPipeline
from peft import get_peft_model_state_dict
from safetensors.torch import load_file, save_file

from smpo.errors import RunError
from smpo.families.files.adapters import adapter_file, load_adapter
from smpo.families.lora import Adapter, attach, save_adapter

ADAPTER = Adapter(rank=2, alpha=6.0)


def opened(folder):
    kind = StableDiffusionXLPipeline if (folder / "text_encoder_2").exists() else StableDiffusionPipeline
    return kind.from_pretrained(folder)


def prediction(pipeline):
    unet = pipeline.unet.eval()
    draw = torch.Generator().manual_seed(0)
    latents = torch.randn(1, 4, 16, 16, generator=draw)
    text = torch.randn(1, 77, unet.config.cross_attention_dim, generator=draw)
    added = {}
    if unet.config.addition_embed_type == "text_time":
        width = unet.config.projection_class_embeddings_input_dim - 6 * unet.config.addition_time_embed_dim
        added = {"text_embeds": torch.randn(1, width, generator=draw), "time_ids": torch.ones(1, 6)}
    with torch.no_grad():
        return unet(latents, 500, text, added_cond_kwargs=added).sample


@pytest.fixture(scope="module", params=["sd_folder", "sdxl_folder"])
def trained(request, tmp_path_factory):
    """The base's folder, the adapter in every layout, and what the adapted network predicts."""
    base, folder = request.getfixturevalue(request.param), tmp_path_factory.mktemp("adapter")
    pipeline = opened(base)
    attach(pipeline.unet, ADAPTER)
    draw = torch.Generator().manual_seed(1)
    for name, value in pipeline.unet.named_parameters():
        if "lora_B" in name:
            value.data = torch.randn(value.shape, generator=draw)
    save_adapter(pipeline, pipeline.unet, folder, side=32)
    peft = folder / "peft"
    peft.mkdir()
    state = get_peft_model_state_dict(pipeline.unet)
    save_file({f"base_model.model.{name}": value for name, value in state.items()}, peft / "adapter_model.safetensors")
    (peft / "adapter_config.json").write_text(json.dumps({"r": ADAPTER.rank, "lora_alpha": ADAPTER.alpha}))
    files = {
        "diffusers": folder / "pytorch_lora_weights.safetensors",
        "kohya": folder / "kohya" / "lora.safetensors",
        "peft": peft / "adapter_model.safetensors",
    }
    return base, files, prediction(pipeline)


@pytest.mark.parametrize("layout", ["diffusers", "kohya", "peft"])
def test_every_layout_gives_the_trained_network(trained, layout):
    base, files, expected = trained
    pipeline = opened(base)
    before = prediction(pipeline)
    load_adapter(pipeline, files[layout])
    loaded = prediction(pipeline)
    assert (expected - before).abs().max() > 0.1
    # The scale 3 is multiplied into the weights or into the product: a few roundings of float32.
    torch.testing.assert_close(loaded, expected, rtol=1e-4, atol=1e-4)


DAMAGES = {
    "another architecture": lambda name, value: (name.replace("unet.", "transformer."), value),
    "layers that do not exist": lambda name, value: (name.replace("mid_block", "mid_block_7"), value),
    "not a number": lambda name, value: (name, value * float("nan") if "lora_B" in name else value),
    "one half of each pair": lambda name, value: (name, None if "lora_B" in name and "mid" in name else value),
    "another width": lambda name, value: (name, value[:, :-1].contiguous() if "lora_A" in name else value),
    "names of nothing": lambda name, value: (f"lora_style.{name}", value),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_what_fits_only_in_part_is_refused(trained, damage, tmp_path):
    base, files, _ = trained
    renamed = [DAMAGES[damage](name, value) for name, value in load_file(files["diffusers"]).items()]
    save_file({name: value for name, value in renamed if value is not None}, tmp_path / "lora.safetensors")
    with pytest.raises(RunError, match=r"fit the spec's model|not finite") as caught:
        load_adapter(opened(base), tmp_path / "lora.safetensors")
    assert str(tmp_path / "lora.safetensors") in caught.value.message and caught.value.help


def test_a_layer_that_is_missing_is_named(trained, tmp_path):
    base, files, _ = trained
    tensors = {name.replace("mid_block", "mid_block_7"): v for name, v in load_file(files["diffusers"]).items()}
    save_file(tensors, tmp_path / "lora.safetensors")
    with pytest.raises(RunError, match=r"`unet\.mid_block_7\..*` fits none"):
        load_adapter(opened(base), tmp_path / "lora.safetensors")


def test_dora_of_kohya_is_applied_or_refused(trained, tmp_path):
    base, files, _ = trained
    tensors = load_file(files["kohya"])
    for name in [name for name in tensors if name.endswith("lora_up.weight")]:
        tensors[name.replace("lora_up.weight", "dora_scale")] = torch.ones(tensors[name].shape[0], 1)
    save_file(tensors, tmp_path / "lora.safetensors")
    pipeline = opened(base)
    try:
        load_adapter(pipeline, tmp_path / "lora.safetensors")
    except RunError:
        return
    assert any("magnitude" in name for name, _ in pipeline.unet.named_parameters())


@pytest.mark.parametrize(
    "config", [None, "{}", '{"r": 2}', "no json", '{"r": 2, "lora_alpha": 2, "alpha_pattern": {"a": 1}}']
)
def test_peft_without_a_scale_is_refused(trained, config, tmp_path):
    base, files, _ = trained
    (tmp_path / "adapter_model.safetensors").write_bytes(files["peft"].read_bytes())
    if config is not None:
        (tmp_path / "adapter_config.json").write_text(config)
    with pytest.raises(RunError, match=r"adapter_config\.json"):
        load_adapter(opened(base), tmp_path / "adapter_model.safetensors")


def test_a_damaged_file_is_refused(trained, tmp_path):
    (tmp_path / "lora.safetensors").write_bytes(trained[1]["kohya"].read_bytes()[:-100])
    with pytest.raises(RunError, match="can't be read"):
        load_adapter(opened(trained[0]), tmp_path / "lora.safetensors")


def test_the_file_in_a_folder(trained, tmp_path):
    _, files, _ = trained
    assert adapter_file(files["diffusers"].parent) == files["diffusers"]
    assert adapter_file(files["peft"].parent) == files["peft"]
    assert adapter_file(tmp_path) is None
    (tmp_path / "my_lora.safetensors").write_bytes(files["kohya"].read_bytes())
    assert adapter_file(tmp_path) == tmp_path / "my_lora.safetensors"
    (tmp_path / "other.safetensors").write_bytes(files["kohya"].read_bytes())
    with pytest.raises(RunError, match="holds 2 LoRAs"):
        adapter_file(tmp_path)
    assert adapter_file(trained[0]) is None, "a model's folder"
