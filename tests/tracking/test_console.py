"""What a person sees."""

import io
import threading

import pytest

from smpo.engine.monitoring.tracker import StepReport
from smpo.tracking.console import Console


def _report(step: int) -> StepReport:
    names = ("loss", "margin", "accuracy", "lr", "hidden")
    return StepReport(step, dict.fromkeys(names, 0.5), seconds=0.5, pairs=16)


def test_plain_lines_are_few_and_end_with_the_last() -> None:
    stream = io.StringIO()
    with Console(terminal=False, stream=stream, every=60.0) as console:
        console.phase("Training")
        for step in range(1, 101):
            console.step(_report(step), 100)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "Training" and len(lines) == 3
    assert lines[1].startswith("train 1/100") and lines[2].startswith("train 100/100")
    assert "loss 0.5" in lines[2] and "32 pairs/s" in lines[2] and "hidden" not in lines[2]


def test_plain_lines_tell_rate_and_remaining_time(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("smpo.tracking.console.time.monotonic", lambda: clock[0])
    stream = io.StringIO()
    console = Console(terminal=False, stream=stream, every=5.0)
    for done in range(0, 41, 10):
        console.progress("scoring", done, 20_000)
        clock[0] += 2.0
    assert stream.getvalue().splitlines() == ["scoring 0/20000", "scoring 30/20000  5/s  1:06:34 left"]


def test_a_terminal_gets_bars_that_notes_do_not_break() -> None:
    stream = io.StringIO()
    with Console(terminal=True, stream=stream) as console:
        console.phase("Scoring [pairs]")
        console.progress("scoring", 0, 10)
        console.note("half [way]")
        console.progress("scoring", 10, 10, detail="[cached]")
        console.progress("encoding", 3, 10)
    text = stream.getvalue()
    assert "Scoring [pairs]" in text and "half [way]" in text and "[cached]" in text
    assert "scoring" in text and "10/10" in text and "3/10" in text


def test_quiet_leaves_warnings_only() -> None:
    stream = io.StringIO()
    console = Console(quiet=True, terminal=True, stream=stream)
    console.phase("Training")
    console.step(_report(1), 10)
    console.note("a note")
    console.warn("disk [almost] full")
    console.close()
    assert "disk [almost] full" in stream.getvalue()
    assert "Training" not in stream.getvalue() and "train" not in stream.getvalue()


def test_threads_may_speak_at_once() -> None:
    stream = io.StringIO()
    console = Console(terminal=False, stream=stream, every=0.0)
    speakers = [
        threading.Thread(target=lambda i=i: [console.progress(f"part {i}", n, 50) for n in range(50)])  # type: ignore[misc]
        for i in range(4)
    ]
    for speaker in speakers:
        speaker.start()
    for speaker in speakers:
        speaker.join()
    assert all(line.startswith("part ") for line in stream.getvalue().splitlines())
