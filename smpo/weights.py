"""Where weights are, and what they are.

A model is a folder on disk or a repository on the hub; `locate` turns either into a folder. What a cache is
filed under must not depend on where that folder lies, so `content_key` reads bytes, not paths.

Models and rewards share this and must not import each other. Importing it loads neither torch nor a client.
"""

from __future__ import annotations

import hashlib
import json
import re
import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

from smpo.errors import MachineError, readable

__all__ = [
    "commit_of",
    "content_key",
    "is_weight_file",
    "locate",
    "model_files",
    "opened",
    "quiet",
    "read_json",
    "read_shapes",
    "sane_config",
    "stored_variant",
    "tokenizer_of",
    "weight_files",
    "weight_patterns",
    "whole",
]

_HUB_ID = re.compile(r"^[A-Za-z0-9][\w.-]*/[\w.-]+$")
_COMMIT = re.compile(r"^[0-9a-f]{40}$")
_VOLATILE = ("_name_or_path", "_commit_hash", "_diffusers_version", "transformers_version", "torch_dtype", "dtype")
"""Keys of a config that say who wrote it or where it lay, not what the network is."""


def commit_of(folder: Path) -> str | None:
    """The commit on the hub that a folder in the hub's cache is a copy of; None for other folders."""
    return folder.name if folder.parent.name == "snapshots" and _COMMIT.match(folder.name) else None


def weight_patterns(folder: str = "", *, variant: str | None = None) -> list[str]:
    """Globs for the safetensors of one component, sharded or not; pickles and other variants don't match."""
    stem = f"{folder}/" if folder else ""
    suffix = f".{variant}" if variant else ""
    return [
        f"{stem}{name}{tail}"
        for name in ("model", "diffusion_pytorch_model")
        for tail in (
            f"{suffix}.safetensors",
            f".safetensors.index{suffix}.json",
            f"{suffix}-?????-of-?????.safetensors",
            *([f"-?????-of-?????{suffix}.safetensors"] if suffix else []),
        )
    ]


def locate(source: str | Path, *, what: str, patterns: Sequence[str], revision: str | None = None) -> Path:
    """The folder that `source`, a path or a hub id, stands for.

    From the hub, only files matching `patterns` are fetched. `what` names it in messages ("the model").
    Raises `MachineError` when it isn't here and can't be fetched.
    """
    path = Path(source).expanduser()
    if path.is_dir():
        return path
    if path.is_file():
        raise MachineError(f"{source} is a file, and {what} is looked for in a folder or on the hub")
    if not _HUB_ID.match(str(source)):
        raise MachineError(
            f"there is no folder {source} with {what}",
            help="give the path of a folder, or a hub id such as owner/name",
        )
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(str(source), revision=revision, allow_patterns=list(patterns)))
    except (OSError, ValueError) as error:  # offline, gated, misspelt, no such revision: all are one of these
        raise _not_fetched(source, what, revision, patterns, error) from error


@contextmanager
def opened(what: str, folder: Path) -> Iterator[None]:
    """Round `from_pretrained`: quietly, and with failures as `MachineError` in words that help."""
    for name in ("config.json", "scheduler_config.json"):
        sane_config(folder / name, what)
    with readable(what, folder), quiet():
        yield


def whole(loader: Any, what: str, folder: Path, *, as_stored: bool = False, **options: Any) -> Any:
    """A network from a folder of safetensors, with every one of its weights: in float32, or `as_stored`, where the
    files hold one precision. Weights that aren't cast are views of the mapped file and take no memory of their own.

    Libraries fill weights that a file lacks with random numbers, or leave them without memory, and go on: a reward
    that was cut off would give scores, and wrong ones. Raises `MachineError` instead.
    """
    if not (folder / "config.json").is_file():  # or the library takes a network of its own liking
        raise MachineError(f"{what} in {folder} has no config.json", help="fetch it again")
    with opened(what, folder):
        network, found = loader.from_pretrained(
            folder,
            dtype=_stored_dtype(weight_files(folder, options.get("variant")) if as_stored else ()),
            use_safetensors=True,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # told below, in words
            **options,
        )
        absent = sorted(found["missing_keys"])
        absent += [name for name, weights in network.named_parameters() if weights.is_meta and name not in absent]
    if unlike := sorted(found["mismatched_keys"]):
        name, stored, built = unlike[0]
        raise MachineError(
            f"{what} in {folder} does not fit its config.json: {name} is {_axes(stored)} in the file, and would be "
            f"{_axes(built)}",
            help="do its config.json and its weights belong together? Fetch both again",
        )
    if absent:
        more = f" and {len(absent) - 1} more of its weights" if len(absent) > 1 else ""
        raise MachineError(
            f"{what} in {folder} is not whole: {absent[0]}{more} can't be found in its files",
            help="fetch it again; do its config.json and its weights belong together?",
        )
    return network


