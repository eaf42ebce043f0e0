"""Rewards in a process of their own, for scorers whose packages can't live beside smpo's.

A spec names a scorer and gives it settings; it can never say what is run. What a name stands for is the machine's
business, in one file that smpo looks for in the user's own configuration and nowhere near a spec:

    ~/.config/smpo/scorers.toml          (or the file that SMPO_SCORERS names)

    [hpsv3]                              # a worker that smpo ships, under another Python
    python = "~/venvs/hpsv3/bin/python"

    [house-style]                        # any program that speaks the protocol
    command = ["~/venvs/style/bin/python", "~/scorers/style.py"]
    timeout = 120

The protocol is lines of JSON over stdin and stdout, version 1. smpo speaks first and waits for each answer:

    > {"smpo": 1, "load": {"device": "cuda", "precision": "fp32", "settings": {...}}}
    < {"ready": true, "key": "weights and preprocessing, by content"}
    > {"id": 1, "pictures": ["<base64 of a PNG>", ...], "prompts": ["...", ...]}
    < {"id": 1, "scores": [21.3, ...]}            or {"id": 1, "error": "in words"}

Lines that are not JSON objects are chatter and are ignored; stderr is kept for error messages. When stdin ends, the
worker should. A worker that dies or stays silent is killed, started anew and sent the same request; an error in its
answer is final.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import io
import json
import os
import queue
import re
import signal
import subprocess
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import IO, TYPE_CHECKING, Any

import torch
from PIL import Image
from torch import Tensor

from smpo.errors import MachineError, RunError
from smpo.kinds import Runtime
from smpo.rewards.scorer_programs import WORKERS, WorkerCommand, config_file, find_worker

if TYPE_CHECKING:
    from smpo.kinds import Picture

__all__ = ["ProcessScorer", "load_process_scorer", "own_gpu"]

PROTOCOL = 1
_LEFT_OUT = re.compile(
    r"^(PYTHON\w*|VIRTUAL_ENV|CONDA_\w*|MLFLOW_TRACKING_(USERNAME|PASSWORD|TOKEN)|ACCELERATE_\w*|TORCHELASTIC_\w*"
    r"|(LOCAL_|GROUP_|ROLE_)?(RANK|WORLD_SIZE)|MASTER_(ADDR|PORT))$"
)
"""Environment that belongs to this interpreter or to a run of several processes, or that a scorer has no use for."""
_TAIL = 12
"""Lines of a worker's stderr that are kept for messages."""


