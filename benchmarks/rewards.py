"""smpo's scorers beside the published packages, number for number: docs/rewards.md's table.

    python benchmarks/rewards.py --hpsv2 A/bin/python --image-reward B/bin/python --mps REPOSITORY
    python benchmarks/rewards.py --quick       # seconds, to see that it works: PickScore, which transformers has
    python benchmarks/rewards.py --page        # the table again, from the results
    python benchmarks/rewards.py --check       # 1 when the page's table isn't that of the results

True weights are gigabytes, and a mistake in arithmetic, preprocessing or tokens shows with any: each published package
makes a small network of its own class with random weights, writes it in its published layout and scores nine pictures
with nine prompts (`rewards_originals.py`, under the package's own Python, which needn't have smpo). smpo's component
reads the same file and scores the same pictures.

A holds hpsv2, B image-reward and what MPS needs, REPOSITORY is a checkout of github.com/Kwai-Kolors/MPS: the docstring
of `rewards_originals.py` has the way to make them.
"""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from output import add_arguments, target, write

HERE = Path(__file__).parent
RESULT, PAGE = HERE / "results" / "rewards.json", HERE.parent / "docs" / "rewards.md"
BEGIN, END = "<!-- Written by benchmarks/rewards.py; don't edit. -->\n", "<!-- end -->\n"

SEED = 0
SIZES = [
    (256, 256),
    (640, 360),
    (300, 480),
    (900, 130),
    (64, 90),
    (224, 224),
    (225, 301),
    (512, 512),
    (230, 1000),
]
"""Square, wide, tall, narrow, smaller than 224, exactly 224, and a margin of an odd number of pixels."""
PROMPTS = [
    "a red cat on a green sofa, oil on canvas", "", "fish &amp; chips &lt;3", "two dogs 🐕🐕 at the beach",
    "word " * 100, "Ein Haus am Meer, früh am Morgen", "  spaces   everywhere  ", "a CAT, 4k; (masterpiece:1.2)",
    "portrait of an astronaut riding a horse, " * 6,
]  # fmt: skip
CONDITION = "light, color, clarity, tone, style, ambiance, artistry, shape, face, hair, hands, things."


def rewards(folder: Path) -> dict[str, tuple[str, str, Callable[[], Any]]]:
    """By name: what it is, the environment of the original, and smpo's component on the original's files."""
    from smpo.components.rewards import MPS, ClipPreference, ImageReward, LaionAesthetic

    gelu, quick = str(folder / "gelu"), str(folder / "quick")
    hps = {"weights": str(folder / "hps"), "file": "HPS.pt", "processor": gelu, "pictures": "whole"}
    return {
        "pickscore": ("PickScore, scaled", "b", lambda: ClipPreference(weights=gelu, scaled=True)),
        "hpsv2": ("HPSv2.0 and 2.1", "a", lambda: ClipPreference(**hps)),
        "hpsv2-rough": ("HPSv2, not antialiased", "a", lambda: ClipPreference(**hps, antialias=False)),
        "clip-score-h14": ("CLIP score, OpenCLIP's way", "a", lambda: ClipPreference(weights=gelu, pictures="whole")),
        "clip-score-l14": ("CLIP score, OpenAI's way", "b", lambda: ClipPreference(weights=quick, pictures="openai")),
        "aesthetic": (
            "LAION aesthetic", "b", lambda: LaionAesthetic(weights=str(folder), file="head.pth", clip=quick),
        ),
        "image-reward": (
            "ImageReward", "b",
            lambda: ImageReward(
                weights=str(folder / "image-reward"), tokenizer=str(folder / "image-reward")
            ),
        ),
        "mps": (
            "MPS, masked at 0.3", "mps",
            lambda: MPS(weights=str(folder / "mps"), clip=gelu, condition=CONDITION),
        ),
    }  # fmt: skip