def _axes(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape))


def tokenizer_of(loader: Any, what: str, folder: Path, *, rows: int | None = None) -> Any:
    """A tokenizer from a folder, with its words; `rows` is how many the network that reads them has embeddings for.

    Where the files with the words are missing, transformers makes a tokenizer that knows none and goes on: every
    prompt becomes the same row of unknown tokens, and a whole run learns nothing from its prompts. Raises
    `MachineError` instead.
    """
    with opened(what, folder):
        found = loader.from_pretrained(folder)
        words = found.get_vocab()
    if not set(words) - set(found.all_special_tokens):
        raise MachineError(
            f"{what} in {folder} knows no words: its vocabulary is missing",
            help="fetch it again: tokenizer.json, or vocab.json and merges.txt (BERT's is vocab.txt)",
        )
    if rows is not None and max(words.values()) >= rows:
        raise MachineError(
            f"{what} in {folder} gives tokens up to {max(words.values())}, and the text encoder knows {rows} of them",
            help="the tokenizer belongs to another model: take the one that came with the weights",
        )
    return found


def _stored_dtype(files: Iterable[Path]) -> Any:
    """The precision of all floating-point tensors of `files`; float32 where several are mixed, and without files."""
    import torch  # importing this module loads no torch
    from safetensors import safe_open

    kinds = set()
    for file in files:
        with safe_open(file, "pt") as tensors:
            kinds |= {tensors.get_slice(name).get_dtype() for name in tensors.keys()}  # noqa: SIM118
    floating = {kind for kind in kinds if "F" in kind}
    return {("F16",): torch.float16, ("BF16",): torch.bfloat16}.get(tuple(floating), torch.float32)


def sane_config(path: Path, what: str) -> None:
    """Refuse a configuration whose numbers would fill any machine, before a library builds such a network.

    Raises `MachineError`. The limits are far above those of published models.
    """
    config = read_json(path)
    todo: list[tuple[str, Any]] = list(config.items())
    while todo:
        name, value = todo.pop()
        if isinstance(value, Mapping):
            todo += [(str(key), one) for key, one in value.items()]
        elif isinstance(value, list):
            todo += [(name, one) for one in value[:10_000]]
        elif isinstance(value, int | float) and not isinstance(value, bool):
            limit = next((most for word, most in _LIMITS if word in name), _WIDEST)
            if not -limit <= value <= limit:  # NaN, too
                raise MachineError(f"{what}: {path} sets {name} to {value:.4g}, which no model has")


_WIDEST = 65_536
_LIMITS = (
    ("layers", 1_000),
    ("blocks", 1_000),
    ("_id", 10_000_000),
    ("vocab", 10_000_000),
    ("position", 10_000_000),
    ("timesteps", 100_000),
    ("length", 1e31),  # unset, transformers writes 1e30
)
"""The largest number that a setting may have, by a part of its name; `_WIDEST` for the rest."""


@contextmanager
def quiet() -> Iterator[None]:
    """transformers without its progress bars, which would end up in the middle of ours, and its reports of weights that
    don't fit, of which a page comes before our one line."""
    from transformers.utils import logging

    bars, verbosity = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()


def content_key(facts: Mapping[str, Any], files: Iterable[Path]) -> str:
    """32 hex digits for `facts` and for the content of `files`, in this order, under their names.

    Their place does not matter; nor do a JSON file's notes on its origin.
    """
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode())
    for path in files:
        digest.update(f"\n{path.name} {_file_digest(path)}".encode())
    return digest.hexdigest()[:32]


def model_files(folder: Path, variant: str | None = None) -> list[Path]:
    """What makes a component what it is: its configuration or vocabulary, and one variant of its weights."""
    texts = [path for path in sorted(folder.glob("*")) if path.suffix in (".json", ".txt")]
    return [path for path in texts if ".safetensors.index" not in path.name] + weight_files(folder, variant)


