"""A copy of the log somewhere else: complete, without forks and gaps, and never in the way."""

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smpo.engine.events import Ending, RunInfo, Tee
from smpo.tracking.background import MirrorTracker, rest
from smpo.tracking.jsonl import JsonlTracker, Point
from smpo.tracking.mirror import Mirror, Refused, read_place

About = Callable[..., RunInfo]


class Memory:
    """A destination that keeps things as MLflow does: nothing is deleted, a value sent twice is one."""

    shown = "memory"

    def __init__(self) -> None:
        self.values: dict[tuple[str, int, int], float] = {}
        self.events: list[Mapping[str, Any]] = []
        self.down = False
        self.opened = 0
        self.refuses = ""

    def _answer(self) -> None:
        if self.down:
            raise ConnectionError("connection refused")

    def open(self, start: Mapping[str, Any]) -> dict[str, Any]:
        self._answer()
        self.opened += 1
        return {"uri": "memory", "run_id": start["uid"]}

    def history(self, name: str) -> Iterable[tuple[int, int]]:
        return [(step, time) for key, step, time in self.values if key == name]

    def points(self, points: Sequence[Point]) -> None:
        self._answer()
        for point in points:
            for name, value in point.values.items():
                self.values[name, point.step, point.milliseconds] = value

    def event(self, event: Mapping[str, Any]) -> None:
        self._answer()
        if event["event"] == self.refuses:
            raise Refused("too odd")
        self.events.append(event)

    def curve(self, name: str = "loss") -> list[tuple[int, float]]:
        return sorted((step, value) for (key, step, _), value in self.values.items() if key == name)

    def kinds(self) -> list[str]:
        return [event["event"] for event in self.events]


class Run:
    """A run of so many steps that reports to a log and its mirror."""

    def __init__(self, folder: Path, memory: Memory, info: RunInfo, **settings: Any) -> None:
        self.said: list[str] = []
        settings = {"every": 0.02, "grace": 10.0, **settings}
        self.mirror = MirrorTracker(folder, memory, say=self.said.append, **settings)
        self.tee = Tee([JsonlTracker(folder), self.mirror], self.said.append)
        self.tee.start(info)

    def steps(self, first: int, last: int) -> None:
        for step in range(first, last + 1):
            self.tee.metrics({"loss": 1 / step, "margin": float(step)}, step)

    def kill(self) -> None:
        """The thread dies with its process, and the log has no last word."""
        assert self.mirror._thread is not None
        self.mirror._closing.set()
        self.mirror._wake.set()
        self.mirror._thread.join()

    def finish(self, status: Ending = "done") -> float:
        began = time.monotonic()
        self.tee.finish(status)
        return time.monotonic() - began


def _exact(last: int) -> list[tuple[int, float]]:
    return [(step, 1 / step) for step in range(1, last + 1)]


