"""A helper of an ablation, from its first moment: `python -m smpo.app.ablation.worker_main REQUEST`.

An interrupt while it is still loading ends it without a word; once it works, it ends like a run that a person stops.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys

__all__ = ["main"]


def main(request: str) -> None:
    """Work at the ablation that `smpo.app.ablation.worker.helpers` describes."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from smpo.app.ablation.worker import help_out

    with contextlib.suppress(KeyboardInterrupt):
        signal.signal(signal.SIGINT, signal.default_int_handler)
        help_out(json.loads(request))


if __name__ == "__main__":
    main(sys.argv[1])
