"""The same samples however they are dealt, the same placement for both images, and nothing encoded twice."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from smpo.data.pairs.pickapic import read_pickapic
from smpo.data.pairs.table import VoteTable
from smpo.data.stream.loader import PairLoader, Stream
from smpo.imaging import place
from smpo.kinds import Denoiser, PairBatch
from tests.data.worlds import Encoder, Points, jpeg, text_row, vote, write

EVERYTHING = {"flip": True, "prompt_dropout": 0.3}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> VoteTable:
    rows = [vote(f"prompt {i % 5}", jpeg(2 * i), jpeg(2 * i + 1), float(i % 2)) for i in range(12)]
    return read_pickapic(write(tmp_path_factory.mktemp("pairs") / "pairs.parquet", rows))


def loader(table: Any, cache: Path, encoder: Encoder | None = None, **settings: Any) -> PairLoader:
    stream = Stream(**{"seed": 3, "batch": 8, **settings})
    p = torch.arange(len(table), dtype=torch.float64) / len(table)
    return PairLoader(table, p, cast(Denoiser, encoder or Encoder()), stream, cache=cache, encode_batch=5)


def joined(batches: list[PairBatch]) -> dict[str, Any]:
    """The pairs of several micro-batches as rows of one, sorted by position."""

    def both(pick: Any) -> Tensor:
        halves = [pick(batch).chunk(2) for batch in batches]
        return torch.stack([torch.cat(side) for side in zip(*halves, strict=True)], dim=1)

    order = torch.cat([batch.position for batch in batches]).argsort()
    rows = {
        "position": torch.cat([batch.position for batch in batches]),
        "p": torch.cat([batch.p for batch in batches]),
        "mean": both(lambda batch: batch.mean),
        "std": both(lambda batch: batch.std),
        "text": both(lambda batch: batch.conditioning.tensors["text"]),
        "size_ids": both(lambda batch: batch.conditioning.tensors["size_ids"]),
    }
    ids = [name for batch in batches for name in batch.ids]
    return {"ids": [ids[i] for i in order], **{name: tensor[order] for name, tensor in rows.items()}}


@pytest.mark.parametrize("crop", ["centre", "random"])
@pytest.mark.parametrize(
    ("world", "micro"), [(1, 1), (1, 2), (1, 3), (1, 4), (1, 8), (2, 1), (2, 2), (2, 3), (2, 4), (2, None)]
)
def test_dealing_changes_nothing(pictures: VoteTable, tmp_path: Path, world: int, micro: int | None, crop: str) -> None:
    settings = {**EVERYTHING, "crop": crop}
    whole = list(loader(pictures, tmp_path, **settings).batches(2))
    assert len(whole) == 1
    dealt = [
        batch
        for rank in range(world)
        for batch in loader(pictures, tmp_path, micro_batch=micro, **settings).batches(2, rank, world)
    ]
    share = 8 // world
    sizes = [min(micro or share, share - first) for first in range(0, share, micro or share)]
    assert [len(batch) for batch in dealt] == sizes * world
    one, other = joined(whole), joined(dealt)
    assert one.pop("ids") == other.pop("ids")
    for name in one:
        assert torch.equal(one[name], other[name]), name


def test_dealing_by_cost_changes_only_who_does_what(pictures: VoteTable, tmp_path: Path) -> None:
    def cost(positions: range) -> torch.Tensor:
        return torch.tensor([7.0 * position % 5 for position in positions])

    feed = loader(pictures, tmp_path, **EVERYTHING)
    whole = {sample.position: sample for sample in feed.samples(2)}
    hands = [feed.samples(2, rank, 4, cost) for rank in range(4)]
    assert {sample.position: sample for hand in hands for sample in hand} == whole
    assert [len(hand) for hand in hands] == [2, 2, 2, 2]


def test_updates_follow_each_other_through_the_epochs(pictures: VoteTable, tmp_path: Path) -> None:
    feed = loader(pictures, tmp_path)
    positions = [int(position) for step in range(3) for batch in feed.batches(step) for position in batch.position]
    ids = [name for step in range(3) for batch in feed.batches(step) for name in batch.ids]
    assert positions == list(range(24))
    assert len(set(ids[:12])) == len(set(ids[12:])) == 12


def test_winners_come_first_and_p_belongs_to_its_pair(pictures: VoteTable, tmp_path: Path) -> None:
    feed = loader(pictures, tmp_path)
    (batch,) = feed.batches(0)
    for i, sample in enumerate(feed.samples(0)):
        for half, image in enumerate((sample.pair.winner, sample.pair.loser)):
            expected = place(pictures.picture(image), 8, sample.placement).pixels
            assert torch.equal(batch.mean[8 * half + i], expected)
            assert torch.equal(batch.conditioning.tensors["text"][8 * half + i], text_row(sample.prompt))
        assert batch.p[i] == pytest.approx(sample.row / 12)
    assert batch.p.dtype == torch.float32
    assert batch.conditioning.tensors["size_ids"].shape == (16, 4)


@pytest.mark.parametrize("crop", ["centre", "random"])
def test_the_images_of_a_pair_are_placed_alike(pictures: VoteTable, tmp_path: Path, crop: str) -> None:
    feed = loader(pictures, tmp_path, flip=True, crop=crop, batch=12)
    flips, crops = set(), set()
    for step in range(4):
        (batch,) = feed.batches(step)
        for i, sample in enumerate(feed.samples(step)):
            winner = place(pictures.picture(sample.pair.winner), 8, sample.placement)
            loser = place(pictures.picture(sample.pair.loser), 8, sample.placement)
            assert torch.equal(batch.mean[i], winner.pixels) and torch.equal(batch.mean[12 + i], loser.pixels)
            assert batch.conditioning.tensors["size_ids"][i].tolist() == [16, 24, *winner.top_left]
            flips.add(sample.placement.flip)
            crops.add(sample.placement.crop)
    assert flips == {True, False}
    assert crops == {(0.5, 0.5)} if crop == "centre" else len(crops) == 48


def test_apart_each_image_has_its_own_coin_and_the_first_keeps_its(pictures: VoteTable, tmp_path: Path) -> None:
    feed, together = (
        loader(pictures, tmp_path, flip="apart", batch=12),
        loader(pictures, tmp_path, flip=True, batch=12),
    )
    seen = set()
    for step in range(8):
        (batch,) = feed.batches(step)
        for i, (sample, other) in enumerate(zip(feed.samples(step), together.samples(step), strict=True)):
            for half, one in enumerate(sample.shown):
                expected = place(pictures.picture(one.image), 8, one.placement).pixels
                assert torch.equal(batch.mean[12 * half + i], expected)
            assert sample.placement == other.placement and other.shown[0].placement == other.shown[1].placement
            seen.add(tuple(one.placement.flip for one in sample.shown))
    assert len(seen) == 4


def test_shares_of_flips_and_empty_prompts(tmp_path: Path) -> None:
    feed = loader(Points(pairs=50), tmp_path, batch=2000, **EVERYTHING)
    samples = feed.samples(0)
    assert sum(sample.placement.flip for sample in samples) / 2000 == pytest.approx(0.5, abs=0.04)
    assert sum(sample.prompt == "" for sample in samples) / 2000 == pytest.approx(0.3, abs=0.04)
    plain = loader(Points(pairs=50), tmp_path, batch=200).samples(0)
    assert not any(sample.placement.flip or sample.prompt == "" for sample in plain)
    assert {sample.placement.crop for sample in plain} == {(0.5, 0.5)}


def test_turning_one_augmentation_on_leaves_the_others_alone(tmp_path: Path) -> None:
    """Runs that differ in one setting see the same pairs otherwise, which makes them comparable."""
    one = loader(Points(), tmp_path, flip=True).samples(5)
    other = loader(Points(), tmp_path, flip=True, crop="random", prompt_dropout=0.5).samples(5)
    assert [(s.row, s.placement.flip) for s in one] == [(s.row, s.placement.flip) for s in other]


def test_prepare_encodes_what_will_be_visited_and_nothing_else(pictures: VoteTable, tmp_path: Path) -> None:
    encoder, seen = Encoder(), []
    feed = loader(pictures, tmp_path, encoder, batch=3, **EVERYTHING)
    feed.prepare(2, progress=lambda label, done, total: seen.append((label, done, total)))
    samples = [sample for step in range(2) for sample in feed.samples(step)]
    assert len(encoder.pictures_seen) == 12 == 2 * len({(s.row, s.placement.flip) for s in samples})
    assert set(encoder.prompts_seen) == {sample.prompt for sample in samples}
    assert ("encoding images", 12, 12) in seen and seen[0][0] == "encoding prompts"
    before = len(encoder.pictures_seen), len(encoder.prompts_seen)
    for step in range(2):
        list(feed.batches(step))
    assert (len(encoder.pictures_seen), len(encoder.prompts_seen)) == before
    list(feed.batches(2))
    assert len(encoder.pictures_seen) == 18, "unprepared updates are encoded when they come"


def test_caches_are_shared_by_runs_and_separated_by_encoder(pictures: VoteTable, tmp_path: Path) -> None:
    loader(pictures, tmp_path).prepare(3)
    again, other = Encoder(), Encoder("another encoder")
    loader(pictures, tmp_path, again, seed=9).prepare(3)
    loader(pictures, tmp_path, other).prepare(3)
    assert len(again.pictures_seen) == 0 and len(other.pictures_seen) == 24


def test_points_are_pictures_too(tmp_path: Path) -> None:
    table = Points()
    (batch,) = loader(table, tmp_path, batch=4).batches(0)
    assert batch.mean.shape == (8, 2, 1, 1)
    assert batch.mean[0].flatten().tolist() == table.picture(table[_row(table, batch.ids[0])].winner).tolist()


def _row(table: Points, name: str) -> int:
    return [pair.id for pair in table.pairs].index(name)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="p has shape"):
        PairLoader(Points(), torch.ones(3), cast(Denoiser, Encoder()), Stream(seed=0, batch=4), cache=tmp_path)
    with pytest.raises(ValueError, match="dealt to 3"):
        loader(Points(), tmp_path).samples(0, 0, 3)
