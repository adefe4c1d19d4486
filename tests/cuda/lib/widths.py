"""What is 32 bits wide on a device must fit there: operands and results of instructions, and arrays of integers.

Python's integers are of any size, and the compiler's 64 bits wide. They are cut to 32 bits where an instruction of
`ptx.py` takes or makes an integer, and where an element of `integers(n)` is set. Which these are is read off the source
of `ptx.py` itself.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from dtdfast.cuda.compile import language

SIGNED, UNSIGNED = (-(2**31), 2**31), (0, 2**32)
Range = tuple[int, int]


class Integers(list[Any]):
    """An array of signed integers."""

    def __setitem__(self, place: Any, value: Any) -> None:
        assert SIGNED[0] <= value < SIGNED[1], f"integers: element {place} is {value}, beyond 32 bits"
        super().__setitem__(place, value)


def _ranges(text: str, letters: str) -> list[Range | None]:
    """Of operands what fits, None for all but integers: whether these have a sign, the instruction says."""
    return [(UNSIGNED if ".u32" in text else SIGNED) if letter == "i" else None for letter in letters]


def instructions() -> Iterator[tuple[str, list[Range | None], list[Range | None]]]:
    """Name, operands and results of what `ptx.py` makes by `_instruction`, by its name there or in `language`."""
    path = Path(language.__file__).with_name("ptx.py")
    texts: dict[str, Any] = {}
    for statement in ast.parse(path.read_text()).body:
        if not isinstance(statement, ast.Assign):
            continue
        target, value = statement.targets[0], statement.value
        named = [(target, value)]
        if isinstance(value, ast.Dict):
            named = [(k, v) for k, v in zip(value.keys, value.values, strict=True) if k is not None]
        for name, made in named:
            if isinstance(made, ast.Call) and getattr(made.func, "id", "") == "_instruction":
                text, outs, ins = ([*(_value(a, texts) for a in made.args), "", ""])[:3]
                yield getattr(name, "id", None) or name.attr, _ranges(text, ins), _ranges("", outs)  # type: ignore[attr-defined]
            elif isinstance(made, ast.Constant | ast.JoinedStr) and isinstance(name, ast.Name):
                texts[name.id] = _value(made, texts)


def _value(expression: ast.expr, names: dict[str, Any]) -> Any:
    return eval(compile(ast.Expression(expression), "ptx.py", "eval"), {**names})


def _checked(name: str, function: Callable[..., Any], operands: list[Range | None], results: list[Range | None]) -> Any:
    places = [(place, *limits) for place, limits in enumerate(operands) if limits]

    def instruction(*args: Any) -> Any:
        for place, low, beyond in places:
            assert low <= args[place] < beyond, f"{name}: operand {place + 1} is {args[place]}, beyond 32 bits"
        result = function(*args)
        if results == [SIGNED]:
            assert SIGNED[0] <= result < SIGNED[1], f"{name}: its result is {result}, beyond 32 bits"
        return result

    return partial(instruction)  # what is no plain function is called, not written out


def check(world: dict[str, Any], words: dict[Any, Any]) -> None:
    """Let every emulated instruction with integers look at them; `words` are those of `language`."""
    by_name = {function.__name__: function for function in words}
    same = {id(function): word for word, function in words.items()}
    for name, operands, results in instructions():
        if not any(operands):
            continue
        if name in world:
            made = _checked(name, world[name], operands, results)
            if id(world[name]) in same:
                words[same[id(world[name])]] = made
            world[name] = made
        elif name in by_name:
            words[by_name[name]] = _checked(name, words[by_name[name]], operands, results)
