"""Zip archives as PyTorch and Keras write them: members that are stored, and not compressed.

The size that a member claims is compared with the archive's before memory is allocated, and its checksum is verified.
"""

from __future__ import annotations

import struct
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from converters.errors import InputError
from converters.formats.base import LARGEST_TEXT
from converters.variables import Array

_PIECE = 1 << 20
_ALIGNMENT = 64


@contextmanager
def opened(path: Path, what: str) -> Iterator[zipfile.ZipFile]:
    """Opens an archive; `what` is what it should be, for the error.

    Raises:
      InputError: it is no zip archive, or is cut off.
    """
    try:
        archive = zipfile.ZipFile(path)
    # NotImplementedError is of a newer version of the format.
    except (zipfile.BadZipFile, NotImplementedError, ValueError) as error:
        raise InputError(f"{path}: not {what}, or cut off: {error}; get the file again") from error
    with archive:
        yield archive


def text(archive: zipfile.ZipFile, name: str) -> bytes:
    """The bytes of a member that is a text or a program, compressed or not.

    Raises:
      InputError: it is missing, damaged or far too long.
    """
    path = archive.filename
    try:
        with archive.open(name) as member:
            content = member.read(LARGEST_TEXT + 1)
    except KeyError as error:
        raise InputError(f"{path}: has no {name} in it; it was written by something else, or is damaged") from error
    # The module has exceptions of many modules for damage, a password, a compression that it does not know.
    except Exception as error:
        raise InputError(f"{path}: {name} in it is damaged: {error}; get the file again") from error
    if len(content) > LARGEST_TEXT:
        raise InputError(f"{path}: {name} in it is longer than {LARGEST_TEXT} bytes; it is no file of slimport's")
    return content


def check(archive: zipfile.ZipFile, name: str) -> None:
    """Reads a member that is stored, for its checksum.

    Raises:
      InputError: it is missing, compressed or damaged.
    """
    try:
        member = archive.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError("it is compressed")
        with archive.open(member) as file:
            while file.read(_PIECE):
                pass
    except KeyError as error:
        raise InputError(f"{archive.filename}: has no {name} in it; it was written by something else") from error
    except Exception as error:
        raise InputError(f"{archive.filename}: {name} in it is damaged: {error}; get the file again") from error


def write(archive: zipfile.ZipFile, name: str, size: int, content: Iterable[bytes | memoryview]) -> None:
    """Writes a member of `size` bytes that is stored, whose bytes begin at a multiple of 64, as PyTorch's do."""
    member = zipfile.ZipInfo(name)
    member.file_size = size
    large = size > zipfile.ZIP64_LIMIT // 2
    # The header has 30 bytes, the name, 20 for a large size, and this padding behind 4 bytes of its own.
    header = archive.start_dir + 30 + len(name.encode()) + (20 if large else 0) + 4
    padding = -header % _ALIGNMENT
    member.extra = b"FB" + struct.pack("<H", padding) + b"Z" * padding
    with archive.open(member, "w", force_zip64=large) as file:
        for piece in content:
            file.write(piece)


def array(archive: zipfile.ZipFile, name: str, dtype: np.dtype[np.generic]) -> Array:
    """The values of a member that holds nothing but these, [count].

    Raises:
      InputError: it is missing, compressed, damaged, or not of whole values.
    """
    path = archive.filename
    try:
        member = archive.getinfo(name)
        if member.compress_type != zipfile.ZIP_STORED or member.file_size != member.compress_size:
            raise ValueError("it is compressed")
        if member.file_size > Path(str(path)).stat().st_size or member.file_size % dtype.itemsize:
            raise ValueError(f"it cannot have {member.file_size} bytes")
        values = np.empty(member.file_size // dtype.itemsize, dtype)
        left = values.view(np.uint8).data if len(values) else memoryview(b"")
        with archive.open(member) as file:
            while left:
                # The module would read all of them before it copies them.
                count = file.readinto(left[:_PIECE])  # type: ignore[attr-defined]
                if not count:
                    raise EOFError("it ends too early")
                left = left[count:]
            # At the end the module compares the checksum.
            file.read(1)
    except KeyError as error:
        raise InputError(f"{path}: has no {name} in it: it is damaged; get the file again") from error
    except Exception as error:
        raise InputError(f"{path}: {name} in it is damaged: {error}; get the file again") from error
    return values
