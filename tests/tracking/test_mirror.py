"""A copy of the log somewhere else: complete, without forks and gaps, and never in the way."""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smpo.engine.monitoring.tracker import RunInfo
from smpo.tracking.jsonl import Point
from smpo.tracking.mirror import Mirror, read_place
from tests.tracking.doubles import Memory, Run, eventually, exact

About = Callable[..., RunInfo]


def test_everything_arrives(tmp_path: Path, about: About) -> None:
    memory = Memory()
    run = Run(tmp_path, memory, about(tmp_path))
    run.steps(1, 300)
    run.tee.images("grid", Image.new("RGB", (2, 2)), 300)
    run.finish()
    assert memory.curve() == exact(300)
    assert memory.kinds() == ["start", "image", "finish"]
    assert run.said == []
    assert read_place(tmp_path)["run_id"] == memory.events[0]["uid"]
    assert run.mirror.place() == read_place(tmp_path)


def test_reports_arrive_while_training(tmp_path: Path, about: About) -> None:
    memory = Memory()
    run = Run(tmp_path, memory, about(tmp_path))
    run.steps(1, 10)
    eventually(lambda: memory.curve() == exact(10))
    run.finish()


def test_a_destination_that_is_down_is_said_once_and_ends_quickly(tmp_path: Path, about: About) -> None:
    memory = Memory()
    memory.down = True
    run = Run(tmp_path, memory, about(tmp_path))
    run.steps(1, 50)
    eventually(lambda: run.said)
    assert run.finish() < 2.0
    assert len(run.said) == 1
    assert "connection refused" in run.said[0] and f"smpo track sync {tmp_path}" in run.said[0]
    memory.down = False
    late = Mirror(tmp_path, memory)
    late.advance()
    assert late.ended and memory.curve() == exact(50) and memory.kinds() == ["start", "finish"]


def test_a_destination_that_comes_back_gets_everything(tmp_path: Path, about: About) -> None:
    memory = Memory()
    run = Run(tmp_path, memory, about(tmp_path))
    run.steps(1, 20)
    eventually(lambda: memory.curve() == exact(20))
    memory.down = True
    run.steps(21, 40)
    run.tee.text("a.txt", "a")
    eventually(lambda: run.said)
    memory.down = False
    run.steps(41, 60)
    run.finish()
    assert memory.curve() == exact(60)
    assert memory.kinds() == ["start", "artefact", "finish"]
    assert len(run.said) == 1


def test_a_destination_that_hangs_holds_the_end_only_so_long(tmp_path: Path, about: About) -> None:
    release = threading.Event()

    class Hanging(Memory):
        def points(self, points: Sequence[Point]) -> None:
            release.wait(20)

    run = Run(tmp_path, Hanging(), about(tmp_path), grace=0.2)
    run.steps(1, 300)
    assert run.finish() < 2.0
    assert len(run.said) == 1 and "in time" in run.said[0]
    release.set()


def test_what_a_killed_process_left_half_written_is_cleared_away(tmp_path: Path, about: About) -> None:
    run = Run(tmp_path, Memory(), about(tmp_path))
    run.kill()
    (tmp_path / "tracking.json.4711.tmp").write_text("{")
    Run(tmp_path, Memory(), about(tmp_path, resumed=True, step=0)).finish()
    assert not list(tmp_path.glob("*.tmp")) and read_place(tmp_path)


@pytest.mark.parametrize("checkpoint", [0, 10, 13, 20])
def test_a_resumed_run_has_neither_fork_nor_gap(tmp_path: Path, about: About, checkpoint: int) -> None:
    memory = Memory()
    killed = Run(tmp_path, memory, about(tmp_path))
    killed.steps(1, 20)
    killed.tee.images("grid", Image.new("RGB", (2, 2)), 15)
    eventually(lambda: "image" in memory.kinds() and memory.curve() == exact(20))
    killed.kill()
    resumed = Run(tmp_path, memory, about(tmp_path, resumed=True, step=checkpoint))
    resumed.steps(checkpoint + 1, 30)
    if checkpoint < 15:
        resumed.tee.images("grid", Image.new("RGB", (2, 2)), 15)
    resumed.tee.images("grid", Image.new("RGB", (2, 2)), 30)
    resumed.finish()
    assert memory.curve() == exact(30)
    assert [event["step"] for event in memory.events if event["event"] == "image"] == [15, 30]
    assert len({event["uid"] for event in memory.events if event["event"] == "start"}) == 1


