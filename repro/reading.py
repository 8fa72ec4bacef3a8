"""Files from outside: the bytes of one, if it is the file that it should be."""

import errno
from pathlib import Path

_POINTER = b"version https://git-lfs.github.com/spec/"


def read_file(path: Path) -> bytes:
    """The bytes of a file.

    Raises OSError, whose ``strerror`` says what is there instead: nothing, a directory, a pointer of Git LFS.
    """
    content = path.read_bytes()
    if content.startswith(_POINTER):
        raise OSError(errno.ENODATA, "is a pointer of Git LFS in its place: run `git lfs pull` in the clone")
    return content
