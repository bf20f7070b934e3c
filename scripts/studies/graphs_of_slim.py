"""Whether the graphs that TensorFlow writes of slim's networks are recognised as those, as a Markdown table.

    python -m scripts.studies.graphs_of_slim [NAME...]

Slim's own code builds each network at full size, for training and for evaluation; TensorFlow writes it as a `.meta`, as
a frozen graph and as a SavedModel; and the graph is read without TensorFlow and compared with the definition, layer by
layer. Seconds are those of reading the graph for training, with its gradients and its optimizer.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from converters import frameworks
from converters.errors import InputError
from converters.graph_def import read_network
from converters.graph_def.known import likeness
from converters.parity.tf_slim import builder_of, building_graphs
from slimport import networks

FORMS = (".meta, evaluation", ".meta, training", "frozen .pb", "SavedModel")
TITLES = ("network", "nodes", *FORMS, "seconds")
SCOPE = "scope"


def build(network: networks.Network, is_training: bool) -> tuple[Any, Any]:
    """The images and the output of slim's own graph, with a loss and an optimizer where it is trained."""
    side, builder = network.default_image_size, builder_of(network)
    import tensorflow.compat.v1 as tf
    import tf_slim as slim

    images = tf.placeholder(tf.float32, (None, side, side, network.in_channels), "images")
    with slim.arg_scope(builder.arg_scope()):
        net, _ = builder.build(network, images, is_training=is_training, scope=SCOPE)
    if is_training:
        labels = tf.placeholder(tf.int64, (None,), "labels")
        loss = tf.losses.sparse_softmax_cross_entropy(labels, slim.flatten(net))
        with tf.control_dependencies(tf.get_collection(tf.GraphKeys.UPDATE_OPS)):
            tf.train.MomentumOptimizer(0.1, 0.9).minimize(loss)
    return images, net


def written(network: networks.Network, form: str, folder: Path) -> tuple[Path, int]:
    """The file or folder that TensorFlow writes, and the nodes of the graph."""
    frameworks.require("slimport.nets")
    import tensorflow.compat.v1 as tf

    with tf.Graph().as_default() as graph, tf.Session() as session, building_graphs():
        images, net = build(network, "training" in form)
        nodes = len(graph.as_graph_def().node)
        if form.startswith(".meta"):
            tf.train.Saver().export_meta_graph(str(folder / "model.ckpt.meta"))
            return folder / "model.ckpt.meta", nodes
        session.run(tf.global_variables_initializer())
        if form == "SavedModel":
            tf.saved_model.simple_save(session, str(folder / "saved"), {"images": images}, {"output": net})
            return folder / "saved", nodes
        frozen = tf.graph_util.convert_variables_to_constants(session, graph.as_graph_def(), [net.op.name])
        (folder / "frozen.pb").write_bytes(frozen.SerializeToString())
        return folder / "frozen.pb", nodes


def cells(network: networks.Network) -> Iterator[tuple[str, str]]:
    """The columns of a network's row."""
    for form in FORMS:
        with tempfile.TemporaryDirectory() as folder:
            path, nodes = written(network, form, Path(folder))
            start = time.perf_counter()
            try:
                user = read_network(path)
                seconds = time.perf_counter() - start
                yield form, str(likeness(user, network, SCOPE)).replace(network.name, "itself", 1)
            except InputError as error:
                yield form, str(error)
        if form == ".meta, training":
            yield from (("nodes", str(nodes)), ("seconds", f"{seconds:.2f}"))


def main() -> None:
    """The command line; exits with 1 where a graph is not recognised as itself."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", default=list(networks.NETWORKS))
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore")
    print(f"| {' | '.join(TITLES)} |", f"|{'---|' * len(TITLES)}", sep="\n")
    all_found = True
    for name in arguments.names:
        row = dict(cells(networks.NETWORKS[name])) | {"network": name}
        all_found &= all(row[form] == "itself" for form in FORMS)
        print(f"| {' | '.join(row[title] for title in TITLES)} |", flush=True)
    sys.exit(not all_found)


if __name__ == "__main__":
    main()
