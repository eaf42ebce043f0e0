"""What is saved is opened by others: plain diffusers, in a process without smpo, draws the same pictures."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from smpo.errors import RunError
from smpo.families.files.saved_folder import replaced_folder
from smpo.families.loading import Extras, load_unet
from smpo.families.lora import Adapter
from smpo.families.pipelines import LoadOptions
from smpo.families.unet import UNetDenoiser
from smpo.kinds import Placement, Runtime
from tests.families.test_unet_networks import trainable_state

PROMPTS, SEEDS = ["a red circle", "blue"], [3, 44]

# One process for all folders: importing diffusers takes most of the time. `-I` keeps smpo out of reach.
STRANGER = """
import sys, json, numpy, torch
from diffusers import DiffusionPipeline
assert "smpo" not in sys.modules
for job in json.loads(sys.argv[1]):
    pipe = DiffusionPipeline.from_pretrained(job["base"], dtype=torch.float32)
    pipe.set_progress_bar_config(disable=True)
    if "lora" in job:
        pipe.load_lora_weights(job["lora"], **job.get("options", {}))
    images = pipe(
        job["prompts"], num_inference_steps=2, guidance_scale=4.0,
        generator=[torch.Generator("cpu").manual_seed(s) for s in job["seeds"]],
    ).images
    numpy.save(job["out"], numpy.stack([numpy.array(image) for image in images]))
