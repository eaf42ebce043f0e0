"""HPSv3 (Ma et al. 2025), by its own package, for `smpo.rewards.process`.

The package pins transformers 4.45.2 and wants deepspeed, trl and opencv, so it lives in an environment of its own:

    python -m venv hpsv3 && hpsv3/bin/pip install hpsv3

Of the two numbers that the network gives, the first is the score. Pictures are scored one by one: padded batches in
bfloat16 would make scores depend on their neighbours.
"""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smpo.rewards.workers.smpo_worker import Score

WORKER = "hpsv3/1"


def load(device: str, precision: str, settings: dict[str, Any]) -> tuple[str, Score]:
    """`settings`: `checkpoint` is a file, else the hub's; `config` is a file of the package's settings."""
    import torch
    from hpsv3 import HPSv3RewardInferencer  # type: ignore[import-not-found,unused-ignore]
    from huggingface_hub import hf_hub_download
    from PIL import Image

    path = settings.get("checkpoint") or hf_hub_download(
        settings.get("weights", "MizzenAI/HPSv3"), "HPSv3.safetensors", revision=settings.get("revision")
    )
    inferencer = HPSv3RewardInferencer(config_path=settings.get("config"), checkpoint_path=path, device=device)

    def score(pictures: list[bytes], prompts: list[str]) -> list[float]:
        found = []
        with torch.no_grad():
            for picture, prompt in zip(pictures, prompts):  # noqa: B905 -- Python 3.8
                image = Image.open(io.BytesIO(picture)).convert("RGB")
                # By name: the order of the two has changed between releases.
                logits = inferencer.reward(image_paths=[image], prompts=[prompt])
                found.append(float(logits[0][0]))
        return found

    return f"{WORKER}/{digest(Path(path))}", score


def digest(path: Path) -> str:
    """SHA-256 of a file. The hub's cache already calls large files by theirs."""
    name = path.resolve().name
    if len(name) == 64 and not set(name) - set("0123456789abcdef"):
        return name
    found = hashlib.sha256()
    with path.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 24), b""):
            found.update(block)
    return found.hexdigest()


if __name__ == "__main__":
    from smpo_worker import serve  # type: ignore[import-not-found,unused-ignore]

    serve(load)
