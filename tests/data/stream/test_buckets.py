"""Sizes as SDXL has them, and pairs that keep together: one size, each once an epoch, however they are dealt."""

from collections import Counter
from itertools import combinations_with_replacement
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from smpo.data.pairs.pickapic import read_pickapic
from smpo.data.pairs.table import VoteTable
from smpo.data.stream.buckets import Buckets, bucket_sizes, bucketed, lost, nearest, portions
from smpo.data.stream.loader import PairLoader, Stream
from smpo.engine.inversion_batches import windows
from smpo.errors import RunError
from smpo.imaging import place
from smpo.kinds import Denoiser, PairBatch, Placement
from tests.data.worlds import Encoder, Points, jpeg, vote, write

# Podell et al. 2023, appendix I, the tall half: widths by height.
SDXL = {
    512: (2048, 1984, 1920, 1856), 576: (1792, 1728, 1664), 640: (1600, 1536), 704: (1472, 1408, 1344),
    768: (1344, 1280), 832: (1216, 1152), 896: (1152, 1088), 960: (1088, 1024), 1024: (1024,),
}  # fmt: skip
SIZES = bucket_sizes(8, 2.0, 1)
SHAPES = ((24, 16), (16, 24), (20, 20), (40, 20), (21, 16))


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> VoteTable:
    """Pairs of all shapes; the second image of every third is of another than the first."""
    rows = []
    for i in range(23):
        other = SHAPES[(i + (i % 3 == 0)) % len(SHAPES)]
        rows.append(
            vote(
                f"prompt {i % 5}",
                jpeg(2 * i, *SHAPES[i % len(SHAPES)]),
                jpeg(2 * i + 1, *other),
                float(i % 2),
            )
        )
    return read_pickapic(write(tmp_path_factory.mktemp("mixed") / "pairs.parquet", rows))


def loader(table: VoteTable, cache: Path, *, buckets: bool = True, **options: Any) -> PairLoader:
    stream = Stream(**{"seed": 3, "batch": 6, "flip": True, **options})
    p = torch.linspace(0, 1, len(table), dtype=torch.float64)
    found = bucketed(table, SIZES, 8) if buckets else None
    return PairLoader(table, p, cast(Denoiser, Encoder()), stream, cache=cache, encode_batch=5, buckets=found)


def shape(batch: PairBatch) -> tuple[int, ...]:
    return tuple(batch.mean.shape[2:])


def rows_of(batches: list[PairBatch]) -> dict[int, tuple[Any, ...]]:
    """Everything about each sample, by its position."""
    found = {}
    for batch in batches:
        winner, loser = batch.mean.chunk(2)
        sizes = batch.conditioning.tensors["size_ids"].chunk(2)
        for i, position in enumerate(batch.position.tolist()):
            numbers = (winner[i], loser[i], sizes[0][i], sizes[1][i], batch.p[i])
            found[position] = (batch.ids[i], *(tuple(one.flatten().tolist()) for one in numbers))
    return found


def test_the_sizes_are_those_of_sdxl() -> None:
    published = {(height, width) for width, heights in SDXL.items() for height in heights}
    assert set(bucket_sizes(1024, 4.0, 64)) == published | {(width, height) for height, width in published}


@given(st.sampled_from([256, 512, 768, 1024, 1536]), st.floats(1.1, 4), st.sampled_from([8, 16, 32, 64]))
@settings(max_examples=40, deadline=None)
def test_sizes_cost_no_more_than_the_square(resolution: int, aspect: float, step: int) -> None:
    sizes = bucket_sizes(resolution, aspect, step)
    assert (resolution, resolution) in sizes and len(set(sizes)) == len(sizes)
    assert set(sizes) == {(width, height) for height, width in sizes}, "tall and wide alike"
    for height, width in sizes:
        assert height % step == width % step == 0
        assert 0.9 * resolution**2 < height * width <= resolution**2
        assert max(height, width) <= aspect * min(height, width)


@given(st.lists(st.floats(-2, 2), min_size=1, max_size=20))
def test_the_nearest_shape_is_chosen_and_loses_least(aspects: list[float]) -> None:
    sizes, found = bucket_sizes(1024, 4.0, 64), np.array(aspects)
    chosen = nearest(found, sizes)
    losses = np.stack([lost(found, size) for size in sizes])
    assert np.allclose(losses[chosen, np.arange(len(found))], losses.min(0))


@given(st.integers(1, 300), st.integers(1, 300), st.floats(0, 1), st.floats(0, 1), st.sampled_from(SIZES))
@settings(max_examples=60, deadline=None)
def test_what_is_lost_is_what_is_cut(
    width: int, height: int, across: float, down: float, size: tuple[int, int]
) -> None:
    """The window is covered, and the share of the picture outside of it is the one that audits report."""
    placed = place(Image.new("RGB", (width, height), "white"), 8, Placement((across, down), size=size))
    assert placed.size == size and placed.original == (height, width)
    assert placed.pixels.min() == 1.0, "nothing but the picture"
    scale = max(size[0] / height, size[1] / width)
    outside = 1 - size[0] * size[1] / (scale**2 * height * width)
    assert lost(np.log([width / height]), size)[0] == pytest.approx(outside, abs=1e-9)


