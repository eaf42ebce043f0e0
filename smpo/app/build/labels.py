"""p of pairs, scored and smoothed when they are wanted: of all of them, or of those that the next updates visit."""

from __future__ import annotations

import gc
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from smpo.app.build.scores import provenance_of
from smpo.data.cache.scores import Begun, ScoreTable
from smpo.data.cache.work_split import SINGLE_PROCESS, WorkSplit
from smpo.data.pairs.table import VoteTable
from smpo.errors import RunError
from smpo.experiment import ExperimentSpec
from smpo.kinds import PairTable, Runtime, Scorer, ScoreStats

if TYPE_CHECKING:
    from smpo.data.progress import Progress

__all__ = ["Labels", "check_labels"]

_NOTHING = ScoreStats(float("nan"), float("nan"), 0, float("nan"), float("nan"))


class Labels:
    """`p [M]` of a table's pairs, NaN where it isn't known yet. Everything about it is collective (`WorkSplit`).

    The scorer is loaded for the first pairs without a score and stays until `release`; between uses its weights rest in
    the CPU's memory, or nowhere where it can't be moved (`Scorer`)."""

    def __init__(
        self,
        spec: ExperimentSpec,
        table: PairTable,
        runtime: Runtime,
        progress: Progress | None,
        team: WorkSplit = SINGLE_PROCESS,
    ) -> None:
        self._spec, self._table, self._runtime = spec, table, runtime
        self._progress, self._team = progress, team
        self._share = _shares(table)
        self._winner, self._loser = (torch.full((len(table),), float("nan")) for _ in range(2))
        self._scorer: Scorer | None = None
        self._begun: Begun | None = None
        self._all = spec.scores == "all"
        self.p = torch.full_like(self._share, float("nan"))
        self.key: str | None = None
        """The scorer that smoothed the labels, once there was need of one."""
        self.stats: ScoreStats | None = None
        """Of the pairs that were scored: of the whole table where the smoothing needs it."""
        self._by_votes = spec.scores == "none"
        if self._by_votes:
            unknown = torch.full_like(self._share, float("nan"))
            self.p.copy_(spec.smoothing(unknown, unknown, self._share, _NOTHING))

    def ensure(self, rows: Sequence[int]) -> None:
        """Score and smooth these pairs, in this order, where p isn't known: all pairs where one needs all.

        Raises `RunError` for a smoothing that returns no number."""
        if self._by_votes:
            return
        wanted: Sequence[int] | None = None
        if not self._all:
            wanted = [row for row in rows if self.p[row].isnan()]
            if not wanted:
                return
        elif not self.p.isnan().any():
            return
        winner, loser, stats = self._scored(wanted)
        some = torch.arange(len(self._table)) if wanted is None else torch.tensor(wanted)
        smoothing = self._spec.smoothing
        share = self._share[some]
        p = smoothing(winner.double(), loser.double(), share, stats if wanted is None else _NOTHING)
        if p.isnan().any():
            raise RunError(
                f"smoothing `{smoothing.use}` returns no number for some pairs",
                help="one that reads `stats` of all pairs has to say so: `needs_statistics`",
            )
        self.p[some] = p.to(self.p.dtype)
        self._winner[some], self._loser[some] = winner, loser
        self.stats = stats if wanted is None else self._so_far()

    def begin(self, rows: Sequence[int]) -> bool:
        """Begin to decode and preprocess what the next call, `ensure` with these rows, will score. Collective. Whether
        any process has something to score."""
        unknown = [row for row in rows if self.p[row].isnan()]
        if not unknown or self._scorer is None:
            return bool(unknown)
        self._begun = self._store.begin(
            self._table, self._scorer, self._runtime.batch, self._team, rows=unknown, workers=self._runtime.workers
        )  # fmt: skip
        return True

    def rest(self) -> None:
        """Leave the device to others until `ensure` is called again."""
        if self._scorer is None or self._runtime.device == "cpu":
            return
        if (move := getattr(self._scorer, "to", None)) is None:
            self.release()
            return
        move("cpu")
        _empty(self._runtime.device)

    def release(self) -> None:
        """Let go of the scorer."""
        self._scorer = None
        gc.collect()
        _empty(self._runtime.device)

    def _scored(self, rows: Sequence[int] | None) -> tuple[Tensor, Tensor, ScoreStats]:
        scorer, begun = self._loaded(), self._begun
        self._begun = None
        assert self._spec.reward is not None
        return self._store.ensure(
            self._table,
            scorer,
            self._runtime.batch,
            self._progress,
            provenance_of(self._spec.reward, scorer, self._runtime),
            self._team,
            rows=rows,
            workers=self._runtime.workers,
            begun=begun,
        )

    def _loaded(self) -> Scorer:
        assert self._spec.reward is not None
        if self._scorer is None:
            self._scorer = self._spec.reward.load(self._runtime)
            if self.key is not None and self._scorer.key != self.key:
                raise RunError(
                    f"the reward is {self._scorer.key} now and was {self.key} when the run began",
                    help="leave its files alone while a run needs them; `--set runtime.prepare=first` scores first",
                )
            self.key = self._scorer.key
        elif (move := getattr(self._scorer, "to", None)) and self._runtime.device != "cpu":
            move(self._runtime.device)
        return self._scorer

    def _so_far(self) -> ScoreStats:
        scores = torch.cat([self._winner, self._loser])
        scores = scores[~scores.isnan()].double()
        return ScoreStats(
            low=float(scores.min()),
            high=float(scores.max()),
            count=len(scores),
            mean=float(scores.mean()),
            std=float(scores.std(unbiased=False)),
        )

    @property
    def _store(self) -> ScoreTable:
        return ScoreTable(self._runtime.cache / "scores.db")


def check_labels(spec: ExperimentSpec, p: Tensor, say: Callable[[str], None]) -> None:
    """Of the pairs whose p is known. Raises `RunError` when all are ties; `say` when nothing was smoothed."""
    known = p[~p.isnan()]
    which = f"{len(known)} pairs" if len(known) == len(p) else f"first {len(known)} pairs"
    if bool((known == 0.5).all()):
        raise RunError(
            f"smoothing `{spec.smoothing.use}` finds every one of the {which} a tie: there is nothing to learn",
            help="look at the data report, and at the reward's range over the pairs",
        )
    if not spec.smoothing.is_hard and bool((2 * known).frac().eq(0).all()):
        say(
            f"smoothing `{spec.smoothing.use}` smooths nothing: all {which.replace('first ', '')} get what `hard` "
            "would give them"
        )


def _shares(table: PairTable) -> Tensor:
    """`[M]`: at once from tables that keep columns."""
    if isinstance(table, VoteTable):
        return torch.from_numpy(table.shares().copy())
    return torch.tensor([table[row].share for row in range(len(table))], dtype=torch.float64)


def _empty(device: str) -> None:
    if device == "cuda":
        torch.cuda.empty_cache()
