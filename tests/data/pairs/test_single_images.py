"""What objectives may ask the loader for beyond pairs: single images, prefixes, empty prompts, and pairs to look at."""

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from smpo.data.pairs.single_images import Singles
from smpo.data.stream.loader import PairLoader, Stream
from smpo.errors import RunError
from smpo.kinds import Denoiser, Pair, Sampling
from tests.data.worlds import Encoder, Points, text_row


def loader(table: Any, cache: Path, p: torch.Tensor | None = None, **settings: Any) -> PairLoader:
    rows = settings.pop("rows", None)
    stream = Stream(**{"seed": 3, "batch": 8, **settings})
    chance = torch.full((len(table),), 0.9, dtype=torch.float64) if p is None else p
    encoder = cast(Denoiser, Encoder())
    return PairLoader(table, chance, encoder, stream, cache=cache, encode_batch=5, rows=rows)


def test_an_image_that_won_once_is_desirable() -> None:
    table = Points(pairs=4, prompts=1)
    a, b = table.pairs[0].winner, table.pairs[0].loser
    c, d = table.pairs[1].winner, table.pairs[1].loser
    table.pairs = [
        Pair("1", "x", a, b, 1.0), Pair("2", "x", c, a, 1.0), Pair("3", "x", b, d, 0.5), Pair("4", "y", a, b, 1.0)
    ]  # fmt: skip
    found = Singles(table, torch.tensor([0.9, 0.8, 0.5, 0.2]), range(4), 0.8)
    assert {(one.image, one.prompt) for one in found.desirable} == {(a, "x"), (c, "x"), (b, "y")}
    assert {(one.image, one.prompt) for one in found.undesirable} == {(b, "x"), (d, "x"), (a, "y")}
    for one in found.desirable + found.undesirable:
        pair = table.pairs[one.row]
        assert one.image == (pair.winner, pair.loser)[one.side]
    with pytest.raises(RunError, match="is desirable"):
        Singles(table, torch.full((4,), 0.5), range(4), 0.8)


def test_single_images_come_in_the_proportion_asked_for_and_independently(tmp_path: Path) -> None:
    feed = loader(Points(pairs=50), tmp_path, batch=2000, sampling=Sampling(desirable=0.7))
    (batch,) = feed.batches(0)
    assert batch.desirable is not None
    first, second = batch.desirable.float().chunk(2)
    assert float(first.mean()) == pytest.approx(0.7, abs=0.04) == pytest.approx(float(second.mean()), abs=0.04)
    assert float((first * second).mean()) == pytest.approx(0.49, abs=0.04)
    assert batch.p.tolist() == [1.0] * 2000
    shown = [one for sample in feed.samples(0) for one in sample.shown]
    assert len({one.image for one in shown}) == 100


@pytest.mark.parametrize("micro", [1, 4])
def test_single_images_do_not_depend_on_how_they_are_dealt(tmp_path: Path, micro: int) -> None:
    asked = Sampling(desirable=0.8)
    (whole,) = loader(Points(), tmp_path, sampling=asked).batches(1)
    parts = list(loader(Points(), tmp_path, sampling=asked, micro_batch=micro).batches(1))

    def joined(pick: Any) -> torch.Tensor:
        halves = [pick(part).chunk(2) for part in parts]
        return torch.cat([torch.cat(side) for side in zip(*halves, strict=True)])

    assert torch.equal(whole.mean, joined(lambda part: part.mean))
    assert whole.desirable is not None and torch.equal(whole.desirable, joined(lambda part: part.desirable))


def test_each_single_image_keeps_its_own_prompt(tmp_path: Path) -> None:
    table = Points(pairs=6, prompts=6)
    feed = loader(table, tmp_path, sampling=Sampling(desirable=0.5))
    feed.prepare(1)
    (batch,) = feed.batches(0)
    prompts = {image: pair.prompt for pair in table.pairs for image in (pair.winner, pair.loser)}
    for i, sample in enumerate(feed.samples(0)):
        for side, one in enumerate(sample.shown):
            row = 8 * side + i
            assert one.prompt == prompts[one.image]
            assert torch.equal(batch.conditioning.tensors["text"][row], text_row(one.prompt))
            assert batch.mean[row].flatten().tolist() == table.picture(one.image).tolist()


def test_prefixes_tell_good_from_bad_and_say_nothing_of_ties(tmp_path: Path) -> None:
    table, p = Points(pairs=3), torch.tensor([0.9, 0.2, 0.5], dtype=torch.float64)
    feed = loader(table, tmp_path, p, batch=3, sampling=Sampling(prefixes=("good ", "bad ")))
    (batch,) = feed.batches(0)
    worded = {0: ("good ", "bad "), 1: ("bad ", "good "), 2: ("", "")}
    for i, sample in enumerate(feed.samples(0)):
        for side, prefix in enumerate(worded[sample.row]):
            expected = text_row(prefix + sample.pair.prompt)
            assert torch.equal(batch.conditioning.tensors["text"][3 * side + i], expected)
    silent = loader(table, tmp_path, p, batch=3, prompt_dropout=1.0, sampling=Sampling(prefixes=("a", "b")))
    assert {one.prompt for sample in silent.samples(0) for one in sample.shown} == {""}


def test_empty_prompts_keep_what_belongs_to_the_images(tmp_path: Path) -> None:
    feed = loader(Points(), tmp_path, unconditional=True)
    feed.prepare(1)
    (batch,) = feed.batches(0)
    assert batch.unconditional is not None
    told, untold = batch.conditioning.tensors, batch.unconditional.tensors
    assert torch.equal(untold["text"], text_row("").expand(16, 1, 3))
    assert torch.equal(untold["size_ids"], told["size_ids"])
    (plain,) = loader(Points(), tmp_path).batches(0)
    assert plain.unconditional is None and plain.desirable is None


def test_rows_that_are_left_out_are_never_trained_on(tmp_path: Path) -> None:
    feed = loader(Points(pairs=10), tmp_path, batch=14, rows=[1, 3, 4, 8, 9, 5, 6])
    assert sorted(sample.row for sample in feed.samples(0)) == sorted([1, 3, 4, 5, 6, 8, 9] * 2)


def test_pairs_to_look_at_are_shown_as_they_are(tmp_path: Path) -> None:
    table = Points(pairs=10)
    feed = loader(table, tmp_path, flip=True, prompt_dropout=1.0, crop="random", sampling=Sampling(desirable=0.5))
    batches = list(feed.fixed([2, 0, 7], size=2))
    assert [len(batch) for batch in batches] == [2, 1]
    assert [name for batch in batches for name in batch.ids] == ["pair2", "pair0", "pair7"]
    assert batches[1].position.tolist() == [2]
    assert batches[0].desirable is None
    assert batches[0].mean[0].flatten().tolist() == table.picture(table.pairs[2].winner).tolist()
    assert torch.equal(batches[0].conditioning.tensors["text"][2], text_row(table.pairs[2].prompt))