class ProcessScorer:
    """A `kinds.Scorer` in a worker process. The worker starts at once, because it computes `key`."""

    def __init__(self, worker: WorkerCommand, settings: Mapping[str, Any], runtime: Runtime) -> None:
        self._worker = worker
        self._load = {
            "device": runtime.device,
            "precision": runtime.precision,
            "settings": dict(settings),
        }
        self._only = own_gpu(os.environ, torch.cuda.current_device()) if runtime.device == "cuda" else {}
        self._batch = runtime.batch
        self._asked = 0
        self._line: _Line | None = None
        self._said = ""
        self._said = str(self._patiently(None))
        facts = json.dumps([PROTOCOL, worker.name, dict(settings), self._said], sort_keys=True)
        self.key = f"process/{worker.name}/{hashlib.sha256(facts.encode()).hexdigest()[:32]}"

    def __call__(self, pictures: Sequence[Picture], prompts: Sequence[str]) -> Tensor:
        """`[N]` float32 on the CPU. Raises `RunError` when the worker can't or won't answer."""
        if len(pictures) != len(prompts):
            raise ValueError(f"{len(pictures)} pictures for {len(prompts)} prompts")
        return self._answers_to(pictures, prompts, _png)

    @property
    def preprocess(self) -> Callable[[Picture], str]:
        """A picture -> what goes through the pipe."""
        return _png

    def score(self, inputs: Sequence[str], prompts: Sequence[str]) -> Tensor:
        """Of what `preprocess` returned."""
        return self._answers_to(inputs, prompts, str)

    def _answers_to(self, pictures: Sequence[Any], prompts: Sequence[str], encode: Callable[[Any], str]) -> Tensor:
        found: list[float] = []
        for start in range(0, len(pictures), self._batch):
            some = slice(start, start + self._batch)
            self._asked += 1
            question = {
                "id": self._asked,
                "pictures": [encode(picture) for picture in pictures[some]],
                "prompts": list(prompts[some]),
            }
            found += self._scores(self._patiently(question), len(prompts[some]))
        return torch.tensor(found, dtype=torch.float32)

    def close(self) -> None:
        """Let the worker go. It is started again when scores are wanted."""
        if self._line is not None:
            self._line.close()
            self._line = None

    def _patiently(self, question: Mapping[str, Any] | None) -> Any:
        """The answer to a question, or what the worker calls itself; over as many restarts as are allowed."""
        worker, reason = self._worker, ""
        for _ in range(worker.restarts + 1):
            try:
                said = self._awake()
                if question is None:
                    return said
                assert self._line is not None
                return self._line.ask(question, worker.timeout)
            except _Gone as gone:
                reason = str(gone)
                self.close()
        attempts = f"{worker.restarts + 1} times" if worker.restarts else "once"
        raise RunError(f"the scorer `{worker.name}` was asked {attempts}: {reason}", help=_advice(worker))

    def _awake(self) -> str:
        """Start the worker if it isn't running; what it calls its weights and preprocessing."""
        if self._line is not None:
            return self._said
        self._line = _Line(self._worker, self._only)
        answer = self._line.ask({"smpo": PROTOCOL, "load": self._load}, self._worker.start_timeout)
        if answer.get("error"):
            self.close()
            raise MachineError(f"the scorer `{self._worker.name}` could not load: {answer['error']}")
        key = answer.get("key")
        if not answer.get("ready") or not isinstance(key, str) or not key:
            self.close()
            raise RunError(
                f"the scorer `{self._worker.name}` answered {_short(answer)} when told to load",
                help='the answer should be {"ready": true, "key": "..."}; docs/rewards.md has the protocol',
            )
        before = self._said or key
        if before != key:
            self.close()
            raise RunError(f"the scorer `{self._worker.name}` came back as another one: {key}, not {before}")
        return key

    def _scores(self, answer: Mapping[str, Any], count: int) -> list[float]:
        name = self._worker.name
        if answer.get("error"):
            raise RunError(f"the scorer `{name}` says: {answer['error']}")
        scores = answer.get("scores")
        if (
            answer.get("id") != self._asked
            or not isinstance(scores, list)
            or len(scores) != count
            or not all(isinstance(one, int | float) and not isinstance(one, bool) for one in scores)
        ):
            self.close()
            raise RunError(f"the scorer `{name}` was asked for {count} scores and answered {_short(answer)}")
        return [float(one) for one in scores]


def load_process_scorer(name: str, settings: Mapping[str, Any], runtime: Runtime) -> ProcessScorer:
    """Start the worker that this machine has for `name`."""
    return ProcessScorer(find_worker(name), settings, runtime)


# ------------------------------------------------------------------------------------------------------------


def own_gpu(environment: Mapping[str, str], current: int) -> dict[str, str]:
    """What shows a worker only the GPU that this process uses, the `current` of those that it sees itself: each of
    several processes has a worker beside it, and a scorer's program may know no device but `cuda`."""
    seen = [one.strip() for one in environment.get("CUDA_VISIBLE_DEVICES", "").split(",") if one.strip()]
    return {"CUDA_VISIBLE_DEVICES": seen[current] if current < len(seen) else str(current)}


class _Gone(Exception):
    """The worker died, or didn't answer in time."""


