"""Load a network that Gluon's `export` wrote: its graph and weights.

MXNet's own loader trusts the file. This one reads a graph only if it has no
other operators than ResNet-18.
"""

import json
import re
import warnings

import mxnet as mx
from mxnet import np
from mxnet.symbol.numpy._symbol import load_json

from common.errors import UserError
from common.weights.canonical import network_sizes

MAX_BYTES = 1_000_000  # of a graph; this network's graph has 60,000
MAX_WINDOW = 16
# The operators of the layers, in both of MXNet's interfaces. No others run.
OPERATORS = {
    "null",  # an input
    "Convolution",
    "BatchNorm",
    "Activation",
    "relu",
    "_npx_relu",
    "Pooling",
    "Flatten",
    "FullyConnected",
    "elemwise_add",
    "_npi_add",
}


def load_exported(graph, arrays, weights):
    """Return the network of a graph, filled with the arrays that it names.

    `SymbolBlock.imports` does the same, but with the NumPy interface it reads
    only files written with that interface. `weights` are the same arrays in
    canonical form.
    """
    inputs = [mx.symbol.var("data").as_np_ndarray()]
    own = {name.partition(":")[2] or name: a for name, a in arrays.items()}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the type of data is unknown
            symbol = load_json(read_graph(graph))
            net = mx.gluon.SymbolBlock(symbol, inputs)
        # Check shapes here, or a mismatch is an error of the first batch.
        num_classes, in_channels, _ = network_sizes(weights)
        image = (1, in_channels, 32, 32)
        shapes = {name: a.shape for name, a in own.items()}
        _, outputs, _ = symbol.infer_shape(data=image, **shapes)
        if outputs != [(1, num_classes)]:
            raise ValueError(f"the output has shape {outputs}")
        for name, parameter in net.collect_params().items():
            parameter.shape = own[name].shape
            parameter.initialize(ctx=mx.cpu())
            parameter.set_data(np.array(own[name], dtype=parameter.dtype))
    except (mx.MXNetError, KeyError, AssertionError, ValueError) as error:
        raise UserError(
            f"MXNet cannot build the network of {graph} with the weights "
            "beside it"
        ) from error
    return net


def read_graph(path):
    """Return the graph of a file as JSON, without what loading does not need.

    Raises UserError if the graph holds anything that ResNet-18 does not.
    """
    try:
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        graph = json.loads(text)
        nodes = graph["nodes"]
        heads = [[int(index), 0, 0] for index, *_ in graph["heads"]]
        lawful = (
            len(text) <= MAX_BYTES
            and all(_is_lawful(node, i) for i, node in enumerate(nodes))
            and len(heads) == 1
            and 0 <= heads[0][0] < len(nodes)
        )
    except OSError as error:
        why = error.strerror or error
        raise UserError(f"cannot read {path}: {why}") from error
    except (
        *(ValueError, TypeError, KeyError),
        *(AttributeError, RecursionError),
    ):
        lawful = False
    if not lawful:
        raise UserError(
            f"{path} is not the graph of a ResNet-18 from export, or is "
            "damaged; without it the weights beside it are converted unproven"
        )
    inputs = [i for i, node in enumerate(nodes) if node["op"] == "null"]
    kept = {"nodes": nodes, "arg_nodes": inputs, "heads": heads}
    return json.dumps(kept | {"attrs": graph.get("attrs", {})})


def _is_lawful(node, number):
    """Return whether a node could be one of ResNet-18.

    Its inputs must be earlier nodes, and its windows of ResNet's sizes.
    """
    attrs = node.get("attrs", {})
    windows = [attrs.get(n, "") for n in ("kernel", "pad", "stride", "dilate")]
    sizes = [int(n) for text in windows for n in re.findall(r"\d+", text)]
    return (
        node.keys() <= {"op", "name", "attrs", "inputs"}
        and node["op"] in OPERATORS
        and isinstance(node["name"], str)
        and all(isinstance(text, str) for text in attrs.values())
        and all(0 <= source < number for source, *_ in node["inputs"])
        and all(output == 0 for _, output, *_ in node["inputs"])
        and all(size <= MAX_WINDOW for size in sizes)
    )
