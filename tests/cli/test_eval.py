"""`smpo eval` and `smpo compare` on the plane: runs and folders, what is drawn once, what is refused."""

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.words import SMALL_PLANE, smpo


@pytest.fixture
def trained(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    spec = tmp_path / "small.yaml"
    spec.write_text(SMALL_PLANE)
    for lr in ("1e-4", "1e-3"):
        assert smpo(capfd, "run", spec, "-q", "--set", f"train.lr={lr}", "--set", "train.holdout=20").code == 0
    return sorted(tmp_path.glob("runs/small/*-1"), key=lambda run: (run / "status.json").stat().st_mtime)


def test_any_number_of_models_on_common_ground(trained, capfd):
    slow, fast = trained
    words = [f"slow={slow}", fast.name.split("-")[0], f"folder={slow / 'model'}"]
    said = smpo(capfd, "eval", *words, "--out", "found")
    assert said.code == 0, said.err
    assert "plane-radius" in said.out and "(made the training labels)" in said.out and "p (Holm)" in said.out
    found = json.loads(Path("found/contest.json").read_text())
    assert found["models"][0] == "base" and len(found["models"]) == 4 and len(found["standings"]) == 6
    assert found["scores"]["slow"] == found["scores"]["folder"], "a run is its model"
    run = json.loads((slow / "evaluation.json").read_text())["judgements"][0]
    one = next(s for s in found["standings"] if (s["model"], s["judge"]) == ("slow", "plane-radius"))
    assert one["comparison"]["gain"] == pytest.approx(run["comparison"]["gain"])
    assert "east" in one["categories"]
    told = json.loads((slow / "evaluation.json").read_text())["drift"]
    assert [far["kind"] for far in told["distances"]] == ["picture", "error"], "points have no features"
    for ours, theirs in zip(found["drift"]["slow"]["distances"], told["distances"], strict=True):
        assert ours["value"] == pytest.approx(theirs["value"], rel=1e-3)
    far = {name: one["distances"][1]["value"] for name, one in found["drift"].items()}
    assert far["slow"] == far["folder"] < min(v for k, v in far.items() if k not in ("slow", "folder"))
    assert "distance from the base" in said.out and "distance from the base" in Path("found/contest.md").read_text()

    from smpo.worlds.plane import network

    def never(*arguments, **named):
        raise AssertionError("drawn again")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "sample_points", never)
        patch.setattr("smpo.families.plane.sample_points", never)
        assert smpo(capfd, "compare", *words, "--out", "page.html", "--prompts", "5", "-q").code == 0
    page = Path("page.html").read_text()
    assert "train.lr" in page and "<polyline" in page and page.count("data:image/png") > 5
    assert ">holdout/accuracy<" in page and "distance from the base" in page


def test_what_is_no_model_is_said(trained, capfd):
    said = smpo(capfd, "eval", "nothing-like-it")
    assert said.code == 1 and "neither a run nor a model" in said.err
    shutil.copytree(trained[0] / "model", "elsewhere")
    said = smpo(capfd, "eval", "elsewhere")
    assert said.code == 1 and "--spec" in said.err
    assert smpo(capfd, "compare").code == 1
