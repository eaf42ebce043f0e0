"""Files that lie elsewhere and are read where they lie: `hf://`, `s3://`, `gs://`, `https://` and whatever else fsspec
knows. Nothing is copied to disk; of a file, the blocks that are read are fetched.

The server's description stands for the content (ETag, checksum, or size and time), since hashing would fetch everything
once more. Other bytes under the same ETag are noticed when a picture is used: its content is compared then.
"""

from __future__ import annotations

import hashlib
import io
import re
import threading
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar

from smpo.errors import MachineError

__all__ = ["AnyFile", "RemoteFile", "Stream", "bytes_of", "is_url", "needed", "remote_files"]

BLOCK, BLOCKS = 4 << 20, 24
"""Bytes that are fetched at once, and how many such blocks of an open file are kept: 96 MB."""

TRIES, PAUSE = 3, 0.5
"""How often a read is tried, and the seconds before the second try; twice as many before the third."""

_RANGE = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST = 100_000
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "http": "aiohttp",
             "https": "aiohttp", "sftp": "paramiko", "ssh": "paramiko"}  # fmt: skip
_TELLING = ("ETag", "etag", "Content-MD5", "Digest", "md5Hash", "checksum", "sha256", "blob_id", "lfs", "version_id",
            "VersionId", "LastModified", "Last-Modified", "last_modified", "mtime", "created")  # fmt: skip
"""What a server may say of a file that changes with its content."""

T = TypeVar("T")


def is_url(place: str) -> bool:
    return "://" in place


def needed(url: str) -> None:
    """Raises `MachineError` for an address that needs a package which isn't installed. Sends no request."""
    _system(_protocol(url))


class RemoteFile:
    """One file at an address. Named like a `Path`; `root` is what names count from."""

    def __init__(self, system: Any, path: str, protocol: str) -> None:
        self._system, self.path, self.protocol = system, path, protocol
        self._pure = PurePosixPath(path)
        self.name, self.stem, self.parent = self._pure.name, self._pure.stem, self._pure.parent

    def __str__(self) -> str:
        return str(self._system.unstrip_protocol(self.path))

    def __lt__(self, other: RemoteFile) -> bool:
        return self.path < other.path

    def open(self, _mode: str = "rb") -> Stream:
        """To be read from any place; raises `OSError` for whatever goes wrong."""
        return Stream(
            lambda: self._system.open(
                self.path,
                "rb",
                block_size=BLOCK,
                cache_type="blockcache",
                cache_options={"maxblocks": BLOCKS},
            )
        )

    def digest(self) -> str:
        """Of the server's description of the file; of its bytes where no part of that changes with them. Raises
        `MachineError`."""
        try:
            info = _tried(lambda: self._system.info(self.path))
        except OSError as error:
            raise MachineError(
                f"{self} can't be read: {_reason(error)}", help="is the address right, and are you logged in?"
            ) from error
        told = {name: str(info[name]) for name in _TELLING if info.get(name) is not None}
        if not told:
            with self.open() as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        return hashlib.sha256(repr((str(self), info.get("size"), sorted(told.items()))).encode()).hexdigest()


AnyFile = Path | RemoteFile


class Stream(io.RawIOBase):
    """A remote file, opened when it is first read. Reads are tried again, and errors of all libraries are `OSError`."""

    def __init__(self, opening: Callable[[], Any]) -> None:
        super().__init__()
        self._opening = opening
        self._opened: Any = None
        self._lock = threading.Lock()

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file().seek(offset, whence))

    def tell(self) -> int:
        return int(self._file().tell())

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def read(self, size: int = -1, /) -> bytes:
        file = self._file()
        start = file.tell()

        def attempt() -> bytes:
            file.seek(start)
            return bytes(file.read(size))

        return _tried(attempt)

    def at(self, offset: int, size: int) -> bytes:
        """Bytes from a place on. Thread-safe."""
        with self._lock:
            self.seek(offset)
            return self.read(size)

    def close(self) -> None:
        if self._opened is not None:
            self._opened.close()
        super().close()

    def _file(self) -> Any:
        if self._opened is None:
            self._opened = _tried(self._opening)
        return self._opened


