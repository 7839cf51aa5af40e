"""Standard AutoAttack by torchattacks, beside ours, on the first rows of a test file.

    autoattack.py NETPROOF MODEL IMAGES LABELS ROWS EPSILON MASK AUTOATTACK_RATIO CASCADE_RATIO

torchattacks' own `AutoAttack` has other parameters than the standard's (10 steps), so its attacks are put together here with
the standard's: APGD-CE and APGD-T of 100 steps with one start and nine targets, FAB-T of 100 steps and nine targets, Square of 5,000 queries
without a rescaled schedule, each on the rows that stand. All three sides run in turn on the same blocks of rows, so that a
busy machine slows all of them. MASK is an `.npy`, or `FILE.npz:ARRAY`, of the rows that the published implementation left
standing, or `-`. The last line is JSON: figure and pass.
"""

import gzip
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx
import onnx.numpy_helper
import torch
import torchattacks

BLOCKS = 2
AGREE = 0.995


def network(path: str) -> torch.nn.Module:
    """A plain sequence of layers, as both networks of this bar are."""
    graph = onnx.load(path).graph
    weights = {t.name: torch.tensor(onnx.numpy_helper.to_array(t)) for t in graph.initializer}
    layers: list[torch.nn.Module] = []
    for node in graph.node:
        attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
        if node.op_type == "Conv":
            weight, bias = weights[node.input[1]], weights[node.input[2]]
            layer = torch.nn.Conv2d(
                weight.shape[1], weight.shape[0], weight.shape[2:],
                stride=attributes.get("strides", [1, 1]), padding=attributes.get("pads", [0, 0, 0, 0])[:2],
            )
            layer.weight.data, layer.bias.data = weight.clone(), bias.clone()
        elif node.op_type == "Gemm":
            weight, bias = weights[node.input[1]], weights[node.input[2]]
            weight = weight if attributes.get("transB", 0) else weight.T
            layer = torch.nn.Linear(weight.shape[1], weight.shape[0])
            layer.weight.data, layer.bias.data = weight.clone(), bias.clone()
        elif node.op_type == "MaxPool":
            layer = torch.nn.MaxPool2d(attributes["kernel_shape"], attributes.get("strides"))
        elif node.op_type == "Relu":
            layer = torch.nn.ReLU()
        elif node.op_type in ("Flatten", "Reshape"):
            layer = torch.nn.Flatten()
        elif node.op_type == "Constant":
            continue
        else:
            raise SystemExit(f"this bar knows no {node.op_type}")
        layers.append(layer)
    model = torch.nn.Sequential(*layers).eval()
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def idx(path: str) -> np.ndarray:
    data = gzip.open(path).read()
    rank = data[3]
    shape = [int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(rank)]
    return np.frombuffer(data, np.uint8, offset=4 + 4 * rank).reshape(shape)


def standard(model: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, epsilon: float) -> np.ndarray:
    """Rows that stand after the standard protocol."""
    common = {"norm": "Linf", "eps": epsilon, "n_restarts": 1, "seed": 0}
    attacks = [
        torchattacks.APGD(model, steps=100, loss="ce", **common),
        torchattacks.APGDT(model, steps=100, n_classes=10, **common),
        torchattacks.FAB(model, steps=100, multi_targeted=True, n_classes=10, **common),
        torchattacks.Square(model, n_queries=5000, resc_schedule=False, **common),
    ]
    with torch.no_grad():
        standing = model(x).argmax(1) == y
    for attack in attacks:
        rows = standing.nonzero().flatten()
        if len(rows) == 0:
            break
        found = attack(x[rows], y[rows])
        with torch.no_grad():
            right = model(found).argmax(1) == y[rows]
        within = (found - x[rows]).abs().flatten(1).amax(1) <= epsilon + 1e-6
        standing[rows[~right & within]] = False
    return standing.numpy()


def ours(binary: str, model: str, data: str, method: str, epsilon: float) -> tuple[np.ndarray, float]:
    with tempfile.TemporaryDirectory() as folder:
        out, result = Path(folder) / "out.npz", Path(folder) / "out.json"
        command = [binary, "attack", model, "--data", data, "--method", method, "--norm", "linf", "--eps", str(epsilon)]
        done = subprocess.run(
            [*command, "--out", str(out), "--json", str(result), "--threads", str(torch.get_num_threads())],
            capture_output=True, text=True, check=False,
        )
        if done.returncode != 0:
            raise SystemExit(f"{' '.join(command)}: {done.stderr}")
        return np.load(out)["robust"], json.loads(result.read_text())["seconds"]


def recorded(mask: str, rows: int) -> np.ndarray | None:
    if mask == "-":
        return None
    path, _, array = mask.partition(".npz:")
    values = np.load(f"{path}.npz")[array] if array else np.load(mask)
    return values.astype(bool)[:rows]


def main() -> None:
    binary, path, images, labels, rows, epsilon, mask, most_standard, most_cascade = sys.argv[1:]
    torch.set_num_threads(2)
    rows, epsilon = int(rows), float(epsilon)
    model = network(path)
    x = torch.tensor(idx(images)[:rows].astype(np.float32) / 255).unsqueeze(1)
    y = torch.tensor(idx(labels)[:rows].astype(np.int64))
    reference, masks, seconds = [], {"autoattack": [], "cascade": []}, {"reference": 0.0, "autoattack": 0.0, "cascade": 0.0}
    with tempfile.TemporaryDirectory() as folder:
        for block in np.array_split(np.arange(rows), BLOCKS):
            start = time.perf_counter()
            reference.append(standard(model, x[block], y[block], epsilon))
            seconds["reference"] += time.perf_counter() - start
            data = f"{folder}/block.npz"
            np.savez(data, x=x[block].numpy(), y=y[block].numpy())
            for method in masks:
                found, took = ours(binary, path, data, method, epsilon)
                masks[method].append(found)
                seconds[method] += took
            print({k: round(v, 1) for k, v in seconds.items()}, file=sys.stderr)
    reference = np.concatenate(reference)
    found = {method: np.concatenate(parts) for method, parts in masks.items()}
    truth = recorded(mask, rows)
    against = reference if truth is None else truth
    same = {method: int((m == against).sum()) for method, m in found.items()}
    ratio = {method: seconds[method] / seconds["reference"] for method in found}
    figure = (
        f"reference {reference.mean():.3f} in {seconds['reference']:.0f} s"
        + "".join(
            f"; {method} {m.mean():.3f}, {same[method]} of {rows} rows as {'this reference' if truth is None else 'recorded'}, "
            f"{ratio[method]:.3f} of its time"
            for method, m in found.items()
        )
    )
    agree = same["autoattack"] >= AGREE * rows and abs(found["cascade"].mean() - against.mean()) <= 0.005 + 1e-9
    fast = ratio["autoattack"] <= float(most_standard) and ratio["cascade"] <= float(most_cascade)
    print(json.dumps({"figure": figure, "pass": bool(agree and fast)}))


main()
