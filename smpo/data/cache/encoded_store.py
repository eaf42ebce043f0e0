"""What frozen encoders made of images and prompts, filed by content: encoded once, read in every run."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import torch
from torch import Tensor

from smpo.data.cache.shards import ShardGone, Shards
from smpo.data.cache.work_split import SINGLE_PROCESS, WorkSplit
from smpo.data.progress import Progress
from smpo.errors import RunError

__all__ = ["Begin", "Compute", "EncodedStore"]

Compute = Callable[[Sequence[str]], Mapping[str, Tensor]]
"""Rows for these ids: named tensors `[len(ids), ...]`."""

Begin = Callable[[Sequence[str]], None]
"""These ids are what `Compute` will be called with, in this order and a batch at a time."""

SMALL = 1024
"""Float rows with fewer elements are never halved: it saves nothing, and sizes in pixels need their
digits."""

SECONDS = 30
"""Rows are written at least this often, so that a kill loses little even of a slow encoder's work."""


class EncodedStore:
    """Rows of named tensors under text ids, filed under `key` in a folder of their own below `folder`.

    `dtype` is how large float rows are stored and read (float32, or float16 for half the disk and memory); they
    are cast once, on the device. Any number of processes may read and fill a store at once. A
    kill loses what was encoded since the last shard. Many short runs leave many small shards; they are put together."""

    def __init__(
        self, folder: Path, key: str, *, dtype: torch.dtype = torch.float32, shard_bytes: int = 64 << 20
    ) -> None:
        name = hashlib.sha256(key.encode()).hexdigest()[:24]
        self.folder = folder / f"{name}-{'fp16' if dtype == torch.float16 else 'fp32'}"
        self._shards = Shards(self.folder, key)
        self._key, self._half, self._shard_bytes = key, dtype == torch.float16, shard_bytes

    def missing(self, ids: Sequence[str]) -> list[str]:
        """Those that have no row, each once, in the given order."""
        wanted = list(dict.fromkeys(ids))
        return [wanted[place] for place in self._owed(wanted)]

    def ensure(
        self,
        ids: Sequence[str],
        compute: Compute,
        *,
        batch: int = 32,
        progress: Progress | None = None,
        label: str = "encoding",
        team: WorkSplit = SINGLE_PROCESS,
        begin: Begin | None = None,
    ) -> None:
        """Compute what is missing or damaged, in the given order. Quick when nothing is. `begin` is called before the
        first batch of this process.

        Of two runs that want the same rows, the second waits for the first and finds them done; the processes of one
        run, its `team`, share them batch by batch. Raises `RunError` for values that aren't finite, or not finite in
        half precision.
        """
        self._shards.check(ids, team)
        wanted = list(dict.fromkeys(ids))
        with ExitStack() as held:
            if team.is_leader and self._owed(wanted):
                held.enter_context(self._shards.lock)
            owed, batches = self._share(wanted, batch, team)  # again: another run may have been here
            if not owed:
                return
            if begin is not None:
                begin([name for names in batches for name in names])
            self._fill(owed, batches, compute, progress, label, team)
            team.barrier()
            if team.is_leader:
                self._shards.merge(self._shard_bytes)
            team.barrier()

    def owed(self, ids: Sequence[str], batch: int, team: WorkSplit) -> list[str]:
        """What `ensure` would compute in this process, in order. Collective."""
        _, batches = self._share(list(dict.fromkeys(ids)), batch, team)
        return [name for names in batches for name in names]

    def _share(self, wanted: Sequence[str], batch: int, team: WorkSplit) -> tuple[int, list[list[str]]]:
        """How many have no row, and the batches of them that this process computes."""
        owed = torch.tensor(self._owed(wanted) if team.is_leader else [], dtype=torch.int64)
        names = [wanted[place] for place in team.broadcast(owed).tolist()]
        return len(names), [names[start : start + batch] for start in team.shard(range(0, len(names), batch))]

    def _owed(self, wanted: Sequence[str]) -> list[int]:
        """Where in `wanted` those are that have no row."""
        return [place for place, found in enumerate(self._shards.locate(wanted)) if found is None]

    def _fill(
        self, owed: int, batches: Sequence[Sequence[str]], compute: Compute, progress: Progress | None, label: str,
        team: WorkSplit,
    ) -> None:  # fmt: skip
        """Encode this process's batches of the `owed` rows, and write them in shards."""
        waiting: list[tuple[Sequence[str], dict[str, Tensor]]] = []
        done, size, since = 0, 0, time.monotonic()
        for names in batches:
            team.check()
            waiting.append((names, self._stored_form(compute(names), len(names))))
            size += sum(tensor.nbytes for tensor in waiting[-1][1].values())
            if size >= self._shard_bytes or time.monotonic() - since > SECONDS:
                self._write(waiting)
                waiting, size, since = [], 0, time.monotonic()
            done += len(names)
            if progress is not None:
                progress(label, team.done(done, owed), owed)
        if waiting:
            self._write(waiting)

    def rows(self, ids: Sequence[str]) -> dict[str, Tensor]:
        """Named tensors `[len(ids), ...]`, on the CPU, in this order; ids may repeat.

        Raises `RunError` when one has no row.
        """
        try:
            return self._gather(ids)
        except ShardGone:  # another process found it damaged, and has encoded its rows again elsewhere
            self._shards.forget()
        try:
            return self._gather(ids)
        except ShardGone as error:
            raise RunError(
                f"files have vanished from {self.folder}", help="run again: what is missing is encoded anew"
            ) from error

    def _gather(self, ids: Sequence[str]) -> dict[str, Tensor]:
        places = self._shards.locate(ids)
        if None in places:
            lost = ids[places.index(None)]
            raise RunError(f"{lost} was never encoded with {self._key}", help="call `ensure` first")
        shard_of, row_of = torch.tensor(places).unbind(1)  # [n], [n]
        found: dict[str, Tensor] = {}
        for shard in shard_of.unique().tolist():
            positions = (shard_of == shard).nonzero()[:, 0]
            for name, tensor in self._shards.tensors(shard).items():
                chosen = tensor[row_of[positions]]
                if name not in found:
                    found[name] = chosen.new_empty(len(ids), *chosen.shape[1:])
                found[name][positions] = chosen
        return found

    def _stored_form(self, rows: Mapping[str, Tensor], count: int) -> dict[str, Tensor]:
        stored = {}
        for name, tensor in rows.items():
            assert len(tensor) == count, f"{name} has {len(tensor)} rows for {count} ids"
            tensor = tensor.detach().cpu()
            if tensor.is_floating_point():
                tensor = tensor.float()
                if not tensor.isfinite().all():
                    raise RunError(f"the encoder gave `{name}` that isn't finite", help="encode in fp32")
                if self._half and tensor[0].numel() >= SMALL:
                    tensor = tensor.half()
                    if not tensor.isfinite().all():
                        raise RunError(
                            f"`{name}` is too large for half precision, in which runs in 16 bits store it",
                            help="`--set train.precision=fp32`",
                        )
            stored[name] = tensor.contiguous()
        return stored

    def _write(self, parts: Sequence[tuple[Sequence[str], dict[str, Tensor]]]) -> None:
        names = [name for part, _ in parts for name in part]
        tensors = {name: torch.cat([rows[name] for _, rows in parts]) for name in parts[0][1]}
        self._shards.append(names, tensors)
