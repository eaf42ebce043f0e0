"""No tracker can raise into training."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smpo.engine.monitoring.tracker import NoRecord, RunInfo, Tracker, TrackerGroup
from smpo.tracking.jsonl import JsonlTracker

INFO = RunInfo("toy", "abc-1", Path("x"), "abc")


class Listing:
    """Remembers what it was told, and fails where it is asked to."""

    def __init__(self, *failing: str, error: BaseException | None = None) -> None:
        self.told: list[str] = []
        self.failing = set(failing)
        self.error = error or OSError("disk full\nwith details")

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any) -> None:
            self.told.append(name)
            if name in self.failing:
                raise self.error

        return call


def _everything(tracker: Tracker) -> None:
    tracker.start(INFO)
    tracker.params({"a": 1})
    tracker.metrics({"loss": 1.0}, 1)
    tracker.images("grid", Image.new("RGB", (2, 2)), 1)
    tracker.artefact(Path("a.txt"))
    tracker.text("b.txt", "b")
    tracker.dataset("d", "0", {})
    tracker.model(Path("model"), {})
    tracker.finish("done")


def test_everything_reaches_everybody_in_order() -> None:
    trackers = [Listing(), Listing()]
    _everything(TrackerGroup(trackers))
    expected = ["start", "params", "metrics", "images", "artefact", "text", "dataset", "model", "finish"]
    assert [tracker.told for tracker in trackers] == [expected, expected]
    _everything(TrackerGroup(()))


def test_a_failure_is_said_once_and_others_go_on() -> None:
    said: list[str] = []
    bad, good = Listing("metrics"), Listing()
    tee = TrackerGroup([bad, good], said.append)
    tee.start(INFO)
    for step in range(20):
        tee.metrics({"loss": 1.0}, step)
    tee.finish("done")
    assert said == ["Listing could not record this run (disk full); the run goes on"]
    assert good.told.count("metrics") == 20
    assert bad.told.count("metrics") == 5, "left alone after some failures in a row"
    assert bad.told[-1] == "finish", "but told the end"


def test_a_tracker_that_recovers_is_kept() -> None:
    bad = Listing("metrics")
    tee = TrackerGroup([bad])
    tee.start(INFO)
    for step in range(20):
        bad.failing = {"metrics"} if step % 4 else set()
        tee.metrics({"loss": 1.0}, step)
    assert bad.told.count("metrics") == 20


def test_one_that_cannot_start_is_left_alone() -> None:
    bad = Listing("start")
    _everything(TrackerGroup([bad]))
    assert bad.told == ["start"]


def test_a_broken_say_is_no_reason_to_stop_either() -> None:
    def say(text: str) -> None:
        raise BrokenPipeError

    tee = TrackerGroup([Listing("metrics"), Listing("metrics")], say)
    tee.metrics({"loss": 1.0}, 1)


def test_interrupts_pass() -> None:
    with pytest.raises(KeyboardInterrupt):
        TrackerGroup([Listing("metrics", error=KeyboardInterrupt())]).metrics({}, 1)


def test_a_run_without_a_log_does_not_begin(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(NoRecord, match="the log can't be begun"):
        _everything(TrackerGroup([JsonlTracker(tmp_path / "file" / "run")]))