def test_both_images_of_a_pair_share_a_size_and_batches_have_one(mixed: VoteTable, tmp_path: Path) -> None:
    feed = loader(mixed, tmp_path)
    found = [batch for step in range(4) for batch in feed.batches(step)]
    assert len({shape(batch) for batch in found}) > 2
    sizes = bucketed(mixed, SIZES, 8)
    by_id = {mixed[row].id: sizes.size(row) or (8, 8) for row in range(len(mixed))}
    for batch in found:
        assert {by_id[name] for name in batch.ids} == {shape(batch)}


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    seed=st.integers(0, 99), batch=st.integers(1, 9), micro=st.integers(1, 9) | st.none(),
    world=st.sampled_from([1, 2, 3]), crop=st.sampled_from(["centre", "random"]),
)  # fmt: skip
def test_dealing_changes_nothing(
    mixed: VoteTable, tmp_path: Path, seed: int, batch: int, micro: int | None, world: int, crop: str
) -> None:
    options = {"seed": seed, "batch": batch * world, "crop": crop}
    whole = list(loader(mixed, tmp_path, **options).batches(1))
    feed = loader(mixed, tmp_path, micro_batch=micro, **options)
    dealt = [some for rank in range(world) for some in feed.batches(1, rank, world)]
    assert rows_of(whole) == rows_of(dealt)
    assert max(map(len, dealt)) <= (micro or batch)
    plain = loader(mixed, tmp_path, buckets=False, **options).samples(1)
    assert {one.position: one.pair.id for one in plain} == {at: row[0] for at, row in rows_of(whole).items()}


@pytest.mark.parametrize("batch", [1, 5, 23])
def test_every_pair_is_seen_once_an_epoch(mixed: VoteTable, tmp_path: Path, batch: int) -> None:
    feed = loader(mixed, tmp_path, batch=batch, micro_batch=2)
    seen = [
        (position, row[0])
        for step in range(46 // batch + 1)
        for position, row in rows_of(list(feed.batches(step))).items()
    ]
    for epoch in (0, 1):
        names = Counter(name for position, name in seen if position // 23 == epoch)
        assert set(names.values()) == {1} and (len(names) == 23 or batch == 5)


def test_prepared_pairs_need_no_encoder_and_squares_are_shared_with_runs_without_buckets(
    mixed: VoteTable, tmp_path: Path
) -> None:
    loader(mixed, tmp_path, buckets=False).prepare(4)
    feed = loader(mixed, tmp_path)
    encoder: Encoder = feed._denoiser  # type: ignore[assignment]
    feed.prepare(4)
    assert {where.size for _, where in encoder.pictures_seen} and None not in {
        where.size for _, where in encoder.pictures_seen
    }
    before = len(encoder.pictures_seen)
    assert sum(len(batch) for step in range(4) for batch in feed.batches(step)) == 24
    assert len(encoder.pictures_seen) == before
    shapes = {batch.mean.shape[1:] for batch in feed.batches(0)}
    stores = list((tmp_path / "latents").iterdir())
    assert len(stores) >= len(shapes), "a store holds rows of one shape"


def test_windows_join_only_what_has_one_shape(mixed: VoteTable, tmp_path: Path) -> None:
    batches = list(loader(mixed, tmp_path, batch=12, micro_batch=2).batches(0))
    for limit in (None, 3):
        joined = list(windows(batches, limit))
        assert [name for one in joined for name in one.ids] == [name for one in batches for name in one.ids]
        assert len(joined) >= len({shape(one) for one in batches})
    assert len(list(windows(batches, None))) == len({shape(one) for one in batches})


def test_pairs_to_look_at_stay_in_order(mixed: VoteTable, tmp_path: Path) -> None:
    feed = loader(mixed, tmp_path)
    rows = feed.together([5, 0, 1, 7, 2])
    assert sorted(rows) == [0, 1, 2, 5, 7]
    batches = list(feed.fixed(rows, 2))
    assert [name for batch in batches for name in batch.ids] == [mixed[row].id for row in rows]
    assert torch.cat([batch.position for batch in batches]).tolist() == list(range(5))
    plain = loader(mixed, tmp_path, buckets=False)
    assert plain.together([5, 0, 1]) == [5, 0, 1]


def test_points_have_no_shape() -> None:
    with pytest.raises(RunError, match="doesn't know the shapes"):
        bucketed(cast(Any, Points()), SIZES, 8)


def test_portions_are_counted_exactly() -> None:
    """Against every way in which three pairs fall into two buckets of shares 1/4 and 3/4."""
    expected = 0.0
    for first in range(4):
        ways = len([one for one in range(8) if bin(one).count("1") == first])
        expected += ways * 0.25**first * 0.75 ** (3 - first) * (-(-first // 2) + -(-(3 - first) // 2))
    assert portions([10, 30], 3, 2) == pytest.approx(expected)
    assert portions([5], 7, 2) == 4
    for pairs, micro in combinations_with_replacement((1, 4, 9), 2):
        assert portions([1, 1, 1], micro, 1) == pytest.approx(micro)
        assert portions([3, 2], pairs, micro) <= pairs + 1e-9


def test_buckets_name_sizes_by_row() -> None:
    some = Buckets([None, (8, 16)], np.array([1, 0, 1]))
    assert [some.size(row) for row in range(3)] == [(8, 16), None, (8, 16)] and some.counts() == {0: 1, 1: 2}