def remote_files(url: str, ending: str) -> list[RemoteFile]:
    """The files at an address: one, those that `{0000..0063}` counts out, or those of a folder that end so, by name.

    Raises `MachineError`."""
    protocol = _protocol(url)
    system = _system(protocol)
    if "{" in url:
        return [RemoteFile(system, system._strip_protocol(one), protocol) for one in _counted(url)]
    path = system._strip_protocol(url)
    if PurePosixPath(path).suffix == ending:
        return [RemoteFile(system, path, protocol)]
    try:
        found = sorted(one for one in _tried(lambda: system.find(path)) if one.endswith(ending))
    except OSError as error:
        raise MachineError(
            f"{url} can't be listed: {_reason(error)}",
            help="is the address right, and are you logged in? A copy on disk does as well",
        ) from error
    hidden = [one for one in found if any(part.startswith(".") for part in PurePosixPath(one).parts)]
    files = [RemoteFile(system, one, protocol) for one in found if one not in set(hidden)]
    if not files:
        raise MachineError(
            f"no *{ending} file under {url}",
            help=f"give a file, a folder of them, or count them out: .../data-{{0000..0063}}{ending}",
        )
    return files


def bytes_of(file: AnyFile, offset: int, size: int) -> bytes:
    """Raises `MachineError`."""
    try:
        with file.open("rb") as stream:
            stream.seek(offset)
            return bytes(stream.read(size))
    except OSError as error:
        raise MachineError(f"{file} can't be read: {_reason(error)}", help="has it moved?") from error


def _counted(url: str) -> Iterator[str]:
    """`{0000..0063}` as the shell counts; several ranges multiply."""
    found = _RANGE.search(url)
    if found is None:
        if "{" in url or "}" in url:
            raise MachineError(f"{url} isn't understood", help="shards are counted out as {0000..0063}")
        yield url
        return
    first, last = found.groups()
    if not 0 <= int(last) - int(first) < _MOST:
        raise MachineError(f"{url} counts out too many files, or none", help="such as {0000..0063}")
    for number in range(int(first), int(last) + 1):
        yield from _counted(f"{url[: found.start()]}{number:0{len(first)}d}{url[found.end() :]}")


def _protocol(url: str) -> str:
    return url.partition("://")[0].lower()


@lru_cache(maxsize=16)
def _system(protocol: str) -> Any:
    import fsspec

    try:
        return fsspec.filesystem(protocol)
    except ImportError as error:
        package = _PACKAGES.get(protocol, protocol)
        raise MachineError(
            f"`{protocol}://` needs a package that isn't installed: {package}",
            help=f"`pip install {package}`, or give the path of a copy",
        ) from error
    except ValueError as error:
        raise MachineError(
            f"nobody knows how to read `{protocol}://`",
            help="hf://, s3://, gs://, https:// and the others of fsspec are understood, and paths on disk",
        ) from error


def _tried(attempt: Callable[[], T]) -> T:
    """Libraries behind fsspec raise errors of many types; a file that is missing or forbidden causes no second request.
    Raises `OSError`."""
    for number in range(TRIES):
        try:
            return attempt()
        except (FileNotFoundError, PermissionError, MemoryError):
            raise
        except Exception as error:
            if number == TRIES - 1:
                raise error if isinstance(error, OSError) else OSError(_reason(error)) from error
            time.sleep(PAUSE * 2**number)
    raise AssertionError


def _reason(error: BaseException) -> str:
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    told = getattr(error, "strerror", None) or str(error).strip()
    return (told.splitlines() or [type(error).__name__])[0][:300] if told else type(error).__name__
