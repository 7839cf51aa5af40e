"""Images per second of training, here and in PyTorch, on two cores, in turns within one run.

    training_throughput.py NETPROOF WORK [ROWS]

`cnn` and `vit` on 28×28 images, `resnet` (20 layers) on 32×32 in colour; AdamW, batches of 64, seeded noise. Each time is
that of a whole epoch without validation; the better of three.
"""

import sys
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from common import detail, finish
from training_common import train

BATCH, REPEATS, CLASSES = 64, 3, 10


class Block(nn.Module):
    """He et al. 2016, with zeros as shortcuts where the size changes (option A)."""

    def __init__(self, i: int, o: int, stride: int) -> None:
        super().__init__()
        self.stride, self.more = stride, o - i
        self.a = nn.Sequential(nn.Conv2d(i, o, 3, stride, 1, bias=False), nn.BatchNorm2d(o), nn.ReLU())
        self.b = nn.Sequential(nn.Conv2d(o, o, 3, 1, 1, bias=False), nn.BatchNorm2d(o))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        short = x[:, :, :: self.stride, :: self.stride]
        if self.more:
            short = nn.functional.pad(short, (0, 0, 0, 0, self.more // 2, self.more - self.more // 2))
        return torch.relu(self.b(self.a(x)) + short)


def resnet20() -> nn.Module:
    blocks, i = [nn.Conv2d(3, 16, 3, 1, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()], 16
    for o, stride in ((16, 1), (32, 2), (64, 2)):
        for k in range(3):
            blocks.append(Block(i, o, stride if k == 0 else 1))
            i = o
    return nn.Sequential(*blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, CLASSES))


def cnn() -> nn.Module:
    part = lambda i, o: [nn.Conv2d(i, o, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    linear = [nn.Flatten(), nn.Linear(64 * 49, 128), nn.ReLU(), nn.Linear(128, CLASSES)]
    return nn.Sequential(*part(1, 32), *part(32, 64), *linear)


class Vit(nn.Module):
    """Dosovitskiy et al. 2021 with the sizes of `kind = "vit"`."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 64, 4, 4)
        self.token = nn.Parameter(torch.zeros(1, 1, 64))
        self.position = nn.Parameter(torch.zeros(1, 50, 64))
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, "gelu", batch_first=True, norm_first=True)
        self.blocks = nn.TransformerEncoder(layer, 6, nn.LayerNorm(64), enable_nested_tensor=False)
        self.head = nn.Linear(64, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.position
        return self.head(self.blocks(x)[:, 0])


NETWORKS = {
    "cnn": (cnn, [1, 28, 28], 'kind = "cnn"'),
    "resnet": (resnet20, [3, 32, 32], 'kind = "resnet-cifar"\ndepth = 20'),
    "vit": (Vit, [1, 28, 28], 'kind = "vit"'),
}


def epoch(net: nn.Module, rule: torch.optim.Optimizer, x: torch.Tensor, y: torch.Tensor) -> float:
    start = time.perf_counter()
    for part in torch.randperm(len(x)).split(BATCH):
        loss = nn.functional.cross_entropy(net(x[part]), y[part])
        rule.zero_grad()
        loss.backward()
        rule.step()
    return time.perf_counter() - start


def main() -> None:
    binary, work = map(Path, sys.argv[1:3])
    rows = int(sys.argv[3]) if len(sys.argv) > 3 else 4096
    torch.set_num_threads(2)
    figures = []
    for name, (make, shape, kind) in NETWORKS.items():
        generator = np.random.default_rng(0)
        x = generator.random([rows, *shape], dtype=np.float32)
        y = generator.integers(0, CLASSES, rows)
        np.savez(work / f"{name}.npz", x=x, y=y)
        recipe = f"""epochs = 1
batch_size = {BATCH}
validation_fraction = 0.0
[data]
train = "{work / f'{name}.npz'}"
[network]
{kind}
"""
        net = make()
        rule = torch.optim.AdamW(net.parameters(), lr=1e-3)
        ours, theirs = [], []
        for _ in range(REPEATS):
            ours.append(train(binary, work, f"throughput-{name}", recipe)["epochs"][0]["seconds"])
            theirs.append(epoch(net, rule, torch.from_numpy(x), torch.from_numpy(y)))
        a, b = rows / min(ours), rows / min(theirs)
        detail(f"{name}: {a:.0f} images/s here, {b:.0f} in PyTorch")
        figures.append(f"{name} {a:.0f}/s, {a / b:.2f} of PyTorch's")
    # Speed has a bar of its own elsewhere; this one only prints.
    finish("; ".join(figures), True)


main()
