"""`.pt2` and `.onnx`: programs that run without slimport, for every batch, height and width."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from conftest import SMALL_NETWORKS, Run, pytorch_port, random_images, random_weights, save_small

from converters import InputError, frameworks, verify
from converters.checkpoint import write_checkpoint
from converters.formats import programs
from converters.parity import tf_slim
from converters.parity.ports.base import Predictions
from converters.weights.source import open_source
from slimport import networks
from slimport.graph import Input as GraphInput
from slimport.graph import avg_pool2d, conv2d, record, squeeze
from slimport.networks import GraphNetwork

frameworks.require("slimport.nets")
import tensorflow.compat.v1 as tf

SUFFIXES = (".pt2", ".onnx")
# Few units, with an identity with a stride among them: PyTorch takes seconds for every further one.
BLOCKS = (networks.resnet_v2_block("block1", 4, 2, 2), networks.resnet_v2_block("block2", 4, 1, 1))
NETWORK = networks.ResNetV2(BLOCKS, num_classes=7)
GAMMA = "block1.unit_2.bottleneck_v2.conv1.BatchNorm.weight"
FIRST = "resnet_v2/block1/unit_2/bottleneck_v2/conv1"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_small(tmp_path_factory.mktemp("checkpoint") / "small.ckpt", "v2", NETWORK)


@pytest.fixture(scope="module")
def converted(checkpoint: Path, slimport_process: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The file of a suffix, by the command, which prints the result, the assumption, and nothing of the exporters."""
    folder = tmp_path_factory.mktemp("programs")
    made: dict[str, Path] = {}

    def file(suffix: str) -> Path:
        if suffix not in made:
            made[suffix] = folder / f"m{suffix}"
            run = slimport_process("convert", checkpoint, made[suffix])
            assert (run.code, run.out.count("\n"), run.err) == (0, 2, "")
            assert "assumed: slim's own epsilon" in run.out
        return made[suffix]

    return file


def load_onnx(path: Path) -> Callable[[Any], Any]:
    session = onnxruntime.InferenceSession(path)
    return lambda images: session.run(["logits"], {"images": images})[0]


def load_pt2(path: Path) -> Callable[[Any], Any]:
    module = torch.export.load(path).module()
    return lambda images: module(torch.from_numpy(images)).detach().numpy()


@pytest.mark.parametrize(("suffix", "load"), [(".pt2", load_pt2), (".onnx", load_onnx)])
def test_one_file_takes_every_batch_and_size_and_is_tf_slim_without_slimport(
    suffix: str, load: Any, converted: Any, checkpoint: Path
) -> None:
    with open_source(checkpoint) as source:
        weights = source.arrays()
    run = load(converted(suffix))
    with tf_slim.SlimGraph(NETWORK, "resnet_v2", weights, "float64") as graph:
        # The last is a single pixel inside the network.
        for shape in ((1, 33, 46, 3), (3, 40, 41, 3), (2, 64, 32, 3), (1, 47, 47, 3), (1, 5, 4, 3)):
            images = random_images(shape)
            expected = graph.run(images)["resnet_v2/spatial_squeeze"]
            np.testing.assert_allclose(run(images.transpose(0, 3, 1, 2)), expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize(("suffix", "dtype"), [(".pt2", "float64"), (".onnx", "float32")])
def test_verify_runs_the_file_itself_at_every_end_point(
    suffix: str, dtype: str, converted: Any, checkpoint: Path
) -> None:
    report = verify(checkpoint, converted(suffix), dtype=dtype, size=(33, 46), batch=2)
    assert report.ok, report.first_difference
    assert [row.name for row in report.rows] == NETWORK.end_points("resnet_v2")
    assert report.weights_compared == len(NETWORK.variables())
    assert sum("predictions are not in the file" in note for note in report.notes) == 1


def test_a_program_is_made_of_a_network_that_takes_few_sizes() -> None:
    """As Inception v1, it ends in a pooling of 7x7: images of 193 to 224 pixels have one such window."""

    def define(images: Any) -> Any:
        net = conv2d(images, 4, 3, stride=32, scope="conv")
        return squeeze(avg_pool2d(net, 7, 1, scope="pool"), scope="squeeze")

    network = GraphNetwork(record(define, inputs=[GraphInput("images", (None, None, None, 3))]))
    model = pytorch_port(network, random_weights(network))
    run = programs.export(model).module()
    for shape in ((1, 3, 193, 224), (2, 3, 200, 200)):
        images = torch.from_numpy(random_images(shape))
        torch.testing.assert_close(run(images), model(images))
    # Of the sides that OverFeat takes, the equations of an exporter have no solution that sympy finds.
    overfeat = SMALL_NETWORKS["overfeat"]
    model = pytorch_port(overfeat, random_weights(overfeat))
    run = programs.export(model).module()
    images = torch.from_numpy(random_images((1, 3, 240, 231)))
    torch.testing.assert_close(run(images), model(images))
    with pytest.raises(AssertionError, match=r"size\(\)\[3\] <= 262"):
        run(torch.zeros(1, 3, 231, 263))
    inception_v1 = networks.NETWORKS["inception_v1"]
    assert programs.other_side(inception_v1.graph(), inception_v1.default_image_size) == 223


def test_end_points_that_the_output_does_not_need_are_said_to_lack(tmp_path: Path) -> None:
    network = SMALL_NETWORKS["inception_resnet_v1"]
    write_checkpoint(tmp_path / "m", {f"net/{name}": array for name, array in random_weights(network).items()})
    with open_source(tmp_path / "m") as source:
        predictions = Predictions(source, {})
    assert predictions.lacking == {"embeddings"}
    assert predictions.notes == ("not in the file, whose output does not need it: embeddings",)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_weights_in_the_file_are_what_tensorflow_reads(suffix: str, converted: Any, checkpoint: Path) -> None:
    reader = tf.train.load_checkpoint(str(checkpoint))
    with open_source(converted(suffix)) as source:
        assert source.scope == "resnet_v2"
        arrays = source.arrays()
    assert len(arrays) == len(reader.get_variable_to_shape_map())
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, reader.get_tensor(f"resnet_v2/{name}"))


