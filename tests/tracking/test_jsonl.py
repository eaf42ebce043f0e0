"""The log in the run folder is the truth: complete, readable, and with each step once."""

import json
import math
from collections.abc import Callable
from io import FileIO
from pathlib import Path

import pytest
from PIL import Image

from smpo.engine.monitoring.tracker import NoRecord, RunInfo, TrackerGroup
from smpo.tracking.jsonl import JsonlTracker, Tail, read_events, read_metrics, read_rewound, rewind

About = Callable[..., RunInfo]


def _begin(folder: Path, about: About, **facts: object) -> JsonlTracker:
    tracker = JsonlTracker(folder)
    tracker.start(about(folder, **facts))
    return tracker


def test_every_line_is_on_disk_at_once(tmp_path: Path, about: About) -> None:
    tracker = _begin(tmp_path, about, params={"a": 1})
    tracker.metrics({"loss": 0.5, "margin": 2}, 1)
    tracker.metrics({"loss": 0.4}, 2)
    assert [json.loads(line)["loss"] for line in (tmp_path / "metrics.jsonl").open()] == [0.5, 0.4]
    first, second = read_metrics(tmp_path)
    assert (first.step, dict(first.values)) == (1, {"loss": 0.5, "margin": 2.0})
    assert second.time >= first.time and second.milliseconds == round(second.time * 1000)
    assert read_events(tmp_path)[0]["params"] == {"a": 1}


def test_broken_numbers_survive_in_valid_json(tmp_path: Path, about: About) -> None:
    tracker = _begin(tmp_path, about)
    tracker.metrics({"a": math.nan, "b": math.inf, "c": -math.inf}, 1)

    def strict(constant: str) -> None:
        raise AssertionError(constant)

    json.loads((tmp_path / "metrics.jsonl").read_text(), parse_constant=strict)
    values = read_metrics(tmp_path)[0].values
    assert math.isnan(values["a"]) and (values["b"], values["c"]) == (math.inf, -math.inf)


def test_metrics_may_be_called_step_and_time(tmp_path: Path, about: About) -> None:
    _begin(tmp_path, about).metrics({"step": 5.0, "time": 6.0}, 1)
    assert dict(read_metrics(tmp_path)[0].values) == {"metric/step": 5.0, "metric/time": 6.0}


def test_events_of_every_kind(tmp_path: Path, about: About) -> None:
    tracker = _begin(tmp_path, about)
    tracker.params({"device": "cpu"})
    tracker.images("samples/../p:0", Image.new("RGB", (4, 4)), 20)
    tracker.text("notes/report.md", "# fine")
    tracker.artefact(tmp_path / "resolved.yaml")
    tracker.artefact(Path("/somewhere/else.txt"), "extra")
    tracker.dataset("shapes", "d1", {"pairs": 3})
    tracker.model(tmp_path / "model", {"family": "toy"})
    tracker.finish("stopped")
    events = read_events(tmp_path)
    assert [event["event"] for event in events] == [
        "start", "params", "image", "artefact", "artefact", "artefact", "dataset", "model", "finish",
    ]  # fmt: skip
    picture = tmp_path / events[2]["file"]
    assert picture == tmp_path / "samples" / "samples" / "p_0" / "000020.png"
    assert Image.open(picture).size == (4, 4)
    assert (tmp_path / events[3]["file"]).read_text() == "# fine" and events[3]["folder"] == "notes"
    assert (events[4]["file"], events[5]["file"]) == ("resolved.yaml", "/somewhere/else.txt")
    assert (events[7]["file"], events[8]["status"]) == ("model", "stopped")


def test_resume_takes_back_what_will_be_repeated(tmp_path: Path, about: About) -> None:
    tracker = _begin(tmp_path, about)
    for step in range(1, 8):
        tracker.metrics({"loss": 1 / step}, step)
    resumed = _begin(tmp_path, about, resumed=True, step=4)
    assert [point.step for point in read_metrics(tmp_path)] == [1, 2, 3, 4]
    assert [point.step for point in read_rewound(tmp_path)] == [5, 6, 7], "nothing is destroyed"
    for step in range(5, 10):
        resumed.metrics({"loss": 1 / step}, step)
    assert [point.step for point in read_metrics(tmp_path)] == list(range(1, 10))
    start, back, again = read_events(tmp_path)
    assert (back["event"], back["step"]) == ("rewind", 4)
    assert start["uid"] == again["uid"]
    assert rewind(tmp_path, 9) == 0 and rewind(tmp_path / "nowhere", 0) == 0


def test_a_line_torn_by_a_crash_is_cut_off(tmp_path: Path, about: About) -> None:
    tracker = _begin(tmp_path, about)
    tracker.metrics({"loss": 1.0}, 1)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "ti')
    assert [point.step for point in read_metrics(tmp_path)] == [1]
    _begin(tmp_path, about, resumed=True, step=1).metrics({"loss": 0.5}, 2)
    assert [point.step for point in read_metrics(tmp_path)] == [1, 2]


