"""GenEval (Ghosh et al. 2023, arXiv:2310.11513), by its own script, for `smpo.rewards.process`.

The script needs mmdet 2.27, open_clip, clip_benchmark and a GPU, so it lives in an environment of its own. What its
README installs is all that is needed; the machine's file names its place:

    [geneval]
    python = "~/venvs/geneval/bin/python"
    environment = {GENEVAL = "~/geneval", GENEVAL_DETECTOR = "~/geneval/detector"}

A score is 1 where the script finds the prompt's objects, else 0. The objects of a prompt are listed in the published
`prompts/evaluation_metadata.jsonl` (or GENEVAL_METADATA). GenEval's overall figure is the mean of the six tasks' means.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from smpo.rewards.workers.smpo_worker import Score

WORKER = "geneval/1"
DEFAULTS = {
    "threshold": 0.3,
    "counting_threshold": 0.9,
    "max_objects": 16,
    "max_overlap": 1.0,
    "position_threshold": 0.1,
}
"""The script's own; `max_objects` is a count."""


def load(device: str, precision: str, settings: dict[str, Any]) -> tuple[str, Score]:
    """`settings`: any of `DEFAULTS`, and `model`, the detector's name, as the script's `--options` have them."""
    home, detector = _folder("GENEVAL"), _folder("GENEVAL_DETECTOR")
    script = home / "evaluation" / "evaluate_images.py"
    metadata = Path(os.environ.get("GENEVAL_METADATA", home / "prompts" / "evaluation_metadata.jsonl")).expanduser()
    asked = {one["prompt"]: one for one in map(json.loads, filter(str.strip, metadata.read_text().splitlines()))}
    options = {name: str(value) for name, value in settings.items()}
    module = _script(script, detector, options)

    def score(pictures: list[bytes], prompts: list[str]) -> list[float]:
        found = []
        with tempfile.TemporaryDirectory() as folder:
            for number, (picture, prompt) in enumerate(zip(pictures, prompts)):  # noqa: B905 -- Python 3.8
                if prompt not in asked:
                    raise RuntimeError(f"{prompt!r} is none of GenEval's prompts: evaluate on `prompts: geneval`")
                file = Path(folder) / f"{number:05}.png"
                file.write_bytes(picture)
                found.append(float(bool(module.evaluate_image(str(file), asked[prompt])["correct"])))
        return found

    name = options.get("model", "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco")
    parts = (script, metadata, detector / f"{name}.pth")
    return f"{WORKER}/{'/'.join(_digest(part)[:16] for part in parts)}", score


def _script(file: Path, detector: Path, options: dict[str, str]) -> Any:
    """The published script as a module, with what its `__main__` part sets before it begins."""
    spec = importlib.util.spec_from_file_location("geneval_evaluate_images", file)
    if spec is None or spec.loader is None or not file.is_file():
        raise RuntimeError(f"there is no {file}: GENEVAL should be a clone of github.com/djghosh13/geneval")
    module: Any = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except AssertionError:
        raise RuntimeError("GenEval's script needs a CUDA device") from None
    config = os.environ.get("GENEVAL_CONFIG")
    if config is None:
        import mmdet  # type: ignore[import-not-found,unused-ignore]

        config = str(
            Path(mmdet.__file__).parent
            / ".."
            / "configs"
            / "mask2former"
            / "mask2former_swin-s-p4-w7-224_lsj_8x2_50e_coco.py"
        )
    module.args = argparse.Namespace(options=options, model_config=config, model_path=str(detector))
    module.object_detector, clip, module.classnames = module.load_models(module.args)
    module.clip_model, module.transform, module.tokenizer = clip
    module.THRESHOLD = float(options.get("threshold", DEFAULTS["threshold"]))
    module.COUNTING_THRESHOLD = float(options.get("counting_threshold", DEFAULTS["counting_threshold"]))
    module.MAX_OBJECTS = int(options.get("max_objects", DEFAULTS["max_objects"]))
    module.NMS_THRESHOLD = float(options.get("max_overlap", DEFAULTS["max_overlap"]))
    module.POSITION_THRESHOLD = float(options.get("position_threshold", DEFAULTS["position_threshold"]))
    return module


def _folder(name: str) -> Path:
    if name not in os.environ:
        raise RuntimeError(f"{name} isn't set: write `environment = {{{name} = ...}}` under [geneval] in scorers.toml")
    return Path(os.environ[name]).expanduser()


def _digest(file: Path) -> str:
    found = hashlib.sha256()
    with file.open("rb") as stream:
        for block in iter(lambda: stream.read(1 << 24), b""):
            found.update(block)
    return found.hexdigest()


if __name__ == "__main__":
    from smpo_worker import serve  # type: ignore[import-not-found,unused-ignore]

    serve(load)
