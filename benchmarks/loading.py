"""The host's memory while a pipeline is loaded, at true size.

    python benchmarks/loading.py                     # SD 1.5 in float16 files: 2.1 GB of disk, 6 GB of memory
    python benchmarks/loading.py --arch tiny --dtype float32
    python benchmarks/loading.py --device cuda       # the host's side of loading to a GPU
    python benchmarks/loading.py --as before         # writes another column of benchmarks/results/loading.json

Writes a pipeline of random weights, then loads it in a process of its own for each case. `private`: the highest sum of
memory that belongs to the process alone (RssAnon of /proc), sampled every 5 ms. `resident`: the highest in all
(ru_maxrss), with pages of the mapped file that other processes share. Both without the libraries' own, which are there
before the load.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from speed.archs import _BIG_G, _CLIP_L, _TINY_CLIP, _VAE, SCHEDULE, UNETS, _tiny_vae
from speed.folder import _tokenizer
from speed.measure import machine

RESULT = Path(__file__).parent / "results" / "loading.json"
CASES: dict[str, dict[str, Any]] = {
    "fp32, full": {},
    "bf16, full": {"precision": "bf16"},
    "bf16, full, reference offloaded": {"precision": "bf16", "offload_reference": True},
    "bf16, LoRA": {"precision": "bf16", "rank": 16},
}


def make(arch: str, dtype: torch.dtype, folder: Path) -> int:
    """Write the pipeline; returns the bytes of its weights."""
    from diffusers import (
        AutoencoderKL,
        DDIMScheduler,
        StableDiffusionPipeline,
        StableDiffusionXLPipeline,
        UNet2DConditionModel,
    )
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

    tiny, large = arch == "tiny", arch != "sd15"
    with torch.device("meta"):
        parts: dict[str, Any] = {
            "unet": UNet2DConditionModel(**UNETS[arch]),
            "vae": AutoencoderKL(**(_tiny_vae() if tiny else {**_VAE, "latent_channels": 4})),
        }
    parts = {name: _filled(part, dtype) for name, part in parts.items()}
    # transformers has buffers that the meta device would leave without numbers
    parts["text_encoder"] = CLIPTextModel(CLIPTextConfig(**(_TINY_CLIP if tiny else _CLIP_L))).to(dtype)
    parts["tokenizer"] = _tokenizer()
    if large:
        second = CLIPTextConfig(**(_TINY_CLIP if tiny else _BIG_G))
        parts["text_encoder_2"] = CLIPTextModelWithProjection(second).to(dtype)
        parts["tokenizer_2"] = _tokenizer()
    told: dict[str, Any] = {key: value for key, value in SCHEDULE.items() if not key.startswith("_")}
    parts["scheduler"] = DDIMScheduler(**told)
    if large:
        pipeline: Any = StableDiffusionXLPipeline(**parts, add_watermarker=False)
    else:
        pipeline = StableDiffusionPipeline(
            **parts, safety_checker=None, feature_extractor=None, requires_safety_checker=False
        )
    pipeline.save_pretrained(folder)
    return sum(file.stat().st_size for file in folder.glob("*/*.safetensors"))


def _filled(network: Any, dtype: torch.dtype) -> Any:
    network = network.to(dtype).to_empty(device="cpu")
    with torch.no_grad():
        for weight in network.parameters():
            weight.fill_(0.01)
    return network


def load(folder: Path, device: str, case: dict[str, Any]) -> dict[str, float]:
    """GB of the host's memory, over what the process had before."""
    import diffusers  # noqa: F401
    import transformers  # noqa: F401

    from smpo.families.loading import load_unet
    from smpo.families.lora import Adapter
    from smpo.kinds import Runtime

    told = dict(case)
    rank = told.pop("rank", None)
    adapter = Adapter(rank=rank, alpha=rank) if rank else None
    if device == "cuda":
        torch.zeros(1, device="cuda")
    watch = _Watch()
    before, highest = _status(), _peak()
    began = time.process_time()
    with watch:
        denoiser = load_unet(folder, adapter=adapter, runtime=Runtime(device=device, **told))
    found = {
        "private_gb": (watch.peak - before["RssAnon"]) / 1e9,
        "resident_gb": (_peak() - before["VmRSS"]) / 1e9,
        "seconds": time.process_time() - began,
    }
    assert _peak() > highest and denoiser is not None
    return {name: round(value, 3) for name, value in found.items()}


class _Watch(threading.Thread):
    """The highest private memory while it is entered."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.peak, self._over = 0, threading.Event()

    def __enter__(self) -> None:
        self.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()

    def run(self) -> None:
        while not self._over.wait(0.005):
            self.peak = max(self.peak, _status()["RssAnon"])


def _status() -> dict[str, int]:
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    rows = (line.split() for line in lines if line.startswith(("RssAnon", "VmRSS")))
    return {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows}


def _peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--arch", choices=("sd15", "sdxl", "tiny"), default="sd15")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--as", dest="column", default="now", help="column of the result file")
    parser.add_argument("--folder", type=Path, help="where the pipeline is, or is written to")
    parser.add_argument("--result", type=Path, default=RESULT)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case is not None:
        print(json.dumps(load(options.folder, options.device, json.loads(options.case))))
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch) / "model"
        if not (folder / "model_index.json").is_file():
            make(options.arch, getattr(torch, options.dtype), folder)
        size = sum(file.stat().st_size for file in folder.glob("*/*.safetensors"))
        rows = {name: _row(folder, options.device, case) for name, case in CASES.items()}
    told = json.loads(options.result.read_text()) if options.result.is_file() else {}
    told[options.column] = {
        **machine(torch.device("cpu")), "arch": options.arch, "files": options.dtype, "to": options.device,
        "files_gb": round(size / 1e9, 3), "cases": rows,
    }  # fmt: skip
    options.result.write_text(json.dumps(told, indent=1) + "\n")


def _row(folder: Path, device: str, case: dict[str, Any]) -> dict[str, float]:
    words = [
        sys.executable,
        __file__,
        f"--folder={folder}",
        f"--device={device}",
        f"--case={json.dumps(case)}",
    ]
    said = subprocess.run(words, check=True, capture_output=True, text=True, env=dict(os.environ))
    row: dict[str, float] = json.loads(said.stdout.splitlines()[-1])
    print(device, case, row, flush=True)
    return row


if __name__ == "__main__":
    main()