def is_weight_file(place: str | Path) -> bool:
    """Whether `place` is spelt like a file of weights rather than a folder or a hub id."""
    return Path(place).suffix.lower() in (".safetensors", ".ckpt", ".pt", ".bin")


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The safetensors of one component by name; the plain ones where there is no such variant."""
    for wanted in dict.fromkeys((variant, None)):
        found = {path for pattern in weight_patterns(variant=wanted) for path in folder.glob(pattern)}
        if found:
            return sorted(path for path in found if path.suffix == ".safetensors")
    return []


_VARIANT = re.compile(r"(?:diffusion_pytorch_)?model\.(\w+?)(?:-\d{5}-of-\d{5})?\.safetensors$")


def stored_variant(folder: Path) -> str | None:
    """The variant of a component's weights (`fp16`), where that is the only one."""
    named = [_VARIANT.match(file.name) for file in folder.glob("*.safetensors")]
    found = {match[1] for match in named if match}
    return found.pop() if len(found) == 1 and not weight_files(folder) else None


def read_shapes(file: Path) -> dict[str, tuple[int, ...]]:
    """Names and shapes of a safetensors file's tensors, from its header. Raises `MachineError` for other files."""
    try:
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(min(length, 100_000_000)))
        shapes = {name: tuple(entry["shape"]) for name, entry in header.items() if name != "__metadata__"}
        if not all(isinstance(axis, int) for shape in shapes.values() for axis in shape):
            raise ValueError("a shape is a list of whole numbers")
        return shapes
    except (OSError, ValueError, struct.error, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise MachineError(
            f"{file} is not a safetensors file",
            help="smpo never opens pickles (.ckpt, .bin): convert the file to safetensors where you trust it",
        ) from error


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file; {} where there is none."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise MachineError(f"{path} is not JSON: {error}") from error
    if not isinstance(found, dict):
        raise MachineError(f"{path} should hold a JSON object")
    return found


def _not_fetched(
    source: str | Path, what: str, revision: str | None, patterns: Sequence[str], error: Exception
) -> MachineError:
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    at = f" at revision {revision}" if revision else ""
    folder = "or give the path of a folder instead of the id"
    if isinstance(error, GatedRepoError):  # a RepositoryNotFoundError too
        return MachineError(
            f"{what} `{source}` is gated: the hub gives it to those who have accepted its terms",
            help=f"accept them at https://huggingface.co/{source}, then `hf auth login`, and try again; {folder}",
        )
    if isinstance(error, RepositoryNotFoundError):
        return MachineError(
            f"{what} `{source}` is not on the hub, or is private",
            help=f"is the name misspelt? Private ones need `hf auth login`; {folder}",
        )
    if isinstance(error, RevisionNotFoundError):
        return MachineError(
            f"{what} `{source}` has no revision {revision}",
            help=f"its commits are at https://huggingface.co/{source}/commits/main",
        )
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    words = ["hf download", str(source), *([f"--revision {revision}"] if revision else [])]
    words += [f"--include '{glob}'" for glob in _few(patterns)]
    return MachineError(
        f"{what} `{source}`{at} is not on this machine, and the hub did not give it: {reason}",
        help=f"where there is a network, run `{' '.join(words)}` and copy the hub cache (HF_HUB_CACHE) here; {folder}",
    )


def _few(patterns: Sequence[str]) -> list[str]:
    """Nearly the same files by fewer globs, for a command that a person types: weights in one piece, and all text.
    Without any, `hf download` would bring the same weights in every format that a repository has."""
    found: dict[str, set[str]] = {}
    for pattern in patterns:
        folder, _, name = pattern.rpartition("/")
        if name.endswith((".json", ".txt")) or name == "*":
            found |= {"*.json": {""}, "*.txt": {""}}
        elif "?????" not in name:
            found.setdefault(name, set()).add(folder)
    folders = {name: next(iter(places)) if len(places) == 1 else "*" for name, places in found.items()}
    return [f"{folder}/{name}" if folder else name for name, folder in folders.items()]


def _file_digest(path: Path) -> str:
    if path.suffix == ".json":
        try:
            content = json.loads(path.read_bytes())
        except (ValueError, RecursionError):
            content = None
        if isinstance(content, dict):
            kept = {key: value for key, value in content.items() if key not in _VOLATILE}
            return hashlib.sha256(json.dumps(kept, sort_keys=True).encode()).hexdigest()
    status = path.stat()  # follows the hub cache's links
    return _bytes_digest(str(path.resolve()), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=256)
def _bytes_digest(path: str, size: int, changed: int) -> str:
    """Gigabytes take seconds: each file is read once a process."""
    with Path(path).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
