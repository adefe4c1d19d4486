"""Kernels written once, specialised before they are compiled.

A kernel is a closure over integers, strings, booleans and tuples. `specialised` rewrites its syntax tree so that a
compiler sees what is left: constants written in, dead branches dropped, loops over `unroll(n)` and calls of Python
functions written out, so that arrays stay in registers (every index is a constant). Run as plain Python, without this,
a kernel means the same.

A function that a kernel calls returns at most once, at its end, on every path that its constants leave, and does not
assign to arguments that are constants.
"""

from __future__ import annotations

import ast
import inspect
import textwrap
from collections.abc import Callable, Iterator
from functools import cache
from itertools import count
from types import CodeType, FunctionType
from typing import Any

Function = Callable[..., Any]

unroll = range
"""`for i in unroll(n)` is written out n times."""

_CONSTANT = (int, str, bool, tuple)
_FOLDED = (ast.Name, ast.BinOp, ast.BoolOp, ast.Compare, ast.UnaryOp, ast.Subscript, ast.IfExp, ast.Call)


@cache
def _source(code: CodeType) -> str:
    return textwrap.dedent(inspect.getsource(code))


def _parts(function: Function) -> tuple[ast.FunctionDef, dict[str, Any]]:
    """A function's syntax tree, and the values of the names that it does not bind itself."""
    code = function.__code__
    closed = dict(zip(code.co_freevars, (c.cell_contents for c in function.__closure__ or ()), strict=True))
    world = function.__globals__
    names = {**{n: world[n] for n in code.co_names if n in world and n not in code.co_varnames}, **closed}
    source = _source(code)
    if code.co_name != "<lambda>":
        definition = ast.parse(source).body[0]
        assert isinstance(definition, ast.FunctionDef)
        return definition, names
    source = source[source.index("lambda") :]
    while True:  # what follows the lambda on its line
        try:
            (statement,) = ast.parse(source).body
            break
        except SyntaxError:
            source = source[:-1]
    assert isinstance(statement, ast.Expr)
    made = statement.value.elts[0] if isinstance(statement.value, ast.Tuple) else statement.value
    assert isinstance(made, ast.Lambda)
    return ast.FunctionDef("formula", made.args, [ast.Return(made.body)], []), names


def _copied(tree: Any) -> Any:
    """A syntax tree anew: copy.deepcopy takes several times as long."""
    if isinstance(tree, list):
        return [_copied(part) for part in tree]
    if not (isinstance(tree, ast.AST) and tree._fields):
        return tree
    made = type(tree).__new__(type(tree))
    vars(made).update({name: _copied(part) for name, part in vars(tree).items()})
    return made


def _names(tree: Any) -> Iterator[ast.Name]:
    """All names in it, in any order."""
    waiting = [tree]
    while waiting:
        part = waiting.pop()
        if isinstance(part, ast.Name):
            yield part
        elif isinstance(part, list):
            waiting += part
        elif isinstance(part, ast.AST):
            waiting += vars(part).values()


