"""Names of inputs as GDAL wants them: local files, files inside archives, and files on servers and in buckets."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

_URL = re.compile(r"(?:/vsicurl/)?(https?|ftp):/+(.+)")
_BUCKET = re.compile(r"(s3|gs|az|oss):/+(.+)")
_ARCHIVE = re.compile(r"(/vsi(?:zip|tar|gzip|7z|rar)/)([^/{][^/]*)(.*)")
_IN_ARCHIVE = re.compile(r"/vsi(?:zip|tar|gzip|7z|rar)/\{?(.+)")
# GDAL's own names of parts of a file (GPKG:file:table, NITF_IM:0:file); one letter would be a Windows drive.
_PART = re.compile(r"[A-Za-z][A-Za-z0-9_]+:")


def gdal_name(path: str | os.PathLike[str]) -> str:
    """The name under which GDAL opens `path`.

    URLs and buckets (`s3://bucket/key`) become GDAL's file systems. A Path makes one slash of two; those are put
    back where GDAL needs them: after the scheme, between two file systems, and before an absolute archive name.
    A key that holds `//` itself cannot be told from one that does not.
    """
    text = str(path)
    if os.path.exists(text):  # noqa: PTH110 - unlike Path.exists, never raises (long names, closed folders)
        return text
    if match := _BUCKET.fullmatch(text):
        return f"/vsi{match[1]}/{match[2]}"
    if match := _URL.fullmatch(text):
        return f"/vsicurl/{match[1]}://{match[2]}"
    text = re.sub(r"(?<=[A-Za-z0-9])/(?=vsi[a-z0-9]+/)", "//", text) if text.startswith("/vsi") else text
    text = re.sub(r"(https?|ftp):/+", r"\1://", text)
    text = re.sub(r"^vrt:/+", "vrt://", text)
    match = _ARCHIVE.fullmatch(text)
    if match and not Path(match[2]).exists() and Path("/", match[2]).exists():
        return f"{match[1]}/{match[2]}{match[3]}"
    return text


def is_local(path: str | os.PathLike[str]) -> bool:
    """Whether `path` names a plain file or folder, so that its absence can be told without GDAL."""
    name = gdal_name(path)
    return not name.startswith("/vsi") and not _PART.match(name)


def in_archive(path: str | os.PathLike[str]) -> bool:
    """Whether `path` leads into an archive on this machine, there or not."""
    match = _IN_ARCHIVE.fullmatch(gdal_name(path))
    return match is not None and not match[1].startswith("/vsi")


def public_name(path: str | os.PathLike[str]) -> str:
    """The last part of a name, without what signs the request of a URL."""
    text = str(path)
    return Path(text).name if is_local(path) else text.split("?")[0].rsplit("/")[-1]


def stored_file(path: str | os.PathLike[str]) -> Path | None:
    """The file on this machine that holds what GDAL opens as `path`: itself, or the archive it is in; else None."""
    with suppress(OSError, ValueError):
        if Path(path).is_file():
            return Path(path)
        match = _IN_ARCHIVE.fullmatch(gdal_name(path))
        if match:
            inside = Path(match[1])
            return next((name for name in (inside, *inside.parents) if name.is_file()), None)
    return None
