"""Pictures and prompts, against the genuine encoders; and the key that caches are filed under."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from smpo.families.loading import load_unet
from smpo.families.lora import Adapter
from smpo.families.pipelines import LoadOptions
from smpo.imaging import place
from smpo.kinds import Placement, Runtime

CENTRE = Placement()


def test_latents_are_the_vae_s_scaled(sd_folder: Path, pictures: list[Image.Image]) -> None:
    denoiser = load_unet(sd_folder, runtime=Runtime(batch=2))
    found = denoiser.encode_pictures(pictures, [CENTRE, Placement(flip=True), Placement(crop=(1.0, 0.0))])
    assert set(found) == {"mean", "std"}
    assert found["mean"].shape == found["std"].shape == (3, 4, 16, 16)
    assert not found["mean"].requires_grad and found["mean"].dtype == torch.float32
    vae = denoiser.stack.pipeline.vae
    pixels = place(pictures[1], 32, Placement(flip=True)).pixels[None]
    posterior = vae.encode(pixels).latent_dist
    torch.testing.assert_close(found["mean"][1:2], posterior.mean * vae.config.scaling_factor)
    torch.testing.assert_close(found["std"][1:2], posterior.std * vae.config.scaling_factor)


def test_sdxl_s_latents_have_configured_moments_and_are_undone(sdxl_folder: Path, pictures: list[Image.Image]) -> None:
    denoiser = load_unet(sdxl_folder, runtime=Runtime())
    found = denoiser.encode_pictures(pictures[:1], [CENTRE])
    vae = denoiser.stack.pipeline.vae
    raw = vae.encode(place(pictures[0], 32, CENTRE).pixels[None]).latent_dist.mean
    mean, std = (torch.tensor(vae.config[name]).reshape(1, 4, 1, 1) for name in ("latents_mean", "latents_std"))
    torch.testing.assert_close(found["mean"], (raw - mean) / std * vae.config.scaling_factor)
    again = denoiser.stack.pipeline.image_processor.postprocess(vae.decode(raw).sample, output_type="pt")
    bytes_again = torch.from_numpy(np.array(denoiser.stack.pictures(found["mean"])[0])).permute(2, 0, 1)
    assert (bytes_again - again[0] * 255).abs().max() < 0.6


def test_sdxl_is_told_how_images_were_cut(sdxl_folder: Path, pictures: list[Image.Image]) -> None:
    denoiser = load_unet(sdxl_folder, runtime=Runtime())
    found = denoiser.encode_pictures(
        [pictures[1], pictures[2], pictures[2]], [CENTRE, CENTRE, Placement(crop=(0.0, 0.5), flip=True)]
    )
    # 48 x 32 keeps its width, the window starts in row 8. 40 x 64 becomes 32 x 51: column 9.5, rounded.
    assert found["size_ids"].tolist() == [
        [48, 32, 8, 0, 32, 32],
        [40, 64, 0, 10, 32, 32],
        [40, 64, 0, 19, 32, 32],
    ]


def test_sdxl_can_be_told_what_the_official_code_tells_it(sdxl_folder: Path, pictures: list[Image.Image]) -> None:
    real = load_unet(sdxl_folder, runtime=Runtime())
    square = load_unet(sdxl_folder, runtime=Runtime(), reading=LoadOptions(sizes="square"))
    found = square.encode_pictures(pictures, [CENTRE, Placement(crop=(0.0, 0.5), flip=True), CENTRE])
    assert found["size_ids"].tolist() == [[32, 32, 0, 0, 32, 32]] * 3
    assert square.encoder_key != real.encoder_key, "the rows lie in the cache beside the latents"


@pytest.mark.parametrize("model", ["sd", "sdxl"])
def test_prompts_are_encoded_as_the_pipeline_does(request: pytest.FixtureRequest, model: str) -> None:
    denoiser = load_unet(request.getfixturevalue(f"{model}_folder"), runtime=Runtime(batch=2))
    prompts = ["a cat", "", "word " * 100]
    found = denoiser.encode_prompts(prompts)
    assert found["text"].shape == (3, 77, 32 if model == "sd" else 64)
    assert not found["text"].requires_grad
    for i, prompt in enumerate(prompts):
        genuine = denoiser.stack.pipeline.encode_prompt(
            prompt=prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
        )
        torch.testing.assert_close(found["text"][i : i + 1], genuine[0], rtol=1e-4, atol=1e-5)
        if model == "sdxl":
            torch.testing.assert_close(found["pooled"][i : i + 1], genuine[2], rtol=1e-4, atol=1e-5)


def test_a_tokenizer_without_a_length_gets_the_encoder_s(sd_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sd_folder, tmp_path / "copy")
    path = folder / "tokenizer" / "tokenizer_config.json"
    config = json.loads(path.read_text())
    del config["model_max_length"]
    path.write_text(json.dumps(config))
    denoiser = load_unet(folder, runtime=Runtime())
    assert denoiser.encode_prompts(["word " * 100])["text"].shape[1] == 77


def test_keys_follow_content_and_not_place(sd_folder: Path, v_folder: Path, tmp_path: Path) -> None:
    base = load_unet(sd_folder, runtime=Runtime())
    key = base.encoder_key
    moved = shutil.copytree(sd_folder, tmp_path / "elsewhere" / "name")
    copy = load_unet(moved, adapter=Adapter(rank=2), runtime=Runtime(precision="bf16", batch=3))
    assert (copy.encoder_key, copy.weights_key) == (key, base.weights_key)
    # Another UNet or schedule leaves latents and embeddings as they are, and makes other pictures.
    other = load_unet(v_folder, runtime=Runtime())
    assert other.encoder_key == key and other.weights_key != base.weights_key
    larger = load_unet(sd_folder, resolution=64, runtime=Runtime())
    assert larger.encoder_key != key and larger.weights_key != base.weights_key

    config = moved / "vae" / "config.json"
    told = json.loads(config.read_text())
    config.write_text(json.dumps({**told, "_name_or_path": "/somewhere", "_diffusers_version": "9.9"}))
    assert load_unet(moved, runtime=Runtime()).encoder_key == key
    config.write_text(json.dumps({**told, "scaling_factor": 0.5}))
    assert load_unet(moved, runtime=Runtime()).encoder_key != key
    config.write_text(json.dumps(told))

    from safetensors.torch import load_file, save_file

    weights = moved / "text_encoder" / "model.safetensors"
    tensors = load_file(weights)
    name = next(iter(tensors))
    tensors[name].view(-1)[0] += 1e-3
    save_file(tensors, weights, metadata={"format": "pt"})
    assert load_unet(moved, runtime=Runtime()).encoder_key != key
