"""Where weights come from: a TensorFlow checkpoint or a converted file, both seen as slim's variables.

A converted file's names and layouts are turned back by the inverse of the mapping rule, and its network is recognised
from its variables, exactly as a checkpoint's is.
"""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from converters import frameworks, mapping, programs, remote, views
from converters.digests import sha256_of
from converters.errors import InputError, first_line
from converters.mapping import Array
from converters.recognize import Recognition, recognize
from converters.views import AS_IT_IS, Origin, View
from slimport.graph import Shape
from slimport.networks import Network

if TYPE_CHECKING:
    from converters.checkpoint import Checkpoint
    from converters.rounding import Rounding

PathLike = str | os.PathLike[str]

PYTORCH_SUFFIXES = (".safetensors", ".pth", ".pt", ".pt2")
KERAS_SUFFIXES = (".keras", ".weights.h5")
ONNX_SUFFIXES = (".onnx",)
PROGRAM_SUFFIXES = (".pt2", ".onnx")
CONVERTED_SUFFIXES = PYTORCH_SUFFIXES + KERAS_SUFFIXES + ONNX_SUFFIXES
FOLDER_WEIGHTS, FOLDER_CONFIG = "model.safetensors", "config.json"
FLOATING_POINT = ("float16", "bfloat16", "float32", "float64")


@dataclass(frozen=True)
class Source:
    """A recognised network and its variables.

    path: what was opened.
    files: every file that holds it.
    dtypes: by slim name relative to the scope, in the order of `stream`.
    stream: yields (slim name relative to the scope, array), one variable at a time; an array may be valid only until
      the next one is asked for.
    checkpoint: the checkpoint, where the source is one.
    rounding: how the variables were brought into another dtype, where they were.
    names: the names in the file of all that is in it, by those that slim gave them, where the source is a checkpoint.
    origins: where each variable comes from, by the same names, where the source is a checkpoint.
    view: what was taken of what the network was made with, as far as that is known: a converted file may remember it.
    """

    path: Path
    files: tuple[Path, ...]
    recognition: Recognition
    dtypes: Mapping[str, np.dtype[Any]]
    stream: Callable[[], Iterator[tuple[str, Array]]]
    checkpoint: Checkpoint | None = field(default=None, repr=False)
    rounding: Rounding | None = field(default=None, repr=False)
    names: Mapping[str, str] = field(default_factory=dict, repr=False)
    origins: Mapping[str, Origin] = field(default_factory=dict, repr=False)
    view: View | None = None

    @property
    def network(self) -> Network:
        return self.recognition.network

    @property
    def scope(self) -> str:
        return self.recognition.scope

    def digests(self) -> dict[str, str]:
        """The SHA-256 of each file, in hex, by the file's name."""
        return {path.name: sha256_of(path) for path in self.files}

    def description(self, digests: Mapping[str, str]) -> dict[str, Any]:
        """What a converted file says about where it comes from, as plain JSON values."""
        described = {"network": self.network.to_json(), "scope": self.scope, "source": dict(digests)}
        if self.rounding:
            described["rounding"] = self.rounding.to_json()
        if self.view is not None and self.view != AS_IT_IS:
            described["view"] = asdict(self.view)
        if self.recognition.filled:
            described["filled"] = self.recognition.filled
        return described

    def without_auxiliary(self) -> Source:
        """The source without the branches that the network's output does not need, as programs are."""
        network = self.network.without_auxiliary()
        kept = network.variables()
        return replace(
            self,
            recognition=replace(self.recognition, network=network),
            dtypes={name: dtype for name, dtype in self.dtypes.items() if name in kept},
            origins={name: origin for name, origin in self.origins.items() if name in kept},
            stream=lambda: ((name, array) for name, array in self.stream() if name in kept),
        )

    def arrays(self) -> dict[str, Array]:
        """All variables at once, by slim's name relative to the scope."""
        return {name: array.copy() for name, array in self.stream()}


@contextmanager
def open_source(
    path: PathLike, scope: str | None = None, step: int | None = None, view: View = AS_IT_IS
) -> Iterator[Source]:
    """Opens a checkpoint, or a converted file or folder, and recognises the network in it.

    Args:
      path: the file, or a folder of `--to huggingface`, or whatever else `open_checkpoint` takes, or what
        `remote.fetch` takes: a URL, a name of the zoo.
      scope: which network to take from a checkpoint that holds several. A converted file holds one, without a scope of
        slim's; then `scope` is the one to give it, and None takes what the file remembers, or the network's name.
      step: which checkpoint of a training run's directory; None is the newest.
      view: what to take of it.

    Raises:
      InputError: it cannot be read, or holds no network or one that is not whole, or nothing that the view takes.
    """
    path = weights_file(remote.local(path))
    if not is_converted(path):
        # Here, so that converted files are read where what reads checkpoints (crc32c) is not installed.
        from converters.checkpoint import open_checkpoint

        with open_checkpoint(path, step) as checkpoint:
            yield _of_checkpoint(path, checkpoint, scope, view)
        return
    with open_converted(path) as (variables, read, description):
        yield _of_variables(path, variables, read, description, scope, view)


