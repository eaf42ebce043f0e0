"""What is kept of an update whose loss is not a number: `autopsy/update-00000003/` in the run's folder.

`autopsy.json` has the pairs with their prompts, timesteps, losses and margins, the gradient's norm block by block, and
whether weights and optimiser are still finite; beside it lie the images. Names of files come from us, never from data.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smpo.app.run.context import RunContext

if TYPE_CHECKING:
    from torch import Tensor

    from smpo.data.stream.sample import Sample
    from smpo.engine.monitoring.alerts import NonFiniteLoss

__all__ = ["block_of", "write_nan_report"]

_PICTURED = 8
"""Pairs whose images are kept."""


def write_nan_report(run: RunContext, error: NonFiniteLoss) -> Path:
    """The bundle's folder. Called while the gradients of the broken update are still there.

    Pictures that can't be read are left out: a bundle must not fail over what may have been the cause.
    """
    session, folder = run.live.session, f"autopsy/update-{error.step + 1:08d}"
    samples = {one.pair.id: one for one in run.live.loader.samples(error.step)}
    facts = {
        "message": error.message,
        "update": error.step + 1,
        "bundle": folder,
        "learning_rate": session.learning_rate.at(error.step),
        "finite": {
            "weights": _finite(run.parameters.values()),
            "optimiser": _finite(_tensors(session.optimiser.state)),
        },
        "gradient_norms": _norms(run.parameters),
        "pairs": [
            {
                "pair": one.pair,
                "prompt": samples[one.pair].prompt if one.pair in samples else None,
                "values": {name: _plain(value) for name, value in one.values.items()},
            }
            for one in error.suspects
        ],
    }
    text = json.dumps(facts, indent=1, ensure_ascii=False)
    run.folder.write_text("autopsy.json", text)  # of the latest, where `smpo doctor` looks
    run.folder.write_text(f"{folder}/autopsy.json", text)
    _pictures(run, [samples[one.pair] for one in error.suspects if one.pair in samples], run.folder.path / folder)
    run.tracker.artefact(run.folder.path / folder, "autopsy")
    return run.folder.path / folder


def block_of(name: str) -> str:
    """The block of a network that a parameter belongs to: its name up to the second number, or without its last part.

    `down_blocks.0.attentions.1.proj_in.weight` is of `down_blocks.0.attentions.1`.
    """
    parts = name.split(".")
    numbers = [place for place, part in enumerate(parts) if re.fullmatch(r"\d+", part)]
    return ".".join(parts[: numbers[1] + 1] if len(numbers) > 1 else parts[:-1]) or name


def _norms(parameters: Mapping[str, Tensor]) -> dict[str, float | str]:
    """The gradient's norm in each block, before clipping; those without a gradient are left out.

    Of a sharded policy, of this process's part.
    """
    from smpo.engine.sharding import local_shard

    squares: dict[str, Tensor] = {}
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            block = block_of(name)
            squares[block] = squares.get(block, 0) + local_shard(parameter.grad.detach()).float().square().sum()
    return {block: _plain(math.sqrt(v) if (v := float(total)) >= 0 else v) for block, total in squares.items()}


def _pictures(run: RunContext, samples: Sequence[Sample], folder: Path) -> None:
    from PIL import Image

    from smpo.errors import SmpoError
    from smpo.evaluation.report.grid import contact_sheet

    shown, captions = [], []
    for number, sample in enumerate(samples[:_PICTURED], start=1):
        for side, one in zip(("winner", "loser"), sample.shown, strict=True):
            try:
                picture = run.live.table.picture(one.image)
                if isinstance(picture, Image.Image):
                    picture.convert("RGB").save(folder / f"{number:02d}-{side}.png")
            except (SmpoError, OSError) as error:
                run.console.warn(f"no picture of the {side} of {sample.pair.id}: {error}")
                continue
            shown.append(picture)
            captions.append(f"{number} {side}: {one.prompt}")
    if shown:
        contact_sheet(shown, captions).save(folder / "pairs.png")


def _finite(tensors: Iterable[Tensor]) -> bool:
    from smpo.engine.sharding import local_shard

    return all(bool(local_shard(one).isfinite().all()) for one in tensors)


def _tensors(state: Mapping[Any, Mapping[str, Any]]) -> Iterable[Tensor]:
    import torch

    return (v for values in state.values() for v in values.values() if isinstance(v, torch.Tensor))


def _plain(value: float) -> float | str:
    """JSON has no NaN and no infinity."""
    return value if math.isfinite(value) else str(value)
