"""A contest in words: means and wins by category against numbers that can be worked out by hand."""

import numpy as np

from smpo.evaluation.report.comparison_text import categories, markdown, wins_by_category
from smpo.evaluation.results.comparison import Judge, rank
from smpo.evaluation.sampling.slots import SamplingSettings
from smpo.kinds import Prompt


def contest(names):
    prompts = [Prompt(f"p{k}", category=name) for k, name in enumerate(names)]
    base = np.arange(len(names), dtype=float)[:, None]
    up = np.array([[1.0], [1.0], [-1.0], [-1.0], [1.0], [np.nan]])
    return rank(
        prompts,
        [Judge("judge", "k", False, False)],
        {"base": {"judge": base}, "ours": {"judge": base + up}},
        settings=SamplingSettings(guidance=2.0, steps=4, images=1, seed=0),
    )


def test_means_and_wins_by_category():
    found = contest(["anime", "anime", "photo", "photo", "photo", "photo"])
    base, ours = categories(found, "judge")
    assert [float(base[name]) for name in ("anime", "photo", "mean of these")] == [0.5, 3.5, 2.0]
    assert [float(ours[name]) for name in ("anime", "photo")] == [1.5, 2.7], "what has no score is left out"
    assert wins_by_category(found, "judge") == [{"model": "ours", "anime": "100 %", "photo": "33 %"}]
    assert "Means by category:" in markdown(found) and "| ours | 100 % | 33 % |" in markdown(found)


def test_a_category_may_be_called_like_a_column():
    (_, ours) = categories(contest(["model", "model", "", "", "", ""]), "judge")
    assert ours["model"] == "ours" and float(ours["model (category)"]) == 1.5 and "(none)" in ours


def test_without_categories_there_are_no_such_tables():
    found = contest(["one"] * 6)
    assert categories(found, "judge") == [] == wins_by_category(found, "judge")
    assert "by category" not in markdown(found)
