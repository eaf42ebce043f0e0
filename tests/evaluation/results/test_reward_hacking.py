"""The panel: gauges against pictures whose numbers are known, and a verdict that says no more than it saw."""

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from smpo.evaluation.results.evaluate import SamplingSettings, evaluate
from smpo.evaluation.results.reward_hacking import reward_hacking
from tests.evaluation.toys import ToyModel, ToyPlane, ToyScorer, evaluation, judges, prompts, red


def picture(seed: int, *, saturated: bool = False, grid: bool = False) -> Image.Image:
    rng = np.random.default_rng(seed)
    smooth = np.linspace(60, 160, 32)[:, None, None] + rng.normal(scale=5, size=(1, 1, 1)) + np.zeros((32, 32, 3))
    smooth = smooth + (3 if saturated else 1) * np.array([20.0, 0.0, -20.0])
    if grid:
        smooth = smooth + 40 * ((np.indices((32, 32)).sum(0) % 2)[:, :, None] - 0.5)
    return Image.fromarray(smooth.clip(0, 255).astype(np.uint8))


def panel_of(policy, count: int = 12):
    found = evaluation(count)
    kept = {n: [picture(n)] for n in range(count)}
    return reward_hacking(replace(found, kept_base=kept, kept_policy={n: [policy(n)] for n in range(count)}))


def gauge(panel, name: str):
    return next(one for one in panel.proxies if one.name == name)


def test_equal_pictures_move_nothing():
    panel = panel_of(picture)
    assert gauge(panel, "drift").policy == 0
    assert all(one.change in (0, None) for one in panel.proxies) and "No alarm" in panel.verdict


def test_garish_colours_are_seen():
    panel = panel_of(lambda n: picture(n, saturated=True))
    assert gauge(panel, "saturation").change == pytest.approx(2, rel=0.05)  # 120 levels instead of 40
    assert "saturation +200 %" in panel.verdict and not gauge(panel, "high frequencies").moved


def test_grids_are_seen():
    panel = panel_of(lambda n: picture(n, grid=True))
    assert gauge(panel, "high frequencies").moved and "high frequencies +" in panel.verdict


def test_collapse_is_seen():
    panel = panel_of(lambda n: picture(0))
    assert gauge(panel, "diversity").change == pytest.approx(-1)
    assert "alike" in panel.verdict


def test_points_have_drift_and_diversity():
    found = evaluate(
        ToyPlane(),
        prompts(10),
        {"up": ToyScorer("k", lambda p: float(p[0]))},
        settings=SamplingSettings(guidance=3.0, steps=4),
    )
    panel = found.panel
    assert [one.name for one in panel.proxies] == ["drift", "diversity"]
    assert gauge(panel, "drift").policy == pytest.approx(2**0.5)
    assert gauge(panel, "diversity").change == pytest.approx(0, abs=1e-6)


def verdict(judge_likes: float, model: ToyModel | None = None) -> str:
    scorers = {"reward": ToyScorer("r", red), "judge": ToyScorer("j", lambda p: judge_likes * red(p))}
    how = SamplingSettings(guidance=3.0, steps=4)
    asked = judges(scorers, "r")
    return evaluate(model or ToyModel(), prompts(40), scorers, settings=how, judges=asked).panel.verdict


def test_the_verdict_follows_the_other_judges():
    assert "so did `judge`" in verdict(1.0)
    assert "suspect it was gamed" in verdict(-1.0)
    assert "no resolved change" in verdict(0.0)


def test_a_tiny_but_sure_fall_is_a_price_and_no_proof():
    said = verdict(-1.0, ToyModel(shift=2, spread=0.5))  # a fifteenth of the spread between pictures
    assert "`judge` fell by 0.06" in said or "`judge` fell by 0.07" in said
    assert "a small price" in said and "gamed" not in said


def test_it_is_in_the_file_and_the_metrics():
    found = evaluation()
    assert found.to_dict()["goodhart"]["verdict"] == found.panel.verdict
    assert len(found.to_dict()["goodhart"]["gauges"]) == len(found.panel.proxies)
    assert "goodhart/gap" in found.metrics() and "goodhart/drift" not in found.metrics()