class _Line:
    """One running worker, and the two threads that read its output."""

    def __init__(self, worker: WorkerCommand, only: Mapping[str, str]) -> None:
        kept = {name: value for name, value in os.environ.items() if not _LEFT_OUT.match(name)}
        kept |= {"PYTHONPATH": str(WORKERS), "PYTHONUNBUFFERED": "1", **only, **worker.environment}
        try:
            self._process = subprocess.Popen(  # noqa: S603 -- a list of words, from the machine's own file
                worker.command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                env=kept,
                text=True,
                encoding="utf-8",
                errors="replace",
                start_new_session=os.name == "posix",
            )
        except OSError as error:
            raise MachineError(
                f"the scorer `{worker.name}` can't be started: {worker.command[0]}: {error.strerror or error}",
                help=f"see `[{worker.name}]` in {config_file()}",
            ) from error
        self._answers: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._tail: deque[str] = deque(maxlen=_TAIL)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._stdin = self._process.stdin
        _listen(_answers, self._process.stdout, self._answers)
        self._stderr = _listen(_tail, self._process.stderr, self._tail)
        # Also without a call of `close`: a model in an orphaned process holds a GPU.
        self._end = weakref.finalize(self, _stop, self._process)

    def ask(self, question: Mapping[str, Any], timeout: float) -> dict[str, Any]:
        until = time.monotonic() + timeout
        # A worker that doesn't read would block us: writing happens beside the wait.
        writer = threading.Thread(target=_write, args=(self._stdin, json.dumps(question)), daemon=True)
        writer.start()
        wanted = question.get("id")
        while True:
            try:
                answer = self._answers.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                raise _Gone(f"no answer for {timeout:g} s{self._last_words()}") from None
            if answer is None:
                self._stderr.join(1)
                code = self._process.wait()
                how = f"signal {-code}" if code < 0 else f"exit code {code}"
                raise _Gone(f"it ended with {how}{self._last_words()}")
            if wanted is None or answer.get("id") in (wanted, None):
                return answer

    def close(self) -> None:
        self._end()

    def _last_words(self) -> str:
        lines = [line for line in self._tail if line.strip()]
        return f"; its last words: {lines[-1].strip()}" if lines else ""


def _listen(target: Any, stream: IO[str], into: Any) -> threading.Thread:
    thread = threading.Thread(target=target, args=(stream, into), daemon=True)
    thread.start()
    return thread


def _answers(stream: IO[str], into: queue.Queue[dict[str, Any] | None]) -> None:
    with contextlib.suppress(ValueError, OSError):
        for line in stream:
            try:
                answer = json.loads(line)
            except ValueError:
                continue
            if isinstance(answer, dict):
                into.put(answer)
    into.put(None)


def _tail(stream: IO[str], into: deque[str]) -> None:
    with contextlib.suppress(ValueError, OSError):
        for line in stream:
            into.append(line[-500:])


def _write(stream: IO[str], line: str) -> None:
    with contextlib.suppress(OSError, ValueError):  # it has died: the reader will say so
        stream.write(line + "\n")
        stream.flush()


def _stop(process: subprocess.Popen[str]) -> None:
    """End the process and what it has started: politely, then not."""
    with contextlib.suppress(OSError, ValueError):
        if process.poll() is None:
            _signal(process, signal.SIGTERM)
        try:
            process.wait(2)
        except subprocess.TimeoutExpired:
            _signal(process, signal.SIGKILL if os.name == "posix" else signal.SIGTERM)
            process.wait(10)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError, ValueError):
                stream.close()


def _signal(process: subprocess.Popen[str], number: int) -> None:
    if os.name == "posix":
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)  # its own session: the group is its and its children's
    else:
        process.send_signal(number)


def _png(picture: Picture) -> str:
    """Lossless; fast rather than small, since it goes no further than a pipe."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    stream = io.BytesIO()
    image.convert("RGB").save(stream, "PNG", compress_level=1)
    return base64.b64encode(stream.getvalue()).decode("ascii")


def _short(answer: Any) -> str:
    text = json.dumps(answer)
    return text if len(text) <= 120 else f"{text[:117]}..."


def _advice(worker: WorkerCommand) -> str:
    words = " ".join(worker.command)
    return f"try `{words}` by hand; `timeout` and `start_timeout` are in {config_file()}"
