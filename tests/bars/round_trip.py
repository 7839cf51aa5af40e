"""What Netproof loads and saves again is the same network to onnxruntime.

    round_trip.py NETPROOF FOLDER      FOLDER holds .onnx files
"""

import sys
import tempfile
from pathlib import Path

import common
import numpy as np
import onnx

BAR = 1e-5
BATCH = 3


def inputs_of(model: Path) -> dict[str, np.ndarray]:
    """Seeded inputs in the networks' own range, [0, 1]; dimensions without a number are the batch."""
    generator = np.random.default_rng(0)
    inputs = {}
    for declared in common.session(model).get_inputs():
        if declared.type != "tensor(float)":
            raise SystemExit(f"{model.name}: input {declared.name} is {declared.type}, which this script cannot make")
        shape = [size if isinstance(size, int) else BATCH for size in declared.shape]
        inputs[declared.name] = generator.random(shape, dtype=np.float32)
    return inputs


def check(netproof: Path, model: Path, saved: Path) -> float:
    """Largest difference of any output; raises where a step fails."""
    done = common.run(netproof, "inspect", model, "--save", saved)
    if done.returncode != 0:
        raise ValueError(f"inspect --save ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    onnx.checker.check_model(str(saved), full_check=True)
    inputs = inputs_of(model)
    theirs, ours = common.reference(model, inputs), common.reference(saved, inputs)
    if list(theirs) != list(ours):
        raise ValueError(f"outputs {list(ours)} instead of {list(theirs)}")
    return max(common.worst_difference(name, ours[name], theirs[name]) for name in theirs)


def main() -> None:
    netproof, folder = Path(sys.argv[1]), Path(sys.argv[2])
    models = sorted(folder.glob("*.onnx"))
    worst, good = 0.0, 0
    with tempfile.TemporaryDirectory() as scratch:
        for model in models:
            try:
                difference = check(netproof, model, Path(scratch) / model.name)
            except Exception as error:  # Any failure of a step is a finding about this file; the others still count.
                common.detail(f"  {model.name}: {error}")
                continue
            common.detail(f"  {model.name}: largest difference {difference:.1e}")
            worst = max(worst, difference)
            good += difference <= BAR
    common.finish(f"{good} of {len(models)} networks, worst {worst:.1e}", bool(models) and good == len(models))


main()