def test_a_run_whose_mirror_was_down_at_the_crash_resumes_whole(tmp_path: Path, about: About) -> None:
    memory = Memory()
    killed = Run(tmp_path, memory, about(tmp_path))
    killed.steps(1, 12)
    eventually(lambda: memory.curve() == exact(12))
    memory.down = True
    killed.steps(13, 20)
    killed.kill()

    resumed = Run(tmp_path, memory, about(tmp_path, resumed=True, step=10))
    resumed.steps(11, 25)  # 11 and 12 are there, 13 to 20 never arrived
    memory.down = False
    resumed.finish()
    assert memory.curve() == exact(25)


def test_what_a_rewound_log_has_anew_is_read_anew(tmp_path: Path, about: About) -> None:
    memory = Memory()
    killed = Run(tmp_path, memory, about(tmp_path))
    killed.steps(1, 20)
    killed.finish("stopped")
    memory.down = True  # until the log has grown past the place that was read before
    resumed = Run(tmp_path, memory, about(tmp_path, resumed=True, step=10))
    for step in range(11, 41):
        resumed.tee.metrics({"loss": 1 / step, "extra": float(step)}, step)
    memory.down = False
    resumed.finish()
    assert memory.curve() == exact(40)
    assert memory.curve("extra") == [(step, float(step)) for step in range(11, 41)]


def test_resuming_twice(tmp_path: Path, about: About) -> None:
    memory = Memory()
    for checkpoint, last in ((0, 10), (5, 15), (3, 20)):
        run = Run(tmp_path, memory, about(tmp_path, resumed=checkpoint > 0, step=checkpoint))
        run.steps(checkpoint + 1, last)
        run.finish("stopped")
    assert memory.curve() == exact(20)


def test_evaluating_again_is_news(tmp_path: Path, about: About) -> None:
    memory = Memory()
    first = Run(tmp_path, memory, about(tmp_path))
    first.tee.metrics({"win_rate": 0.6}, 100)
    first.finish()
    time.sleep(0.005)
    again = Run(tmp_path, memory, about(tmp_path, resumed=True, step=100))
    again.tee.metrics({"win_rate": 0.7}, 100)
    again.finish()
    assert [value for _, value in memory.curve("win_rate")] == [0.6, 0.7]
    assert memory.kinds() == ["start", "finish", "rewind", "start", "finish"]


def test_another_store_gets_the_whole_run(tmp_path: Path, about: About) -> None:
    one, two = Memory(), Memory()
    run = Run(tmp_path, one, about(tmp_path))
    run.steps(1, 10)
    run.finish()
    two.open = lambda start: {"uri": "two", "run_id": "x"}  # type: ignore[method-assign]
    Mirror(tmp_path, two).advance()
    assert two.curve() == exact(10) and two.kinds() == ["start", "finish"]


def test_what_is_refused_does_not_hold_up_the_rest(tmp_path: Path, about: About) -> None:
    memory = Memory()
    memory.refuses = "dataset"
    run = Run(tmp_path, memory, about(tmp_path))
    run.tee.dataset("d", "0", {})
    run.tee.dataset("e", "0", {})
    run.tee.text("a.txt", "a")
    run.finish()
    assert memory.kinds() == ["start", "artefact", "finish"]
    assert len(run.said) == 1 and "too odd" in run.said[0] and "sync" not in run.said[0]


def test_the_end_is_told_even_when_an_artefact_cannot_be_sent(tmp_path: Path, about: About) -> None:
    class NoFiles(Memory):
        def event(self, event: Mapping[str, Any]) -> None:
            if event["event"] == "artefact":
                raise ConnectionError("no such bucket")
            super().event(event)

    memory = NoFiles()
    run = Run(tmp_path, memory, about(tmp_path))
    run.tee.text("a.txt", "a")
    run.finish("failed")
    assert memory.events[-1]["event"] == "finish" and memory.events[-1]["status"] == "failed"
    assert len(run.said) == 1


def test_without_a_log_there_is_nothing_to_mirror(tmp_path: Path) -> None:
    mirror = Mirror(tmp_path, Memory())
    mirror.advance()
    assert not mirror.opened
    (tmp_path / "tracking.json").write_text("{")
    assert read_place(tmp_path) == {}
