"""Networks that packages ship, not made for Netproof, give what onnxruntime gives, or are refused by name.

    packages.py NETPROOF FOLDER...     FOLDERs hold unpacked packages
"""

import sys
import tempfile
from pathlib import Path

import common
import numpy as np

# Relative to an output's largest entry: the softmax over 6,625 characters has no entry that an absolute bar
# would notice.
BAR = 1e-4
# An input on which every entry of an output is smaller compares nothing.
SMALLEST = 1e-3

GENERATOR = np.random.default_rng(0)


def page(batch: int, height: int, width: int) -> np.ndarray:
    """White pages with a line of dark strokes, like letters, scaled to [-1, 1] as these networks expect images.

    On plain noise the detector finds nothing and answers zero everywhere, which would compare nothing.
    """
    image = np.ones((batch, 3, height, width))
    top, bottom = height // 4, height - height // 4
    for row in image:
        for left in range(width // 8, width - width // 8, 9):
            row[:, top:bottom, left : left + 2] = -0.9
            y = GENERATOR.integers(top, bottom - 2)
            row[:, y : y + 2, left : left + 6] = -0.9
    return (image + GENERATOR.normal(0.0, 0.03, image.shape)).astype(np.float32)


def sound(samples: int, batch: int = 1) -> np.ndarray:
    """A hum in noise."""
    hum = np.sin(np.arange(samples) * 0.05) * 0.3
    return (hum + GENERATOR.normal(0.0, 0.05, (batch, samples))).astype(np.float32)


def state(*shape: int) -> np.ndarray:
    return GENERATOR.normal(0.0, 0.5, shape).astype(np.float32)


def silero(window: int, rate: int | None, batch: int = 1) -> dict[str, np.ndarray]:
    inputs = {"input": sound(window, batch), "state": state(2, batch, 128)}
    if rate is not None:
        inputs["sr"] = np.array(rate, dtype=np.int64)
    return inputs


# The network's path inside its package → inputs, one set per branch of the network that a caller can take.
CASES = {
    "magika/models/standard_v3_3/model.onnx": [
        {"bytes": GENERATOR.integers(0, 257, (2, 2048), dtype=np.int32)},
        {"bytes": np.full((1, 2048), 256, dtype=np.int32)},
    ],
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx": [{"x": page(1, 64, 96)}],
    "rapidocr_onnxruntime/models/ch_PP-OCRv4_rec_infer.onnx": [{"x": page(2, 48, 64)}],
    "rapidocr_onnxruntime/models/ch_ppocr_mobile_v2.0_cls_infer.onnx": [{"x": page(2, 48, 192)}],
    "silero_vad/data/silero_vad.onnx": [silero(576, 16000), silero(288, 8000, 2)],
    "silero_vad/data/silero_vad_16k_op15.onnx": [silero(576, 16000, 2)],
    "silero_vad/data/silero_vad_16k_sequence.onnx": [
        {"input": sound(576, 4), "h": state(1, 1, 128), "c": state(1, 1, 128)},
    ],
    "silero_vad/data/silero_vad_half.onnx": [silero(576, None)],
    "silero_vad/data/silero_vad_op18_ifless.onnx": [silero(576, 16000), silero(288, 8000)],
    "silero_vad/data/silero_vad_openvino_16k.onnx": [silero(576, None)],
}


def compare(netproof: Path, model: Path, inputs: dict[str, np.ndarray], scratch: Path) -> str:
    """`agrees`, `refused`, or `wrong`; prints why."""
    theirs = common.reference(model, inputs)
    common.write_npz(scratch / "inputs.npz", inputs)
    (scratch / "out.npz").unlink(missing_ok=True)
    done = common.run(
        netproof, "predict", model, "--inputs", scratch / "inputs.npz", "--out", scratch / "out.npz", "--all-outputs"
    )
    message = done.stderr.strip()[-500:]
    if done.returncode == 2 and "unsupported" in done.stderr and "panicked" not in done.stderr:
        common.detail(f"  {model.name}: refused: {message}")
        return "refused"
    if done.returncode != 0:
        common.detail(f"  {model.name}: ended with {done.returncode}: {message}")
        return "wrong"
    with np.load(scratch / "out.npz") as archive:
        ours = {name.removeprefix("output:"): archive[name] for name in archive.files if name.startswith("output:")}
    if set(ours) != set(theirs):
        common.detail(f"  {model.name}: outputs {sorted(ours)} instead of {sorted(theirs)}")
        return "wrong"
    worst = 0.0
    for name, expected in theirs.items():
        largest = float(np.abs(expected).max(initial=0.0))
        if largest < SMALLEST:
            raise SystemExit(f"{model.name}: output {name} is nearly zero on the input that this script makes")
        worst = max(worst, common.worst_difference(name, ours[name], expected) / largest)
    common.detail(f"  {model.name}: differs by {worst:.1e} of the largest entry")
    return "agrees" if worst <= BAR else "wrong"


def main() -> None:
    netproof, folders = Path(sys.argv[1]), [Path(folder) for folder in sys.argv[2:]]
    models = {path.relative_to(folder).as_posix(): path for folder in folders for path in folder.rglob("*.onnx")}
    if unknown := sorted(set(models) ^ set(CASES)):
        common.finish(f"the packages and this script's list differ in {', '.join(unknown)}", False)
        return
    verdicts = {}
    with tempfile.TemporaryDirectory() as scratch:
        for name, cases in CASES.items():
            found = {compare(netproof, models[name], inputs, Path(scratch)) for inputs in cases}
            verdicts[name] = next(verdict for verdict in ("wrong", "refused", "agrees") if verdict in found)

    def count(verdict: str, package: str = "") -> int:
        return sum(found == verdict and name.startswith(package) for name, found in verdicts.items())

    passed = count("agrees", "magika") == 1 and count("agrees", "rapidocr") >= 1 and count("wrong") == 0
    common.finish(f"{count('agrees')} agree, {count('refused')} refused, {count('wrong')} wrong", passed)


main()
