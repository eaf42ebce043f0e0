"""Finding a model: folders, hub ids, variants; and what is said when it isn't there."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import ClassVar

import pytest
import torch

from smpo.errors import MachineError, RunError
from smpo.families.loading import Extras, load_unet
from smpo.families.pipelines import LoadOptions
from smpo.kinds import Runtime


def test_v_prediction_comes_from_the_scheduler(v_folder: Path) -> None:
    denoiser = load_unet(v_folder, runtime=Runtime())
    schedule = denoiser.schedule
    assert schedule.prediction == "v_prediction"
    assert float(schedule.alphas_cumprod[-1]) == 0.0  # rescale_betas_zero_snr
    x = torch.randn(2, *denoiser.latent_shape)
    t = torch.tensor([10, 999])
    v = torch.randn_like(x)
    assert torch.isfinite(schedule.epsilon(v, x, t)).all()


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(MachineError) as caught:
        load_unet(tmp_path / "nowhere", runtime=Runtime())
    assert caught.value.message == f"there is no folder {tmp_path / 'nowhere'} with the model"
    assert "owner/name" in (caught.value.help or "")


def test_a_hub_id_without_a_network_says_how_to_get_it() -> None:
    with pytest.raises(MachineError) as caught:
        load_unet("somebody/some-model", revision="v1", runtime=Runtime())
    assert caught.value.message.startswith("the model `somebody/some-model` at revision v1 is not on this machine")
    command = (
        "`hf download somebody/some-model --revision v1 --include '*.json' --include '*.txt' "
        "--include '*/model.safetensors' --include '*/diffusion_pytorch_model.safetensors'`"
    )
    assert command in (caught.value.help or "")
    assert "folder" in (caught.value.help or "")


@pytest.mark.parametrize(
    ("refusal", "message", "advice"),
    [
        (
            "GatedRepoError",
            "is gated: the hub gives it to those",
            "accept them at https://huggingface.co/a/b, then `hf auth",
        ),
        ("RepositoryNotFoundError", "is not on the hub, or is private", "is the name misspelt?"),
        ("RevisionNotFoundError", "has no revision v1", "https://huggingface.co/a/b/commits/main"),
    ],
)
def test_what_the_hub_refuses_is_told_in_words(
    refusal: str, message: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub
    from huggingface_hub import errors

    def refuse(*_: object, **__: object) -> None:
        raise getattr(errors, refusal)("403 Client Error. (Request ID: Root=1)", response=Response())

    class Response:
        headers: ClassVar[dict[str, str]] = {}
        request = None

    monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
    with pytest.raises(MachineError) as caught:
        load_unet("a/b", revision="v1", runtime=Runtime())
    assert message in caught.value.message and "Request ID" not in caught.value.message
    assert advice in (caught.value.help or "")


def test_a_hub_id_is_found_in_the_cache(sd_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    repo = tmp_path / "models--somebody--some-model"
    commit = "0" * 40
    shutil.copytree(sd_folder, repo / "snapshots" / commit)
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    found = load_unet("somebody/some-model", runtime=Runtime())
    assert found.encoder_key == load_unet(sd_folder, runtime=Runtime()).encoder_key
    assert found.origin == {"model": commit}, "whoever names no revision still learns which one it was"
    assert "'somebody/some-model'" in found.opening.lines[0]


def test_missing_and_broken_pieces_are_named(sd_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sd_folder, tmp_path / "copy")
    weights = folder / "unet" / "diffusion_pytorch_model.safetensors"
    weights.rename(folder / "unet" / "diffusion_pytorch_model.bin")  # a pickle, for all we know
    with pytest.raises(MachineError, match=r"the unet in .*unet can't be read") as caught:
        load_unet(folder, runtime=Runtime())
    assert "safetensors" in (caught.value.help or "")

    index = folder / "model_index.json"
    told = json.loads(index.read_text())
    index.write_text(json.dumps({**told, "_class_name": "StableDiffusion3Pipeline"}))
    with pytest.raises(RunError, match="StableDiffusion3Pipeline is not a pipeline that smpo can train"):
        load_unet(folder, runtime=Runtime())
    index.unlink()
    with pytest.raises(RunError, match=r"without model_index\.json"):
        load_unet(folder, runtime=Runtime())


def test_a_tokenizer_without_words_is_refused(sd_folder: Path, tmp_path: Path) -> None:
    """transformers makes an empty one of such a folder, and every prompt becomes the same."""
    folder = shutil.copytree(sd_folder, tmp_path / "copy")
    words = folder / "tokenizer" / "tokenizer.json"
    told = json.loads(words.read_text())
    told["added_tokens"].append({**told["added_tokens"][0], "id": 514, "content": "<one-more>"})
    words.write_text(json.dumps(told))
    with pytest.raises(MachineError, match=r"tokens up to \d+, and the text encoder knows \d+") as caught:
        load_unet(folder, runtime=Runtime())
    assert "came with the weights" in (caught.value.help or "")
    words.unlink()
    with pytest.raises(MachineError, match=r"the tokenizer in .*tokenizer knows no words") as caught:
        load_unet(folder, runtime=Runtime())
    assert "vocab.json and merges.txt" in (caught.value.help or "")


def test_variants_are_taken_where_they_exist(sd_folder: Path, tmp_path: Path) -> None:
    from diffusers import UNet2DConditionModel

    folder = shutil.copytree(sd_folder, tmp_path / "copy")
    half = UNet2DConditionModel.from_pretrained(folder / "unet", dtype=torch.float16)
    half.save_pretrained(folder / "unet", variant="fp16")
    plain, stored = load_unet(folder, runtime=Runtime()), load_unet(folder, variant="fp16", runtime=Runtime())
    ours, theirs = stored.network.state_dict(), plain.network.state_dict()
    assert all(value.dtype == torch.float32 for value in ours.values())
    assert all(torch.equal(value, theirs[name].half().float()) for name, value in ours.items())
    assert any(not torch.equal(value, theirs[name]) for name, value in ours.items())
    assert plain.encoder_key == stored.encoder_key  # of the VAE there is one variant only
    assert plain.weights_key != stored.weights_key
    with pytest.raises(MachineError, match="holds no bf16 weights"):
        load_unet(folder, variant="bf16", runtime=Runtime())


def test_what_a_scheduler_does_not_say_can_be_told(sd_folder: Path, tmp_path: Path) -> None:
    plain = load_unet(sd_folder, runtime=Runtime())
    reading = LoadOptions(prediction="v_prediction", zero_terminal_snr=True, compare="output")
    told = load_unet(sd_folder, runtime=Runtime(), reading=reading)
    assert told.schedule.prediction == "v_prediction" and float(told.schedule.alphas_cumprod[-1]) == 0
    assert (plain.schedule.compare, told.schedule.compare) == ("epsilon", "output")
    assert told.encoder_key == plain.encoder_key and told.weights_key != plain.weights_key
    told.save(tmp_path / "saved")
    again = load_unet(tmp_path / "saved", runtime=Runtime())
    assert torch.equal(again.schedule.alphas_cumprod, told.schedule.alphas_cumprod), "strangers sample it right"
    assert again.stack.pipeline.scheduler.config.timestep_spacing == "trailing"


def test_schedulers_that_know_no_zero_snr_become_ddim(sd_folder: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(sd_folder, tmp_path / "copy")
    from diffusers import DDIMScheduler, PNDMScheduler

    DDIMScheduler.from_pretrained(folder / "scheduler")
    PNDMScheduler.from_pretrained(folder / "scheduler", skip_prk_steps=True).save_pretrained(folder / "scheduler")
    index = json.loads((folder / "model_index.json").read_text())
    index["scheduler"] = ["diffusers", "PNDMScheduler"]
    (folder / "model_index.json").write_text(json.dumps(index))
    told = load_unet(folder, runtime=Runtime(), reading=LoadOptions(prediction="v_prediction", zero_terminal_snr=True))
    scheduler = told.stack.pipeline.scheduler
    assert type(scheduler) is DDIMScheduler and scheduler.config.clip_sample is False
    assert float(scheduler.alphas_cumprod[-1]) < 1e-6 and float(told.schedule.alphas_cumprod[-1]) == 0
    told.save(tmp_path / "saved")
    assert json.loads((tmp_path / "saved" / "model_index.json").read_text())["scheduler"][1] == "DDIMScheduler"


def test_another_autoencoder_takes_the_place_of_the_folder_s(sd_folder: Path, tmp_path: Path) -> None:
    from diffusers import AutoencoderKL

    other = AutoencoderKL.from_pretrained(sd_folder / "vae")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.01)
    other.register_to_config(scaling_factor=0.5)
    other.save_pretrained(tmp_path / "vae")
    plain = load_unet(sd_folder, runtime=Runtime())
    found = [
        load_unet(sd_folder, runtime=Runtime(), extras=Extras(vae=str(place))) for place in (tmp_path / "vae", tmp_path)
    ]
    assert {one.stack.latent_scale().factor for one in found} == {0.5}
    assert found[0].encoder_key == found[1].encoder_key != plain.encoder_key
    found[0].save(tmp_path / "saved")
    saved = AutoencoderKL.from_pretrained(tmp_path / "saved" / "vae")
    assert saved.config.scaling_factor == 0.5, "what was trained with it is saved with it"
    with pytest.raises(RunError, match="holds no AutoencoderKL"):
        load_unet(sd_folder, runtime=Runtime(), extras=Extras(vae=str(sd_folder / "unet")))
