"""What makes a study this one and no other."""

from __future__ import annotations

import hashlib
from typing import Any

from smpo.registry.resolve import Resolved
from smpo.spec.identity import LANGUAGE, UNHASHED, canonical_json, meaning
from smpo.sweep.spec import Sweep

__all__ = ["study_id"]


def study_id(resolved: Resolved[Any], sweep: Sweep) -> str:
    """Twelve digits: the base without what is searched, the space, and what is wanted.

    How trials are proposed is not part of it, and neither is their number. Rungs and the reported metric are, where
    trials are pruned: they give recorded intermediate values their meaning.
    """
    body = meaning(resolved.spec)
    for label in UNHASHED:
        body.pop(label, None)
    for param in sweep.space.params:
        _drop(body, param.path.split("."))
    versions = {
        path: component.version for path, component in resolved.components().items() if not sweep.space.covers(path)
    }
    about = {
        "language": LANGUAGE,
        "base": body,
        "versions": versions,
        "uses": sorted({one.digest for one in resolved.local_files}),
        "search": sweep.space.to_dict(),
        "goals": [[goal.metric, goal.direction] for goal in sweep.goals],
        "constraints": {name: bound.model_dump() for name, bound in sweep.spec.constraints.items()},
    }
    if sweep.spec.prune is not None:
        rungs = sweep.spec.rungs
        about["reports"] = sweep.spec.report if rungs is None else rungs.model_dump()
    return hashlib.sha256(canonical_json(about).encode()).hexdigest()[:12]


def _drop(data: Any, steps: list[str]) -> None:
    for step in steps[:-1]:
        data = data.get(step) if isinstance(data, dict) else None
    if isinstance(data, dict):
        data.pop(steps[-1], None)
