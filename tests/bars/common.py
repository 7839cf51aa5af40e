"""Shared by the scripts that compare Netproof with onnxruntime. `cargo xtask bars` runs them."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime

TIMEOUT_SECONDS = 600


def session(model: Path) -> onnxruntime.InferenceSession:
    """onnxruntime on one thread and without rewriting the graph, so that its sums keep the file's order."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def reference(model: Path, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Every output of the network by name."""
    runtime = session(model)
    names = [output.name for output in runtime.get_outputs()]
    return dict(zip(names, runtime.run(names, inputs), strict=True))


def write_npz(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """As `np.savez`, which cannot take every name that a graph may use."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def run(*arguments: object) -> subprocess.CompletedProcess:
    """Runs a program to its end with its output captured."""
    words = [str(argument) for argument in arguments]
    try:
        return subprocess.run(words, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, stdin=subprocess.DEVNULL)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(words, 124, "", f"not done after {TIMEOUT_SECONDS} s")


def worst_difference(name: str, ours: np.ndarray, theirs: np.ndarray) -> float:
    """Largest absolute difference; infinite where shape, NaN or infinity differ."""
    if ours.shape != theirs.shape:
        detail(f"    {name}: shape {ours.shape} instead of {theirs.shape}")
        return float("inf")
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    finite = np.isfinite(theirs)
    if not np.array_equal(ours[~finite], theirs[~finite], equal_nan=True) or not np.isfinite(ours[finite]).all():
        detail(f"    {name}: NaN or infinity in other places")
        return float("inf")
    return float(np.abs(ours - theirs, where=finite, out=np.zeros_like(theirs)).max(initial=0.0))


def detail(text: str) -> None:
    """A line for the person who watches."""
    print(text, file=sys.stderr, flush=True)


def finish(figure: str, passed: bool) -> None:
    """The last line, which `cargo xtask bars` reads."""
    print(json.dumps({"figure": figure, "pass": passed}))
