"""1,000 training images of MNIST, a fifth of their labels wrong, and a network of over a million parameters.

    wrong_labels.py NETPROOF DATA WORK [SEEDS]

The audit must call it overfitting and flag at least 80 % of the wrong labels as memorised, with at least half of the
flagged rows wrong; the repair must raise the accuracy on images that neither training nor choice has seen by at least
5 points, mean over the seeds.
"""

import json
import sys
from pathlib import Path

import numpy as np
from training_common import CLASSES, mnist, netproof, spec

from common import detail, finish

ROWS, WRONG = 1000, 0.2
FOUND, RIGHT, POINTS = 0.8, 0.5, 5.0
RECIPE = """seed = {seed}
epochs = 40
validation_fraction = 0.0
[data]
train = "{train}"
[network]
kind = "mlp"
hidden = [1024, 512]
[schedule]
kind = "constant"
"""


def spoiled(data: Path, path: Path, seed: int) -> np.ndarray:
    """Writes the rows; gives the numbers of those with a wrong label."""
    images, labels = mnist(data, "train")
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(len(images))[:ROWS]
    images, labels = images[chosen], labels[chosen].copy()
    wrong = generator.permutation(ROWS)[: int(WRONG * ROWS)]
    labels[wrong] = (labels[wrong] + generator.integers(1, CLASSES, len(wrong))) % CLASSES
    np.savez(path, x=images, y=labels)
    return wrong


def finding(document: dict, metric: str) -> dict:
    return next(f for f in document["findings"] if f.get("metric") == metric)


def one(binary: Path, data: Path, work: Path, seed: int) -> tuple[bool, float, float, float]:
    folder = work / f"wrong-labels-{seed}"
    folder.mkdir(exist_ok=True)
    rows = folder / "train.npz"
    wrong = set(spoiled(data, rows, seed).tolist())
    recipe = folder / "plain.toml"
    recipe.write_text(RECIPE.format(seed=seed, train=rows))
    netproof(binary, "train", recipe, "--out", folder / "plain.onnx")
    # The record would tell that no rows were set aside; a network that comes from elsewhere has none.
    (folder / "plain.train.json").unlink(missing_ok=True)
    subject = [folder / "plain.onnx", "--data", spec(data, "t10k"), "--train-data", rows]
    checks = "performance,generalisation-gap,memorisation"
    more = ["--only", checks, "--retrain", "--out", folder / "audit", "--json", "-"]
    audit = json.loads(netproof(binary, "audit", *subject, *more))
    gap, memorised = finding(audit, "accuracy_gap"), finding(audit, "memorised_fraction")
    called = gap["verdict"] == "concern" and gap["interval"]["low"] > 0 and memorised["verdict"] == "concern"
    flagged = set(next(e["ids"] for e in memorised["evidence"] if e["kind"] == "rows"))
    found, right = len(flagged & wrong) / len(wrong), len(flagged & wrong) / max(len(flagged), 1)
    fixed = json.loads(netproof(binary, "fix", folder / "audit", "--out", folder / "fix", "--json", "-"))
    changes = {c["metric"]: c for c in fixed["changes"]}
    gain = 100 * changes["accuracy"]["change"] if fixed["outcome"] == "repaired" else 0.0
    before, after = (changes["accuracy"][k]["value"] for k in ("before", "after"))
    detail(
        f"seed {seed}: gap {gap['value']:.3f} [{gap['interval']['low']:.3f}, {gap['interval']['high']:.3f}], "
        f"{len(flagged)} rows flagged, {100 * found:.0f} % of the wrong ones, {100 * right:.0f} % of them wrong; "
        f"{fixed['chosen']}: {100 * before:.1f} % to {100 * after:.1f} % on {changes['accuracy']['n']} images"
    )
    return called, found, right, gain


def main() -> None:
    binary, data, work = map(Path, sys.argv[1:4])
    seeds = int(sys.argv[4]) if len(sys.argv) > 4 else 3
    results = [one(binary, data, work, seed) for seed in range(seeds)]
    called = all(r[0] for r in results)
    found, right, gain = (float(np.mean([r[k] for r in results])) for k in (1, 2, 3))
    figure = f"{'called' if called else 'NOT called'} overfitting; {100 * found:.0f} % of wrong labels flagged, "
    figure += f"{100 * right:.0f} % of flagged wrong; +{gain:.1f} points, mean of {seeds}"
    finish(figure, called and found >= FOUND and right >= RIGHT and gain >= POINTS)


main()
