"""The file in which a product grows, beside the place it will take: locked, appended to, gone on with after a crash."""

from __future__ import annotations

import os
import re
import secrets
import sys
import zlib
from contextlib import suppress
from io import FileIO
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_PIECE = 4 << 20  # bytes read at a time
_LONGEST = 80  # bytes of the product's name in ours; names may have 255


class PartFile:
    """An unfinished file of this process alone. Raises OSError.

    resumable: under a name that the next run finds again, as far as no other run holds it. `kept` says whether it is.
    """

    def __init__(self, target: Path, *, resumable: bool) -> None:
        self.kept = False
        if resumable and (file := _locked(kept_name(target))) is not None:
            self.path, self._file, self.kept = kept_name(target), file, True
        else:
            self.path = _own_name(target)
            self._file = FileIO(self.path, "x+b")
            _lock(self._file)
        self.size = os.fstat(self._file.fileno()).st_size

    def truncate(self, size: int) -> None:
        """Keep the first `size` bytes."""
        self._file.truncate(size)
        self.size = size

    def write_at(self, offset: int, data: bytes) -> None:
        """Write within the file, or at its end."""
        self._file.seek(offset)
        rest = memoryview(data)
        while rest:  # on a nearly full disk the system takes a part and fails the next time
            rest = rest[self._file.write(rest) or 0 :]
        self.size = max(self.size, offset + len(data))

    def append(self, data: bytes) -> int:
        """Write at the end; returns where that was."""
        at = self.size
        self.write_at(at, data)
        return at

    def checksum(self, start: int, stop: int) -> int:
        """CRC-32 of the bytes [start, stop), of fewer where the file is shorter."""
        self._file.seek(start)
        found, left = 0, stop - start
        while left > 0 and (piece := self._file.read(min(_PIECE, left))):
            found, left = zlib.crc32(piece, found), left - len(piece)
        return found

    def sync(self) -> None:
        """Have the system write all to the disk, so that a full one shows now."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Close the file, and leave it to other runs."""
        with suppress(OSError):
            self._file.close()

    def discard(self) -> None:
        """Close and remove the file, unless its name is another's by now."""
        if self._file.closed:
            return
        with suppress(OSError):
            if os.path.samestat(self.path.stat(), os.fstat(self._file.fileno())):
                self.path.unlink()
        self.close()


def kept_name(target: Path) -> Path:
    """The name of a product's unfinished file that later runs find again."""
    return target.with_name(f".{_short(target)}.part.tif")


def journal_name(target: Path) -> Path:
    """The name of the journal that belongs to it."""
    return target.with_name(f".{_short(target)}.part.journal")


def in_use(part: Path) -> bool:
    """Whether another run is writing this unfinished file."""
    if sys.platform == "win32":
        return False
    try:
        with part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def remove_remains(target: Path) -> None:
    """Remove unfinished files of a finished product that no other run finds again and none is writing."""
    pattern = re.compile(rf"\.{re.escape(_short(target))}\.\d+\.[0-9a-f]{{6}}\.part\.tif")
    with suppress(OSError):  # the product is there, and what is left beside it harms nobody
        for found in target.parent.iterdir():
            if pattern.fullmatch(found.name) and not in_use(found):
                found.unlink(missing_ok=True)


def _own_name(target: Path) -> Path:
    return target.with_name(f".{_short(target)}.{os.getpid()}.{secrets.token_hex(3)}.part.tif")


def _short(target: Path) -> str:
    name = target.name.encode()
    if len(name) <= _LONGEST:
        return target.name
    return f"{name[:_LONGEST].decode(errors='ignore')}~{zlib.crc32(name):08x}"


def _locked(path: Path) -> FileIO | None:
    """The file, opened and locked for as long as it is open or the process lives; None where another run has it.

    None too where the system has no such locks: two runs could not be told apart.
    """
    if sys.platform == "win32":
        return None
    while True:
        file = _opened(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            found = os.fstat(file.fileno())
            if found.st_nlink > 1:  # it has taken its name already, and the run was killed before it dropped this one
                path.unlink()
            elif os.path.samestat(path.stat(), found):
                return file
        except FileNotFoundError:
            pass  # the run that held it has just renamed or removed it
        except OSError:
            file.close()
            return None
        file.close()


def _lock(file: FileIO) -> None:
    """Let others see that the file is in use, where the file system has locks."""
    if sys.platform != "win32":
        with suppress(OSError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


def _opened(path: Path) -> FileIO:
    """Open for reading and writing, made where there is none, never emptied, and no link to elsewhere."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o666)
    return FileIO(descriptor, "r+b")
