"""`smpo data audit`: look at what a spec would train on, and leave a page, a file for programs, and a record."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smpo.app.console import Console
from smpo.components.datasets import AspectBuckets, VoteData
from smpo.components.locations import locate, to_fetch
from smpo.errors import MachineError, RunError, SmpoError
from smpo.experiment import ExperimentSpec
from smpo.kinds import PairTable, Runtime
from smpo.registry.resolve import Resolved

if TYPE_CHECKING:
    from smpo.data.audit import Audit, AuditRows, Expected

__all__ = ["Audited", "audit_data"]

Tokens = Callable[[Sequence[str]], list[int]]


@dataclass(frozen=True)
class Audited:
    audit: Audit
    folder: Path
    page: Path
    data: Path


def audit_data(
    resolved: Resolved[ExperimentSpec], console: Console, *, score: bool = True, folder: Path | None = None
) -> Audited:
    """Read every row and image, compare with prompts and scores, write `audit.json` and `audit.html`.

    Scores come from the cache; what is missing is computed when `score` and the reward is here. The record goes to
    the tracking store of the spec. Raises `MachineError` when the data isn't here.
    """
    from smpo.app.build.device import live_runtime
    from smpo.data.audit import audit, audit_rows_of_table, read_audit_rows
    from smpo.data.audit.page import page

    spec = resolved.spec
    runtime = live_runtime(spec)
    if message := spec.data.check():
        raise MachineError(f"data: {message}", help=spec.data.remedy())
    console.phase("reading")
    if isinstance(spec.data, VoteData):
        book = read_audit_rows(spec.data.source(), cache=runtime.cache, progress=console.progress)
    else:
        book = audit_rows_of_table(spec.data.load(runtime))
    tokens, longest = _tokenizer(spec)
    console.phase("looking")
    report = audit(book, _expected(spec, tokens, longest), console.progress)
    _add_margins(spec, runtime, report, book, console, score=score)
    sha256 = hashlib.sha256()
    for item in ([part["name"], part["sha256"]] for part in book.parts) if book.parts else book:
        sha256.update(f"{item}\n".encode())
    digest = sha256.hexdigest()
    folder = folder or Path(spec.runtime.runs) / spec.name / f"audit-{digest[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    page_file, data_file = folder / "audit.html", folder / "audit.json"
    data_file.write_text(json.dumps(report.to_dict(), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    page_file.write_text(page(spec.name, report, book.picture), encoding="utf-8")
    _record(resolved, folder, digest, report, [page_file, data_file], console)
    return Audited(report, folder, page_file, data_file)


def _expected(spec: ExperimentSpec, tokens: Tokens | None, longest: int | None) -> Expected:
    """Sizes of buckets are those of the spec, or those of `data.buckets: {}`."""
    from smpo.data.audit import Expected
    from smpo.data.stream.buckets import bucket_sizes

    side, chosen = spec.model.facts().resolution, spec.data.bucketed
    default = AspectBuckets()
    sizes: Sequence[tuple[int, int]] = []
    if side is not None:
        sizes = spec.data.sizes(side) if chosen else bucket_sizes(side, default.aspect, default.step)
    held_out: dict[str, Sequence[str]] = {}
    if spec.evaluate is not None and spec.evaluate.prompts.check() is None:
        prompts = spec.evaluate.prompts
        held_out = {prompts.use: [prompt.text for prompt in prompts.load()]}
    return Expected(side, tokens, longest, held_out, sizes, chosen)


def _tokenizer(spec: ExperimentSpec) -> tuple[Tokens | None, int | None]:
    """How the model counts tokens, and how many its text encoder reads; `(None, None)` where it isn't here."""
    from smpo.weights import locate as fetched
    from smpo.weights import read_json, tokenizer_of

    place = getattr(spec.model, "weights", None)
    if not isinstance(place, str) or to_fetch(place):
        return None, None
    try:
        patterns = ["tokenizer/*", "text_encoder/config.json"]
        folder = fetched(locate(place), what="the tokenizer", patterns=patterns)
        if not (folder / "tokenizer").is_dir():
            return None, None
        from transformers import CLIPTokenizer

        tokenizer = tokenizer_of(CLIPTokenizer, "the tokenizer", folder / "tokenizer")
    except SmpoError:
        return None, None
    reads = read_json(folder / "text_encoder" / "config.json").get("max_position_embeddings", 77)

    def count(prompts: Sequence[str]) -> list[int]:
        lengths: list[int] = []
        for start in range(0, len(prompts), 1000):
            tokens = tokenizer(list(prompts[start : start + 1000]), truncation=False, verbose=False)
            lengths += [len(ids) for ids in tokens["input_ids"]]
        return lengths

    return count, min(int(reads), int(tokenizer.model_max_length))


