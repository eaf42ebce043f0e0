"""The model card: how to load the weights, their evaluation, data and settings, and their limits.

Front matter follows diffusers' training scripts (library, tags, base model, data sets, licence), so that the Hub's
filters find the model; the body is a template (`card.md.jinja`). Every value in the body is escaped unless a filter of
the template exempts it: prompts, names and settings are other people's text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

from smpo.atomic import with_path
from smpo.evaluation.report.markdown import escaped
from smpo.evaluation.results.evaluation import COLUMNS, Evaluation

__all__ = ["CardFacts", "model_card", "write_card"]

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""`owner/name`. The Hub refuses a card whose base model or data set is a path or a word."""

LICENCES = {
    "MIT": "mit",
    "Apache-2.0": "apache-2.0",
    "CreativeML OpenRAIL-M": "creativeml-openrail-m",
    "CreativeML Open RAIL++-M": "openrail++",
}
"""The Hub's names of licences, which are single small words. What has none goes by `other` and its own name."""

LIMITATIONS = (
    "It inherits the limits of its base model and the biases of the people whose preferences it learnt.",
    "Rewards are stand-ins for human judgement: a higher score is not the same as a better picture.",
    "Win rates hold for these prompts, this guidance and this number of sampling steps.",
)


@dataclass(frozen=True)
class CardFacts:
    """Facts about a finished run. Unknown ones stay empty and are left out of the card."""

    name: str
    method: str
    """The objective's short name, `smpo`; becomes a tag."""
    parts: Mapping[str, tuple[str, str]]
    """Parts of the method: a part -> its component's name, and its description in a sentence or two."""
    spec_hash: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Dotted path -> value."""
    base_model: str = ""
    datasets: Sequence[str] = ()
    here: Sequence[str] = ()
    """Those of `base_model` and `datasets` that are places on the machine where this was made. `checkpoints/sd15` looks
    like a name on the Hub, and is none."""
    license: str = ""
    tags: Sequence[str] = ()
    """The family's: `stable-diffusion-xl`, `stable-diffusion-xl-diffusers`."""
    lora: bool = False
    twin: bool = False
    """Whether the adapter is there in kohya's layout too."""
    data: Mapping[str, Any] = field(default_factory=dict)
    """The table's report: rows, pairs, votes, ties, drops by reason."""
    updates: str = ""
    """How many of its updates were applied, where some were left out or repeated."""
    load_lines: Sequence[str] = ()
    picture: str = ""
    """File name of the before/after grid, beside the card."""
    limitations: Sequence[str] = ()
    """In addition to those that hold for every such model."""
    versions: Mapping[str, str] = field(default_factory=dict)


def write_card(folder: Path, facts: CardFacts, evaluation: Evaluation | None = None) -> Path:
    """Write `README.md` beside the weights; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / "README.md"
    with with_path(file):
        file.write_text(model_card(facts, evaluation), encoding="utf-8")
    return file


def model_card(facts: CardFacts, evaluation: Evaluation | None = None) -> str:
    """The card's text: YAML front matter and a markdown body."""
    # Imported late: huggingface_hub reads its environment on import, and that is the caller's to set.
    from huggingface_hub import ModelCardData

    data = ModelCardData(
        library_name="diffusers",
        pipeline_tag="text-to-image",
        tags=_tags(facts),
        base_model=next(_on_the_hub(facts, [facts.base_model]), None),
        base_model_relation="adapter" if facts.lora else "finetune",
        datasets=list(_on_the_hub(facts, facts.datasets)) or None,
        **_licence(facts.license),
    )
    if data.base_model is None:
        del data.base_model_relation  # a relation to nothing
    return f"---\n{data.to_yaml(line_break=chr(10))}\n---\n{_body(facts, evaluation)}\n"


def _on_the_hub(facts: CardFacts, names: Iterable[str]) -> Iterator[str]:
    return (name for name in names if HUB_NAME.fullmatch(name) and name not in facts.here)


