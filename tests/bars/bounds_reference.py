"""Networks of auto_LiRPA as ONNX files, and their bounds in float64 as the papers define them.

    bounds_reference.py DATA OUT      DATA is the shared folder `data`; writes OUT/NAME.onnx and OUT/NAME.npz

Needs PyTorch. Checkpoints are pickles: only their tensors are read (`weights_only`). The auto_LiRPA of PyPI (0.3) does not
run with PyTorch 2, so that intervals (Gowal et al. 2019), CROWN-IBP (Zhang et al. 2020) and CROWN (Zhang et al. 2018) are
written out here, without a line of Netproof.
"""

import gzip
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

ROWS = 8


def conv(inside: int, outside: int, kernel: int, stride: int, padding: int) -> nn.Conv2d:
    return nn.Conv2d(inside, outside, kernel, stride=stride, padding=padding)


def two_two(inside: int, first: int, second: int, flat: int, hidden: int, kernel: int, stride: int, padding: int):
    """Two convolutions, two dense layers."""
    return nn.Sequential(
        conv(inside, first, kernel, stride, padding), nn.ReLU(), conv(first, second, kernel, stride, padding), nn.ReLU(),
        nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, 10),
    )


NETWORKS = {
    "mnist_a_adv": (two_two(1, 16, 32, 1568, 100, 4, 2, 1), "mnist", [0.02, 0.1]),
    "kw_mnist": (two_two(1, 16, 32, 1568, 100, 4, 2, 1), "mnist", [0.02, 0.1]),
    "mnist_cnn_small": (two_two(1, 8, 16, 784, 256, 4, 2, 1), "mnist", [0.02, 0.1]),
    "mnist_fc_3layer": (
        nn.Sequential(nn.Flatten(), nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10)),
        "mnist", [0.01, 0.03],
    ),
    "cifar_2c2f": (two_two(3, 4, 4, 3136, 32, 3, 1, 0), "cifar", [0.5 / 255, 2 / 255]),
}


def load(network: nn.Sequential, path: Path) -> None:
    state = torch.load(path, weights_only=True, map_location="cpu")
    state = state.get("state_dict", state)
    tensors = list(state.values())
    with torch.no_grad():
        for parameter, tensor in zip(network.parameters(), tensors, strict=True):
            parameter.copy_(tensor)
    network.eval()


def to_onnx(network: nn.Sequential, shape: tuple[int, ...]) -> onnx.ModelProto:
    nodes, tensors, value = [], [], "input"
    for i, layer in enumerate(network):
        out = f"v{i}"
        if isinstance(layer, (nn.Conv2d, nn.Linear)):
            for name, parameter in (("weight", layer.weight), ("bias", layer.bias)):
                tensors.append(numpy_helper.from_array(parameter.detach().numpy(), f"{i}.{name}"))
            inputs = [value, f"{i}.weight", f"{i}.bias"]
            if isinstance(layer, nn.Linear):
                nodes.append(helper.make_node("Gemm", inputs, [out], transB=1))
            else:
                pads = [layer.padding[0]] * 4
                nodes.append(helper.make_node("Conv", inputs, [out], strides=list(layer.stride), pads=pads))
        else:
            nodes.append(helper.make_node({nn.ReLU: "Relu", nn.Flatten: "Flatten"}[type(layer)], [value], [out]))
        value = out
    port = lambda name, dims: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", *dims])
    graph = helper.make_graph(nodes, "network", [port("input", shape)], [port(value, (10,))], tensors)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    return model


