"""Cached inversions and references are those that would be computed: the second run is the first, bit for bit."""

from __future__ import annotations

import pytest

from smpo.engine.loop import fit
from tests.gpu.small import trained, training
from tests.gpu.test_resume import MATH, unlike

pytestmark = pytest.mark.gpu
CACHED = ["inversion.by=reference", "runtime.reuse_inversions=true"]


def followed(models, folder, device, sets):
    live = training(models, folder, device, [MATH, *sets])
    return [report.metrics for report in fit(live.session)], trained(live)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_cached_run_is_the_exact_run(models, tmp_path, device, numbers, deterministic, precision_of, precision):
    sets = [f"train.precision={precision_of(precision)}"]
    exact, weights = followed(models, tmp_path, device, [*sets, CACHED[0]])
    first, _ = followed(models, tmp_path, device, [*sets, *CACHED])
    second, cached = followed(models, tmp_path, device, [*sets, *CACHED])
    numbers()
    assert [one["loss"] for one in first] == [one["loss"] for one in exact]
    assert [one["loss"] for one in second] == [one["loss"] for one in exact]
    assert not unlike(weights, cached)
    assert all(one["passes"] > 0 and one["reference_passes"] == 1 for one in first)
    assert all(one["passes"] == 0 and one["reference_passes"] == 0 for one in second), "nothing was computed again"
