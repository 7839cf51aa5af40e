"""The CNN with the default recipe on the 60,000 training images of MNIST, five epochs; accuracy on the 10,000 test images.

    mnist_cnn.py NETPROOF DATA WORK [ROWS]
"""

import json
import sys
from pathlib import Path

from common import finish
from training_common import netproof, spec, train

LEAST = 0.99


def main() -> None:
    binary, data, work = map(Path, sys.argv[1:4])
    limit = f"limit = {sys.argv[4]}\n" if len(sys.argv) > 4 else ""
    recipe = f'epochs = 5\n[data]\ntrain = "{spec(data, "train")}"\n{limit}[network]\nkind = "cnn"\n'
    record = train(binary, work, "mnist-cnn", recipe)
    arguments = ["audit", work / "mnist-cnn.onnx", "--data", spec(data, "t10k"), "--only", "performance"]
    audit = json.loads(netproof(binary, *arguments, "--out", work / "mnist-cnn-audit", "--json", "-"))
    found = next(f for f in audit["findings"] if f.get("metric") == "accuracy")
    low, high = found["interval"]["low"], found["interval"]["high"]
    text = f"{100 * found['value']:.2f} % [{100 * low:.2f}, {100 * high:.2f}] in {record['seconds']:.0f} s"
    finish(text, found["value"] >= LEAST)


main()