def weights_file(path: Path) -> Path:
    """The weights in a folder as the Hugging Face Hub has them; any other path is returned as it is."""
    inside = path / FOLDER_WEIGHTS
    return inside if inside.is_file() and (path / FOLDER_CONFIG).is_file() else path


def checkpoint_names(checkpoint: Checkpoint) -> dict[str, str]:
    """The names of a checkpoint's variables, by the names that slim gave them.

    An object-based checkpoint has a variable under its way from the root, and remembers its name. Where two have the
    same, the ways tell them apart.
    """
    from converters.checkpoint import full_names

    ways = {key.removesuffix("/.ATTRIBUTES/VARIABLE_VALUE"): key for key in checkpoint.variables}
    remembered = full_names(checkpoint)
    found = {remembered.get(key, way): key for way, key in ways.items()}
    return found if len(found) == len(ways) else ways


def _of_checkpoint(path: Path, checkpoint: Checkpoint, scope: str | None, view: View) -> Source:
    keys = checkpoint_names(checkpoint)
    stored = {seen: keys[name] for seen, name in views.names(keys, view).items()}
    shapes = {name: checkpoint.variables[key].shape for name, key in stored.items()}
    taken = views.take(recognize(shapes, str(path), scope), stored, view, str(path))
    relative = {origin.stored: name for name, origin in taken.origins.items() if origin.stored is not None}
    # In the file's order, so that it is read from front to back.
    order = [key for key in checkpoint if key in relative]
    dtypes = {relative[key]: checkpoint.variables[key].dtype for key in order}
    _check_floating_point(path, dtypes)
    filled = [name for name in taken.origins if name not in dtypes]
    dtypes |= dict.fromkeys(filled, next(iter(dtypes.values())))

    def stream() -> Iterator[tuple[str, Array]]:
        for key, array in checkpoint.stream(order):
            yield relative[key], taken.origins[relative[key]].array(array)
        for name in filled:
            yield name, taken.origins[name].filled(dtypes[name])

    return Source(
        path,
        checkpoint.files,
        taken.recognition,
        dtypes,
        stream,
        checkpoint,
        names=stored,
        origins=taken.origins,
        # A checkpoint does not remember how it was made.
        view=None if view == AS_IT_IS else view,
    )


# A converted file's variables as (shape in slim's layout, dtype) by slim's name, how to read one, and what the file
# remembers of how it was made: the `scope`, the `view`.
Converted = tuple[dict[str, tuple[Shape, np.dtype[Any]]], Callable[[str], Array], Mapping[str, Any]]


@contextmanager
def open_converted(path: Path) -> Iterator[Converted]:
    """Opens a converted file; no tensor is read before it is asked for.

    Raises:
      InputError: it cannot be read.
    """
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    open_suffix = {KERAS_SUFFIXES: _open_keras, ONNX_SUFFIXES: _open_onnx, PYTORCH_SUFFIXES: _open_pytorch}
    opened = next(open_ for suffixes, open_ in open_suffix.items() if path.name.endswith(suffixes))
    with opened(path) as converted:
        yield converted


def is_converted(path: Path) -> bool:
    """Whether a name is a converted file's, and not a checkpoint's."""
    return path.name.endswith(CONVERTED_SUFFIXES)


def _of_variables(
    path: Path,
    variables: Mapping[str, tuple[Shape, np.dtype[Any]]],
    read: Callable[[str], Array],
    description: Mapping[str, Any],
    scope: str | None,
    view: View,
) -> Source:
    stored = views.names(variables, view)
    found = recognize({name: variables[key][0] for name, key in stored.items()}, str(path), "")
    # What a checkpoint was built without, a converted file has: here it was lost.
    found = replace(found, missing=(*found.missing, *found.filled), filled={})
    taken = views.take(found, stored, view, str(path))
    scope = description.get("scope", found.network.default_scope) if scope is None else scope.strip("/")
    dtypes = {name: variables[name][1] for name in taken.origins}
    _check_floating_point(path, dtypes)

    def stream() -> Iterator[tuple[str, Array]]:
        for name, origin in taken.origins.items():
            yield name, origin.array(read(name))

    remembered = View.from_json(description["view"]) if "view" in description else None
    seen = view if remembered is None else view.after(remembered)
    recognition = replace(taken.recognition, scope=scope)
    known = remembered is not None or view != AS_IT_IS
    return Source(path, (path,), recognition, dtypes, stream, view=seen if known else None)


def _check_floating_point(path: Path, dtypes: Mapping[str, np.dtype[Any]]) -> None:
    for name, dtype in dtypes.items():
        if dtype.name not in FLOATING_POINT:
            raise InputError(f"{path}: {name} is of dtype {dtype}, not floating point; slimport converts weights only")


