"""State dicts of `torch.save`, read without PyTorch and without running anything, and written a tensor at a time.

A file of `torch.save` is a zip archive: a pickle, and beside it the bytes of each storage. The pickle may call what is
listed here, and that makes descriptions of tensors; everything else that it could name is refused. Sources:
torch/serialization.py, torch/_utils.py.
"""

from __future__ import annotations

import io
import math
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from converters import frameworks
from converters.errors import InputError, first_line
from converters.formats import zipped
from converters.variables import Array
from slimport.graph import Shape

_STORAGES = {
    "FloatStorage": "float32",
    "DoubleStorage": "float64",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
}
_MAX_RANK = 32
Pieces = Iterable[memoryview]
"""The bytes of a tensor, in parts."""


class _Storage(NamedTuple):
    """A storage: its dtype, the name of its member, and how many values it has."""

    dtype: np.dtype[Any]
    key: str
    numbers: int


class Tensor(NamedTuple):
    """A tensor: a view of a storage."""

    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _RefusedError(Exception):
    """Something that is no state dict of plain tensors."""


class StateDict(NamedTuple):
    """The tensors by name, and the metadata of `state_dict._metadata`."""

    tensors: Mapping[str, Tensor]
    metadata: Any


class _OrderedDict(OrderedDict[Any, Any]):
    """The pickle's `OrderedDict`: its only attribute is `_metadata`."""

    _metadata: Any = None

    def __setstate__(self, state: Any) -> None:
        if not isinstance(state, dict) or set(state) - {"_metadata"}:
            raise _RefusedError("a dict with attributes")
        self._metadata = state.get("_metadata")


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *more: Any) -> Tensor:
    """`torch._utils._rebuild_tensor_v2`: more are whether gradients are required, hooks, and marks of a view."""
    if len(more) > 2 and more[2]:
        raise _RefusedError("a conjugate or negative view")
    numbers = (offset, *size, *stride)
    if not isinstance(storage, _Storage) or any(type(number) is not int or number < 0 for number in numbers):
        raise _RefusedError("a tensor without a storage")
    if len(size) != len(stride) or len(size) > _MAX_RANK:
        raise _RefusedError("a tensor of a shape that is none")
    last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
    if 0 not in size and (last >= storage.numbers or math.prod(size) > storage.numbers):
        raise _RefusedError("a tensor that is larger than its storage")
    return Tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
    return tensor


_ALLOWED: Mapping[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): _OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _rebuild_tensor,
    ("torch._utils", "_rebuild_parameter"): _rebuild_parameter,
    **{("torch", name): dtype for name, dtype in _STORAGES.items()},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        found = _ALLOWED.get((module, name))
        if found is None:
            raise _RefusedError(f"{module}.{name}")
        return found

    def persistent_load(self, pid: Any) -> _Storage:
        kind, dtype, key, _, count = pid
        if kind != "storage" or not (isinstance(dtype, str) and isinstance(key, str) and type(count) is int):
            raise _RefusedError("a storage of no known kind")
        if dtype == "bfloat16":
            # Its import makes the name known to NumPy.
            frameworks.require("ml_dtypes")
        return _Storage(np.dtype(dtype), key, count)


def read(archive: zipfile.ZipFile) -> StateDict:
    """The state dict in an archive of `torch.save`.

    Raises:
      InputError: it is something else, or has other things than plain tensors in it.
    """
    path = archive.filename
    folder = _folder(archive)
    if f"{folder}byteorder" in archive.namelist() and zipped.text(archive, f"{folder}byteorder") != b"little":
        raise InputError(f"{path}: written on a big-endian machine; load it and save it on another with PyTorch")
    content = zipped.text(archive, f"{folder}data.pkl")
    try:
        _check_memo(content)
        found = _Unpickler(io.BytesIO(content)).load()
    except InputError:
        raise
    except _RefusedError as error:
        raise InputError(
            f"{path}: not a PyTorch file of plain tensors: it has {error} in it; save model.state_dict() in its place"
        ) from error
    # A pickle can raise anything.
    except Exception as error:
        raise InputError(f"{path}: not a PyTorch file of plain tensors: {first_line(error)}") from error
    names = isinstance(found, dict) and all(isinstance(name, str) for name in found)
    if not names or not all(isinstance(tensor, Tensor) for tensor in found.values()):
        raise InputError(f"{path}: not a state dict, a dict from names to tensors; save model.state_dict()")
    return StateDict(found, getattr(found, "_metadata", None))


