"""Shared by the scripts that measure training. They need the folder `shared/data`, which is not part of the repository."""

import gzip
import json
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from common import run

CLASSES = 10


def idx(path: Path) -> np.ndarray:
    """Images or labels of an IDX file."""
    with gzip.open(path) as file:
        data = file.read()
    axes = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(axes)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * axes).reshape(shape)


def mnist(data: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    """Images `[n, 1, 28, 28]` as bytes, and labels; `part` is `train` or `t10k`."""
    images = idx(data / f"mnist-{part}-images-idx3-ubyte.gz")
    return images[:, None], idx(data / f"mnist-{part}-labels-idx1-ubyte.gz").astype(np.int64)


def spec(data: Path, part: str) -> str:
    """The same for Netproof."""
    return f"{data}/mnist-{part}-images-idx3-ubyte.gz:{data}/mnist-{part}-labels-idx1-ubyte.gz"


def netproof(binary: Path, *arguments: object, codes: tuple[int, ...] = (0, 1)) -> str:
    """Runs the binary; gives its standard output."""
    done = run(binary, *arguments)
    if done.returncode not in codes:
        raise SystemExit(f"netproof {' '.join(map(str, arguments))} ended with {done.returncode}: {done.stderr[-2000:]}")
    return done.stdout


def train(binary: Path, folder: Path, name: str, recipe: str) -> dict:
    """Trains by a recipe into `folder/name.onnx`; gives the record."""
    path = folder / f"{name}.toml"
    path.write_text(recipe)
    netproof(binary, "train", path, "--out", folder / f"{name}.onnx")
    return json.loads((folder / f"{name}.train.json").read_text())


def cnn(weights: dict[str, np.ndarray], path: Path) -> None:
    """The network of `kind = "cnn"` for 28×28 images, with given weights, as a file."""
    nodes = [
        helper.make_node("Conv", ["input", "conv1.weight", "conv1.bias"], ["a"], pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("MaxPool", ["b"], ["c"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Conv", ["c", "conv2.weight", "conv2.bias"], ["d"], pads=[1] * 4),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("MaxPool", ["e"], ["f"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("Flatten", ["f"], ["g"]),
        helper.make_node("Gemm", ["g", "fc1.weight", "fc1.bias"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["i"]),
        helper.make_node("Gemm", ["i", "fc2.weight", "fc2.bias"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "cnn",
        [helper.make_tensor_value_info("input", TensorProto.FLOAT, ["batch", 1, 28, 28])],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", CLASSES])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)