@contextmanager
def _open_pytorch(path: Path) -> Iterator[Converted]:
    if path.suffix == ".safetensors":
        with _open_safetensors(path) as opened:
            yield opened
        return
    torch = frameworks.import_torch()
    description: Mapping[str, Any] = {}
    if path.suffix == ".pt2":
        program, description = programs.load_pt2(path)
        state = {name: tensor.detach() for name, tensor in program.state_dict.items()}
    else:
        try:
            # Nothing is ever unpickled but tensors.
            state = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except Exception as error:
            raise InputError(f"{path}: not a PyTorch file of plain tensors: {first_line(error)}") from error
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise InputError(f"{path}: not a state dict, a dict from names to tensors")
    names = {slim: pytorch for pytorch, slim in mapping.slim_names(state.keys()).items()}

    def read(name: str) -> Array:
        return mapping.slim_layout(name, mapping.tensor_array(state[names[name]]))

    yield {name: (read(name).shape, read(name).dtype) for name in names}, read, description


@contextmanager
def _open_safetensors(path: Path) -> Iterator[Converted]:
    from safetensors import SafetensorError, safe_open

    try:
        file = safe_open(path, framework="numpy")
    except (SafetensorError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file: {first_line(error)}") from error
    with file as tensors:
        names = {slim: pytorch for pytorch, slim in mapping.slim_names(list(tensors.keys())).items()}

        def read(name: str) -> Array:
            return mapping.slim_layout(name, tensors.get_tensor(names[name]))

        def variable(name: str) -> tuple[Shape, np.dtype[Any]]:
            part = tensors.get_slice(names[name])
            dtype = _SAFETENSORS_DTYPES.get(part.get_dtype())
            if dtype is None:
                raise InputError(f"{path}: {names[name]} is of dtype {part.get_dtype()}, which slimport does not read")
            if dtype == "bfloat16":
                # The safetensors library finds NumPy's bfloat16 by its name, which ml_dtypes makes known.
                frameworks.import_ml_dtypes()
            return mapping.slim_shape(name, tuple(part.get_shape())), np.dtype(dtype)

        description = json.loads((tensors.metadata() or {}).get("slimport", "{}"))
        yield {name: variable(name) for name in names}, read, description


_SAFETENSORS_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}


@contextmanager
def _open_onnx(path: Path) -> Iterator[Converted]:
    model, description = programs.load_onnx(path)
    from onnx.helper import tensor_dtype_to_np_dtype
    from onnx.numpy_helper import to_array

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    # Beside the weights, which have PyTorch's names, stand constants of the program.
    weights = [name for name in tensors if "." in name]
    names = {slim: pytorch for pytorch, slim in mapping.slim_names(weights).items()}

    def read(name: str) -> Array:
        return mapping.slim_layout(name, to_array(tensors[names[name]]))

    def variable(name: str) -> tuple[Shape, np.dtype[Any]]:
        tensor = tensors[names[name]]
        return mapping.slim_shape(name, tuple(tensor.dims)), np.dtype(tensor_dtype_to_np_dtype(tensor.data_type))

    yield {name: variable(name) for name in names}, read, description


@contextmanager
def _open_keras(path: Path) -> Iterator[Converted]:
    h5py = frameworks.import_h5py()
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive, archive.open("model.weights.h5") as weights:
                scope = json.loads(archive.read("config.json"))["config"]["name"].replace("__", "/")
                with h5py.File(weights, "r") as file:
                    yield *_h5_variables(path, file), {"scope": scope}
        else:
            with h5py.File(path, "r") as file:
                yield *_h5_variables(path, file), {}
    except (OSError, KeyError, TypeError, zipfile.BadZipFile, json.JSONDecodeError) as error:
        raise InputError(f"{path}: not a Keras 3 file: {first_line(error)}") from error


def _h5_variables(path: Path, file: Any) -> tuple[dict[str, tuple[Shape, np.dtype[Any]]], Callable[[str], Array]]:
    """Keras 3 keeps a layer's weights as `layers/<class>_<n>/vars/<i>`, and its name as an attribute of `vars`."""
    datasets = {}
    for group in file["layers"].values():
        weights = group["vars"]
        if not len(weights):
            continue
        if "name" not in weights.attrs:
            raise InputError(f"{path}: its layers carry no names; save it again with Keras 3.9 or newer")
        layer = weights.attrs["name"]
        leaves: tuple[str, ...] = ("gamma", "beta", "moving_mean", "moving_variance")
        leaves = ("kernel", "bias") if weights["0"].ndim > 1 else leaves
        # Slim's BatchNorm has a beta, if not told otherwise, and no gamma.
        leaves = leaves[1:] if leaves[0] == "gamma" and len(weights) == 3 else leaves
        for index, leaf in enumerate(leaves[: len(weights)]):
            datasets[mapping.slim_name(layer, leaf)] = weights[str(index)]
    variables = {name: (dataset.shape, dataset.dtype) for name, dataset in datasets.items()}
    return variables, lambda name: np.asarray(datasets[name])