def _add_margins(
    spec: ExperimentSpec, runtime: Runtime, report: Audit, book: AuditRows, console: Console, *, score: bool
) -> None:
    """How far the spec's reward agrees with the labels, on the pairs that training would use."""
    from smpo.data.audit import Example, margins_of

    if spec.reward is None:
        report.notes.append("the spec names no reward, so labels weren't compared with one")
        return
    data = spec.data
    if isinstance(data, VoteData):  # defects are findings here, not a reason to stop
        data = data.model_copy(update={"max_broken": 1.0})
    try:
        table = data.load(runtime)
        scores = _scores(spec, runtime, table, console, score=score)
    except SmpoError as error:
        report.notes.append(f"labels weren't compared with the reward: {error.message}")
        return
    if scores is None:
        report.notes.append("labels weren't compared with the reward: its scores aren't cached (`smpo score`)")
        return
    winner, loser, stats = scores
    report.margins = margins_of(spec.reward.use, table, winner, loser, stats)
    if report.margins is None:
        report.notes.append("every pair is a tie: there is no label to compare with the reward")
        return
    for row in report.margins.against:
        pair = table[row]
        note = f"scores {float(winner[row]):.4g} and {float(loser[row]):.4g}, share {pair.share:.2f} of {pair.votes}"
        report.disputed.append(Example(f"pair {pair.id}", pair.prompt, (pair.winner, pair.loser), note, True))


def _scores(spec: ExperimentSpec, runtime: Runtime, table: PairTable, console: Console, *, score: bool) -> Any:
    """Winner's and loser's scores and their range; None when some are missing and none may be computed."""
    from smpo.data.cache.cache_facts import load_facts
    from smpo.data.cache.scores import ScoreTable

    assert spec.reward is not None
    store = ScoreTable(runtime.cache / "scores.db")
    if spec.reward.check() is not None or not score:
        key = load_facts(runtime.cache, spec.reward).get("key")
        return store.read(table, key) if key and not store.missing(table, key) else None
    from smpo.app.build.scores import ensure_scores

    return ensure_scores(spec.reward, table, runtime, console.progress)[1:]


def _record(
    resolved: Resolved[ExperimentSpec], folder: Path, digest: str, report: Audit, files: Sequence[Path],
    console: Console,
) -> None:  # fmt: skip
    """Counts as metrics, page and data as artefacts, in a run that is tagged as an audit."""
    from smpo.engine.monitoring.tracker import RunInfo, TrackerGroup
    from smpo.tracking.jsonl import JsonlTracker
    from smpo.tracking.mlflow import mlflow_tracker

    spec = resolved.spec
    try:
        mirror = mlflow_tracker(folder, Path(spec.runtime.runs), spec.runtime.tracking, say=console.note)
    except RunError as error:
        console.warn(error.message)
        mirror = None
    tracker = TrackerGroup([JsonlTracker(folder, console.warn), *([mirror] if mirror else [])], say=console.warn)
    data = {name: value for name, value in resolved.leaves().items() if name.startswith("data.")}
    tags = {**spec.tags, "smpo.kind": "audit"}
    info = RunInfo(spec.name, folder.name, folder, resolved.identity.spec_hash, params=data, tags=tags)
    tracker.start(info)
    counts = {f"audit/{one.name}": float(one.count) for one in report.findings}
    counts |= {f"audit/{name}": float(value) for name, value in report.facts.items() if isinstance(value, int)}
    if report.crops is not None:
        counts |= {"audit/lost_as_square": report.crops.lost_as_square, "audit/lost_in_buckets": report.crops.lost}
    if report.margins is not None:
        counts["audit/agreement"] = report.margins.agreement
    if report.noise["error"] is not None:
        counts["audit/vote_error"] = report.noise["error"]
    tracker.metrics(counts, 0)
    tracker.dataset(spec.data.use, digest, report.facts)
    for file in files:
        tracker.artefact(file)
    tracker.finish("done")
