"""PyTorch and onnxruntime for the table of `cargo bench -p netproof-graph --bench table`: the same work, on request.

One JSON object per line on standard input: `{"job": name, ..., "runs": n}`; one per line on standard output:
`{"ms": [...]}`, or `{"error": text}`. The first run of a job is not counted.
"""

import json
import sys
import time

import numpy
import torch
import torch.nn.functional as F

torch.set_num_threads(2)


def with_gradients(forward, leaves):
    """Forward, then the gradients of the leaves from ones."""

    with torch.no_grad():
        ones = torch.ones_like(forward())
    return lambda: torch.autograd.grad(forward(), leaves, ones)


def convolution(job):
    batch, inside, outside, groups, size, kernel, stride, padding, dilation = job["sizes"]
    what = job["what"]
    x = torch.rand(batch, inside, size, size, requires_grad=what == "input")
    w = torch.rand(outside, inside // groups, kernel, kernel, requires_grad=what == "weight")
    forward = lambda: F.conv2d(x, w, None, stride, padding, dilation, groups)
    return forward if what == "forward" else with_gradients(forward, [x if what == "input" else w])


def elementwise(job):
    x = torch.rand(4096, 1024)
    w, b = torch.rand(1024), torch.rand(1024)
    return {
        "softmax": lambda: F.softmax(x, 1),
        "layer norm": lambda: F.layer_norm(x, (1024,), w, b),
        "gelu": lambda: F.gelu(x),
        "relu + add": lambda: F.relu(x + 1.0),
        "matmul": (lambda a, c: lambda: a @ c)(torch.rand(1024, 1024), torch.rand(1024, 1024)),
    }[job["what"]]


def layer(job):
    """A layer by itself: forward, or forward and the gradients of all that it takes."""
    kind, backward = job["what"], job["backward"]
    if kind == "batch norm":
        x, w, b = torch.rand(64, 64, 32, 32), torch.rand(64), torch.rand(64)
        mean, variance = torch.zeros(64), torch.ones(64)
        leaves, forward = [x, w, b], lambda: F.batch_norm(x, mean, variance, w, b, training=True)
    elif kind == "layer norm":
        x, w, b = torch.rand(4096, 1024), torch.rand(1024), torch.rand(1024)
        leaves, forward = [x, w, b], lambda: F.layer_norm(x, (1024,), w, b)
    elif kind == "attention":
        q, k, v = (torch.rand(16, 8, 197, 64) for _ in range(3))
        leaves, forward = [q, k, v], lambda: F.scaled_dot_product_attention(q, k, v)
    else:
        raise ValueError(f"no layer {kind}")
    for leaf in leaves:
        leaf.requires_grad_(backward)
    return with_gradients(forward, leaves) if backward else forward


def sums(job):
    """The sum over the rows of a matrix, or over all but the channels."""
    x, axes = torch.rand(*job["shape"]), job["axes"]
    return lambda: x.sum(axes)


def step(forward, parameters, x, labels, what):
    """Inference, the gradient of the input, or those of the parameters, of the cross-entropy."""
    if what == "inference":
        return lambda: forward(x)
    leaves = [x] if what == "input" else parameters
    for leaf in leaves:
        leaf.requires_grad_(True)
    return lambda: torch.autograd.grad(F.cross_entropy(forward(x), labels), leaves)


def probe(job):
    """conv 32 – conv 64 – pool – fully connected, 28², batch 256."""
    draw = lambda *shape: torch.randn(*shape) * 0.05
    p = [draw(32, 1, 3, 3), draw(32), draw(64, 32, 3, 3), draw(64), draw(128, 9216), draw(128), draw(10, 128), draw(10)]

    def forward(x):
        x = F.relu(F.conv2d(x, p[0], p[1]))
        x = F.max_pool2d(F.relu(F.conv2d(x, p[2], p[3])), 2).flatten(1)
        return F.linear(F.relu(F.linear(x, p[4], p[5])), p[6], p[7])

    return step(forward, p, torch.rand(256, 1, 28, 28), torch.arange(256) % 10, job["what"])


def stack(job):
    """Six convolutions, 32², batch 64, forward and gradients of all weights."""
    sizes = [(3, 64, 1), (64, 64, 1), (64, 128, 2), (128, 128, 1), (128, 256, 2), (256, 256, 1)]
    p = [torch.randn(o, i, 3, 3) * 0.03 for i, o, _ in sizes]

    def forward(x):
        for w, (_, _, stride) in zip(p, sizes):
            x = F.relu(F.conv2d(x, w, stride=stride, padding=1))
        return x.mean((2, 3))

    return step(forward, p, torch.rand(64, 3, 32, 32), torch.arange(64) % 10, job["what"])


class Network:
    """The golden networks in PyTorch's own words, with the weights of the ONNX file."""

    def __init__(self, path):
        import onnx
        from onnx import numpy_helper

        graph = onnx.load(path).graph
        self.order = [t.name for t in graph.initializer]
        self.p = {t.name: torch.from_numpy(numpy_helper.to_array(t).copy()) for t in graph.initializer}
        self.nodes = [n for n in graph.node if n.op_type != "Constant"]
        self.constants = {
            n.output[0]: torch.from_numpy(numpy_helper.to_array(n.attribute[0].t).copy())
            for n in graph.node
            if n.op_type == "Constant"
        }
        self.input, self.output = graph.input[0].name, graph.output[0].name
        self.transformer = any(n.op_type == "Softmax" for n in self.nodes)
        self.products = [n.input[1] for n in self.nodes if n.op_type == "MatMul" and n.input[1] in self.p]
        self.parameters = [v for v in self.p.values() if v.is_floating_point()]
        self.plan = [(n.op_type, list(n.input), n.output[0], self.attributes(n)) for n in self.nodes]

    @staticmethod
    def attributes(node):
        import onnx

        return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}

    def __call__(self, x):
        return self.attend(x) if self.transformer else self.convolve(x)

    def convolve(self, x):
        values = {self.input: x, **self.p, **self.constants}
        for kind, names, output, a in self.plan:
            v = [values[n] for n in names]
            if kind == "Conv":
                y = F.conv2d(*v, stride=a["strides"], padding=a["pads"][:2], groups=a["group"])
            elif kind == "Relu":
                y = F.relu(v[0])
            elif kind == "Clip":
                y = F.hardtanh(v[0], 0.0, 6.0)
            elif kind == "HardSwish":
                y = F.hardswish(v[0])
            elif kind == "MaxPool":
                y = F.max_pool2d(v[0], a["kernel_shape"], a["strides"])
            elif kind == "Add":
                y = v[0] + v[1]
            elif kind == "GlobalAveragePool":
                y = v[0].mean((2, 3), keepdim=True)
            elif kind == "ReduceMean":
                y = v[0].mean((2, 3))
            elif kind == "Flatten":
                y = v[0].flatten(1)
            elif kind == "Gemm":
                y = F.linear(*v)
            else:
                raise ValueError(f"no rule for {kind}")
            values[output] = y
        return values[self.output]

    def attend(self, x):
        p, n = self.p, x.shape[0]
        width, heads = p["cls"].shape[-1], 4
        x = F.conv2d(x, p["patch.weight"], p["patch.bias"], stride=p["patch.weight"].shape[-1])
        x = x.flatten(2).transpose(1, 2)
        x = torch.cat([p["cls"].expand(n, -1, -1), x], 1) + p["pos"]
        norm = lambda x, name: F.layer_norm(x, (width,), p[f"{name}.weight"], p[f"{name}.bias"])
        products = iter(self.products)
        for block in range(len(self.products) // 4):
            q = norm(x, f"n1.{block}") @ p[next(products)] + p[f"at.{block}.qkv.bias"]
            q, k, v = q.reshape(n, -1, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
            a = F.softmax(q @ k.transpose(-2, -1) / (width // heads) ** 0.5, -1) @ v
            x = x + (a.transpose(1, 2).reshape(n, -1, width) @ p[next(products)] + p[f"at.{block}.o.bias"])
            h = F.gelu(norm(x, f"n2.{block}") @ p[next(products)] + p[f"ml.{block}.0.bias"])
            x = x + (h @ p[next(products)] + p[f"ml.{block}.2.bias"])
        return F.linear(norm(x, "norm")[:, 0], p["head.weight"], p["head.bias"])


def images(batch):
    return torch.from_numpy(numpy.sin(numpy.arange(batch * 784) * 0.37).astype("float32")).reshape(batch, 1, 28, 28)


def network(job):
    net, batch = Network(job["path"]), job["batch"]
    return step(net, net.parameters, images(batch), torch.arange(batch) % 10, job["what"])


def session(job):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = 2, 1
    run = onnxruntime.InferenceSession(job["path"], options, providers=["CPUExecutionProvider"])
    name, x = run.get_inputs()[0].name, images(job["batch"]).numpy()
    return lambda: run.run(None, {name: x})


JOBS = {
    "convolution": convolution,
    "elementwise": elementwise,
    "probe": probe,
    "stack": stack,
    "layer": layer,
    "network": network,
    "sums": sums,
    "onnxruntime": session,
}


def peak():
    """Most memory of this process so far, in MiB."""
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("VmHWM"))


def main():
    prepared = {}
    for line in sys.stdin:
        job = json.loads(line)
        runs = job.pop("runs")
        key = json.dumps(job, sort_keys=True)
        try:
            if key not in prepared:
                prepared.clear()
                prepared[key] = JOBS[job["job"]](job)
                with torch.set_grad_enabled(job.get("what") not in ("inference", "forward")):
                    prepared[key]()
            times = []
            with torch.set_grad_enabled(job.get("what") not in ("inference", "forward")):
                for _ in range(runs):
                    start = time.perf_counter()
                    out = prepared[key]()
                    times.append((time.perf_counter() - start) * 1e3)
            reply = {"ms": times, "peak_mib": peak()}
            if job["job"] in ("network", "onnxruntime") and job["what"] in ("inference", "onnxruntime"):
                reply["output"] = numpy.asarray(out if job["job"] == "network" else out[0])[0].tolist()
        except Exception as error:
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), flush=True)


main()
