"""Intervals over seeds and prompts together: known cases, and how often they hold in simulations."""

import math

import numpy as np
import pytest

from smpo.errors import RunError
from smpo.evaluation.statistics.over_seeds import contrast
from smpo.evaluation.statistics.paired import compare


def simulated(rng, *, seeds: int, prompts: int, over_seeds: float, over_prompts: float, noise: float = 1.0, mean=0.3):
    """Gains with a component that all prompts of a run share, and one that all runs of a prompt share."""
    return (
        mean
        + over_seeds * rng.standard_normal((seeds, 1))
        + over_prompts * rng.standard_normal((1, prompts))
        + noise * rng.standard_normal((seeds, prompts))
    )


@pytest.mark.parametrize("seeds", [3, 8])
@pytest.mark.parametrize(("over_seeds", "over_prompts"), [(0.0, 1.0), (0.3, 0.0), (0.3, 1.0)])
def test_the_interval_holds_what_it_promises(seeds, over_seeds, over_prompts):
    rng = np.random.default_rng(0)
    held = 0
    for _ in range(200):
        gains = simulated(rng, seeds=seeds, prompts=60, over_seeds=over_seeds, over_prompts=over_prompts)
        found = contrast(gains, np.zeros_like(gains), range(60))
        held += found.gain.low <= 0.3 <= found.gain.high
    assert held / 200 >= 0.91, "95 % less what 200 simulations may miss; wide is allowed, narrow isn't"


def test_prompts_alone_would_not_hold_it():
    """Why seeds are counted: an interval over the prompts of pooled runs is far too narrow."""
    rng = np.random.default_rng(1)
    held = 0
    for _ in range(200):
        gains = simulated(rng, seeds=4, prompts=60, over_seeds=0.3, over_prompts=0.2)
        low, high = contrast(gains, np.zeros_like(gains), range(60)).gain.prompts
        held += low <= 0.3 <= high
    assert held / 200 < 0.7


def test_p_values_are_fair_without_a_difference():
    rng = np.random.default_rng(2)
    found = [
        contrast(gains, np.zeros_like(gains), range(40)).p_value
        for gains in (simulated(rng, seeds=5, prompts=40, over_seeds=0.3, over_prompts=0.5, mean=0) for _ in range(200))
    ]
    assert np.mean(np.array(found) < 0.05) < 0.09


def test_one_seed_is_the_ordinary_comparison_and_says_nothing_of_others():
    rng = np.random.default_rng(3)
    ours, theirs = rng.normal(0.5, 1, 30), rng.normal(0, 1, 30)
    found, plain = contrast([ours], [theirs], range(30)), compare(ours, theirs)
    assert (found.gain.low, found.gain.high) == pytest.approx((plain.gain_low, plain.gain_high))
    assert found.win_rate.value == pytest.approx(plain.win_rate)
    assert found.gain.seeds is None and found.gain.between is None and found.p_value is None


def test_seeds_that_agree_add_nothing():
    gains = np.tile(np.linspace(-1, 2, 20), (4, 1))
    found = contrast(gains, np.zeros_like(gains), range(20))
    assert found.gain.between == 0 and found.gain.low == pytest.approx(found.gain.prompts[0])


def test_win_rates_stay_shares():
    found = contrast(np.ones((3, 10)), np.zeros((3, 10)), range(10))
    assert found.win_rate.value == found.win_rate.high == 1 and 0.5 < found.win_rate.low < 1
    assert math.isfinite(found.win_rate.low)


def test_prompts_without_a_score_in_some_run_are_dropped_from_all():
    ours = np.ones((2, 4))
    ours[1, 2] = np.nan
    found = contrast(ours, np.zeros((2, 4)), range(4))
    assert (found.prompts, found.dropped) == (3, 1)
    assert contrast(np.full((2, 3), np.nan), np.zeros((2, 3)), range(3)) is None


def test_runs_with_other_prompts_are_not_compared():
    with pytest.raises(RunError, match="differ in their prompts"):
        contrast(np.ones((2, 4)), np.ones((2, 5)), range(4))


def test_distances_and_costs_stand_beside_the_judge_that_is_believed():
    """One for all variants, though a reward made the labels of some variants only."""
    from smpo.evaluation.report.ablation_text import costs, distances, markdown
    from smpo.evaluation.results.ablation import VariantRuns, tabulate

    def variant(name: str, gain: float, made: bool) -> VariantRuns:
        base = np.linspace(0, 1, 20)[:, None]
        judged = [("reward", 2 * gain, made, True), ("judge", gain, False, False)]
        evaluations = {
            seed: {
                "prompts": [{"text": f"p{k}", "group": ""} for k in range(20)],
                "role": "untouched",
                "drift": {"distances": [{"kind": "feature", "by": "reward", "value": gain + seed}]},
                "judgements": [
                    {"name": judge, "made_labels": labels, "learned": learned, "base": base.tolist(),
                     "policy": (base + up * (1 + 0.1 * np.sin(np.arange(20)))[:, None]).tolist()}
                    for judge, up, labels, learned in judged
                ],
            }
            for seed in (0, 1)
        }  # fmt: skip
        cost = {
            "seconds": {"train": 1.0},
            "training_tflop": None,
            "training_passes": 1e6,
            "pairs": 8,
            "peak_bytes": 1,
            "joules": {"gpu": 3e3},
        }
        return VariantRuns(name, None, evaluations, {0: cost, 1: cost})

    outcome = tabulate("toy", [variant("DPO", 0.1, False), variant("SmPO", 0.2, True)], seeds=2)
    assert outcome.believed() == "judge"
    rows = distances(outcome)
    assert [list(row) for row in rows] == [["variant", "gain, judge", "feature (reward)"]] * 2
    assert rows[1]["feature (reward)"] == "0.7 ± 0.7" and rows[0]["gain, judge"].startswith("+0.1")
    assert costs(outcome)[0]["energy"] == "3 kJ" and "## distance from the base" in markdown(outcome)
    assert outcome.metrics()["ablation/SmPO/drift/feature_reward"] == pytest.approx(0.7)
