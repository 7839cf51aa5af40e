"""Integrated gradients beside Captum, in one run: NETPROOF MODEL DATA.

50 Gauss-Legendre steps, zero baseline, 256 images, target the label, two threads each. Captum runs in a process of its own, on
the same network rebuilt from the ONNX file. The last line is the figure and whether it reaches the bar: at most 1.2 times
Captum's time and at most half its peak memory. How many rows agree is said beside it: where a rectifier lies on its kink at one
of the steps, rounding decides, and a row is up to 1e-3 of its largest entry off in single precision, Captum's as well as ours.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time

STEPS, ROWS, THREADS = 50, 256, 2


def captum(model_path, data_path, out_path):
    import numpy as np
    import onnx
    import torch
    import torch.nn.functional as F
    from captum.attr import IntegratedGradients
    from onnx import numpy_helper

    torch.set_num_threads(THREADS)
    graph = onnx.load(model_path).graph
    stored = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}

    class Network(torch.nn.Module):
        def forward(self, x):
            values = dict(stored)
            values[graph.input[0].name] = x
            for node in graph.node:
                ins = [values[name] for name in node.input]
                a = {attribute.name: onnx.helper.get_attribute_value(attribute) for attribute in node.attribute}
                match node.op_type:
                    case "Conv":
                        pads = a.get("pads", [0, 0, 0, 0])
                        y = F.conv2d(ins[0], ins[1], ins[2], stride=a.get("strides", 1), padding=tuple(pads[:2]), groups=a.get("group", 1))
                    case "Relu":
                        y = torch.relu(ins[0])
                    case "Add":
                        y = ins[0] + ins[1]
                    case "GlobalAveragePool":
                        y = ins[0].mean(dim=(2, 3), keepdim=True)
                    case "Flatten":
                        y = ins[0].flatten(1)
                    case "Gemm":
                        y = F.linear(ins[0], ins[1] if a.get("transB") else ins[1].T, ins[2])
                    case other:
                        raise SystemExit(f"no {other} in this script")
                values[node.output[0]] = y
            return values[graph.output[0].name]

    arrays = np.load(data_path)
    x = torch.from_numpy(arrays["x"][:ROWS].astype("float32") / 255).reshape(-1, 1, 28, 28)
    target = torch.from_numpy(arrays["y"][:ROWS].astype("int64"))
    method = IntegratedGradients(Network())
    begun = time.perf_counter()
    found = method.attribute(x, torch.zeros_like(x[:1]), target=target, n_steps=STEPS, internal_batch_size=1024)
    seconds = time.perf_counter() - begun
    np.save(out_path, found.detach().numpy())
    print(json.dumps({"seconds": seconds, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024}))


def peak_of(command):
    """Runs a command; answers its output and its largest resident set in bytes."""
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    output = child.stdout.read()
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise SystemExit(f"{command[0]} ended with {status}")
    return output, usage.ru_maxrss * 1024


def main(netproof, model, data):
    import numpy as np

    with tempfile.TemporaryDirectory() as folder:
        ours, theirs = os.path.join(folder, "ours.npz"), os.path.join(folder, "theirs.npy")
        output, peak = peak_of(
            [netproof, "explain", model, "--data", data, "--method", "integrated-gradients", "--set", f"steps={STEPS}"]
            + ["--rows", f"0..{ROWS}", "--threads", str(THREADS), "--out", ours, "--json", "-"]
        )
        seconds = json.loads(output)["seconds"]
        line, _ = peak_of([sys.executable, __file__, "--captum", model, data, theirs])
        other = json.loads(line.splitlines()[-1])
        a, b = np.load(ours)["attributions"], np.load(theirs)
        off = np.abs(a - b).reshape(len(a), -1).max(1) / np.abs(b).max()
    time_ratio, memory_ratio = seconds / other["seconds"], peak / other["peak"]
    mebibyte = 1 << 20
    figure = (
        f"{seconds:.2f} s, Captum {other['seconds']:.2f} s ({time_ratio:.2f} times); {peak / mebibyte:.0f} MiB, "
        f"Captum {other['peak'] / mebibyte:.0f} MiB ({memory_ratio:.2f} times); "
        f"{(off <= 1e-4).sum()} of {len(off)} rows within 1e-4 of the largest entry, median {np.median(off):.1e}, most {off.max():.1e}"
    )
    print(json.dumps({"figure": figure, "pass": bool(time_ratio <= 1.2 and memory_ratio <= 0.5)}))


if __name__ == "__main__":
    if sys.argv[1] == "--captum":
        captum(*sys.argv[2:])
    else:
        main(*sys.argv[1:])
