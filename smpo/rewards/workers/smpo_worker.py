"""The other end of `smpo.rewards.process`: a loop that reads JSON lines and answers them. Standard library only.

    from smpo_worker import serve

    def load(device, precision, settings):
        model = ...
        def score(pictures, prompts):      # PNG bytes and texts, as many of one as of the other
            return [float(...), ...]
        return "what identifies weights and preprocessing", score

    serve(load)

Runs under Python 3.8 and later. Pillow is not needed: `score` gets files' bytes.
"""

from __future__ import annotations

import base64
import json
import os
import sys
from typing import Any, Callable, Dict, List, Tuple  # noqa: UP035 -- other Pythons are older

__all__ = ["serve"]

PROTOCOL = 1
Score = Callable[[List[bytes], List[str]], List[float]]  # noqa: UP006
Load = Callable[[str, str, Dict[str, Any]], Tuple[str, Score]]  # noqa: UP006


def serve(load: Load) -> None:
    """Load when told to, score until the other side hangs up.

    Whatever is printed meanwhile goes to stderr: stdout belongs to the protocol.
    """
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    score: Score | None = None
    for line in sys.stdin:
        message = json.loads(line)
        answer: dict[str, Any]
        try:
            if "load" in message:
                if message["smpo"] != PROTOCOL:
                    raise RuntimeError(f"this worker speaks protocol {PROTOCOL}, not {message['smpo']}")
                told = message["load"]
                key, score = load(told["device"], told["precision"], told["settings"])
                answer = {"ready": True, "key": key}
            else:
                if score is None:
                    raise RuntimeError("asked for scores before `load`")
                pictures = [base64.b64decode(one) for one in message["pictures"]]
                answer = {
                    "id": message["id"],
                    "scores": [float(one) for one in score(pictures, message["prompts"])],
                }
        except Exception as error:  # whatever a model raises is for the other side to tell
            answer = {"id": message.get("id"), "error": f"{type(error).__name__}: {error}"}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()
