"""Graphs of other people's, as their TensorFlow wrote them; where they are missing, there is nothing to test."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import user_graphs
from user_graphs import LIMIT, errors, outputs_of, port, relative

from converters import open_checkpoint
from converters.graph_def import UserGraph, read_network
from converters.graph_def.judge import Judge
from converters.graph_def.known import likeness
from slimport import networks

ROOT = Path(__file__).parent.parent.parent / "shared" / "graphs"
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="the real graphs are not here")
GRAPHS = {
    "dlc_mobilenet_v2": ("snapshot-800000.meta", 2, 264),
    "dlc_resnet_v1_50": ("snapshot-500000.meta", 2, 269),
    "mtcnn_onet": ("ONet-16.meta", 3, 20),
    "unet": ("model.ckpt.meta", 1, 50),
    "vgg16_trained": ("model.ckpt-20227.meta", 1, 32),
    "ssd_mobilenet_v1": ("model.ckpt.meta", 12, 199),
}
"""The file, its outputs and its variables."""


def read(name: str) -> UserGraph:
    return read_network(ROOT / name / GRAPHS[name][0])


def random_weights(judge: Judge) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    found = {}
    for name, placeholder in judge.variables.items():
        shape = placeholder.shape.as_list()
        if name.endswith(("variance", "gamma")):
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = rng.normal(size=shape) / np.sqrt(max(1, np.prod(shape[:-1])))
        found[name] = array.astype(np.float32)
    return found


def test_a_training_graph_of_2_mb_is_read_in_less_than_half_a_second() -> None:
    path = ROOT / "dlc_mobilenet_v2" / "snapshot-800000.meta"
    script = (
        "import time; from converters.graph_def import read_network; start = time.process_time();"
        f"read_network({str(path)!r}); print(time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 0.5


@pytest.mark.parametrize("name", GRAPHS)
def test_a_real_graph_is_read_whole(name: str) -> None:
    user = read(name)
    assert (len(user.outputs), len(user.graph.variables)) == GRAPHS[name][1:]
    assert all(source.name for source in user.sources.values())


@pytest.mark.parametrize("name", ["dlc_mobilenet_v2", "dlc_resnet_v1_50", "unet", "ssd_mobilenet_v1"])
def test_a_real_graph_with_random_weights_gives_what_tensorflow_gives(name: str) -> None:
    user = read(name)
    weights = random_weights(Judge(user))
    assert max(errors(user, weights, [1], side=48, free_batch=True).values()) <= LIMIT


def test_mtcnn_with_its_weights_gives_what_tensorflow_gives() -> None:
    user = read("mtcnn_onet")
    with open_checkpoint(ROOT / "mtcnn_onet" / "ONet-16") as checkpoint:
        found = errors(user, checkpoint, [1, 3])
    assert max(found.values()) <= LIMIT
    assert [node.op for node in user.graph.nodes].count("prelu") == 4


def test_deeplabcut_gives_what_its_frozen_graph_gives() -> None:
    """In float32: TensorFlow's own outputs of the frozen graph are 2.8e-6 and 9.5e-6 off in themselves."""
    frozen = read_network(ROOT / "dlc_mobilenet_v2" / "snapshot-800000.pb")
    images = np.random.default_rng(0).uniform(0, 255, (1, 160, 192, 3)).astype(np.float32)
    inputs = {next(iter(frozen.inputs)): images}
    truth = _frozen_outputs(images, list(frozen.outputs.values()))
    found = outputs_of(port(frozen, {}, "float32"), frozen, inputs)
    for (name, array), limit in zip(found.items(), (1e-5, 4e-5), strict=True):
        assert relative(array, truth[frozen.outputs[name]]) < limit


def test_deeplabcuts_checkpoint_has_the_frozen_graphs_weights() -> None:
    frozen = read_network(ROOT / "dlc_mobilenet_v2" / "snapshot-800000.pb")
    user = read("dlc_mobilenet_v2")
    with open_checkpoint(ROOT / "dlc_mobilenet_v2" / "snapshot-800000") as checkpoint:
        arrays = dict(user.arrays(checkpoint))
        for name, array in frozen.arrays({}):
            assert np.array_equal(array, arrays[name])


def _frozen_outputs(images: Any, names: list[str]) -> dict[str, Any]:
    tf = user_graphs.tf
    graph_def = tf.GraphDef.FromString((ROOT / "dlc_mobilenet_v2" / "snapshot-800000.pb").read_bytes())
    with tf.Graph().as_default() as graph, tf.Session(graph=graph) as session:
        tf.import_graph_def(graph_def, name="")
        return dict(zip(names, session.run(names, {"Placeholder:0": images}), strict=True))


def test_a_trained_vgg_is_vgg_but_for_what_it_has_otherwise() -> None:
    user = read("vgg16_trained")
    network = networks.VGG.named()["vgg_16"].with_classes(2000)
    assert likeness(user, network, "vgg_16").differences == ()
    assert "has the variables of" in " ".join(user.notes)
