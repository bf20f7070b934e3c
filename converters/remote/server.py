"""Files on a server, through fsspec: their stamps and their bytes."""

from __future__ import annotations

import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

from converters import frameworks
from converters.errors import InputError, first_line
from converters.remote.urls import protocol, public, public_text

BLOCK = 4 << 20
"""Bytes in one request: as many are lost when a transfer is cut."""

_PACKAGES = {
    **dict.fromkeys(("http", "https"), "aiohttp"),
    **dict.fromkeys(("gs", "gcs"), "gcsfs"),
    **dict.fromkeys(("s3", "s3a"), "s3fs"),
}
# The properties in fsspec's file systems that change when a file's bytes do.
_STAMP = (
    "size",
    "ETag",
    "etag",
    "Content-MD5",
    "Digest",
    "md5Hash",
    "generation",
    "Last-Modified",
    "LastModified",
    "mtime",
)
_CONNECT_S, _READ_S = 20, 60
_BUSY = (429, 500, 502, 503, 504)
_ATTEMPTS, _PAUSE_S, _LONGEST_PAUSE_S = 4, 0.5, 60.0


class NotFoundError(InputError):
    """The server has no such file."""


class UnreachableError(InputError):
    """The server does not answer."""


class NoRangesError(Exception):
    """The server sends whole files only."""


class CutError(Exception):
    """A transfer ended before the file did; `pause` are the seconds that the server asks to wait."""

    def __init__(self, message: str, pause: float = 0.0) -> None:
        super().__init__(message)
        self.pause = pause


class Server:
    """The server that a URL names."""

    def __init__(self, url: str) -> None:
        self._files = _file_system(url)

    def stamp(self, url: str) -> dict[str, str]:
        """The size, ETag, date, ... of a file: another file has another stamp.

        Raises:
          NotFoundError, UnreachableError: no such file; no answer.
          InputError: the server refuses it, or it is a folder.
        """
        info = self._info(url)
        if info.get("type") == "directory":
            raise InputError(f"{public(url)}: a folder; name a checkpoint in it")
        return {key: str(info[key]) for key in _STAMP if info.get(key) is not None}

    def _info(self, url: str) -> dict[str, Any]:
        """The file system's facts about a file. A server that is busy is asked again."""
        for attempt in range(_ATTEMPTS):
            try:
                info: dict[str, Any] = self._files.info(url)
            except Exception as error:
                cause = _cause(error)
                if getattr(cause, "status", None) not in _BUSY or attempt == _ATTEMPTS - 1:
                    raise _refusal(url, error) from error
                time.sleep(max(_PAUSE_S * 2**attempt, asked_pause(cause)))
            else:
                break
        return info

    def read(self, url: str, start: int, size: int | None, ranges: bool) -> Iterator[bytes]:
        """Yields the bytes of a file from `start` on.

        Args:
          url: of the file.
          start: the first byte.
          size: of the whole file, where it is known.
          ranges: whether to ask for a `BLOCK` at a time, or for the whole file.

        Raises:
          NoRangesError: the server sends whole files only.
          CutError: the transfer was cut.
        """
        if start == size:
            return
        try:
            with self._files.open(url, "rb", block_size=BLOCK if ranges else 0, cache_type="none") as remote:
                remote.seek(start)
                while data := remote.read(BLOCK):
                    yield data
        except ValueError as error:
            # fsspec's, where a server has no ranges.
            raise NoRangesError from error
        # Each file system raises its own.
        except Exception as error:
            raise CutError(_reason(error), asked_pause(error)) from error


def _file_system(url: str) -> Any:
    name = protocol(url)
    assert name
    fsspec = frameworks.require("fsspec")
    options: dict[str, Any] = {}
    if name in ("http", "https"):
        timeout = frameworks.require("aiohttp").ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
        # The bytes of the file, not what they were compressed to; through the proxy that the environment names.
        options = {
            "headers": {"Accept-Encoding": "identity"},
            "client_kwargs": {"trust_env": True, "timeout": timeout, "raise_for_status": _refuse_redirection},
        }
    try:
        return fsspec.filesystem(name, skip_instance_cache=True, **options)
    except ImportError as error:
        package = _PACKAGES.get(name)
        advice = f"pip install {package}" if package else first_line(error)
        raise InputError(f"{public(url)}: {name}:// needs a package that is not installed: {advice}") from error
    except ValueError as error:
        raise InputError(f"{public(url)}: no protocol that slimport knows: {first_line(error)}") from error


async def _refuse_redirection(response: Any) -> None:
    """Raises if a redirection is the answer: aiohttp follows those that say where to."""
    if 300 <= response.status < 400:
        raise frameworks.require("aiohttp").ClientResponseError(
            response.request_info, response.history, status=response.status, message="a redirection to nowhere"
        )


def asked_pause(error: BaseException) -> float:
    """The seconds that a server asks to wait in a refusal's `Retry-After`; 0 where it does not."""
    asked = (getattr(error, "headers", None) or {}).get("Retry-After", "")
    try:
        seconds = float(asked) if asked.strip().isdigit() else parsedate_to_datetime(asked).timestamp() - time.time()
    except (TypeError, ValueError, OverflowError):
        return 0.0
    return min(max(0.0, seconds), _LONGEST_PAUSE_S)


def _cause(error: BaseException) -> BaseException:
    """fsspec says "not found" of everything, and keeps what it was as the cause."""
    return error.__cause__ if isinstance(error, FileNotFoundError) and error.__cause__ else error


def _refusal(url: str, error: Exception) -> InputError:
    """A file system's exception as an error in one line."""
    cause = _cause(error)
    status = getattr(cause, "status", None)
    where = public(url)
    if status in (404, 410) or isinstance(cause, FileNotFoundError):
        return NotFoundError(f"{where}: no such file there; check the URL")
    if status in (401, 403) or isinstance(cause, PermissionError):
        return InputError(f"{where}: the server refuses it ({_reason(cause)}); check the URL and your credentials")
    return UnreachableError(f"{where}: cannot be reached: {_reason(cause)}; check the URL and the network")


def _reason(error: BaseException) -> str:
    status, message = getattr(error, "status", None), getattr(error, "message", None)
    return " ".join(f"{status} {message}".split()) if status and message else public_text(first_line(error))
