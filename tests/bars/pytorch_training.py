"""The same CNN, weights, rows, order and batches in PyTorch and in Netproof.

    pytorch_training.py NETPROOF DATA WORK [ROWS EPOCHS]

Twenty steps on one batch from the same weights, for SGD and AdamW: losses within 1e-3. Then three seeds of a whole
training each: mean accuracy on the test images within 0.2 points. Needs PyTorch.
"""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn
from training_common import CLASSES, cnn, mnist, netproof, spec, train

from common import detail, finish

STEPS, BATCH, SEEDS = 20, 64, 3
LOSS, POINTS = 1e-3, 0.2


def network(seed: int) -> nn.Sequential:
    """PyTorch's own initial weights."""
    torch.manual_seed(seed)
    convolution = lambda i, o: [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    linear = [nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, CLASSES)]
    return nn.Sequential(*convolution(1, 32), *convolution(32, 64), *linear)


def weights(net: nn.Sequential) -> dict[str, np.ndarray]:
    layers = [m for m in net if isinstance(m, (nn.Conv2d, nn.Linear))]
    names = ["conv1", "conv2", "fc1", "fc2"]
    both = zip(names, layers, strict=True)
    return {f"{n}.{p}": getattr(m, p).detach().numpy().copy() for n, m in both for p in ("weight", "bias")}


def optimiser(kind: str, net: nn.Module) -> torch.optim.Optimizer:
    if kind == "sgd":
        return torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    return torch.optim.AdamW(net.parameters(), lr=0.001, weight_decay=0.01)


def steps(binary: Path, data: Path, work: Path, x: torch.Tensor, y: torch.Tensor) -> float:
    """Largest difference of the losses of the first steps."""
    worst = 0.0
    for kind, options in [("sgd", "learning_rate = 0.05\nmomentum = 0.9"), ("adamw", "learning_rate = 0.001")]:
        net = network(0)
        start = work / f"start-{kind}.onnx"
        cnn(weights(net), start)
        # One batch per epoch, so that the record holds every step.
        recipe = f"""epochs = {STEPS}
batch_size = {BATCH}
shuffle = false
validation_fraction = 0.0
[data]
train = "{spec(data, "train")}"
limit = {BATCH}
[network]
kind = "file"
path = "{start}"
[optimiser]
kind = "{kind}"
{options}
[schedule]
kind = "constant"
"""
        ours = [e["train"]["loss"] for e in train(binary, work, f"steps-{kind}", recipe)["epochs"]]
        rule, theirs = optimiser(kind, net), []
        for _ in range(STEPS):
            loss = nn.functional.cross_entropy(net(x[:BATCH]), y[:BATCH])
            rule.zero_grad()
            loss.backward()
            rule.step()
            theirs.append(loss.item())
        off = max(abs(a - b) for a, b in zip(ours, theirs, strict=True))
        detail(f"{kind}: losses {theirs[0]:.6f} to {theirs[-1]:.6f}, largest difference {off:.2e}")
        worst = max(worst, off)
    return worst


def accuracy(net: nn.Module, x: torch.Tensor, y: torch.Tensor) -> float:
    with torch.no_grad():
        right = sum((net(x[i : i + 1000]).argmax(1) == y[i : i + 1000]).sum().item() for i in range(0, len(x), 1000))
    return 100 * right / len(x)


def main() -> None:
    binary, data, work = map(Path, sys.argv[1:4])
    rows, epochs = map(int, sys.argv[4:6]) if len(sys.argv) > 5 else (60_000, 5)
    torch.set_num_threads(2)
    tensors = lambda part: [torch.from_numpy(a) for a in mnist(data, part)]
    (x, y), (xt, yt) = tensors("train"), tensors("t10k")
    x, xt = x[:rows].float() / 255, xt.float() / 255
    y = y[:rows]
    worst = steps(binary, data, work, x, y)
    ours, theirs = [], []
    for seed in range(SEEDS):
        net = network(seed)
        start = work / f"start-{seed}.onnx"
        cnn(weights(net), start)
        recipe = f"""seed = {seed}
epochs = {epochs}
validation_fraction = 0.0
[data]
train = "{spec(data, "train")}"
limit = {rows}
[network]
kind = "file"
path = "{start}"
[schedule]
kind = "constant"
"""
        train(binary, work, f"whole-{seed}", recipe)
        arguments = ["predict", work / f"whole-{seed}.onnx", "--data", spec(data, "t10k"), "--out", work / "p.npz"]
        netproof(binary, *arguments)
        predicted = np.load(work / "p.npz")["predicted"]
        ours.append(100 * float((predicted == yt.numpy()).mean()))
        rule = optimiser("adamw", net)
        order = torch.Generator().manual_seed(seed)
        for _ in range(epochs):
            for part in torch.randperm(rows, generator=order).split(BATCH):
                loss = nn.functional.cross_entropy(net(x[part]), y[part])
                rule.zero_grad()
                loss.backward()
                rule.step()
        theirs.append(accuracy(net, xt, yt))
        detail(f"seed {seed}: {ours[-1]:.2f} % here, {theirs[-1]:.2f} % in PyTorch")
    apart = abs(np.mean(ours) - np.mean(theirs))
    figure = f"losses within {worst:.1e}; {np.mean(ours):.2f} % and {np.mean(theirs):.2f} %, {apart:.2f} points apart"
    finish(f"{figure} ({rows} rows, {epochs} epochs)", bool(worst <= LOSS and apart <= POINTS))


main()
