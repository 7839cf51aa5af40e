"""ViT and ResNet that PyTorch exported, fine-tuned one epoch: the loss falls, accuracy is not lower, onnxruntime agrees.

    fine_tune.py NETPROOF GOLDEN ROWS.npz WORK

The rows are Fashion-MNIST test images, which the networks were not trained on: three quarters to learn from, the rest to
measure on.
"""

import json
import sys
from pathlib import Path

import numpy as np

from common import detail, finish, reference, worst_difference
from training_common import netproof, train

AGREE = 1e-4


def measured(model: Path, name: str, images: np.ndarray, labels: np.ndarray) -> tuple[float, float, np.ndarray]:
    """Loss and accuracy by onnxruntime, and its logits."""
    logits = next(iter(reference(model, {name: images}).values()))
    shifted = logits - logits.max(1, keepdims=True)
    log_softmax = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return -log_softmax[np.arange(len(labels)), labels].mean(), (logits.argmax(1) == labels).mean(), logits


def main() -> None:
    binary, golden, rows, work = map(Path, sys.argv[1:5])
    arrays = np.load(rows)
    x, y = arrays["x"], arrays["y"].astype(np.int64)
    x = x.reshape(len(x), 1, 28, 28)
    cut = 3 * len(x) // 4
    np.savez(work / "learn.npz", x=x[:cut], y=y[:cut])
    np.savez(work / "rest.npz", x=x[cut:], y=y[cut:])
    images = (x / 255 if x.dtype == np.uint8 else x).astype(np.float32)
    passed, figures = True, []
    for name in ("vit", "resnet"):
        start = golden / f"fashion-{name}.onnx"
        recipe = f"""epochs = 1
[data]
train = "{work / 'learn.npz'}"
validation = "{work / 'rest.npz'}"
image_size = [1, 28, 28]
[network]
kind = "file"
path = "{start}"
[optimiser]
kind = "adamw"
learning_rate = 3e-4
"""
        record = train(binary, work, f"tuned-{name}", recipe)
        tuned = work / f"tuned-{name}.onnx"
        input_name = json.loads(netproof(binary, "inspect", start, "--json", "-"))["inputs"][0].split(":")[0]
        (l0, a0, _), (l1, a1, logits) = (measured(m, input_name, images[cut:], y[cut:]) for m in (start, tuned))
        netproof(binary, "predict", tuned, "--data", work / "rest.npz", "--out", work / "tuned.npz")
        off = worst_difference("logits", np.load(work / "tuned.npz")["logits"], logits)
        detail(f"{name}: best epoch {record['best_epoch']}, loss {l0:.4f} to {l1:.4f}, {100*a0:.1f} % to {100*a1:.1f} %, {off:.1e}")
        passed &= l1 < l0 and a1 >= a0 and off <= AGREE and record["best_epoch"] > 0
        figures.append(f"{name} loss {l0:.3f} to {l1:.3f}, {100 * a0:.1f} to {100 * a1:.1f} %, onnxruntime {off:.0e}")
    finish("; ".join(figures), passed)


main()
