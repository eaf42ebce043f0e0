"""Rows come back as they were written, and a damaged shard is noticed."""

import logging
import multiprocessing
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from filelock import FileLock
from torch import Tensor

from smpo.data.cache.encoded_store import EncodedStore
from smpo.errors import RunError


class Numbers:
    """Rows that follow from their ids `row7`, and a count of those that were asked for."""

    def __init__(self, scale: float = 1.0, size: int = 3) -> None:
        self.asked: list[str] = []
        self.scale, self.size = scale, size

    def __call__(self, ids: Sequence[str]) -> dict[str, Tensor]:
        self.asked += ids
        base = torch.tensor([float(name[3:]) for name in ids])
        return {"mean": self.scale * base[:, None] + torch.arange(self.size), "place": base.long()}


IDS = [f"row{i}" for i in range(20)]


def test_rows_come_back_in_any_order(tmp_path: Path) -> None:
    store, numbers = EncodedStore(tmp_path, "key", shard_bytes=100), Numbers()
    store.ensure(IDS, numbers, batch=4)
    assert len(list(store.folder.glob("*.safetensors"))) > 2
    wanted = ["row3", "row19", "row0", "row3"]
    assert torch.equal(store.rows(wanted)["mean"], Numbers()(wanted)["mean"])
    assert store.rows(wanted)["place"].tolist() == [3, 19, 0, 3]


