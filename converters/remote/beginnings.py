"""The first bytes of a file, before all of it is fetched: whether any file that slimport reads begins so.

A server that does not say how long a file is may send anything without end. A file whose beginning is that of no such
file is refused there.
"""

from __future__ import annotations

import re

from converters.checkpoint.locate import BZIP2_MAGIC, GZIP_MAGIC, TAR_MAGIC, TAR_MAGIC_AT, XZ_MAGIC, ZIP_MAGIC, is_data
from converters.checkpoint.table import what_it_is

ENOUGH = TAR_MAGIC_AT + len(TAR_MAGIC)
"""Bytes that tell; a shorter file is told by all of it."""

_MAGICS = (GZIP_MAGIC, BZIP2_MAGIC, XZ_MAGIC, ZIP_MAGIC, b"\x89HDF\r\n\x1a\n", b"\x80\x02")
_FORMS = tuple(
    re.compile(form, re.DOTALL)
    for form in (
        # A table, of V1 or an index: an entry with the empty key, whose value is a message. It may be compressed.
        rb".{0,9}?\0\0[\x80-\xff]{0,4}[\x01-\x7f][\x08\x0a]",
        # safetensors: the length of a header of JSON, below 2^32.
        rb".{4}\0\0\0\0\s*\{\s*[\"}]",
        # A protobuf message: a small number first, as ONNX and a SavedModel have, or a message, as a graph has.
        rb"\x08[\x01-\x7f][\x12\x1a\x22\x2a\x32\x3a\x42\x72]",
        rb"\x0a[\x80-\xff]{0,4}[\x01-\x7f][\x0a\x12\x1a\x22\x2a\x32]",
        # The text of a graph, or of a `checkpoint` file.
        rb"\s*(#[^\n]*\n\s*)*(node|versions?|library|\w+_def|\w+_version|meta_graphs|\w+_checkpoint_paths?)\s*[:{<]",
    )
)


def refusal(name: str, begins: bytes) -> str | None:
    """The kind of a file that slimport does not read; None if it may be one that it reads.

    Args:
      name: of the file. The data of a checkpoint begins with any bytes.
      begins: its first bytes, `ENOUGH` of them or all.
    """
    if (what := what_it_is(begins)) is not None and not begins.startswith(_MAGICS):
        return what
    if is_data(name) or begins.startswith(_MAGICS) or begins[TAR_MAGIC_AT:].startswith(TAR_MAGIC):
        return None
    return None if any(form.match(begins) for form in _FORMS) else "no file that slimport reads begins as it does"
