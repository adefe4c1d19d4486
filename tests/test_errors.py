"""Bad input, one case each: the class of the error, and a message that names the place, what was given and what was
expected.
"""

from decimal import Decimal

import numpy as np
import pytest

import dtdfast as dtd
from dtdfast import errors

ONES = np.ones


def net():
    """Conv, ReLU, MaxPool, Flatten, Linear on (n, 2, 4, 4), three outputs."""
    return [
        dtd.Conv(ONES((3, 2, 3, 3)), padding=1),
        dtd.ReLU(),
        dtd.MaxPool(2),
        dtd.Flatten(),
        dtd.Linear(ONES((3, 12))),
    ]


def image(n=2):
    return np.linspace(0, 1, n * 32, dtype=np.float32).reshape(n, 2, 4, 4)


def broken(position, record):
    """net() with one entry replaced or appended."""
    layers = net()
    layers[position : position + 1] = [record]
    return layers


def explain(*args, **kwargs):
    return dtd.explain(*args, backend="cpu", **kwargs)


def explain_net(*args, **kwargs):
    return lambda: explain(net(), image(), *args, **kwargs)


def feed(x, **kwargs):
    return lambda: explain(net(), x, **kwargs)


def wired(*records, x=None, **kwargs):
    return lambda: explain(list(records), image() if x is None else x, **{"target": 0, **kwargs})


def spoilt(shape, value):
    array = ONES(shape)
    array.flat[0] = value
    return array


WORDS = [dtd.Embedding(ONES((5, 2))), dtd.Flatten(), dtd.Linear(ONES((3, 6)))]
SIGMOID = dtd.Activation("sigmoid", inputs=dtd.INPUT)
NORM = dtd.BatchNorm(ONES(3), ONES(3))