def change_pt2(path: Path, changed: Path) -> None:
    notes = {"slimport": ""}
    program = torch.export.load(path, extra_files=notes)
    program.state_dict[GAMMA].data *= 1.001
    torch.export.save(program, changed, extra_files=notes)


def change_onnx(path: Path, changed: Path) -> None:
    model = onnx.load(path)
    (gamma,) = (tensor for tensor in model.graph.initializer if tensor.name == GAMMA)
    gamma.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(gamma) * np.float32(1.001), GAMMA))
    onnx.save(model, changed)


@pytest.mark.parametrize(("suffix", "change"), [(".pt2", change_pt2), (".onnx", change_onnx)])
def test_one_gamma_changed_by_a_thousandth_in_the_file_is_found_where_it_is(
    suffix: str, change: Any, converted: Any, checkpoint: Path, tmp_path: Path
) -> None:
    change(converted(suffix), tmp_path / f"m{suffix}")
    report = verify(checkpoint, tmp_path / f"m{suffix}", size=(40, 40))
    assert report.first_difference == FIRST
    assert report.weights_different == (f"{FIRST}/BatchNorm/gamma",)
    differing = [row.name for row in report.rows if not row.ok]
    assert differing[0] == FIRST
    assert differing[-1] == "predictions"


def test_the_onnx_file_says_what_it_takes(converted: Any) -> None:
    model = onnx.load(converted(".onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    (images,), (logits,) = model.graph.input, model.graph.output
    dims = [dim.dim_param or dim.dim_value for dim in images.type.tensor_type.shape.dim]
    assert (images.name, dims) == ("images", ["batch", 3, "height", "width"])
    assert logits.name == "logits"
    assert {"resnet_v2/conv1", FIRST, "global_pool"} <= {name for node in model.graph.node for name in node.output}


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_nothing_of_the_machine_that_wrote_it_is_in_the_file(suffix: str, converted: Any) -> None:
    assert str(Path(__file__).parent.parent).encode() not in converted(suffix).read_bytes()


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_what_cannot_be_verified_is_refused_in_one_line(
    suffix: str, converted: Any, checkpoint: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="is a program with global_pool True, spatial_squeeze True, and cannot take"):
        verify(checkpoint, converted(suffix), global_pool=False, spatial_squeeze=False)
    (tmp_path / f"text{suffix}").write_text("text")
    with pytest.raises(InputError, match=r"not a program of torch\.export|not an ONNX model"):
        verify(checkpoint, tmp_path / f"text{suffix}")
    if suffix == ".pt2":
        program = torch.export.load(converted(suffix))
        torch.export.save(program, tmp_path / "m.pt2")
    else:
        model = onnx.load(converted(suffix))
        del model.metadata_props[:]
        onnx.save(model, tmp_path / "m.onnx")
        with pytest.raises(InputError, match="no convolution in float64"):
            verify(checkpoint, converted(suffix), dtype="float64")
        with pytest.raises(InputError, match=r"name the \.onnx file"):
            verify(checkpoint, target="onnx")
    with pytest.raises(InputError, match="slimport did not write it"):
        verify(checkpoint, tmp_path / f"m{suffix}", size=(40, 40))