def test_only_what_is_missing_is_computed(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    EncodedStore(tmp_path, "key").ensure(IDS[:5], Numbers())
    store, numbers = EncodedStore(tmp_path, "key"), Numbers()
    assert store.missing(IDS[3:7]) == ["row5", "row6"]
    store.ensure([*IDS[:8], *IDS[:8]], numbers, batch=2, progress=lambda *now: seen.append(now))
    assert numbers.asked == ["row5", "row6", "row7"]
    assert seen == [("encoding", 2, 3), ("encoding", 3, 3)]


def test_keys_do_not_mix(tmp_path: Path) -> None:
    EncodedStore(tmp_path, "one").ensure(IDS, Numbers())
    other = EncodedStore(tmp_path, "two")
    assert len(other.missing(IDS)) == 20
    with pytest.raises(RunError, match="row0 was never encoded with two"):
        other.rows(["row0"])


def test_a_kill_leaves_whole_shards(tmp_path: Path) -> None:
    class Dies(Numbers):
        def __call__(self, ids: Sequence[str]) -> dict[str, Tensor]:
            if len(self.asked) >= 12:
                raise KeyboardInterrupt
            return super().__call__(ids)

    store = EncodedStore(tmp_path, "key", shard_bytes=150)
    with pytest.raises(KeyboardInterrupt):
        store.ensure(IDS, Dies(), batch=4)
    left = EncodedStore(tmp_path, "key").missing(IDS)
    assert 0 < len(left) < 20
    numbers = Numbers()
    store.ensure(IDS, numbers)
    assert numbers.asked == left


def test_readers_do_not_wait_for_a_writer(tmp_path: Path) -> None:
    store = EncodedStore(tmp_path, "key")
    store.ensure(IDS[:3], Numbers())
    with FileLock(store.folder / "lock"):  # another process encodes for hours
        reader = EncodedStore(tmp_path, "key")
        reader.ensure(IDS[:3], Numbers())
        assert reader.rows(IDS[:3])["place"].tolist() == [0, 1, 2]


def test_leftovers_of_a_killed_writer_are_swept(tmp_path: Path) -> None:
    store = EncodedStore(tmp_path, "key")
    (store.folder / "half-written.123.tmp").write_bytes(b"...")
    store.ensure(IDS, Numbers())
    assert list(store.folder.glob("*.tmp")) == []


@pytest.mark.parametrize("harm", ["flip a bit", "cut off", "delete"])
def test_a_damaged_shard_is_noticed_and_made_again(tmp_path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    EncodedStore(tmp_path, "key", shard_bytes=150).ensure(IDS, Numbers(), batch=5)
    store = EncodedStore(tmp_path, "key")
    victim = sorted(store.folder.glob("*.safetensors"))[0]
    content = bytearray(victim.read_bytes())
    content[-1] ^= 1
    if harm == "delete":
        victim.unlink()
    else:
        victim.write_bytes(content if harm == "flip a bit" else content[:-7])
    numbers = Numbers()
    with caplog.at_level(logging.WARNING):
        store.ensure(IDS, numbers)
    assert 0 < len(numbers.asked) < 20
    assert victim.name in caplog.text
    assert torch.equal(store.rows(IDS)["mean"], Numbers()(IDS)["mean"])


def test_a_reader_survives_anothers_repair(tmp_path: Path) -> None:
    store = EncodedStore(tmp_path, "key")
    store.ensure(IDS, Numbers())
    reader = EncodedStore(tmp_path, "key")
    assert reader.missing(IDS) == []  # remembers where every row is
    next(store.folder.glob("*.safetensors")).unlink()
    EncodedStore(tmp_path, "key").ensure(IDS, Numbers(), batch=3)
    assert torch.equal(reader.rows(IDS)["mean"], Numbers()(IDS)["mean"])


def test_half_precision_for_large_rows_only(tmp_path: Path) -> None:
    store, numbers = EncodedStore(tmp_path, "key", dtype=torch.float16), Numbers(1 / 3, size=2000)
    store.ensure(IDS, numbers)
    mean = store.rows(IDS)["mean"]
    exact = Numbers(1 / 3, size=2000)(IDS)["mean"]
    assert mean.dtype == torch.float16, "half the memory too: whoever computes casts"
    assert torch.equal(mean, exact.half()) and not torch.equal(mean.float(), exact)
    assert len(EncodedStore(tmp_path, "key").missing(IDS)) == 20, "another precision is another store"
    with pytest.raises(RunError, match="too large for half precision"):
        EncodedStore(tmp_path, "large", dtype=torch.float16).ensure(["row9"], Numbers(1e5, size=2000))


def test_what_is_not_finite_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="isn't finite"):
        EncodedStore(tmp_path, "key").ensure(["row1"], Numbers(float("inf")))


def test_an_encoder_may_not_change_its_shape_under_one_key(tmp_path: Path) -> None:
    store = EncodedStore(tmp_path, "key")
    store.ensure(["row1"], Numbers())
    with pytest.raises(RunError, match="used to give") as caught:
        store.ensure(["row2"], Numbers(size=4))
    assert "encoder_key must change" in (caught.value.help or "")


def _encode(folder: Path, gate: object, answers: object) -> None:
    gate.wait()  # type: ignore[attr-defined]
    store, numbers = EncodedStore(folder, "key", shard_bytes=200), Numbers()
    store.ensure(IDS, numbers, batch=3)
    answers.put((len(numbers.asked), float(store.rows(IDS)["mean"].sum())))  # type: ignore[attr-defined]


def test_two_processes_fill_one_store(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    gate, answers = context.Barrier(2), context.Queue()
    both = [context.Process(target=_encode, args=(tmp_path, gate, answers)) for _ in range(2)]
    for process in both:
        process.start()
    results = sorted(answers.get(timeout=30) for _ in both)
    for process in both:
        process.join(timeout=30)
        assert process.exitcode == 0
    assert [asked for asked, _ in results] == [0, 20]
    assert results[0][1] == results[1][1]


def test_small_shards_are_put_together_and_their_rows_are_the_same(tmp_path: Path) -> None:
    ids = [f"row{i}" for i in range(40)]
    reader = EncodedStore(tmp_path, "key")
    for name in ids[:15]:
        EncodedStore(tmp_path, "key").ensure([name], Numbers())
    assert len(list(reader.folder.glob("*.safetensors"))) == 15
    before = reader.rows(ids[:15])["mean"]  # knows where they lie
    for name in ids[15:]:
        EncodedStore(tmp_path, "key").ensure([name], Numbers())
    assert len(list(reader.folder.glob("*.safetensors"))) < 16
    assert torch.equal(reader.rows(ids[:15])["mean"], before)
    numbers = Numbers()
    store = EncodedStore(tmp_path, "key")
    store.ensure(ids, numbers)
    assert numbers.asked == [] and torch.equal(store.rows(ids)["mean"], Numbers()(ids)["mean"])
    assert numbers.asked == []


def test_a_damaged_shard_is_not_made_sound_by_putting_it_together(tmp_path: Path) -> None:
    ids = [f"row{i}" for i in range(16)]
    for name in ids[:15]:
        EncodedStore(tmp_path, "key").ensure([name], Numbers())
    folder = EncodedStore(tmp_path, "key").folder
    file = sorted(folder.glob("*.safetensors"))[3]
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(bytes(data))
    EncodedStore(tmp_path, "key").ensure(ids[15:], Numbers())
    store, numbers = EncodedStore(tmp_path, "key"), Numbers()
    assert len(store.missing(ids)) == 1 and len(list(folder.glob("*.safetensors"))) == 1
    store.ensure(ids, numbers)
    assert len(numbers.asked) == 1 and torch.equal(store.rows(ids)["mean"], Numbers()(ids)["mean"])