BAD = {  # what is wrong: (call, error, words that the message must hold)
    # ---------------------------------------------------------------------------------------------------------- records
    "weight of wrong rank": (lambda: dtd.Linear(ONES((2, 3, 4))), dtd.LayerError, ["Linear", "weight", "3 axes", "2"]),
    "convolution weight of wrong rank": (lambda: dtd.Conv(ONES((2, 3))), dtd.LayerError, ["Conv", "weight", "(2, 3)"]),
    "integer weight": (lambda: dtd.Linear(ONES((2, 3), int)), dtd.LayerError, ["Linear", "weight", "int64", "float"]),
    "complex weight": (lambda: dtd.Linear(ONES((2, 3), complex)), dtd.LayerError, ["Linear", "weight", "complex128",
    "float"]),
    "weight of words": (lambda: dtd.Linear([["a"]]), dtd.LayerError, ["Linear", "weight", "float"]),
    "NaN weight": (lambda: dtd.Conv(spoilt((1, 1, 3), np.nan)), dtd.LayerError, ["Conv", "weight", "NaN"]),
    "infinite bias": (lambda: dtd.Linear(ONES((2, 3)), spoilt(2, np.inf)), dtd.LayerError, ["Linear", "bias",
    "infinity"]),
    "empty weight": (lambda: dtd.Linear(ONES((0, 3))), dtd.LayerError, ["Linear", "weight", "empty"]),
    "bias of wrong shape": (lambda: dtd.Linear(ONES((2, 3)), ONES(3)), dtd.LayerError, ["Linear", "bias", "(3,)",
    "(2,)"]),
    "channels that do not divide": (lambda: dtd.Conv(ONES((3, 1, 3)), groups=2), dtd.LayerError, ["Conv", "3",
    "2 groups"]),
    "stride 0": (lambda: dtd.Conv(ONES((1, 1, 3)), stride=0), dtd.LayerError, ["Conv", "stride", "0", "at least 1"]),
    "negative padding": (lambda: dtd.Conv(ONES((1, 1, 3)), padding=-1), dtd.LayerError, ["Conv", "padding", "-1"]),
    "fractional stride": (lambda: dtd.Conv(ONES((1, 1, 3)), stride=1.5), dtd.LayerError, ["Conv", "stride", "1.5",
    "integer"]),
    "two strides for three axes": (lambda: dtd.Conv(ONES((1, 1, 2, 2, 2)), stride=(1, 2)), dtd.LayerError, ["Conv",
    "stride", "3"]),
    "unknown activation": (lambda: dtd.Activation("swoosh"), dtd.LayerError, ["swoosh", "silu"]),
    "alpha that a kind does not take": (lambda: dtd.Activation("tanh", 0.5), dtd.LayerError, ["tanh", "alpha"]),
    "alpha of every channel": (lambda: dtd.Activation("clip", ONES(3), 2.0), dtd.LayerError, ["alpha", "a number"]),
    "ragged mask": (lambda: dtd.Softmax(1, mask=[[True], [True, False]]), dtd.LayerError, ["Softmax: mask"]),
    "clip upside down": (lambda: dtd.Activation("clip", 6.0, 0.0), dtd.LayerError, ["clip", "alpha < beta"]),
    "variance below -eps": (lambda: dtd.BatchNorm(ONES(2), -ONES(2)), dtd.LayerError, ["BatchNorm", "variance",
    "positive"]),
    "statistics of two lengths": (lambda: dtd.BatchNorm(ONES(2), ONES(3)), dtd.LayerError, ["BatchNorm", "variance",
    "(3,)", "(2,)"]),
    "reshape with two unknowns": (lambda: dtd.Reshape((-1, -1)), dtd.LayerError, ["Reshape", "-1"]),
    "permute that repeats": (lambda: dtd.Permute((0, 1, 1)), dtd.LayerError, ["Permute", "(0, 1, 1)"]),
    "permute that moves the batch": (lambda: dtd.Permute((1, 0, 2)), dtd.LayerError, ["Permute", "axis 0"]),
    "ceil_mode that is a number": (lambda: dtd.MaxPool(2, ceil_mode=1), dtd.LayerError, ["MaxPool", "ceil_mode",
    "True"]),
    "name that is a number": (lambda: dtd.ReLU(name=3), dtd.LayerError, ["ReLU", "name", "string"]),
    "unknown reduction": (lambda: dtd.Reduce("median", 1), dtd.LayerError, ["Reduce", "median", "mean, sum, max"]),
    "reduction of fractional axes": (lambda: dtd.Reduce("mean", 1.5), dtd.LayerError, ["Reduce", "axes", "1.5"]),
    "reduction of no axis": (lambda: dtd.Reduce("mean", ()), dtd.LayerError, ["Reduce", "axes", "at least one"]),
    "keepdims that is a number": (lambda: dtd.Reduce("mean", 1, 1), dtd.LayerError, ["Reduce", "keepdims", "True"]),
    "indices that are floats": (lambda: dtd.Gather([0.0, 1.0], 1), dtd.LayerError, ["Gather", "indices", "integers"]),
    "indices that are a mask": (lambda: dtd.Gather(np.array([True, False]), 1), dtd.LayerError, ["Gather", "indices",
    "integer"]),
    "indices of two axes": (lambda: dtd.Gather(np.zeros((2, 2), int), 1), dtd.LayerError, ["Gather", "indices",
    "integers"]),
    "no indices": (lambda: dtd.Gather([], 1), dtd.LayerError, ["Gather", "indices", "at least one"]),
    "expansion to nothing": (lambda: dtd.Expand((2, 0)), dtd.LayerError, ["Expand", "(2, 0)", "positive"]),
    "resampling that is one matrix": (lambda: dtd.Resample(ONES((2, 2))), dtd.LayerError, ["Resample", "tuple"]),
    "resampling of no axis": (lambda: dtd.Resample((None, None)), dtd.LayerError, ["Resample", "None"]),
    "resampling by vectors": (lambda: dtd.Resample((None, ONES(3))), dtd.LayerError, ["Resample", "weights[1]", "(3,)",
    "2"]),
    "resampling by NaN": (lambda: dtd.Resample((spoilt((2, 2), np.nan),)), dtd.LayerError, ["Resample", "weights[0]",
    "NaN"]),
    "constant without an axis": (lambda: dtd.Constant(1.0), dtd.LayerError, ["Constant", "value", "0 axes"]),
    "constant of integers": (lambda: dtd.Constant(np.arange(3)), dtd.LayerError, ["Constant", "value", "int64",
    "float"]),
    "scale of six axes": (lambda: dtd.Scale(ONES((1,) * 6)), dtd.LayerError, ["Scale", "scale", "6 axes"]),
    "Linear along half an axis": (lambda: dtd.Linear(ONES((2, 2)), axis=0.5), dtd.LayerError, ["Linear", "axis",
    "0.5"]),
    # ----------------------------------------------------------------------------------------------------------- wiring
    "operand of a Constant": (lambda: dtd.Constant(ONES(2), inputs=0), dtd.WiringError, ["Constant", "reads nothing"]),
    "no operand": (lambda: dtd.Add(inputs=()), dtd.WiringError, ["Add", "empty"]),
    "one operand for Mul": (lambda: dtd.Mul(inputs=(0,)), dtd.WiringError, ["Mul", "1", "expected 2"]),
    "two operands for ReLU": (lambda: dtd.ReLU(inputs=(0, 1)), dtd.WiringError, ["ReLU", "2", "expected 1"]),
    "position that is a word": (lambda: dtd.ReLU(inputs="conv1"), dtd.WiringError, ["ReLU", "conv1", "positions"]),
    "position that is fractional": (lambda: dtd.ReLU(inputs=1.0), dtd.WiringError, ["ReLU", "1.0", "positions"]),
    "Add without inputs": (lambda: explain([*net(), dtd.Add()], image()), dtd.WiringError, ["layer 5 (Add)", "inputs"]),
    "forward reference": (lambda: explain(broken(1, dtd.ReLU(inputs=3)), image()), dtd.WiringError, ["layer 1 (ReLU)",
    "3", "0 to 0"]),
    "self reference": (lambda: explain(broken(1, dtd.ReLU(inputs=1)), image()), dtd.WiringError, ["layer 1 (ReLU)",
    "entry 1"]),
    "reference beyond the list": (lambda: explain(broken(4, dtd.ReLU(inputs=9)), image()), dtd.WiringError,
    ["layer 4 (ReLU)", "9"]),
    "reference before the input": (lambda: explain(broken(1, dtd.ReLU(inputs=-2)), image()), dtd.WiringError,
    ["layer 1 (ReLU)", "-2"]),
    "empty network": (lambda: explain([], image()), dtd.LayerError, ["empty"]),
    "not a list": (lambda: explain(dtd.ReLU(), image()), dtd.LayerError, ["ReLU", "list"]),
    "not a record": (lambda: explain([*net(), "ReLU"], image()), dtd.LayerError, ["layer 5", "ReLU", "record"]),
    # ----------------------------------------------------------------------------------------------------------- shapes
    "wrong channels": (
        lambda: explain([dtd.Conv(ONES((16, 2, 1, 1))), dtd.Conv(ONES((64, 32, 3, 3)), name="stem")], image()),
        dtd.ShapeError,
        ["layer 1 (Conv 'stem'): weight has shape (64, 32, 3, 3), so it expects 32 channels; its input has 16"]),
    "wrong features": (lambda: explain(broken(4, dtd.Linear(ONES((3, 13)))), image()), dtd.ShapeError,
    ["layer 4 (Linear)", "13", "12"]),
    "Linear without a Flatten": (wired(dtd.Linear(ONES((3, 32)))), dtd.ShapeError, ["layer 0 (Linear)", "32",
    "(n, 2, 4, 4)", "Flatten"]),
    "1-d convolution on images": (wired(dtd.Conv(ONES((3, 2, 3)))), dtd.ShapeError, ["layer 0 (Conv)", "1 spatial",
    "(n, 2, 4, 4)"]),
    "kernel larger than its input": (wired(dtd.Conv(ONES((3, 2, 5, 3)))), dtd.ShapeError, ["layer 0 (Conv)", "5", "4"]),
    "window larger than its input": (wired(dtd.MaxPool(5)), dtd.ShapeError, ["layer 0 (MaxPool)", "5", "4"]),
    "no window at all": (
        wired(dtd.MaxPool(6, stride=2, ceil_mode=True)), dtd.ShapeError, ["layer 0 (MaxPool)", "spans 6", "4"]),
    "window of padding alone": (wired(dtd.AvgPool(2, padding=2)), dtd.ShapeError, ["layer 0 (AvgPool)", "padding",
    "window"]),
    "pool on features": (lambda: explain(broken(4, dtd.AvgPool(2)), image()), dtd.ShapeError, ["layer 4 (AvgPool)",
    "spatial", "(n, 12)"]),
    "transposed output below 1": (wired(dtd.ConvTranspose(ONES((2, 1, 1, 1)), padding=2)), dtd.ShapeError,
    ["ConvTranspose", "0"]),
    "output_padding as large as the stride": (
        wired(dtd.ConvTranspose(ONES((2, 1, 2, 2)), stride=2, output_padding=2)), dtd.ShapeError, ["output_padding",
            "2"]),
    "BatchNorm of other channels": (wired(NORM), dtd.ShapeError, ["layer 0 (BatchNorm)", "3 channels", "2"]),
    "concat of the batch": (wired(dtd.Concat(0, inputs=(-1, -1))), dtd.ShapeError, ["layer 0 (Concat)", "axis 0",
    "batch"]),
    "softmax over the batch": (lambda: dtd.predict([dtd.Softmax(0)], image()), dtd.ShapeError, ["layer 0 (Softmax)",
    "axis 0"]),
    "slice beyond the axes": (wired(dtd.Slice(4)), dtd.ShapeError, ["layer 0 (Slice)", "4"]),
    "empty slice": (wired(dtd.Slice(2, 3, 3)), dtd.ShapeError, ["layer 0 (Slice)", "[3:3] of axis 2, which has length",
        "leaves nothing"]),
    "permute of another rank": (wired(dtd.Permute((0, 2, 1))), dtd.ShapeError, ["layer 0 (Permute)", "(0, 2, 1)", "4"]),
    "reshape to another size": (wired(dtd.Reshape((5, -1))), dtd.ShapeError, ["layer 0 (Reshape)", "5", "32"]),
    "padding for two axes of three": (
        wired(dtd.Pad((1, 2)), x=ONES((1, 1, 2, 2, 2))), dtd.ShapeError, ["layer 0 (Pad)", "padding", "3 spatial"]),
    "Add of two shapes": (
        wired(dtd.MaxPool(2), dtd.Add(inputs=(0, -1))), dtd.ShapeError, ["layer 1 (Add)", "(n, 2, 2, 2)",
            "(n, 2, 4, 4)"]),
    "Concat of two sizes": (
        wired(dtd.MaxPool(2), dtd.Concat(inputs=(0, -1))), dtd.ShapeError, ["layer 1 (Concat)", "(n, 2, 2, 2)",
            "(n, 2, 4, 4)"]),
    "Mul of two shapes": (
        wired(SIGMOID, dtd.Slice(2, 1), dtd.Mul(inputs=(1, -1))), dtd.ShapeError, ["layer 2 (Mul)", "(n, 2, 3, 4)",
            "(n, 2, 4, 4)"]),
    "Linear along the batch": (wired(dtd.Linear(ONES((2, 2)), axis=0)), dtd.ShapeError, ["layer 0 (Linear)", "axis 0",
    "batch"]),
    "Linear beyond the axes": (wired(dtd.Linear(ONES((2, 4)), axis=4)), dtd.ShapeError, ["layer 0 (Linear)", "4 axes"]),
    "Linear along another axis": (wired(dtd.Linear(ONES((2, 4)), axis=1)), dtd.ShapeError, ["layer 0 (Linear)",
    "4 features", "axis 1"]),
    "reduction of the batch": (wired(dtd.Reduce("max", (0, 1))), dtd.ShapeError, ["layer 0 (Reduce)", "axis 0",
    "batch"]),
    "reduction of an axis twice": (wired(dtd.Reduce("sum", (1, -3))), dtd.ShapeError, ["layer 0 (Reduce)", "(1, -3)",
    "twice"]),
    "reduction of all axes": (wired(dtd.Reduce("sum", (1, 2, 3))), dtd.ShapeError, ["layer 0 (Reduce)", "keepdims"]),
    "largest of too many": (
        wired(dtd.Reduce("max", -1), x=ONES((1, 1, 2**16))), dtd.ShapeError, ["layer 0 (Reduce)", "65536", "65535"]),
    "index beyond the axis": (wired(dtd.Gather((0, 4), 2)), dtd.ShapeError, ["layer 0 (Gather)", "4", "axis 2",
    "size 4"]),
    "index before the axis": (wired(dtd.Gather((-3,), 1)), dtd.ShapeError, ["layer 0 (Gather)", "-3", "size 2"]),
    "picks along the batch": (wired(dtd.Gather((0,), 0)), dtd.ShapeError, ["layer 0 (Gather)", "axis 0"]),
    "expansion of a larger axis": (wired(dtd.Expand((2, 8, 4))), dtd.ShapeError, ["layer 0 (Expand)", "(n, 2, 8, 4)",
    "(n, 2, 4, 4)"]),
    "expansion to another rank": (wired(dtd.Expand((2, 2, 4, 4))), dtd.ShapeError, ["layer 0 (Expand)",
    "(n, 2, 4, 4)"]),
    "resampling of another size": (
        wired(dtd.Resample((ONES((2, 4)), ONES((2, 3))))), dtd.ShapeError, ["layer 0 (Resample)", "weights[1]",
            "(2, 3)", "(2, 4)"]),
    "resampling of one axis of two": (wired(dtd.Resample((ONES((2, 4)),))), dtd.ShapeError, ["layer 0 (Resample)",
    "1 entries", "2"]),
    "scale of other sizes": (wired(dtd.Scale(ONES((2, 1, 3)))), dtd.ShapeError, ["layer 0 (Scale)", "(2, 1, 3)",
    "(n, 2, 4, 4)"]),
    "scale of another rank": (wired(dtd.Scale(ONES((4, 4)))), dtd.ShapeError, ["layer 0 (Scale)", "(4, 4)", "3 axes"]),
    "constant of other sizes": (
        wired(dtd.Constant(ONES((2, 3))), dtd.Add(inputs=(-1, 0))), dtd.ShapeError, ["layer 1 (Add)", "(n, 1, 2, 3)",
            "(n, 2, 4, 4)"]),
    "operand of lower rank": (
        wired(dtd.Reduce("mean", (2, 3)), dtd.Add(inputs=(-1, 0))), dtd.ShapeError, ["layer 1 (Add)", "(n, 2)",
            "(n, 2, 4, 4)", "as many"]),
    "too many axes": (wired(dtd.Reshape((2, 2, 2, 2, 2, 1))), dtd.ShapeError, ["layer 0 (Reshape)", "7 axes"]),
    "absurd upsampling": (wired(dtd.Upsample(10**6)), dtd.ShapeError, ["layer 0 (Upsample)", "elements"]),
    "absurd padding": (wired(dtd.Pad(10**9)), dtd.ShapeError, ["layer 0 (Pad)", "elements"]),
    # ---------------------------------------------------------------------------------------- what cannot be explained
    "softmax inside": (wired(dtd.Softmax(), dtd.ReLU()), dtd.LayerError, ["layer 0 (Softmax)", "inside"]),
    "Mul without a gate": (wired(dtd.ReLU(), dtd.Mul(inputs=(0, -1))), dtd.LayerError, ["layer 1 (Mul)", "sigmoid"]),
    "Mul of two gates": (wired(SIGMOID, SIGMOID, dtd.Mul(inputs=(0, 1))), dtd.LayerError, ["layer 2 (Mul)", "sigmoid"]),
    "Embedding of an inner tensor": (wired(dtd.ReLU(), dtd.Embedding(ONES((3, 2)))), dtd.LayerError,
    ["layer 1 (Embedding)", "integers"]),
    # ------------------------------------------------------------------------------------------------------------ rules
    "rule on a ReLU": (explain_net(0, rules={1: dtd.ZPlus()}), dtd.RuleError, ["layer 1 (ReLU)", "layer 0 (Conv)"]),
    "rule on a Flatten": (explain_net(0, rules={3: dtd.ZPlus()}), dtd.RuleError, ["layer 3 (Flatten)",
    "layer 0 (Conv)"]),
    "rule on a folded BatchNorm": (
        wired(dtd.Conv(ONES((3, 2, 1, 1))), NORM, dtd.Flatten(), rules={1: dtd.ZPlus()}), dtd.RuleError,
        ["layer 1 (BatchNorm)", "layer 0 (Conv)"]),
    "rule on a largest": (wired(dtd.Reduce("max", (2, 3)), rules={0: dtd.ZPlus()}), dtd.RuleError,
    ["layer 0 (Reduce)"]),
    "rule on picks": (wired(dtd.Gather((1, 0), 1), rules={0: dtd.ZPlus()}), dtd.RuleError, ["layer 0 (Gather)"]),
    "rule on a constant": (
        wired(dtd.Constant(ONES((2, 4, 4))), dtd.Add(inputs=(0, -1)), rules={0: dtd.ZPlus()}), dtd.RuleError,
            ["layer 0 (Constant)"]),
    "Pass on a mean": (wired(dtd.Reduce("mean", (2, 3)), rules={0: dtd.Pass()}), dtd.RuleError, ["layer 0 (Reduce)",
    "Pass"]),
    "rule on what nobody reads": (
        wired(dtd.Linear(ONES((2, 4))), dtd.ReLU(inputs=-1), rules={0: dtd.ZPlus()}), dtd.RuleError,
        ["layer 0 (Linear)", "no part", "entry 1"]),
    "rule on no entry": (explain_net(0, rules={5: dtd.ZPlus()}), dtd.RuleError, ["5"]),
    "rule on a word": (explain_net(0, rules={"conv": dtd.ZPlus()}), dtd.RuleError, ["conv", "position"]),
    "rule that is a word": (explain_net(0, rules={0: "zplus"}), dtd.RuleError, ["zplus"]),
    "callable that returns a word": (explain_net(0, rules=lambda p, record: "zplus"), dtd.RuleError, ["zplus"]),
    "unknown preset": (explain_net(0, rules="deep-taylor"), dtd.RuleError, ["deep-taylor", "epsilon-plus"]),
    "rules that are a number": (explain_net(0, rules=3), dtd.RuleError, ["3", "preset"]),
    "conventions in a list": (explain_net(0, convention=["dtd"]), dtd.RuleError, ["convention ['dtd']", "zennit"]),
    "attention of every layer": (explain_net(0, attention=ONES(2)), dtd.RuleError, ["attention", "'held'"]),
    "precision of every layer": (explain_net(0, precision=ONES(2)), dtd.BackendError, ["precision", "float32"]),
    "rules of a gradient": (
        lambda: dtd.baselines.gradient(net(), image(), 0, rules="lrp-0"), dtd.InputError, ["rules= is for `explain`"]),
    "precision of predictions": (
        lambda: dtd.predict(net(), image(), precision="float64"), dtd.InputError, ["precision= is an option of"]),
    "kind that is not one": (
        lambda: dtd.Explainer(net(), kind="gradients"), dtd.RuleError, ["kind is 'gradients'", "'gradient'"]),
    "kind of predictions": (lambda: dtd.Explainer(net(), kind="predict"), dtd.RuleError, ["'predict'", "'explain'"]),
    "path that is a number": (lambda: dtd.load(1.5), dtd.InputError, ["1.5 is not a path"]),  # type: ignore[arg-type]
    "unknown convention": (explain_net(0, convention="lime"), dtd.RuleError, ["lime", "zennit"]),
    "box inside without bounds": (explain_net(0, rules={4: dtd.ZBox()}, domain=(0, 1)), dtd.RuleError,
    ["layer 4 (Linear)", "ZBox"]),
    "box without a domain": (explain_net(0, rules={0: dtd.ZBox()}), dtd.DomainError, ["layer 0 (Conv)", "domain"]),
    # ---------------------------------------------------------------------------------------------------------- options
    "unknown domain": (explain_net(0, domain="positive"), dtd.DomainError, ["positive", "nonnegative"]),
    "domain of three": (explain_net(0, domain=(0, 1, 2)), dtd.DomainError, ["(0, 1, 2)"]),
    "domain upside down": (explain_net(0, domain=(1.0, -1.0)), dtd.DomainError, ["low <= 0 <= high"]),
    "domain that excludes 0": (explain_net(0, domain=(0.5, 1.0)), dtd.DomainError, ["low <= 0 <= high", "0.5"]),
    "domain of wrong shape": (explain_net(0, domain=(-ONES(3), ONES(3))), dtd.DomainError, ["(3,)", "(2,)",
    "(2, 4, 4)"]),
    "domain of times": (
        explain_net(0, domain=(np.timedelta64(-3), np.timedelta64(3))), dtd.DomainError, ["timedelta64", "numbers"]),
    "domain of nothing": (explain_net(0, domain=(np.array([None, None]), 1.0)), dtd.DomainError, ["low <= 0 <= high"]),
    "domain of decimals": (explain_net(0, domain=(Decimal(0), Decimal("0.5"))), dtd.DomainError, ["leaves the box"]),
    "domain beyond float64": (explain_net(0, domain=(0, 10**400)), dtd.DomainError, ["domain", "too large"]),
    "infinite domain": (explain_net(0, domain=(-np.inf, 1.0)), dtd.DomainError, ["finite"]),
    "domain beyond float32": (explain_net(0, domain=(-1e39, 1e39)), dtd.DomainError, ["float32"]),
    "box of masked numbers": (
        lambda: dtd.ZBox(np.ma.masked_array([-1.0, 0.0], [True, False]), 1), dtd.DomainError, ["ZBox", "filled"]),
    "box of words": (lambda: dtd.ZBox("0", "1"), dtd.DomainError, ["ZBox", "'0'"]),
    "x outside the box": (explain_net(0, domain=(0.0, 0.5)), dtd.DomainError, ["0.5", "1"]),
    "x that is a generator": (feed(i for i in range(3)), dtd.InputError, ["x is a generator, expected an array"]),
    "negative x": (feed(image() - 0.5, domain="nonnegative"), dtd.DomainError, ["nonnegative", "-0.5"]),
    "unknown backend": (lambda: dtd.explain(net(), image(), backend="tpu"), dtd.BackendError, ["tpu", "cpu"]),
    "unknown precision": (explain_net(0, precision="float8"), dtd.DtdError, ["float8", "float32"]),
    "tf32 on the CPU": (explain_net(0, precision="tf32"), dtd.BackendError, ["tf32", "cpu", "float32"]),
    "no threads": (explain_net(0, n_threads=0), dtd.DtdError, ["n_threads", "0"]),
    "plan of no shape": (lambda: dtd.Explainer(net()).plan_for("2,2,4,4"), dtd.ShapeError, ["'2,2,4,4'", "integers"]),
    "plan of no sample": (lambda: dtd.Explainer(net()).plan_for((0, 2, 4, 4)), dtd.ShapeError, ["(0, 2, 4, 4)"]),
    "half a thread": (explain_net(0, n_threads=0.5), dtd.DtdError, ["n_threads", "0.5"]),
    "batches of nothing": (explain_net(0, batch_size=0), dtd.DtdError, ["batch_size", "0"]),
    # ------------------------------------------------------------------------------------------------------------
    # inputs
    "one image without its batch": (feed(image()[0]), dtd.ShapeError, ["layer 0 (Conv)", "(n, 4, 4)", "x[None]"]),
    "images with channels last": (
        feed(image().transpose(0, 2, 3, 1)), dtd.ShapeError, ["layer 0 (Conv)", "np.moveaxis(x, -1, 1)"]),
    "images with channels first": (
        wired(dtd.Permute((0, 3, 1, 2)), dtd.Conv(ONES((3, 2, 3, 3)))), dtd.ShapeError, ["np.moveaxis(x, 1, -1)"]),
    "a weight with inputs as its rows": (
        wired(dtd.Linear(ONES((3, 5))), x=ONES((2, 3))), dtd.ShapeError, ["layer 0 (Linear)", "weight.T"]),
    "other channels": (feed(ONES((2, 3, 4, 4))), dtd.ShapeError, ["layer 0 (Conv)", "2 channels", "3"]),
    "empty batch": (feed(ONES((0, 2, 4, 4))), dtd.InputError, ["(0, 2, 4, 4)"]),
    "integers for a convolution": (feed(ONES((2, 2, 4, 4), np.uint8)), dtd.DtdError, ["integers"]),
    "booleans": (feed(ONES((2, 2, 4, 4), bool)), dtd.InputError, ["bool"]),
    "complex numbers": (feed(ONES((2, 2, 4, 4), complex)), dtd.InputError, ["complex"]),
    "words": (feed([["a"]]), dtd.InputError, ["float"]),
    "a sentence": (feed("a film"), dtd.InputError, ["text", "tokenizer"]),
    "what a tokenizer returns": (
        feed({"input_ids": [[1]], "attention_mask": [[1]]}), dtd.InputError, ["a dict", "x['input_ids']"]),
    "rows of different lengths": (feed([[1, 2, 3], [4, 5]]), dtd.InputError, ["lengths", "pad"]),
    "NaN in x": (feed(spoilt((2, 2, 4, 4), np.nan)), dtd.InputError, ["NaN"]),
    "infinity in x": (feed(spoilt((2, 2, 4, 4), -np.inf)), dtd.InputError, ["infinity"]),
    "x beyond float32": (feed(spoilt((2, 2, 4, 4), 1e300)), dtd.DtdError, ["float32"]),
    "floats for an Embedding": (wired(*WORDS, x=ONES((2, 3))), dtd.DtdError, ["layer 0 (Embedding)", "integers"]),
    "a word beyond the table": (wired(*WORDS, x=np.array([[0, 1, 5]])), dtd.InputError, ["5", "0 to 4"]),
    "a negative word": (wired(*WORDS, x=np.array([[0, 1, -1]])), dtd.InputError, ["-1", "0 to 4"]),
    # -----------------------------------------------------------------------------------------------------------
    # targets
    "target beyond the outputs": (explain_net(3), dtd.TargetError, ["3", "3 outputs"]),
    "negative target": (explain_net(-1), dtd.TargetError, ["-1"]),
    "one target for two samples": (explain_net([0]), dtd.TargetError, ["(1,)", "2"]),
    "targets for other samples": (explain_net(np.zeros((3, 2), int)), dtd.TargetError, ["(3, 2)"]),
    "a one-hot target": (explain_net(np.eye(3, dtype=int)[:2]), dtd.TargetError, ["one-hot", "argmax"]),
    "the second of two classes that are one output": (
        lambda: explain([dtd.Linear(ONES((1, 3)))], ONES((2, 3)), 1), dtd.TargetError, ["target is 1", "one output"]),
    "target of unsigned numbers": (
        wired(dtd.ReLU(), target=(np.uint64(2**64 - 1), 0, 1)), dtd.TargetError, ["target 18446744073709551615 is"]),
    "targets of three axes": (explain_net(np.zeros((2, 1, 1), int)), dtd.TargetError, ["(2, 1, 1)"]),
    "start of other outputs": (explain_net(ONES((2, 4))), dtd.TargetError, ["(2, 4)", "3"]),
    "start with NaN": (explain_net(spoilt((2, 3), np.nan)), dtd.TargetError, ["NaN"]),
    "target that is a word": (explain_net("cat"), dtd.TargetError, ["text", "integers"]),
    "target that is true": (explain_net(True), dtd.TargetError, ["True"]),
    "no target among pixels": (wired(dtd.ReLU(), target=None), dtd.TargetError, ["(n, 2, 4, 4)", "tuple"]),
    "a bare int among pixels": (wired(dtd.ReLU(), target=1), dtd.TargetError, ["(n, 2, 4, 4)", "tuple"]),
    "a pixel beyond the image": (wired(dtd.ReLU(), target=(0, 4, 0)), dtd.TargetError, ["target 4", "4 outputs",
    "axis 2"]),
    "a pixel of two numbers": (wired(dtd.ReLU(), target=(0, 1)), dtd.TargetError, ["(0, 1)"]),
    # ------------------------------------------------------------------------------------------------------ start,
    # stop, out
    "start beyond the list": (explain_net(0, start=5), dtd.DtdError, ["start", "5"]),
    "stop beyond the list": (explain_net(0, stop=-2), dtd.DtdError, ["stop", "-2"]),
    "stop after start": (explain_net(ONES((2, 3, 4, 4)), start=1, stop=3), dtd.DtdError, ["start", "stop"]),
    "start that is a word": (explain_net(0, start="conv"), dtd.DtdError, ["start", "conv"]),
    "stop off the path": (
        wired(dtd.ReLU(), dtd.ReLU(inputs=-1), dtd.Flatten(inputs=0), stop=1), dtd.LayerError, ["stop=1",
            "layer 1 (ReLU)"]),
    "out of wrong shape": (explain_net(0, out=ONES((2, 3, 4, 4), np.float32)), dtd.DtdError, ["out", "(2, 3, 4, 4)",
    "(2, 2, 4, 4)"]),
    "out of wrong dtype": (explain_net(0, out=ONES((2, 2, 4, 4), np.float64)), dtd.DtdError, ["out", "float64",
    "float32"]),
    "out that is a list": (explain_net(0, out=[]), dtd.DtdError, ["out", "list"]),
    "outputs into an array": (explain_net(0, return_outputs=ONES(3)), dtd.InputError, ["return_outputs", "True"]),
    "a ledger by a word": (explain_net(0, return_ledger="yes"), dtd.InputError, ["return_ledger", "yes"]),
    "an option misspelt": (explain_net(0, rule="dtd"), dtd.InputError, ["rule=", "did you mean rules=?"]),
    "an option that nothing is like": (explain_net(0, method=3), dtd.InputError, ["method= is no option"]),
    "a Given called as an option": (
        lambda: explain([dtd.Given("return_ledger", (3,)), dtd.Add(inputs=(0, dtd.INPUT))], ONES((2, 3)), 0),
        dtd.LayerError, ["layer 0 (Given 'return_ledger')", "option"]),
    "unknown option": (lambda: dtd.Explainer(net(), colour="red"), TypeError, ["colour"]),
}  # fmt: skip


