"""What is said about measurements follows from them: interpolation, choices, sentences. No measurement is made here."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

HERE = Path(__file__).parents[2]


@pytest.fixture
def scripts(script):
    return script


def path(*marks):
    """Marks of `(error distance, gains)`."""
    return [
        {"step": k, "distance": {"error": e}, "gains": gains, "gain": sum(gains)} for k, (e, gains) in enumerate(marks)
    ]


def test_gains_are_compared_where_paths_cross_a_distance(scripts):
    fronts = scripts("shapes_fronts")
    one = path((0.01, [0.1, 0.2]), (0.04, [0.3, 0.2]))
    assert fronts.at_distance(one, 0.01) == pytest.approx([0.1, 0.2])
    assert fronts.at_distance(one, 0.0225) == pytest.approx([0.2, 0.2]), "half way from .1 to .2 in the root"
    assert fronts.at_distance(one, 0.0025) == pytest.approx([0.05, 0.1]), "from nothing at the base"
    assert fronts.at_distance(one, 0.05) is None
    assert fronts.reach([one, path((0.02, [0.0, 0.0]))]) == 0.02


def test_settings_are_chosen_where_all_methods_get_to(scripts):
    fronts = scripts("shapes_fronts")
    tuning = {
        "A | slow | 1": path((0.01, [0.3])),
        "A | fast | 1": path((0.04, [0.4])),  # at .01 it had gained .2
        "B | slow | 1": path((0.01, [0.1])),
    }
    assert fronts.choose(tuning, ["A", "B"]) == {"A": ("slow", "1"), "B": ("slow", "1")}


def test_a_lead_is_a_lead_at_equal_distance(scripts):
    fronts = scripts("shapes_fronts")
    rng, groups = np.random.default_rng(0), [f"g{k}" for k in range(40)]
    final = {}
    for seed in (1, 2, 3):
        noise = rng.normal(scale=0.002, size=40)
        final[f"DPO | seed {seed}"] = path((0.04, (0.02 + noise).tolist()))
        # Twice the gain at four times the distance: the same gain, at equal distance in the root.
        final[f"SmPO | seed {seed}"] = path((0.16, (0.04 + 2 * noise).tolist()))
    rows = fronts.summary({"final": final, "groups": {"untouched": groups}})
    last = {row["method"]: row for row in rows if row["error"] == pytest.approx(0.04)}
    assert last["SmPO"]["gain"] == pytest.approx(last["DPO"]["gain"])
    assert last["SmPO"]["over_dpo_low"] <= 1e-12 and last["SmPO"]["over_dpo_high"] >= -1e-12
    assert last["DPO"]["low"] < 0.02 < last["DPO"]["high"]


def test_every_arm_is_a_sound_experiment(scripts):
    from smpo.experiment import ExperimentSpec
    from smpo.registry.resolve import resolve

    inversion = scripts("shapes_inversion")
    for factor in inversion.FACTORS.values():
        identities = {
            (arm.base, resolve(inversion.SPEC, skeleton=ExperimentSpec, sets=[*arm.sets]).identity.spec_hash)
            for arm in factor.arms
        }
        assert len(identities) == len(factor.arms), "arms differ"


def outcome(gains):
    """What `tabulate` makes of arms whose policies gain so much over base on 60 prompts, three seeds."""
    from smpo.evaluation.results.ablation import VariantRuns, tabulate

    rng = np.random.default_rng(1)
    base = rng.normal(size=(60, 1))
    arms = []
    for name, gain in gains.items():
        runs = {}
        for seed in range(3):
            policy = base + gain + rng.normal(scale=0.01, size=(60, 1))
            one = {
                "name": "shapes-judge",
                "made_labels": False,
                "policy": policy.tolist(),
                "base": base.tolist(),
            }
            prompts = [{"text": f"p{k}", "group": f"g{k}"} for k in range(60)]
            drift = {"distances": [{"kind": "error", "by": "", "value": 0.5}]}
            runs[seed] = {"prompts": prompts, "role": "untouched", "judgements": [one], "drift": drift}
        arms.append(VariantRuns(name, None if not arms else next(iter(gains)), runs, {}))
    return tabulate("toy", arms, seeds=3).to_dict()


def test_the_page_says_what_is_resolved_and_no_more(scripts, tmp_path):
    page = scripts("shapes_inversion_page")
    watch = {
        "tau_squared": 0.7, "reference_error": 0.01, "passes_per_picture": 24.0, "gap_winner": 0.001,
        "gap_loser": 0.002, "implicit_accuracy": 0.8, "holdout_accuracy": 0.6,
    }  # fmt: skip
    gains = {"control": 0.05, "worse arm": 0.01, "same arm": 0.05}
    body = {
        "sets": [], "seeds": 3, "judge": "shapes-judge", "world": "0123456789ab",
        "machine": {"packages": {"torch": "2"}, "date": "today", "platform": "Linux", "python": "3.11"},
        "factors": {
            "noise": {"question": "Which?", "outcome": outcome(gains), "watched": {name: [watch] * 3 for name in gains}}
        },
    }  # fmt: skip
    text = page.page(body)
    assert "* **noise**, against control: worse: worse arm (-0.0" in text and "not told apart: same arm" in text
    row = next(line for line in text.splitlines() if line.startswith("| worse arm"))
    assert "+0.01" in row and "| 0.70 | +10 % | 24.0 |" in row and "0.5" in row
    (tmp_path / "r.json").write_text(json.dumps(body))
    sys.argv = ["page", "--results", str(tmp_path / "r.json"), "--page", str(tmp_path / "p.md")]
    assert page.main() == 0 and (tmp_path / "p.md").read_text() == text


def test_committed_pages_are_those_of_their_results(scripts):
    """Whoever measures again writes the page again."""
    results, page = HERE / "benchmarks/results/shapes_inversion.json", HERE / "docs/inversion-on-images.md"
    assert results.exists() == page.exists()
    if results.exists():
        assert scripts("shapes_inversion_page").page(json.loads(results.read_text())) == page.read_text()
