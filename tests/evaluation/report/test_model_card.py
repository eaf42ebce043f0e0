"""The card must load on the Hub, tell the whole result, and print nobody else's markup."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from smpo.evaluation.report.markdown import escaped
from smpo.evaluation.report.model_card import CardFacts, model_card, write_card
from smpo.evaluation.results.evaluate import evaluate
from tests.evaluation.toys import QUICK, ToyModel, bright, evaluation, judges, prompts

huggingface_hub = pytest.importorskip("huggingface_hub")

FACTS = CardFacts(
    name="sdxl-smpo",
    method="smpo",
    parts={"Objective": ("smpo", "Smoothed preferences."), "Inversion": ("renoise", "Inverted noise.")},
    spec_hash="3f2a",
    settings={"train.lr": 1e-5, "objective.beta": 2000.0, "reward": None, "model.targets": ["to_q", "to_k"]},
    base_model="stabilityai/stable-diffusion-xl-base-1.0",
    datasets=["yuvalkirstain/pickapic_v2", "local emoji"],
    license="openrail++",
    tags=["stable-diffusion-xl", "stable-diffusion-xl-diffusers"],
    lora=True,
    data={"rows": 1200, "pairs": 1000, "ties": 120, "dropped": {"undecodable": 3}},
    load_lines=["from diffusers import DiffusionPipeline", 'pipe.load_lora_weights("folder")'],
    picture="before_after.png",
    versions={"torch": "2.13.0"},
)


def test_front_matter_is_what_diffusers_scripts_write() -> None:
    data = huggingface_hub.ModelCard(model_card(FACTS, evaluation())).data
    assert data.library_name == "diffusers" and data.pipeline_tag == "text-to-image"
    assert data.base_model == FACTS.base_model and data.base_model_relation == "adapter"
    assert data.datasets == ["yuvalkirstain/pickapic_v2"], "the Hub takes `owner/name` only"
    assert data.license == "openrail++"
    assert {*FACTS.tags, "text-to-image", "diffusers", "diffusers-training", "lora", "smpo"} <= set(data.tags)
    assert len(set(data.tags)) == len(data.tags)


def test_places_on_our_machine_are_not_names_on_the_hub() -> None:
    """The Hub would link to a stranger's repository of the same name."""
    facts = replace(FACTS, base_model="checkpoints/sd15-sft", datasets=["data/votes", "owner/votes"])
    text = model_card(replace(facts, here=["checkpoints/sd15-sft", "data/votes"]))
    data = huggingface_hub.ModelCard(text).data
    assert (data.base_model, data.datasets) == (None, ["owner/votes"])
    assert "| Base model | checkpoints/sd15-sft |" in text and "| Trained on | data/votes |" in text


def test_unknown_things_are_left_out() -> None:
    bare = CardFacts(
        name="toy", method="dpo", parts={"Objective": ("dpo", "DPO.")}, spec_hash="1", base_model="./weights"
    )
    data = huggingface_hub.ModelCard(model_card(bare)).data
    assert (data.base_model, data.license, data.datasets) == (None, None, None)
    assert "base_model_relation" not in data.to_dict() and "lora" not in data.tags
    text = model_card(bare)
    assert "not evaluated" in text and "./weights" in text and "None" not in text


def test_the_body_tells_the_whole_result() -> None:
    found = evaluation()
    text = model_card(FACTS, found)
    for part in (
        found.headline(), "(role: untouched)", "`toys`", "over prompts\n(30) of this one training run",
        "`3f2a`", "| Objective | `smpo`: Smoothed preferences. |",
        'pipe.load_lora_weights("folder")', "| pairs | 1,000 |", "| dropped: undecodable | 3 |",
        "| `objective.beta` | 2000.0 |", "| `train.lr` | 1e-05 |", "![", "(before_after.png)", "torch 2.13.0",
        "## Limitations", "this reward made the training labels",
    ):  # fmt: skip
        assert part in text
    table = [line for line in text.splitlines() if line.startswith(("| judge", "| reward"))]
    assert len(table) == 3 and len({line.count("|") for line in table}) == 1
    assert "\n\n\n" not in text


def test_sizes_that_are_not_square_are_told() -> None:
    sized = replace(QUICK, sizes=((24, 40), (32, 32)))
    text = model_card(FACTS, replace(evaluation(), settings=sized))
    assert "a prompt (40 × 24, 32 × 32 pixels), first seed" in text


def test_warnings_reach_the_card() -> None:
    scorers = {"b": bright()}
    asked = judges(scorers, "bright-1")
    found = evaluate(ToyModel(), prompts(), scorers, settings=QUICK, judges=asked)  # type: ignore[arg-type]
    assert "> **Mind:** the only judge, `b`, also made the training labels" in model_card(FACTS, found)


@pytest.mark.parametrize(
    "evil",
    [
        "<script>alert(1)</script>",
        "a | b",
        "[x](javascript:1)",
        "![x](http://t/p.png)",
        "`code`",
        "# big\n\n* list",
    ],
)
def test_other_peoples_text_stays_text(evil: str) -> None:
    shown = escaped(evil)
    assert "<" not in shown and "\n" not in shown
    bare = shown.replace("\\\\", "")
    assert all(bare[k - 1] == "\\" for k, letter in enumerate(bare) if letter in "[]`|#*!")
    plain = model_card(FACTS)
    text = model_card(
        replace(
            FACTS,
            name=evil,
            parts={evil: (evil, evil)},
            settings={evil: evil},
            data={evil: evil},
            limitations=[evil],
        )
    )
    text = text.replace(f"`{evil}`", "")  # a setting's name stands in code, where markup is text
    assert "<script" not in text and "\n# big\n\n* list" not in text
    for mark in ("](", "![", "\n## "):
        raw = text.replace("\\!", "").replace("\\[", "").replace("\\]", "")
        assert raw.count(mark) <= plain.count(mark)


def test_long_values_are_cut() -> None:
    assert len(escaped("word " * 1_000)) <= 400


def test_write_card(tmp_path: Path) -> None:
    file = write_card(tmp_path / "model", FACTS, evaluation())
    assert file.name == "README.md"
    huggingface_hub.ModelCard.load(file)


@pytest.mark.parametrize(
    ("words", "name", "more"),
    [
        ("CreativeML OpenRAIL-M", "creativeml-openrail-m", None),
        ("CreativeML Open RAIL++-M", "openrail++", None),
        ("Apache-2.0", "apache-2.0", None),
        ("cc-by-4.0", "cc-by-4.0", None),
        ("those of its members", "other", "those of its members"),
    ],
)
def test_licences_go_by_the_hubs_names(words: str, name: str, more: str | None) -> None:
    data = huggingface_hub.ModelCard(model_card(replace(FACTS, license=words))).data
    assert data.license == name and data.to_dict().get("license_name") == more


def test_the_twin_is_mentioned_where_there_is_one() -> None:
    assert "kohya/lora.safetensors" in model_card(replace(FACTS, lora=True, twin=True))
    assert "kohya" not in model_card(replace(FACTS, lora=True))
