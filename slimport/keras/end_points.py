"""The end points of a converted Keras model, found by the names of its layers."""

from __future__ import annotations

from typing import Any

import keras


def end_points(model: Any, scope: str | None = None) -> Any:
    """A model from the same images to every end point that slim gives.

    It needs nothing but the layers' names, so it takes a model that `keras.saving.load_model` read.

    Args:
      model: a functional `keras.Model` that slimport built or wrote.
      scope: the scope in the names of the end points; None takes it from the model's name.

    Returns:
      A `keras.Model` from images to {slim end point name: NHWC tensor}, sharing the layers of `model`.
    """
    prefix = model.name.replace("__", "/") if scope is None else scope
    prefix = f"{prefix}/" if prefix else ""
    layers = {layer.name: layer for layer in model.layers}
    named = (
        keras.layers.Conv2D,
        keras.layers.Add,
        keras.layers.Identity,
        keras.layers.Reshape,
        keras.layers.MaxPooling2D,
    )
    outputs: dict[str, Any] = {}
    for name, layer in layers.items():
        end_point = name.replace("__", "/")
        if isinstance(layer, named) and not name.endswith(("__MaxPool", "__squeezed")):
            # Slim's end point of a layer is what leaves its normalizer, its activation and its squeeze.
            parts = [f"{name}__squeezed", f"{name}__Relu", f"{name}__BatchNorm", name]
            outputs[prefix + end_point] = next(layers[part] for part in parts if part in layers).output
        elif isinstance(layer, keras.layers.GlobalAveragePooling2D):
            outputs[end_point] = layer.output
    if "logits" in layers:
        softmax = keras.layers.Softmax(dtype=layers["logits"].dtype_policy, name="predictions")
        outputs["predictions"] = softmax(model.output)
    return keras.Model(model.inputs, outputs, name=f"{model.name}__end_points")
