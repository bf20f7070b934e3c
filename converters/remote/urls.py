"""URLs: the names in them, and the part of them that may be shown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import PurePosixPath
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit

from converters.errors import InputError

_URL = re.compile(r"([a-z][a-z0-9+.-]*)://", re.IGNORECASE)
_IN_TEXT = re.compile(rf"{_URL.pattern}[^\s'\"<>]*", re.IGNORECASE)


def protocol(text: str) -> str | None:
    """The protocol of a URL in lower case; None for a text that is not a URL."""
    match = _URL.match(text)
    return match[1].lower() if match else None


def file_name(url: str) -> str:
    """The name of the file, decoded.

    Raises:
      InputError: the URL names no file.
    """
    name = PurePosixPath(unquote(_split(url).path)).name
    if not name or "\0" in name:
        raise InputError(f"{public(url)}: names no file")
    return name


def sibling(url: str, name: str) -> str:
    """The URL of the file `name` in the same folder."""
    if name == file_name(url):
        return url
    parts = _split(url)
    folder = parts.path[: parts.path.rstrip("/").rfind("/") + 1]
    return urlunsplit(parts._replace(path=folder + quote(name), fragment=""))


def public(url: str) -> str:
    """The URL without its user, its password and its query, which may be secret."""
    try:
        parts = urlsplit(url)
        # A password with a slash, a question mark or a hash in it ends the host too early: then its port is no number.
        hidden = parts.port is not None and "@" in f"{parts.path}{parts.query}{parts.fragment}"
    except ValueError:
        hidden = True
    if hidden:
        return f"{protocol(url) or ''}://..."
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2], query="", fragment=""))


def public_text(text: str) -> str:
    """A text with every URL in it as `public` has it."""

    def shown(found: re.Match[str]) -> str:
        # The colon of a sentence, as in `URL: no such file`.
        url = found[0].rstrip(":")
        return public(url) + found[0][len(url) :]

    return _IN_TEXT.sub(shown, text)


def public_command(arguments: Iterable[str]) -> str:
    """A command line for a shell, with every URL in it as `public` has it.

    An argument that begins like a URL is one to its end, whatever is in its password.
    """
    return shlex.join(public(one) if protocol(one) else public_text(one) for one in arguments)


def _split(url: str) -> SplitResult:
    try:
        return urlsplit(url)
    except ValueError as error:
        raise InputError(f"{public(url)}: not a URL: {error}; check it") from error
