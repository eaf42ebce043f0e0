"""Published prompt sets: small files of the true schemas, read through the cards that name their columns."""

import json
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from smpo.components.prompts import HPDv2Prompts, ParquetPrompts, TablePrompts
from smpo.errors import MachineError
from smpo.experiment import ExperimentSpec
from smpo.registry.resolve import resolve
from smpo.spec.problems import SpecProblems
from tests.cli.words import SMALL_PLANE

PARTI = (
    "Prompt\tCategory\tChallenge\tNote\n"
    "bond\tAbstract\tBasic\tBiology-inspired concepts with multiple meanings\n"
    '"a ""quoted"" sign, with a comma"\tWorld Knowledge\tWriting & Symbols\t\n'
    "bond\tAbstract\tBasic\t\n"
)
GENEVAL = [
    {"tag": "single_object", "include": [{"class": "bench", "count": 1}], "prompt": "a photo of a bench"},
    {
        "tag": "counting",
        "include": [{"class": "cat", "count": 2}],
        "exclude": [{"class": "cat", "count": 3}],
        "prompt": "a photo of two cats",
    },
]
DRAWBENCH = "Prompts,Category\nA red colored car.,Colors\n,Colors\nHovering cow abducting aliens.,Conflicting\n"
CARDS = {
    "parti": ("PartiPrompts.tsv", PARTI, ["Abstract", "World Knowledge"]),
    "geneval": ("evaluation_metadata.jsonl", "\n".join(map(json.dumps, GENEVAL)), ["single_object", "counting"]),
    "drawbench": ("drawbench.csv", "\ufeff" + DRAWBENCH, ["Colors", "Conflicting"]),
}  # fmt: skip


def prompts_of(folder: Path, chosen: str):
    """What a spec's `evaluate.prompts` stands for."""
    spec = folder / "spec.yaml"
    spec.write_text(SMALL_PLANE.replace("{use: plane-prompts, repeats: 4}", chosen))
    evaluate = resolve(spec, skeleton=ExperimentSpec).spec.evaluate
    assert evaluate is not None
    return evaluate.prompts


@pytest.mark.parametrize("card", CARDS)
def test_published_tables_are_read_by_their_cards(card, tmp_path):
    name, content, categories = CARDS[card]
    (tmp_path / name).write_text(content, encoding="utf-8")
    place = tmp_path if card == "parti" else tmp_path / name
    found = prompts_of(tmp_path, f"{{use: {card}, path: {place}}}")
    assert [prompt.category for prompt in found.load()] == categories and found.role == "untouched"
    assert all(prompt.group == prompt.text for prompt in found.load()) and found.check() is None
    only = prompts_of(tmp_path, f"{{use: {card}, path: {place}, only: [{categories[1]}]}}")
    assert {prompt.category for prompt in only.load()} == {categories[1]}


def test_texts_are_read_as_they_were_written(tmp_path):
    (tmp_path / "PartiPrompts.tsv").write_text(PARTI)
    found = TablePrompts(path=str(tmp_path / "PartiPrompts.tsv"), column="Prompt", category="Challenge").load()
    assert [prompt.text for prompt in found] == ["bond", 'a "quoted" sign, with a comma']
    assert found[1].category == "Writing & Symbols"


def test_hpdv2_has_four_styles(tmp_path):
    for number, style in enumerate(("anime", "concept-art", "paintings", "photo")):
        (tmp_path / "benchmark").mkdir(exist_ok=True)
        texts = [f"{style} {k}" for k in range(number + 1)] + ["a prompt of every style"]
        (tmp_path / "benchmark" / f"{style}.json").write_text(json.dumps(texts))
    found = prompts_of(tmp_path, f"{{use: hpdv2, path: {tmp_path}}}").load()
    assert Counter(prompt.category for prompt in found) == {
        "anime": 2,
        "concept-art": 3,
        "paintings": 4,
        "photo": 5,
    }
    assert len({prompt.group for prompt in found}) == 11, "the shared text is one cluster"
    photo = HPDv2Prompts(path=str(tmp_path / "benchmark"), styles=["photo"]).load()
    assert {prompt.category for prompt in photo} == {"photo"}