def test_there_are_enough_kinds():
    assert len(BAD) >= 40


@pytest.mark.parametrize("kind", BAD)
def test_bad_input(kind):
    call, error, words = BAD[kind]
    with pytest.raises(error) as caught:
        call()
    for word in words:
        assert word in str(caught.value)


def test_every_error_is_a_dtd_error():
    """Also those that no case above meets: every class that the package exports or defines in errors.py."""
    made = {of for of in (*vars(dtd).values(), *vars(errors).values()) if isinstance(of, type)}
    found = {of for of in made if issubclass(of, Exception)}
    assert found >= {error for _, error, _ in BAD.values()} - {TypeError}
    assert all(issubclass(error, dtd.DtdError) for error in found)


def test_overflow_is_refused():
    """Finite inputs and weights whose products are not: an error, never a map of NaN."""
    layers = [dtd.Linear(np.full((4, 4), 1e30)), dtd.Linear(np.full((2, 4), 1e30))]
    with pytest.raises(dtd.NumericsError):
        explain(layers, ONES((1, 4)), 0)
    x = ONES((3, 4))
    x[0] = 0
    with pytest.raises(dtd.NumericsError, match="the output of sample 1 overflowed float32; use precision='float64'"):
        dtd.predict(layers, x, backend="cpu")