AGAINST = {
    "pickscore": "transformers {transformers}'s own classes, as on the model's page",
    "hpsv2": "`hpsv2` {hpsv2}'s `score`, torchvision {torchvision}",
    "hpsv2-rough": "the same, its resize as before torchvision 0.17",
    "clip-score-h14": "`hpsv2` {hpsv2}'s fork of open_clip",
    "clip-score-l14": "`image-reward` {image-reward}'s `CLIPScore` on `openai-clip` {openai-clip}",
    "aesthetic": "`image-reward` {image-reward}'s `AestheticScore` on `openai-clip` {openai-clip}",
    "image-reward": "`image-reward` {image-reward} on transformers {transformers}, timm {timm}",
    "mps": "the authors' repository at {commit} on transformers {transformers}",
}


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Every scorer beside its original; with `--quick` PickScore alone, whose original is transformers itself."""
    import torch

    from smpo.kinds import Runtime

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        pictures = draw(folder)
        (folder / "prompts.json").write_text(json.dumps(PROMPTS))
        (folder / "condition.txt").write_text(CONDITION)
        pythons = {
            "a": [options.hpsv2],
            "b": [options.image_reward],
            "mps": [options.image_reward, options.mps],
        }
        ask(folder, "make-quick" if options.quick else "make", pythons["b"])
        found = []
        for name, (title, environment, component) in rewards(folder).items():
            if options.quick and name != "pickscore":
                continue
            theirs = ask(folder, name, pythons[environment])
            ours = component().load(Runtime(cache=folder, batch=4))(pictures, PROMPTS).double()
            expected = torch.tensor(theirs["scores"], dtype=torch.float64)
            if environment == "mps":
                theirs["versions"]["commit"] = commit(options.mps)
            found.append(
                {
                    "name": name, "title": title, "against": AGAINST[name].format(**theirs["versions"]),
                    "scores": len(expected), "largest": float((ours - expected).abs().max()),
                    "spread": float(expected.std()), "versions": theirs["versions"],
                }
            )  # fmt: skip
            print(f"{name:16} {found[-1]['largest']:.1e} of {found[-1]['spread']:.2g}", flush=True)
    ours_ = {name: version(name) for name in ("torch", "transformers", "pillow")}
    return {
        "machine": f"CPU, {platform.machine()}, one thread", "seed": SEED, "smpo": ours_, "comparisons": found,
    }  # fmt: skip


def draw(folder: Path) -> list[Any]:
    """Pictures of all shapes, coarse and fine at once, as PNG."""
    import numpy as np
    from PIL import Image

    numbers, found = np.random.default_rng(SEED), []
    (folder / "pictures").mkdir()
    for index, (width, height) in enumerate(SIZES):
        coarse = Image.fromarray(numbers.integers(0, 256, (5, 7, 3), dtype=np.uint8)).resize((width, height))
        fine = numbers.integers(-20, 21, (height, width, 3))
        picture = Image.fromarray((np.asarray(coarse) + fine).clip(0, 255).astype(np.uint8))
        picture.save(folder / "pictures" / f"{index}.png")
        found.append(picture)
    return found


def ask(folder: Path, name: str, python: list[str]) -> dict[str, Any]:
    if python == [sys.executable]:
        import rewards_originals

        rewards_originals.answer(folder, name)
        return json.loads((folder / f"{name}.json").read_text())
    command = [python[0], str(HERE / "rewards_originals.py"), str(folder), name, *python[1:]]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{name} failed under {python[0]}:\n{done.stderr[-3000:]}")
    return json.loads((folder / f"{name}.json").read_text())


def commit(repository: str) -> str:
    command = ["git", "-C", repository, "rev-parse", "--short=10", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def table(result: dict[str, Any]) -> str:
    lines = [
        "| reward | the other side | largest difference | spread of scores |",
        "| --- | --- | --- | --- |",
    ]
    for one in result["comparisons"]:
        difference = f"{one['largest']:.1e}" if one["largest"] else "none"
        lines.append(f"| {one['title']} | {one['against']} | {difference} | {one['spread']:.2g} |")
    versions = ", ".join(f"{name} {number}" for name, number in result["smpo"].items())
    return "\n".join([*lines, "", f"smpo's side: {versions}; {result['machine']}; seed {result['seed']}.", ""])


def main(words: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--hpsv2")
    parser.add_argument("--image-reward")
    parser.add_argument("--mps")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--check", action="store_true")
    add_arguments(parser)
    options = parser.parse_args(words)
    if options.quick:
        options.hpsv2 = options.image_reward = sys.executable
        write(target(options, "rewards.json"), measure(options))
        return
    if not options.page and not options.check:
        if not (options.hpsv2 and options.image_reward and options.mps):
            parser.error("name both Pythons and the repository, or take --page or --check")
        write(target(options, "rewards.json"), measure(options))
        if options.out is not None:
            return
    before, _, rest = PAGE.read_text().partition(BEGIN)
    _, _, after = rest.partition(END)
    page = before + BEGIN + "\n" + table(json.loads(RESULT.read_text())) + "\n" + END + after
    if options.check:
        sys.exit(page != PAGE.read_text())
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