def test_pickapic_splits_are_told_apart(tmp_path):
    (tmp_path / "data").mkdir()
    for split in ("validation_unique", "test_unique"):
        rows = {"caption": [f"{split} a", f"{split} a", None, " ", f"{split} b"], "label_0": [1.0] * 5}
        pq.write_table(pa.table(rows), tmp_path / "data" / f"{split}-00000-of-00001-847ed34b90bbafc3.parquet")
    for card in ("pickapic-v1-unique", "pickapic-v2-unique"):
        found = prompts_of(tmp_path, f"{{use: {card}, path: {tmp_path}}}").load()
        assert [prompt.text for prompt in found] == ["validation_unique a", "validation_unique b"]
    with pytest.raises(MachineError, match="several splits"):
        ParquetPrompts(path=str(tmp_path)).load()


def test_a_hub_name_is_fetched_at_its_pinned_commit(tmp_path, monkeypatch):
    asked = []

    def fetch(repo, revision, patterns, *, setting):
        assert setting == "evaluate.prompts.path"
        asked.append((repo, revision, list(patterns)))
        return tmp_path

    monkeypatch.setattr("smpo.data.sources.hub.fetch_data", fetch)
    (tmp_path / "PartiPrompts.tsv").write_text(PARTI)
    assert len(prompts_of(tmp_path, "parti").load()) == 2
    (repo, revision, patterns), = asked  # fmt: skip
    assert repo == "nateraw/parti-prompts" and len(revision) == 40 and patterns == ["PartiPrompts.tsv"]
    for card in ("hpdv2", "pickapic-v1-unique", "pickapic-v2-unique"):
        assert len(prompts_of(tmp_path, card).revision) == 40


def test_a_plan_fetches_no_prompts(tmp_path, monkeypatch):
    """Where the hub can be reached the set is sound, and yet not here."""
    from smpo.app.plan.forward_passes import sampled

    monkeypatch.setattr("smpo.components.prompts.missing", lambda *_, **__: None)
    monkeypatch.setattr("smpo.data.sources.hub.fetch_data", None)
    found = prompts_of(tmp_path, "parti")
    assert found.check() is None and not found.is_local()
    spec = resolve(tmp_path / "spec.yaml", skeleton=ExperimentSpec).spec
    assert sampled(spec).prompts is None


def test_what_isnt_here_is_said_before_anything_runs(tmp_path):
    found = prompts_of(tmp_path, "parti")
    assert "nateraw/parti-prompts" in found.check() and "HF_HUB_OFFLINE" in found.check()
    assert "no prompts at" in prompts_of(tmp_path, f"{{use: geneval, path: {tmp_path / 'none.jsonl'}}}").check()


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.tsv", "Text\tKind\nx\ty\n", "no column `prompt`, only Text, Kind"),
        ("a.csv", "prompt,kind\n ,y\n", "holds no prompts"),
        ("a.csv", "", "no column `prompt`, only none"),
        ("a.jsonl", '{"prompt": "x"}\n{"prompt": \n', "line 2 is not JSON"),
        ("a.jsonl", '["x"]\n', "line 1 should be an object"),
        ("a.xlsx", "PK", "not a table of prompts"),
    ],
)
def test_files_that_are_something_else_are_refused_in_words(name, content, says, tmp_path):
    (tmp_path / name).write_text(content)
    with pytest.raises(MachineError, match=says):
        TablePrompts(path=str(tmp_path / name)).load()


def test_a_category_that_isnt_there_is_named(tmp_path):
    (tmp_path / "a.csv").write_text("prompt,kind\nx,animals\n")
    with pytest.raises(MachineError, match="no category `plants`") as caught:
        TablePrompts(path=str(tmp_path / "a.csv"), category="kind", only=["plants"]).load()
    assert "animals" in (caught.value.help or "")
    (tmp_path / "anime.json").write_text('{"a": 1}')
    with pytest.raises(MachineError, match="should be a list of prompts"):
        HPDv2Prompts(path=str(tmp_path), styles=["anime"]).load()


def test_unknown_styles_are_a_mistake_in_the_spec(tmp_path):
    with pytest.raises(SpecProblems, match="style"):
        prompts_of(tmp_path, "{use: hpdv2, styles: [cartoon]}")
