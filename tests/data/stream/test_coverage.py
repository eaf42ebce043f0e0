"""What a stretch of the stream will show is counted without its samples, and comes out as if by them."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from smpo.data.stream import coverage as visits
from smpo.data.stream.coverage import coverage_of_samples
from smpo.data.stream.loader import PairLoader, Stream
from smpo.kinds import Denoiser, Sampling
from tests.data.worlds import Encoder, Points


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.integers(0, 50), st.integers(0, 40), st.integers(1, 60), st.sampled_from([False, True, "apart"]),
    st.sampled_from([0.0, 0.4, 1.0]), st.sampled_from([None, ("good ", "bad ")]), st.sampled_from([None, [0, 3, 4, 8]]),
)  # fmt: skip
def test_counted_as_if_by_samples(
    tmp_path: Path, seed: int, start: int, length: int, flip: Any, silent: float, prefixes: Any, rows: Any
) -> None:
    stream = Stream(seed, 4, flip=flip, prompt_dropout=silent, sampling=Sampling(prefixes=prefixes))
    p = torch.linspace(0, 1, 11, dtype=torch.float64)
    feed = PairLoader(Points(11), p, cast(Denoiser, Encoder()), stream, cache=tmp_path, rows=rows)
    positions = range(start, start + length)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(visits, "PORTION", 7)
        counted = feed._visits(positions)
    expected = coverage_of_samples(feed._samples(positions))
    assert list(counted.prompts) == list(expected.prompts)
    assert counted.images == expected.images
