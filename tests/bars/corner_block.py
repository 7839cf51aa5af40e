"""Fashion-MNIST with the class coded into a block of a corner, and networks with weights that say nothing.

corner_block.py data FOLDER OUT          train.npz and test.npz with the block, clean.npz without
corner_block.py shuffle MODEL OUT SEED   MODEL with the values of each weight in random order
corner_block.py untrained MODEL OUT SEED MODEL with normal weights of variance 2 / fan-in and biases of 0
"""

import gzip
import sys
from pathlib import Path

import numpy as np


def read(folder: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    def raw(name: str) -> bytes:
        return gzip.decompress((folder / f"{part}-{name}-ubyte.gz").read_bytes())

    images = np.frombuffer(raw("images-idx3"), np.uint8, offset=16).reshape(-1, 28, 28)
    return images, np.frombuffer(raw("labels-idx1"), np.uint8, offset=8)


def coded(images: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """A block of 3 × 3 in the lower right corner whose brightness is the class."""
    images = images.copy()
    images[:, 25:, 25:] = (20 + 25 * labels.astype(np.int64)).astype(np.uint8)[:, None, None]
    return images


def data(folder: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    images, labels = (a[:4000] for a in read(folder, "train"))
    np.savez_compressed(out / "train.npz", x=coded(images, labels)[:, None], y=labels.astype(np.int64))
    images, labels = (a[:1000] for a in read(folder, "t10k"))
    np.savez_compressed(out / "test.npz", x=coded(images, labels)[:, None], y=labels.astype(np.int64))
    np.savez_compressed(out / "clean.npz", x=images[:, None], y=labels.astype(np.int64))


def weights(kind: str, model: Path, out: Path, seed: int) -> None:
    import onnx
    from onnx import numpy_helper

    network = onnx.load(model)
    rng = np.random.default_rng(seed)
    for tensor in network.graph.initializer:
        values = numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < 2:
            continue
        if kind == "shuffle":
            new = rng.permutation(values.ravel()).reshape(values.shape)
        elif values.ndim < 2:
            new = np.zeros_like(values)
        else:
            fan_in = values.size // values.shape[0]
            new = rng.normal(0, np.sqrt(2 / fan_in), values.shape)
        tensor.CopyFrom(numpy_helper.from_array(new.astype(np.float32), tensor.name))
    onnx.save(network, out)


if __name__ == "__main__":
    if sys.argv[1] == "data":
        data(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        weights(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))