def _licence(words: str) -> dict[str, str | None]:
    name = LICENCES.get(words, words)
    if not name or re.fullmatch(r"[a-z0-9.+-]+", name):
        return {"license": name or None}
    return {"license": "other", "license_name": name}


def _tags(facts: CardFacts) -> list[str]:
    tags = [*facts.tags, "text-to-image", "diffusers", "diffusers-training"]
    tags += ["lora"] * facts.lora + ["preference-optimization", "smpo", facts.method]
    return list(dict.fromkeys(tags))


def _body(facts: CardFacts, evaluation: Evaluation | None) -> str:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(  # noqa: S701 - the output is markdown: `finalize` escapes it, HTML included
        trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined, finalize=_final
    )
    environment.filters |= {"code": _code, "fenced": _fenced, "plain": _Plain}
    template = files(__package__).joinpath("card.md.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        facts=facts,
        evaluation=evaluation,
        parts=[(part, *words) for part, words in facts.parts.items()],
        settings=list(facts.settings.items()),
        data=list(_flat(facts.data)),
        versions=list(facts.versions.items()),
        limitations=[*LIMITATIONS, *facts.limitations],
        **(_findings(evaluation) if evaluation is not None else {}),
    )


def _findings(evaluation: Evaluation) -> dict[str, Any]:
    """The evaluation's part of the template. Rewards in backticks stay code."""
    c = evaluation.judgement().comparison
    name = f" of `{_code(evaluation.prompt_set)}`" if evaluation.prompt_set else ""
    role = f" (role: {escaped(evaluation.role)})" if evaluation.role else ""
    sizes = ", ".join(f"{width} × {height}" for height, width in evaluation.settings.sizes)
    independent = c.clusters == c.prompts
    return {
        "headline": _Plain(_sentence(evaluation.headline())),
        "warnings": [_Plain(_sentence(warning)) for warning in evaluation.warnings],
        "prompts": _Plain(name + role),
        "sizes": _Plain(f" ({sizes} pixels)" if sizes else ""),
        "clusters": f"{c.prompts:,}" + ("" if independent else f" prompts in {c.clusters:,} clusters"),
        "columns": _Plain(" | ".join(map(escaped, COLUMNS))),
        "rule": _Plain("---|" * len(COLUMNS)),
        "rows": [_Plain(" | ".join(escaped(row[name]) for name in COLUMNS)) for row in evaluation.table()],
        "starred": any(judgement.made_labels for judgement in evaluation.judgements),
    }


class _Plain(str):
    """Text that is markdown already."""

    __slots__ = ()


def _final(value: Any) -> str:
    return value if isinstance(value, _Plain) else escaped(value)


def _code(value: Any) -> _Plain:
    """Text for between backticks: markup has no meaning there, but a backtick would end it and a bar the cell."""
    return _Plain(" ".join(str(value).replace("`", "'").replace("|", "/").split()))


def _fenced(lines: Sequence[str]) -> _Plain:
    return _Plain("\n".join(line.replace("```", "'''") for line in lines))


def _sentence(text: str) -> str:
    """Escape everything outside of backticks."""
    parts = text.split("`")
    return "".join(f"`{_code(part)}`" if place % 2 else _edge(part) for place, part in enumerate(parts))


def _edge(part: str) -> str:
    """Escaped, with the spaces at its ends."""
    inner = escaped(part) if part.strip() else ""
    return " " * part.startswith(" ") + inner + " " * (part.endswith(" ") and bool(inner))


def _flat(report: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    """Nested counts as rows: `dropped: {tie: 3}` -> `dropped: tie`."""
    rows: list[tuple[str, Any]] = []
    for name, value in report.items():
        if isinstance(value, Mapping):
            rows += _flat(value, f"{prefix}{name}: ")
        else:
            count = isinstance(value, int) and not isinstance(value, bool)
            rows.append((prefix + str(name), f"{value:,}" if count else value))
    return rows
