"""Files: the bytes of one from outside, if it is what it should be, and writing one whole or not at all."""

import errno
import os
import stat
from pathlib import Path

#: Bytes of a file that is read at once; COCO's largest annotations have a third of it.
LARGEST = 2**30
_POINTER = b"version https://git-lfs.github.com/spec/"


def read_file(path: Path) -> bytes:
    """The bytes of a regular file, at most ``LARGEST``, and no more than its size says.

    Raises OSError, whose ``strerror`` says what is there instead: nothing, a directory, a pipe or device that may
    have no end, a file that is too large, a pointer of Git LFS.
    """
    with open(path, "rb", opener=_open) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "is no regular file: expected one, not a pipe, socket or device")
        if status.st_size > LARGEST:
            raise OSError(errno.EFBIG, f"has {status.st_size} bytes: expected at most {LARGEST}")
        content = file.read(status.st_size)
    if content.startswith(_POINTER):
        raise OSError(errno.ENODATA, "is a pointer of Git LFS in its place: run `git lfs pull` in the clone")
    return content


def _open(path: str, flags: int) -> int:
    """A file descriptor, at once: a pipe would wait for who writes into it."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def write_file(path: Path, data: bytes) -> None:
    """Write under another name first, so that no reader, no crash and no full disk leaves half a file."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(data)
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