def mnist(folder: Path, rows: int) -> tuple[np.ndarray, np.ndarray]:
    images = gzip.decompress((folder / "mnist-t10k-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / "mnist-t10k-labels-idx1-ubyte.gz").read_bytes())
    x = np.frombuffer(images, np.uint8, offset=16).reshape(-1, 1, 28, 28)[:rows].astype(np.float32) / np.float32(255)
    return x, np.frombuffer(labels, np.uint8, offset=8)[:rows].astype(np.int64)


def cifar(folder: Path, rows: int) -> tuple[np.ndarray, np.ndarray]:
    from PIL import Image

    with zipfile.ZipFile(folder / "cifar10-jpeg-test.zip") as archive:
        names = [n for n in archive.namelist() if n.endswith((".jpg", ".jpeg"))]
        names.sort(key=lambda n: int(Path(n).stem))
        classes = sorted({Path(n).parent.name for n in names})
        pixels = [np.asarray(Image.open(io.BytesIO(archive.read(n)))) for n in names[:rows]]
    x = np.stack(pixels).astype(np.float32).transpose(0, 3, 1, 2) / np.float32(255)
    # The published network takes normalised pixels; mean and deviation of the training images.
    mean = np.float32([0.4914, 0.4822, 0.4465]).reshape(1, 3, 1, 1)
    deviation = np.float32([0.225, 0.225, 0.225]).reshape(1, 3, 1, 1)
    labels = np.array([classes.index(Path(n).parent.name) for n in names[:rows]], np.int64)
    return (x - mean) / deviation, labels


def through(layer: nn.Module, x: torch.Tensor, weight: torch.Tensor | None = None) -> torch.Tensor:
    """A linear layer without its bias."""
    weight = layer.weight if weight is None else weight
    if isinstance(layer, nn.Linear):
        return x.flatten(1) @ weight.T
    return nn.functional.conv2d(x, weight, None, layer.stride, layer.padding)


def back(layer: nn.Module, a: torch.Tensor, shape: torch.Size) -> torch.Tensor:
    """Its transpose, on coefficients `[units, ...]`."""
    if isinstance(layer, nn.Linear):
        return (a @ layer.weight).reshape(-1, *shape)
    extra = [shape[i + 1] - ((a.shape[i + 2] - 1) * layer.stride[i] - 2 * layer.padding[i] + layer.kernel_size[i])
             for i in range(2)]
    return nn.functional.conv_transpose2d(a, layer.weight, None, layer.stride, layer.padding, extra)


def step(layer: nn.Module, low: torch.Tensor, high: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Intervals through a linear layer."""
    centre, radius = (low + high) / 2, (high - low) / 2
    bias = layer.bias if isinstance(layer, nn.Linear) else layer.bias[:, None, None]
    centre, radius = through(layer, centre) + bias, through(layer, radius, layer.weight.abs())
    return centre - radius, centre + radius


class Row:
    """One image in its box, and the linear layers, between which there are ReLUs."""

    def __init__(self, layers: list[nn.Module], low: torch.Tensor, high: torch.Tensor):
        self.layers, self.low, self.high = layers, low, high

    def least(self, k: int, a: torch.Tensor, bounds: list) -> torch.Tensor:
        """Lower bounds of `a · z_k`, `z_k` being what layer k gives."""
        total = torch.zeros(a.shape[0], dtype=torch.float64)
        for i in range(k, -1, -1):
            layer = self.layers[i]
            shape = (bounds[i - 1][0] if i else self.low).shape[1:]
            total = total + (a.flatten(2).sum(2) if a.dim() > 2 else a) @ layer.bias
            a = back(layer, a, shape)
            if i:
                low, high = bounds[i - 1]
                slope = (high / (high - low)).where((low < 0) & (high > 0), (low >= 0).to(a.dtype))
                crossing = (low < 0) & (high > 0)
                under = (high > -low).to(a.dtype).where(crossing, slope)
                total = total + (a.clamp(max=0) * (-slope * low).where(crossing, torch.zeros_like(low))).flatten(1).sum(1)
                a = a.clamp(min=0) * under + a.clamp(max=0) * slope
        return total + (a.clamp(min=0) * self.low + a.clamp(max=0) * self.high).flatten(1).sum(1)

    def intervals(self) -> list:
        bounds, low, high = [], self.low, self.high
        for layer in self.layers:
            bounds.append(step(layer, low, high))
            low, high = bounds[-1][0].clamp(min=0), bounds[-1][1].clamp(min=0)
        return bounds

    def crown(self) -> list:
        bounds, low, high = [], self.low, self.high
        for k, layer in enumerate(self.layers[:-1]):
            l, u = (v.contiguous() for v in step(layer, low, high))
            if k:
                open_ = ((l < 0) & (u > 0)).flatten().nonzero().flatten()
                for part in open_.split(256):
                    a = torch.zeros(len(part), l.numel(), dtype=torch.float64)
                    a[torch.arange(len(part)), part] = 1.0
                    a = a.reshape(-1, *l.shape[1:])
                    l.view(-1)[part] = torch.maximum(l.view(-1)[part], self.least(k, a, bounds))
                    u.view(-1)[part] = torch.minimum(u.view(-1)[part], -self.least(k, -a, bounds))
            bounds.append((l, u))
            low, high = l.clamp(min=0), u.clamp(min=0)
        return bounds

    def joined(self, c: torch.Tensor, bounds: list) -> torch.Tensor:
        """Margins by intervals, the last layer joined to them."""
        low, high = (v.clamp(min=0).flatten(1) for v in bounds[len(self.layers) - 2])
        a = c @ self.layers[-1].weight
        return c @ self.layers[-1].bias + (a.clamp(min=0) * low + a.clamp(max=0) * high).sum(1)


def reference(network: nn.Sequential, x: np.ndarray, labels: np.ndarray, epsilon: float) -> dict[str, np.ndarray]:
    layers = [layer for layer in network.double() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    found: dict[str, list] = {"ibp": [], "crown_ibp": [], "crown": []}
    with torch.no_grad():
        for image, label in zip(x, labels, strict=True):
            centre = torch.tensor(image, dtype=torch.float64)[None]
            row = Row(layers, centre - epsilon, centre + epsilon)
            c = torch.eye(10, dtype=torch.float64)[label] - torch.eye(10, dtype=torch.float64)
            plain, tight, last = row.intervals(), row.crown(), len(layers) - 1
            found["ibp"].append(row.joined(c, plain))
            found["crown_ibp"].append(torch.maximum(row.joined(c, plain), row.least(last, c, plain)))
            found["crown"].append(torch.maximum(row.joined(c, tight), row.least(last, c, tight)))
    network.float()
    return {name: torch.stack(rows).numpy() for name, rows in found.items()}


def main(data: Path, out: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    for name, (network, kind, epsilons) in NETWORKS.items():
        load(network, data / "models" / f"{name}.pth")
        many, classes = (mnist if kind == "mnist" else cifar)(data, 1000)
        with torch.no_grad():
            right = (network(torch.tensor(many)).argmax(1).numpy() == classes).mean()
        x, labels = many[:ROWS], classes[:ROWS]
        (out / f"{name}.onnx").write_bytes(to_onnx(network, x.shape[1:]).SerializeToString())
        arrays = {"x": x, "labels": labels.astype(np.float32)}
        for i, epsilon in enumerate(epsilons):
            arrays[f"epsilon_{i}"] = np.full((1,), epsilon, np.float32)
            for method, lower in reference(network, x, labels, epsilon).items():
                arrays[f"{method}_{i}"] = lower.astype(np.float32)
        np.savez(out / f"{name}.npz", **arrays)
        print(f"{name}: {100 * right:.1f} % of 1000 right; {sorted(arrays)}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
