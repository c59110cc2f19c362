"""Reading data from pickles without `pickle`: no code in a file is executed.

A pickle is a program. Here its instructions that build numbers, strings, tuples, lists
and dictionaries are interpreted; functions and classes are looked up in a table of the
caller, and everything else is refused before anything is called.
"""

import io
import pickletools
from collections.abc import Callable, Mapping
from typing import Any

from segjax.errors import UserError

Function = Callable[..., Any]

_MARK = object()
_VALUES = frozenset(
    "BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE BINUNICODE8 "
    "SHORT_BINSTRING BINSTRING".split()
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}


def read(
    file: io.BytesIO, known: Mapping[str, Any], persistent: Callable[[Any], Any]
) -> Any:
    """Reads one pickle, to the position after it.

    Args:
        file: At the first instruction.
        known: By name, such as "collections.OrderedDict", what stands for a function or
            class: functions are called with the arguments in the file.
        persistent: `persistent identifier -> object`.

    Raises:
        ValueError: If it has another instruction or name, or is damaged. The message
            completes a sentence about the file.
    """
    machine = _Machine(known, persistent)
    try:
        for instruction, argument, _ in pickletools.genops(file):
            machine.run(instruction.name, argument)
        (value,) = machine.stack
        return value
    except UserError:
        raise
    except Exception as error:  # Of genops, of a stack that is too short, and others.
        raise UserError("it is not a valid pickle") from error


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self, known: Mapping[str, Any], persistent: Callable[[Any], Any]):
        self.stack: list[Any] = []
        self._memo: dict[int, Any] = {}
        self._known = known
        self._persistent = persistent

    def run(self, name: str, argument: Any) -> None:
        """Executes one instruction."""
        if name in _VALUES:
            self.stack.append(argument)
        elif name in _CONSTANTS:
            self.stack.append(_CONSTANTS[name])
        elif name in _TUPLES:
            self.stack.append(tuple(self._pop(_TUPLES[name])))
        else:
            method = getattr(self, f"_{name.lower()}", None)
            if method is None or name not in _METHODS:
                raise UserError(
                    f"it has the pickle instruction {name}, which plain tensors do not "
                    f"need; nothing was executed"
                )
            method(argument)

    def _pop(self, count: int) -> list[Any]:
        values = self.stack[-count:]
        if len(values) < count:
            raise IndexError("the stack is too short")
        del self.stack[-count:]
        return values

    def _pop_to_mark(self) -> list[Any]:
        last = len(self.stack) - 1 - self.stack[::-1].index(_MARK)
        values = self.stack[last + 1 :]
        del self.stack[last:]
        return values

    def _proto(self, _: Any) -> None: ...

    _frame = _stop = _proto

    def _mark(self, _: Any) -> None:
        self.stack.append(_MARK)

    def _empty_dict(self, _: Any) -> None:
        self.stack.append({})

    def _empty_list(self, _: Any) -> None:
        self.stack.append([])

    def _empty_tuple(self, _: Any) -> None:
        self.stack.append(())

    def _tuple(self, _: Any) -> None:
        self.stack.append(tuple(self._pop_to_mark()))

    def _binput(self, index: int) -> None:
        self._memo[index] = self.stack[-1]

    _long_binput = _binput

    def _memoize(self, _: Any) -> None:
        self._memo[len(self._memo)] = self.stack[-1]

    def _binget(self, index: int) -> None:
        self.stack.append(self._memo[index])

    _long_binget = _binget

    def _append(self, _: Any) -> None:
        self._extend(self._pop(1))

    def _appends(self, _: Any) -> None:
        self._extend(self._pop_to_mark())

    def _extend(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    def _setitem(self, _: Any) -> None:
        self._update(self._pop(2))

    def _setitems(self, _: Any) -> None:
        self._update(self._pop_to_mark())

    def _update(self, values: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(values[::2], values[1::2], strict=True):
            if not isinstance(key, str | int):
                raise TypeError("a key is neither text nor a number")
            target[key] = value

    def _top(self, kind: type) -> Any:
        if type(self.stack[-1]) is not kind:
            raise TypeError(f"needed a {kind.__name__}")
        return self.stack[-1]

    def _global(self, argument: str) -> None:
        self._push_known(argument.replace(" ", "."))

    def _stack_global(self, _: Any) -> None:
        names = self._pop(2)
        if not all(isinstance(x, str) for x in names):
            raise TypeError("a name is not text")
        self._push_known(".".join(names))

    def _push_known(self, name: str) -> None:
        if name not in self._known:
            raise UserError(
                f"it needs {name[:80]}, which is code, not a tensor; nothing was "
                f"executed"
            )
        self.stack.append(self._known[name])

    def _reduce(self, _: Any) -> None:
        function, arguments = self._pop(2)
        if not any(function is value for value in self._known.values()):
            raise TypeError("not a function")
        self.stack.append(function(*arguments))

    def _build(self, _: Any) -> None:
        self._pop(1)  # Attributes of a dictionary, such as `_metadata`: not read.
        self._top(dict)

    def _binpersid(self, _: Any) -> None:
        (identifier,) = self._pop(1)
        self.stack.append(self._persistent(identifier))


_METHODS = frozenset(
    "PROTO FRAME STOP MARK EMPTY_DICT EMPTY_LIST EMPTY_TUPLE TUPLE BINPUT LONG_BINPUT "
    "MEMOIZE BINGET LONG_BINGET APPEND APPENDS SETITEM SETITEMS GLOBAL STACK_GLOBAL "
    "REDUCE BUILD BINPERSID".split()
)
