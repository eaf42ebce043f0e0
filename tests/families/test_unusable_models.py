"""Models that can't be trained or drawn from are refused before training, in the words of their configuration."""

import json
import shutil

import pytest
import torch

from smpo.api import Runtime
from smpo.components.models import StableDiffusion
from smpo.errors import RunError
from smpo.weights import stored_variant


@pytest.fixture
def model(sd_folder, tmp_path):
    """A copy of the tiny pipeline, whose JSON files a test may change."""
    shutil.copytree(sd_folder, tmp_path / "copy")

    def changed(part, **values):
        (file,) = (tmp_path / "copy" / part).glob("*config.json")
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}))
        if name := values.get("_class_name"):
            index = tmp_path / "copy" / "model_index.json"
            index.write_text(json.dumps({**json.loads(index.read_text()), "scheduler": ["diffusers", name]}))
        return tmp_path / "copy"

    return changed


def spec(folder, **settings):
    return StableDiffusion(use="stable-diffusion", weights=str(folder), **settings)


def cpu():
    return Runtime(device="cpu", precision="fp32", batch=2)


UNUSABLE = {
    "EDM": ({"_class_name": "EDMEulerScheduler"}, "no table of"),
    "EDM, DPM-Solver": ({"_class_name": "EDMDPMSolverMultistepScheduler"}, "no table of"),
    "flow matching": ({"_class_name": "FlowMatchEulerDiscreteScheduler"}, "no table of"),
    "flow sigmas": ({"_class_name": "UniPCMultistepScheduler", "use_flow_sigmas": True}, "flow matching"),
    "zero terminal SNR of noise": ({"rescale_betas_zero_snr": True}, "velocities"),
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_a_schedule_that_is_not_known_is_found_by_plan_and_by_loading(model, name):
    config, words = UNUSABLE[name]
    folder = model("scheduler", **config)
    assert words in (spec(folder).check() or "")
    with pytest.raises(RunError, match=words):
        spec(folder).load(cpu())


@pytest.mark.parametrize(
    "name", ["DDPMScheduler", "EulerDiscreteScheduler", "DPMSolverMultistepScheduler", "TCDScheduler"]
)
def test_schedulers_that_share_the_table_are_accepted(model, name):
    assert spec(model("scheduler", _class_name=name)).check() is None


def test_a_scheduler_that_diffusers_lacks(model):
    assert "no table of" in (spec(model("scheduler", _class_name="NextYearScheduler")).check() or "")


def test_zero_terminal_snr_is_for_velocities(model):
    folder = model("scheduler")
    assert "velocities" in (spec(folder, zero_terminal_snr=True).check() or "")
    assert spec(folder, zero_terminal_snr=True, prediction="v_prediction").check() is None


@pytest.mark.parametrize("size", [None, [16, 16]])
def test_the_size_of_the_training_is_written_into_its_adapter(model, size, tmp_path):
    from safetensors import safe_open

    folder = model("unet", sample_size=size)
    chosen = spec(folder, resolution=64, lora={"rank": 2})
    assert chosen.check() is None and chosen.facts().resolution == 64
    chosen.load(cpu()).save(tmp_path / "out")
    with safe_open(tmp_path / "out" / "kohya" / "lora.safetensors", "pt") as file:
        assert file.metadata()["modelspec.resolution"] == "64x64"


def test_a_network_of_no_size_needs_a_resolution(model):
    folder = model("unet", sample_size=None)
    assert "model.resolution" in (spec(folder).check() or "")
    with pytest.raises(RunError, match="states no size"):
        spec(folder).load(cpu())
    assert spec(model("unet", sample_size=[16, 16])).check() is None


def test_a_folder_of_one_variant_only(model):
    from diffusers import StableDiffusionPipeline

    folder = model("unet")
    pipeline = StableDiffusionPipeline.from_pretrained(folder)
    shutil.rmtree(folder)
    pipeline.save_pretrained(folder, variant="fp16")
    assert "`model.variant: fp16`" in (spec(folder).check() or "") and stored_variant(folder / "unet") == "fp16"
    assert spec(folder, variant="fp16").check() is None
    spec(folder, variant="fp16").load(cpu())


def test_pictures_that_are_not_finite_are_not_judged(sd_folder):
    denoiser = spec(sd_folder).load(cpu())
    with torch.no_grad():
        next(iter(denoiser.network.parameters())).fill_(float("nan"))
    with pytest.raises(RunError, match="isn't finite"):
        denoiser.sample(["a cat"], [0], guidance=1, steps=2)


def test_points_that_are_not_finite_are_not_judged():
    from smpo.api import load

    denoiser = load("plane_smpo").spec.model.load(cpu())
    with torch.no_grad():
        next(iter(denoiser.network.parameters())).fill_(float("nan"))
    with pytest.raises(RunError, match="isn't finite"):
        denoiser.sample(["north"], [0], guidance=1, steps=2)