def reader(archive: zipfile.ZipFile, state: StateDict) -> Callable[[str], Array]:
    """A function that reads the tensor of a name. The last storage is kept, which several tensors can share."""
    folder = _folder(archive)
    last: dict[_Storage, Array] = {}

    def read_one(name: str) -> Array:
        tensor = state.tensors[name]
        if tensor.storage not in last:
            last.clear()
            last[tensor.storage] = zipped.array(archive, f"{folder}data/{tensor.storage.key}", tensor.storage.dtype)
        values = last[tensor.storage]
        if len(values) != tensor.storage.numbers:
            raise InputError(f"{archive.filename}: {name} is damaged: its storage has {len(values)} values")
        strides = [stride * values.itemsize for stride in tensor.strides]
        # Within the storage, as was checked when it was described.
        return np.lib.stride_tricks.as_strided(values[tensor.offset :], tensor.shape, strides, writeable=False)

    return read_one


class _Pickler(pickle.Pickler):
    """Writes descriptions of tensors as PyTorch does."""

    def persistent_id(self, found: Any) -> Any:
        if not isinstance(found, _Storage):
            return None
        kind = next(name for name, dtype in _STORAGES.items() if dtype == found.dtype.name)
        return "storage", getattr(frameworks.require("torch"), kind), found.key, "cpu", found.numbers

    def reducer_override(self, found: Any) -> Any:
        if not isinstance(found, Tensor):
            return NotImplemented
        rebuild = import_module("torch._utils")._rebuild_tensor_v2
        return rebuild, (found.storage, found.offset, found.shape, found.strides, False, OrderedDict())


def write(path: Path, arrays: Iterable[tuple[str, np.dtype[Any], Shape, Pieces]], metadata: Any) -> None:
    """Writes a state dict as `torch.save` does, one tensor at a time.

    Args:
      path: the file.
      arrays: of each tensor, its name, dtype and shape, and its bytes.
      metadata: of the state dict.
    """
    state: Any = OrderedDict()
    with zipfile.ZipFile(path, "w") as archive:
        for number, (name, dtype, shape, content) in enumerate(arrays):
            strides = tuple(math.prod(shape[axis + 1 :]) for axis in range(len(shape)))
            state[name] = Tensor(_Storage(dtype, str(number), math.prod(shape)), 0, shape, strides)
            zipped.write(archive, f"{path.stem}/data/{number}", math.prod(shape) * dtype.itemsize, content)
        state._metadata = metadata
        described = io.BytesIO()
        _Pickler(described, protocol=2).dump(state)
        texts = {"data.pkl": described.getvalue(), "byteorder": b"little", "version": b"3\n"}
        for name, text in texts.items():
            zipped.write(archive, f"{path.stem}/{name}", len(text), [text])


def _check_memo(content: bytes) -> None:
    """Refuses a pickle that numbers what it remembers beyond all measure: the module allocates as many."""
    for operation, argument, _ in pickletools.genops(content):
        if operation.name in ("PUT", "BINPUT", "LONG_BINPUT") and int(argument or 0) > len(content):
            raise _RefusedError(f"a memo of {argument} entries")


def is_zipped(path: Path) -> bool:
    """Whether a file is an archive, as PyTorch writes since 1.6."""
    with path.open("rb") as file:
        return file.read(2) == b"PK"


def _folder(archive: zipfile.ZipFile) -> str:
    """The folder that everything in the archive is in, with its slash."""
    name = next((name for name in archive.namelist() if name.endswith("/data.pkl")), None)
    if name is None:
        raise InputError(f"{archive.filename}: a zip archive, and not one of torch.save: no data.pkl is in it")
    return name.removesuffix("data.pkl")
