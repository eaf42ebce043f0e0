"""What a spec *is*, in twelve digits: the hash of its meaning.

Everything that was validated is hashed, defaults too, so a changed default is a changed experiment. What was
written doesn't matter: key order, spelling of numbers, short and long forms, and the layer that set a value
leave no trace. Labels and `runtime` are left out. A field added later may declare `Neutral(value)`: while it
has that value, specs keep the identity they had before it existed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

from smpo.spec.scalars import one_number

__all__ = ["LANGUAGE", "REPLICATES", "UNHASHED", "Identity", "Neutral", "canonical_json", "fingerprint", "meaning"]

LANGUAGE = 1
UNHASHED = ("name", "notes", "tags", "runtime")
REPLICATES = ("train.seed",)
"""Settings in which the members of a group may differ."""
SHOWN = 12


@dataclass(frozen=True)
class Neutral:
    """Marks a field whose value `value` means what specs meant before the field existed.

    `momentum: Annotated[float, Neutral(0.0)] = 0.0`
    """

    value: Any

    def matches(self, value: Any) -> bool:
        """Whether a field has the neutral value; `false` is not 0."""
        return bool(value == self.value) and isinstance(value, bool) is isinstance(self.value, bool)


@dataclass(frozen=True)
class Identity:
    """`spec_hash` names a spec, `group_hash` all that differ from it only in their seed.

    Digests are the long forms.
    """

    spec_digest: str
    group_digest: str

    @property
    def spec_hash(self) -> str:
        return self.spec_digest[:SHOWN]

    @property
    def group_hash(self) -> str:
        return self.group_digest[:SHOWN]


def fingerprint(
    spec: BaseModel,
    *,
    versions: Mapping[str, int],
    uses: Iterable[str] = (),
    replicates: Sequence[str] = REPLICATES,
) -> Identity:
    """The identity of a validated spec.

    `versions` are those of the components in its slots, `uses` the SHA-256 of
    local code, whatever its files are called.
    """
    body = meaning(spec)
    for label in UNHASHED:
        body.pop(label, None)
    about = {
        "language": LANGUAGE,
        "versions": dict(versions),
        "uses": sorted(set(uses)),
    }
    whole = _digest({"spec": body, **about})
    for path in replicates:
        _drop(body, path.split("."))
    return Identity(whole, _digest({"spec": body, **about}))


def meaning(spec: BaseModel) -> dict[str, Any]:
    """The values of a spec as plain JSON data, without neutral ones; sets in a fixed order."""
    data = spec.model_dump(mode="json", by_alias=True)
    assert isinstance(data, dict)
    return _meant(spec, data)


def canonical_json(data: Any) -> str:
    """One text for one meaning: sorted keys, no blanks, shortest floats, and 5 for 5.0.

    Raises `ValueError` for infinities and NaN, which a Python default could still bring in.
    """
    return json.dumps(_settled(data), sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def _meant(model: BaseModel, data: dict[str, Any]) -> dict[str, Any]:
    kept = {}
    for name, info in type(model).model_fields.items():
        key = info.serialization_alias or info.alias or name
        if key not in data:
            continue
        value = getattr(model, name)
        if any(isinstance(mark, Neutral) and mark.matches(value) for mark in info.metadata):
            continue
        kept[key] = _value(value, data[key])
    return kept


def _value(value: Any, data: Any) -> Any:
    if isinstance(value, BaseModel) and isinstance(data, dict):
        return _meant(value, data)
    if isinstance(value, set | frozenset) and isinstance(data, list):
        return sorted(data, key=canonical_json)
    if isinstance(value, Mapping) and isinstance(data, dict) and len(value) == len(data):
        return {key: _value(one, data[key]) for one, key in zip(value.values(), data, strict=True)}
    if isinstance(value, list | tuple) and isinstance(data, list):
        return [_value(one, plain) for one, plain in zip(value, data, strict=True)]
    return data


def _settled(data: Any) -> Any:
    if isinstance(data, float):
        return one_number(data)
    if isinstance(data, dict):
        return {key: _settled(value) for key, value in data.items()}
    if isinstance(data, list):
        return [_settled(value) for value in data]
    return data


def _drop(data: Any, steps: list[str]) -> None:
    for step in steps[:-1]:
        data = data.get(step) if isinstance(data, dict) else None
    if isinstance(data, dict):
        data.pop(steps[-1], None)


def _digest(data: Any) -> str:
    return hashlib.sha256(canonical_json(data).encode()).hexdigest()