"""


def trained(folder: Path, adapter: Adapter | None = None) -> UNetDenoiser:
    denoiser = load_unet(folder, adapter=adapter, runtime=Runtime())
    random = torch.Generator().manual_seed(1)
    for value in trainable_state(denoiser).values():
        value.add_(0.1 * torch.randn(value.shape, generator=random))
    return denoiser


def drawn(denoiser: UNetDenoiser, *, reference: bool = False) -> np.ndarray[Any, Any]:
    pictures = denoiser.sample(PROMPTS, SEEDS, guidance=4.0, steps=2, reference=reference)
    assert all(isinstance(picture, Image.Image) and picture.size == (32, 32) for picture in pictures)
    return np.stack([np.array(picture) for picture in pictures])


def test_strangers_draw_our_pictures_from_what_we_save(
    sd_folder: Path, sdxl_folder: Path, v_folder: Path, tmp_path: Path
) -> None:
    jobs: list[dict[str, Any]] = []
    expected = []

    def job(pictures: np.ndarray[Any, Any], base: Path, **more: Any) -> None:
        out = str(tmp_path / f"{len(jobs)}.npy")
        jobs.append({"base": str(base), "prompts": PROMPTS, "seeds": SEEDS, "out": out, **more})
        expected.append(pictures)

    for name, base in (("sd", sd_folder), ("v", v_folder), ("sdxl", sdxl_folder)):
        full = trained(base)
        job(drawn(full, reference=True), base)
        lines = full.save(tmp_path / name)
        assert str(tmp_path / name) in lines[-1]
        job(drawn(full), tmp_path / name)

    lora = trained(sd_folder, Adapter(rank=2, alpha=7.0))
    lines = lora.save(tmp_path / "lora")
    assert str(sd_folder) in lines[-2] and str(tmp_path / "lora") in lines[-1]
    job(drawn(lora), sd_folder, lora=str(tmp_path / "lora"))
    twin = {"weight_name": "kohya/lora.safetensors"}
    job(drawn(lora), sd_folder, lora=str(tmp_path / "lora"), options=twin)
    dora = trained(sd_folder, Adapter(rank=2, alpha=7.0, dora=True))
    dora.save(tmp_path / "dora")
    job(drawn(dora), sd_folder, lora=str(tmp_path / "dora"))
    xl = trained(sdxl_folder, Adapter(rank=2, alpha=7.0))
    xl.save(tmp_path / "xl_lora")
    job(drawn(xl), sdxl_folder, lora=str(tmp_path / "xl_lora"))
    job(drawn(xl), sdxl_folder, lora=str(tmp_path / "xl_lora"), options=twin)
    xl_dora = trained(sdxl_folder, Adapter(rank=2, alpha=3.0, dora=True))
    xl_dora.save(tmp_path / "xl_dora")
    job(drawn(xl_dora), sdxl_folder, lora=str(tmp_path / "xl_dora"))
    everything = (
        "to_q",
        "to_out.0",
        "ff.net.0.proj",
        "proj_in",
        "conv1",
        "time_emb_proj",
        "conv_shortcut",
        "conv_out",
    )
    wide = trained(sdxl_folder, Adapter(rank=2, alpha=3.0, targets=everything))
    wide.save(tmp_path / "xl_wide")
    job(drawn(wide), sdxl_folder, lora=str(tmp_path / "xl_wide"), options=twin)

    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, json.dumps(jobs)], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for spec, ours in zip(jobs, expected, strict=True):
        theirs = np.load(spec["out"])
        assert np.array_equal(theirs, ours), (spec, int(np.abs(theirs.astype(int) - ours).max()))
    distinct = {pictures.tobytes() for pictures in expected}
    assert len(distinct) == len(expected) - 2  # only the two files of one LoRA draw the same


@pytest.mark.parametrize("part", [False, True], ids=["of its own", "in a pipeline"])
def test_the_lines_that_load_an_adapter_bring_what_its_base_was_told(
    sd_folder: Path, tmp_path: Path, part: bool
) -> None:
    """Another autoencoder and another schedule are in no file of an adapter: without them strangers draw noise."""
    from diffusers import AutoencoderKL

    other = AutoencoderKL.from_pretrained(sd_folder / "vae")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(1.1)
    other.save_pretrained(tmp_path / "other" / "vae" if part else tmp_path / "other")
    lora = load_unet(
        sd_folder,
        adapter=Adapter(rank=2),
        runtime=Runtime(),
        extras=Extras(vae=str(tmp_path / "other")),
        reading=LoadOptions(prediction="v_prediction", zero_terminal_snr=True),
    )
    for value in trainable_state(lora).values():
        value.add_(0.1 * torch.randn(value.shape, generator=torch.Generator().manual_seed(1)))
    lines = lora.save(tmp_path / "lora")
    told: dict[str, Any] = {}
    exec("\n".join(lines), told)  # as whoever reads the card does
    told["pipe"].set_progress_bar_config(disable=True)
    theirs = told["pipe"](
        PROMPTS, num_inference_steps=2, guidance_scale=4.0,
        generator=[torch.Generator("cpu").manual_seed(seed) for seed in SEEDS],
    ).images  # fmt: skip
    assert np.array_equal(np.stack([np.array(picture) for picture in theirs]), drawn(lora))
    assert not np.array_equal(drawn(lora), drawn(trained(sd_folder, Adapter(rank=2))))


def test_a_sample_depends_on_its_prompt_and_seed_and_not_on_its_batch(sd_folder: Path) -> None:
    together = load_unet(sd_folder, runtime=Runtime(batch=8))
    apart = load_unet(sd_folder, runtime=Runtime(batch=1))
    prompts, seeds = ["a", "b", "c"], [1, 2, 2**40 + 3]
    first = together.sample(prompts, seeds, guidance=3.0, steps=2)
    second = apart.sample(prompts[::-1], seeds[::-1], guidance=3.0, steps=2)[::-1]
    for one, other in zip(first, second, strict=True):  # rounding may move a value across the border of two bytes
        assert np.abs(np.asarray(one, dtype=int) - np.asarray(other, dtype=int)).max() <= 1
    assert not np.array_equal(np.asarray(first[0]), np.asarray(first[1]))


def test_sampling_leaves_the_policy_in_place(sd_folder: Path) -> None:
    denoiser = trained(sd_folder, Adapter(rank=2, dropout=0.5))
    base, tuned = drawn(denoiser, reference=True), drawn(denoiser)
    assert not np.array_equal(base, tuned)
    assert np.array_equal(base, drawn(load_unet(sd_folder, runtime=Runtime())))
    assert np.array_equal(tuned, drawn(denoiser))
    assert denoiser.stack.pipeline.unet is denoiser.network
    assert all(p.requires_grad == ("lora_" in name) for name, p in denoiser.network.named_parameters())


def test_tiles_and_slices_save_memory_and_change_no_latent(sd_folder: Path, pictures: list[Image.Image]) -> None:
    plain = load_unet(sd_folder, resolution=64, runtime=Runtime())
    sliced = load_unet(sd_folder, resolution=64, runtime=Runtime(vae_slicing=True))
    tiled = load_unet(sd_folder, resolution=64, runtime=Runtime(vae_tiling=True))  # its VAE was made for 32

    def large(denoiser: UNetDenoiser) -> np.ndarray[Any, Any]:
        found = denoiser.sample(PROMPTS, SEEDS, guidance=4.0, steps=2)
        return np.stack([np.asarray(picture, dtype=int) for picture in found])

    whole = large(plain)
    assert np.abs(large(sliced) - whole).max() <= 1, "rounding"
    seams = np.abs(large(tiled) - whole)
    assert 0 < seams.mean() < 8 and large(tiled).shape == (2, 64, 64, 3)
    assert not tiled.stack.pipeline.vae.use_tiling, "it is off outside of decoding"
    where = [Placement()] * len(pictures)
    means = [one.encode_pictures(pictures, where)["mean"] for one in (plain, sliced, tiled)]
    assert torch.equal(means[0], means[2])
    torch.testing.assert_close(means[0], means[1], rtol=1e-5, atol=1e-5)
    assert plain.encoder_key == sliced.encoder_key == tiled.encoder_key


def test_half_precision_samples_come_out_close(sd_folder: Path) -> None:
    exact = drawn(load_unet(sd_folder, runtime=Runtime()))
    rough = drawn(load_unet(sd_folder, runtime=Runtime(precision="bf16")))
    assert 0 < np.abs(exact.astype(int) - rough).mean() < 3


def test_a_lora_file_carries_its_scale(sd_folder: Path, tmp_path: Path) -> None:
    denoiser = trained(sd_folder, Adapter(rank=2, alpha=7.0))
    denoiser.save(tmp_path / "lora")
    with safe_open(tmp_path / "lora" / "pytorch_lora_weights.safetensors", "pt") as file:
        metadata = json.loads(file.metadata()["lora_adapter_metadata"])
        assert all(name.startswith("unet.") for name in file.keys())  # noqa: SIM118
    assert metadata["unet.r"] == 2 and metadata["unet.lora_alpha"] == 7.0
    twin = load_file(tmp_path / "lora" / "kohya" / "lora.safetensors")
    alphas = {name: float(value) for name, value in twin.items() if name.endswith(".alpha")}
    assert alphas and set(alphas.values()) == {7.0}
    assert len(twin) == 3 * len(alphas)
    assert all(name.startswith("lora_unet_") and name.count(".") <= 2 for name in twin)


def test_saving_again_gives_the_same_without_traces_of_this_machine(sd_folder: Path, tmp_path: Path) -> None:
    def content(path: Path) -> object:
        if path.suffix != ".safetensors":
            return path.read_bytes()
        with safe_open(path, "pt") as file:  # not the bytes: the header's entries come in random order
            return file.metadata(), {name: file.get_tensor(name).tolist() for name in file.keys()}  # noqa: SIM118

    one, two = tmp_path / "one", tmp_path / "two"
    for adapter in (None, Adapter(rank=2, alpha=7.0)):
        denoiser = trained(sd_folder, adapter)
        denoiser.save(one)
        denoiser.save(two)
        files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
        assert files
        for name in files:
            assert content(one / name) == content(two / name), name
            for trace in (tmp_path, sd_folder):
                assert str(trace).encode() not in (one / name).read_bytes(), name
    assert not (one / "unet").exists(), "the LoRA took the place of the pipeline as a whole"


@pytest.mark.skipif(os.name != "posix", reason="rights of files are POSIX's")
@pytest.mark.parametrize(("umask", "file"), [(0o022, 0o644), (0o002, 0o664), (0o077, 0o600)])
def test_a_saved_model_may_be_read_by_whoever_may_read_its_folder(
    sd_folder: Path, tmp_path: Path, umask: int, file: int
) -> None:
    """safetensors writes for its owner alone, and models are shared in a lab."""
    before = os.umask(umask)
    try:
        for name, adapter in (("whole", None), ("lora", Adapter(rank=2))):
            load_unet(sd_folder, adapter=adapter, runtime=Runtime()).save(tmp_path / name)
    finally:
        os.umask(before)
    rights = {one.stat().st_mode & 0o777 for one in tmp_path.rglob("*") if one.is_file()}
    assert rights == {file}


def test_a_saved_pipeline_has_one_dtype(sd_folder: Path, tmp_path: Path) -> None:
    trained(sd_folder).save(tmp_path / "full")
    weights = sorted((tmp_path / "full").rglob("*.safetensors"))
    assert len(weights) == 3
    assert {t.dtype for file in weights for t in load_file(file).values()} == {torch.float32}


def test_folders_are_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with replaced_folder(target) as fresh:
        (fresh / "model_index.json").write_text("{}")
    with pytest.raises(KeyError), replaced_folder(target) as fresh:
        (fresh / "half").write_text("")
        raise KeyError
    assert [p.name for p in target.iterdir()] == ["model_index.json"]
    assert [p.name for p in tmp_path.iterdir()] == ["model"]

    precious = tmp_path / "documents"
    precious.mkdir()
    (precious / "letter").write_text("dear")
    with pytest.raises(RunError, match="not a saved model"), replaced_folder(precious):
        pass
    assert (precious / "letter").read_text() == "dear"


def test_what_killed_processes_left_beside_a_folder_goes(tmp_path: Path) -> None:
    import subprocess
    import sys

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    target = tmp_path / "model"
    (tmp_path / f".writing-{dead.pid}").mkdir()
    (tmp_path / ".replaced-model").mkdir()
    (alive := tmp_path / f".writing-{os.getppid()}").mkdir()
    with replaced_folder(target) as fresh:
        (fresh / "model_index.json").write_text("{}")
    assert sorted(path.name for path in tmp_path.iterdir()) == [alive.name, "model"]