def test_garbage_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_bytes(b'[]\n{"step": 1}\nnull\n\xff\n{"step": 1, "time": 2, "a": "x"}\n\n')
    (tmp_path / "events.jsonl").write_text("17\n{}\n")
    assert read_metrics(tmp_path) == [] and read_events(tmp_path) == []


class Full(FileIO):
    """On a disk that has `room` bytes left."""

    room = 0

    def write(self, data: bytearray, /) -> int:  # type: ignore[override]
        taken = bytes(data)[: Full.room]
        if not taken:
            raise OSError(28, "No space left on device")
        Full.room -= len(taken)
        return super().write(taken)


def test_what_a_full_disk_refuses_is_written_when_there_is_room(
    tmp_path: Path, about: About, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smpo.tracking.jsonl.FileIO", Full)
    monkeypatch.setattr(Full, "room", 10_000)
    said: list[str] = []
    tracker = JsonlTracker(tmp_path, said.append)
    tracker.start(about(tmp_path))
    tracker.metrics({"loss": 1.0}, 1)
    Full.room = 10  # a part of the next line fits
    for step in range(2, 300):
        tracker.metrics({"loss": 1 / step}, step)
    tracker.params({"a": 1})
    assert [point.step for point in read_metrics(tmp_path)] == [1] and len(said) == 1
    assert "can't be written (No space left on device)" in said[0]
    Full.room = 1_000_000
    tracker.params({"b": 1})
    assert [point.step for point in read_metrics(tmp_path)] == list(range(1, 300)), "none is missing or torn"
    assert [event["event"] for event in read_events(tmp_path)] == ["start", "params", "params"]
    assert said[1:] == ["the log is whole again"]
    Full.room = 0
    tracker.finish("done")
    assert said[2:] == [f"the last 1 lines of the log in {tmp_path} could not be written: No space left on device"]


def test_what_waited_when_a_checkpoint_was_written_is_in_it(
    tmp_path: Path, about: About, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smpo.tracking.jsonl.FileIO", Full)
    monkeypatch.setattr(Full, "room", 10_000)
    tracker = TrackerGroup([JsonlTracker(tmp_path, [].append)])
    tracker.start(about(tmp_path))
    tracker.metrics({"loss": 1.0}, 1)
    Full.room = 10  # the beginning of a line is written
    for step in (2, 3, 4):
        tracker.metrics({"loss": 1.0}, step)
    unwritten, logged = tracker.unwritten, (tmp_path / "metrics.jsonl").stat().st_size
    Full.room = 90  # two of the lines are written after all, before the process dies
    tracker.metrics({"loss": 1.0}, 5)
    Full.room = 10_000
    again = _begin(tmp_path, about, resumed=True, step=4, logged=logged, unwritten=unwritten)
    again.metrics({"loss": 0.9}, 5)
    assert [point.step for point in read_metrics(tmp_path)] == [1, 2, 3, 4, 5]
    assert read_metrics(tmp_path)[-1].values["loss"] == 0.9 and not again.unwritten
    assert "unwritten" not in read_events(tmp_path)[-1]


def test_a_line_that_waited_beyond_its_checkpoint_is_not_taken_back(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "time": 1.0, "loss": 1.0}) + "\n" for step in (1, 2, 3, 4, 5)]
    (tmp_path / "metrics.jsonl").write_text("".join(lines))
    assert rewind(tmp_path, 4, logged=len(lines[0])) == 2
    assert [point.step for point in read_metrics(tmp_path)] == [1, 2, 3]


def test_a_run_whose_log_cannot_be_begun_does_not_begin(
    tmp_path: Path, about: About, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smpo.tracking.jsonl.FileIO", Full)
    monkeypatch.setattr(Full, "room", 5)
    with pytest.raises(NoRecord, match=r"can't be begun in .*No space left on device"):
        TrackerGroup([JsonlTracker(tmp_path)]).start(about(tmp_path))


def test_a_tail_reads_whole_lines_only(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    tail = Tail(path)
    assert tail.read() == []
    path.write_text('{"a": 1}\n{"a": 2')
    ((line, offset),) = tail.read()
    assert line == {"a": 1}
    assert len(tail.read()) == 1, "reading again gives the same until the reader moves on"
    tail.offset = offset
    assert tail.read() == []
    with path.open("a") as file:
        file.write("3}\n" + json.dumps({"b": "x" * 100}) + "\n")
    assert [line for line, _ in tail.read(limit=12)] == [{"a": 23}]
    tail.offset = tail.read(limit=12)[0][1]
    assert [len(line["b"]) for line, _ in tail.read(limit=12)] == [100], "a line longer than the limit"