class _Specialise(ast.NodeTransformer):
    """Rewrites statements; `outside` collects the values that the rewritten code reads from outside."""

    def __init__(self, names: dict[str, Any], outside: dict[str, Any], numbers: count[int]) -> None:
        self.names, self.outside, self.numbers = names, outside, numbers
        self.constants = {k: v for k, v in names.items() if isinstance(v, _CONSTANT)}
        self.before: list[ast.stmt] = []  # statements of calls, to go before the current one

    def value(self, node: ast.expr) -> Any:
        """The value of an expression of constants; raises where it is not one."""
        for name in _names(node):
            if name.id not in self.constants and name.id != "len":
                raise ValueError(name.id)
        if isinstance(node, ast.Name):
            return self.constants.get(node.id, len)
        code = compile(ast.fix_missing_locations(ast.Expression(node)), "<constant>", "eval")
        return eval(code, {**self.constants, "len": len, "__builtins__": {}})

    def visit(self, node: ast.AST) -> Any:
        if not node._fields:  # an operator, a context
            return node
        if isinstance(node, _FOLDED) and isinstance(getattr(node, "ctx", ast.Load()), ast.Load):
            try:
                value = self.value(node)
            except Exception:  # not a constant
                value = None
            if isinstance(value, (int, str)):
                return ast.Constant(value)
        return super().visit(node)

    def visit_Name(self, node: ast.Name) -> ast.expr:
        if node.id in self.names:
            known = self.outside.setdefault(node.id, self.names[node.id])
            assert known is self.names[node.id], f"{node.id} means two things"
        return node

    def visit_If(self, node: ast.If) -> Any:
        try:
            chosen = node.body if self.value(node.test) else node.orelse
        except Exception:
            node.test = self.visit(node.test)
            node.body, node.orelse = self.all_of(node.body), self.all_of(node.orelse)
            return node
        return self.all_of(chosen)

    def visit_IfExp(self, node: ast.IfExp) -> Any:
        try:
            return self.visit(node.body if self.value(node.test) else node.orelse)
        except ValueError:
            return self.generic_visit(node)

    def visit_For(self, node: ast.For) -> Any:
        call = node.iter
        if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == "unroll"):
            node.iter, node.body = self.visit(node.iter), self.all_of(node.body)
            return node
        assert isinstance(node.target, ast.Name)
        result = []
        for number in range(*(self.value(a) for a in call.args)):
            turn = _Specialise({**self.names, node.target.id: number}, self.outside, self.numbers)
            result += turn.all_of(_copied(node.body))
        return result

    def visit_While(self, node: ast.While) -> Any:
        node.test, node.body = self.visit(node.test), self.all_of(node.body)
        return node

    def visit_Expr(self, node: ast.Expr) -> Any:
        if isinstance(node.value, ast.Constant):  # a docstring
            return []
        value = self.visit(node.value)
        # a constant: all of a call's statements were hoisted
        return [] if isinstance(value, ast.Constant) else ast.Expr(value)

    def visit_Call(self, node: ast.Call) -> ast.expr:
        """A call of a Python function becomes its value; its statements go before the one that calls."""
        function = self.names.get(node.func.id) if isinstance(node.func, ast.Name) else None
        if not isinstance(function, FunctionType):
            called = self.generic_visit(node)
            assert isinstance(called, ast.expr)
            return called
        definition, names = _parts(function)
        local: dict[str, str] = {}
        suffix = f"_{next(self.numbers)}"
        for parameter, argument in zip(definition.args.args, node.args, strict=True):
            given = self.visit(argument)
            if isinstance(given, ast.Constant):
                names[parameter.arg] = given.value
                continue
            if not isinstance(given, ast.Name):
                name = ast.Name(parameter.arg + suffix, ast.Store())
                self.before.append(ast.Assign([name], given))
                given = name
            local[parameter.arg] = given.id
        body = _Specialise(names, self.outside, self.numbers).all_of(definition.body)
        found = list(_names(body))
        for name in found:
            if isinstance(name.ctx, ast.Store):
                assert name.id not in names, f"{function.__name__} assigns to {name.id}"
                local.setdefault(name.id, name.id + suffix)
        for name in found:
            name.id = local.get(name.id, name.id)
        last = body.pop() if body and isinstance(body[-1], ast.Return) else None
        self.before += body
        return last.value if isinstance(last, ast.Return) and last.value is not None else ast.Constant(None)

    def all_of(self, statements: list[ast.stmt]) -> list[ast.stmt]:
        result: list[ast.stmt] = []
        for statement in statements:
            outer, self.before = self.before, []
            done = self.visit(statement)
            result += self.before + (done if isinstance(done, list) else [done])
            self.before = outer
            if result and isinstance(result[-1], ast.Return):
                break  # what follows a return is dead
        return result


def specialised(function: Function) -> Function:
    """The same function with its constants written in."""
    definition, names = _parts(function)
    outside: dict[str, Any] = {}
    body = _Specialise(names, outside, count(1)).all_of(definition.body) or [ast.Pass()]
    outside = {k: v for k, v in outside.items() if not isinstance(v, _CONSTANT)}
    arguments = ast.arguments([], [ast.arg(a.arg) for a in definition.args.args], None, [], [], None, [])
    inner = ast.FunctionDef(definition.name, arguments, body, [])
    maker = ast.FunctionDef(
        "make", ast.arguments([], [ast.arg(n) for n in outside], None, [], [], None, []), [inner], []
    )
    maker.body.append(ast.Return(ast.Name(definition.name)))
    for node in (inner, maker):
        node.type_params = []  # type: ignore[attr-defined]
    space: dict[str, Any] = {}
    tree = ast.fix_missing_locations(ast.Module([maker], []))
    # through text, so that every line is where a message says it is
    exec(compile(ast.unparse(tree), f"<{definition.name}>", "exec"), space)
    made: Function = space["make"](*outside.values())
    return made