def _until(condition: Callable[[], object], seconds: float = 5.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_everything_arrives(tmp_path: Path, about: About) -> None:
    memory = Memory()
    run = Run(tmp_path, memory, about(tmp_path))
    run.steps(1, 300)
    run.tee.images("grid", Image.new("RGB", (2, 2)), 300)
    run.finish()
    assert memory.curve() == _exact(300)
    assert memory.kinds() == ["start", "image", "finish"]
    assert run.said == []
    assert read_place(tmp_path)["run_id"] == memory.events[0]["uid"]
    assert run.mirror.place() == read_place(tmp_path)


def test_reports_arrive_while_training(tmp_path: Path, about: About) -> None:
    memory = Memory()
    run = Run(tmp_path, memory, about(tmp_path))
    run.steps(1, 10)
    _until(lambda: memory.curve() == _exact(10))
    run.finish()


class Dear(Memory):
    """A destination that costs so many seconds of processor time for every value."""

    price = 2e-4

    def __init__(self) -> None:
        super().__init__()
        self.taken = 0.0

    def points(self, points: Sequence[Point]) -> None:
        cost = self.price * sum(len(point.values) for point in points)
        self.taken += cost
        until = time.thread_time() + cost
        while time.thread_time() < until:
            pass
        super().points(points)


def test_a_dear_destination_takes_its_share_and_no_more(
    tmp_path: Path, about: About, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks: list[tuple[float, float]] = []
    memory, share, advance = Dear(), 0.05, Mirror.advance

    def noted(mirror: Mirror) -> None:
        looks.append((time.monotonic(), memory.taken))
        advance(mirror)

    monkeypatch.setattr(Mirror, "advance", noted)
    run = Run(tmp_path, memory, about(tmp_path), share=share)
    assert run.mirror.place(5.0)
    began = time.monotonic()
    for step in range(
        1, 1001
    ):  # two thousand values: 0.4 seconds of processor time, in little more than a second
        run.steps(step, step)
        time.sleep(0.001)
    assert len(memory.curve()) < 1000
    while_training = [look for look in looks if look[0] > began]
    assert while_training
    assert all(taken <= share * (when - began) + 0.01 for when, taken in while_training)
    run.finish()
    assert memory.curve() == _exact(1000)


def test_a_picture_brings_the_curve_with_it(tmp_path: Path, about: About) -> None:
    memory = Dear()
    run = Run(tmp_path, memory, about(tmp_path), share=0.0002)
    assert run.mirror.place(5.0)
    run.steps(1, 20)
    _until(lambda: len(memory.curve()) == 20)
    time.sleep(0.1)
    run.steps(21, 40)  # and now the mirror rests for forty seconds
    time.sleep(0.1)
    assert len(memory.curve()) == 20
    run.tee.images("grid", Image.new("RGB", (2, 2)), 40)
    _until(lambda: memory.curve() == _exact(40) and "image" in memory.kinds())
    run.finish()


def test_a_dear_picture_does_not_hold_up_the_curve(tmp_path: Path, about: About) -> None:
    class Painter(Memory):
        def event(self, event: Mapping[str, Any]) -> None:
            until = time.thread_time() + 0.2 * (event["event"] == "image")
            while time.thread_time() < until:
                pass
            super().event(event)

    memory = Painter()
    run = Run(tmp_path, memory, about(tmp_path), share=0.001)
    assert run.mirror.place(5.0)
    run.tee.images("grid", Image.new("RGB", (2, 2)), 1)
    _until(lambda: "image" in memory.kinds())
    run.steps(1, 20)
    _until(lambda: memory.curve() == _exact(20))
    run.finish()


@pytest.mark.parametrize(
    ("spent", "failures", "seconds"),
    [(0.0, 0, 3.0), (0.03, 0, 3.0), (0.05, 0, 5.0), (2.0, 0, 200.0), (0.05, 1, 6.0), (0.05, 9, 60.0)],
)
def test_how_long_the_mirror_rests(spent: float, failures: int, seconds: float) -> None:
    assert rest(spent, 3.0, failures=failures, share=0.01) == pytest.approx(seconds)


def test_a_destination_that_is_down_is_said_once_and_ends_quickly(tmp_path: Path, about: About) -> None:
    memory = Memory()
    memory.down = True
    run = Run(tmp_path, memory, about(tmp_path))
    run.steps(1, 50)
    _until(lambda: run.said)
    assert run.finish() < 2.0
    assert len(run.said) == 1
    assert "connection refused" in run.said[0] and f"smpo track sync {tmp_path}" in run.said[0]
    memory.down = False
    late = Mirror(tmp_path, memory)
    late.advance()
    assert late.ended and memory.curve() == _exact(50) and memory.kinds() == ["start", "finish"]


def test_a_destination_that_comes_back_gets_everything(tmp_path: Path, about: About) -> None:
    memory = Memory()
    run = Run(tmp_path, memory, about(tmp_path))
    run.steps(1, 20)
    _until(lambda: memory.curve() == _exact(20))
    memory.down = True
    run.steps(21, 40)
    run.tee.text("a.txt", "a")
    _until(lambda: run.said)
    memory.down = False
    run.steps(41, 60)
    run.finish()
    assert memory.curve() == _exact(60)
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
    _until(lambda: "image" in memory.kinds() and memory.curve() == _exact(20))
    killed.kill()
    resumed = Run(tmp_path, memory, about(tmp_path, resumed=True, step=checkpoint))
    resumed.steps(checkpoint + 1, 30)
    if checkpoint < 15:
        resumed.tee.images("grid", Image.new("RGB", (2, 2)), 15)
    resumed.tee.images("grid", Image.new("RGB", (2, 2)), 30)
    resumed.finish()
    assert memory.curve() == _exact(30)
    assert [event["step"] for event in memory.events if event["event"] == "image"] == [15, 30]
    assert len({event["uid"] for event in memory.events if event["event"] == "start"}) == 1


def test_a_run_whose_mirror_was_down_at_the_crash_resumes_whole(tmp_path: Path, about: About) -> None:
    memory = Memory()
    killed = Run(tmp_path, memory, about(tmp_path))
    killed.steps(1, 12)
    _until(lambda: memory.curve() == _exact(12))
    memory.down = True
    killed.steps(13, 20)
    killed.kill()

    resumed = Run(tmp_path, memory, about(tmp_path, resumed=True, step=10))
    resumed.steps(11, 25)  # 11 and 12 are there, 13 to 20 never arrived
    memory.down = False
    resumed.finish()
    assert memory.curve() == _exact(25)


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
    assert memory.curve() == _exact(40)
    assert memory.curve("extra") == [(step, float(step)) for step in range(11, 41)]


def test_resuming_twice(tmp_path: Path, about: About) -> None:
    memory = Memory()
    for checkpoint, last in ((0, 10), (5, 15), (3, 20)):
        run = Run(tmp_path, memory, about(tmp_path, resumed=checkpoint > 0, step=checkpoint))
        run.steps(checkpoint + 1, last)
        run.finish("stopped")
    assert memory.curve() == _exact(20)


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
    assert two.curve() == _exact(10) and two.kinds() == ["start", "finish"]


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
