"""Folders that appear whole or not at all: written beside, flushed to the disk, and renamed.

A rename is atomic for readers, and for a process that is killed. For a machine that loses power it is so only
when what was written has reached the disk before: each file is flushed (`fsync`), then the folder that names them, then
the folder above, which holds its name.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["atomic_folder", "fsync", "inherit_permissions", "remove_stale", "with_path"]

_DRAFT, _ASIDE = ".writing-", ".replaced-"
_NO_FLUSH = (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EACCES)
"""What file systems answer that can't flush a folder; they have nothing better to offer."""


@contextmanager
def atomic_folder(target: Path) -> Iterator[Path]:
    """A draft folder to write into, which is `target` once the block is left, and gone when the block fails.

    What stands at `target` already is moved aside first and deleted last. Raises `OSError` when the disk refuses.
    """
    remove_stale(target.parent)
    draft = target.with_name(f"{_DRAFT}{os.getpid()}")
    draft.mkdir()
    try:
        with with_path(target):
            yield draft
            for file in draft.rglob("*"):
                if file.is_file():
                    inherit_permissions(file)
                fsync(file)
            fsync(draft)
        aside = target.with_name(f"{_ASIDE}{target.name}")
        if target.exists():
            target.replace(aside)
        draft.replace(target)
        fsync(target.parent)
        shutil.rmtree(aside, ignore_errors=True)
    except BaseException:
        shutil.rmtree(draft, ignore_errors=True)
        raise


def inherit_permissions(file: Path) -> None:
    """Give the file the folder's permissions: safetensors writes for the owner alone, and models, checkpoints
    and caches are shared. A file system that knows no such rights keeps its own."""
    with contextlib.suppress(OSError):
        file.chmod(file.stat().st_mode | (file.parent.stat().st_mode & 0o666))


@contextmanager
def with_path(path: Path) -> Iterator[None]:
    """The system names files that can't be opened, and not those that can't be written: an `OSError` without a name
    gets `path`. safetensors wraps the `OSError` in an error of its own; here it is unwrapped."""
    try:
        yield
    except OSError as error:
        if error.errno is not None and error.filename is None:
            error.filename = str(path)
        raise
    except Exception as error:
        found = re.search(r"\(os error (\d+)\)", str(error))
        # By its name: this module is imported where nothing heavy may be.
        if found is None or type(error).__name__ != "SafetensorError":
            raise
        raise OSError(int(found[1]), os.strerror(int(found[1])), str(path)) from error


def fsync(path: Path) -> None:
    """Wait until a file's content, or a folder's list of names, is on the disk. Raises `OSError` when it can't be."""
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    except OSError as error:
        if not path.is_dir() or error.errno not in _NO_FLUSH:
            raise
    finally:
        os.close(number)


def remove_stale(folder: Path) -> None:
    """Delete what killed processes left unfinished here. A draft whose process is alive is its own business."""
    for left in folder.glob(f"{_ASIDE}*"):
        shutil.rmtree(left, ignore_errors=True)
    for left in folder.glob(f"{_DRAFT}*"):
        process = left.name.removeprefix(_DRAFT)
        if not process.isdigit() or int(process) == os.getpid() or not _alive(int(process)):
            shutil.rmtree(left, ignore_errors=True)


def _alive(process: int) -> bool:
    with contextlib.suppress(ProcessLookupError, OverflowError):
        with contextlib.suppress(PermissionError):  # the process belongs to another user, but exists
            os.kill(process, 0)
        return True
    return False
