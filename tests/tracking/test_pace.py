"""How often the mirror looks at its log: what it may take from training, and what hurries it."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from smpo.engine.monitoring.tracker import RunInfo
from smpo.tracking.jsonl import Point
from smpo.tracking.mirror import Mirror
from smpo.tracking.mlflow_thread import rest
from tests.tracking.doubles import Memory, Run, eventually, exact

About = Callable[..., RunInfo]


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
    for step in range(1, 1001):  # two thousand values: 0.4 seconds of processor time, in little more than a second
        run.steps(step, step)
        time.sleep(0.001)
    assert len(memory.curve()) < 1000
    while_training = [look for look in looks if look[0] > began]
    assert while_training
    assert all(taken <= share * (when - began) + 0.01 for when, taken in while_training)
    run.finish()
    assert memory.curve() == exact(1000)


def test_a_picture_brings_the_curve_with_it(tmp_path: Path, about: About) -> None:
    memory = Dear()
    run = Run(tmp_path, memory, about(tmp_path), share=0.0002)
    assert run.mirror.place(5.0)
    run.steps(1, 20)
    eventually(lambda: len(memory.curve()) == 20)
    time.sleep(0.1)
    run.steps(21, 40)  # and now the mirror rests for forty seconds
    time.sleep(0.1)
    assert len(memory.curve()) == 20
    run.tee.images("grid", Image.new("RGB", (2, 2)), 40)
    eventually(lambda: memory.curve() == exact(40) and "image" in memory.kinds())
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
    eventually(lambda: "image" in memory.kinds())
    run.steps(1, 20)
    eventually(lambda: memory.curve() == exact(20))
    run.finish()


@pytest.mark.parametrize(
    ("spent", "failures", "seconds"),
    [(0.0, 0, 3.0), (0.03, 0, 3.0), (0.05, 0, 5.0), (2.0, 0, 200.0), (0.05, 1, 6.0), (0.05, 9, 60.0)],
)
def test_how_long_the_mirror_rests(spent: float, failures: int, seconds: float) -> None:
    assert rest(spent, 3.0, failures=failures, share=0.01) == pytest.approx(seconds)
