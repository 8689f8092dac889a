"""The content of a pickle as data: nothing in it is imported, called or run.

The opcodes are those of the standard library's `pickletools`, which says what each does to the stack. Where Python's
own unpickler would call or fill an object, this one notes what was to be called, with what, as an `Inert`; only names
in a table that the caller gives are made, by the caller's own functions, which check what they are given.
"""

import pickletools
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from groupvit_jax.errors import InputError
from groupvit_jax.interop.inert import Global, Inert, Refused, check_depth, fill, make_set

_REMEDY = "download it again, or load and save it again where it was made"
_HIGHEST_PROTOCOL = 5
# Bounds on what a small file can cost: a GroupViT checkpoint with its optimizer takes some 200 thousand steps.
_MOST_STEPS, _LARGEST_MEMO = 5_000_000, 1 << 32
_MOST_ARGUMENTS = 16  # of a function of the table
_PYTHON_2 = {"__builtin__": "builtins", "copy_reg": "copyreg"}  # which protocol 2 writes to this day

_VALUES = frozenset(
    "INT BININT BININT1 BININT2 LONG LONG1 LONG4 FLOAT BINFLOAT STRING BINBYTES SHORT_BINBYTES BINBYTES8 BYTEARRAY8 "
    "UNICODE BINUNICODE SHORT_BINUNICODE BINUNICODE8".split())
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_EMPTY = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}


Function = Callable[[tuple], Any]


class Readable(Protocol):
    """What `load` reads."""

    def read(self, n: int, /) -> bytes: ...

    def readline(self) -> bytes: ...

    @property
    def tell(self) -> Callable[[], int]: ...


def load(file: Readable, name: str, functions: Mapping[Global, Function], persistent: Callable[[Any], Any]) -> Any:
    """Reads one pickle (protocols 0 to 5) and leaves `file` behind it.

    Args:
        file: has `read`, `readline` and `tell`; what it is asked for may be more than memory holds, so let `read`
            give no more than there is.
        name: of the file, for messages.
        functions: `f(args)` makes what calling that name with `args` means, or NotImplemented: an Inert stays.
        persistent: gives the object of a persistent id.
    Returns: plain containers, numbers and strings, Global, Inert, and what the functions made. Containers may be
        shared, but none holds itself other than through an Inert, and they are at most 200 deep.
    Raises: InputError for anything else.
    """
    try:
        return _Machine(functions, persistent).run(file)
    except Refused as reason:
        raise InputError(f"{name}: its pickle {reason}: {_REMEDY}") from None
    except InputError:
        raise
    # An empty stack, an unknown memo; pickletools' complaints and wrong encodings; what does not fit.
    except (IndexError, KeyError, ValueError, OverflowError, MemoryError, RecursionError):
        raise InputError(f"{name}: its pickle is broken or cut off: {_REMEDY}") from None


class _Machine:
    def __init__(self, functions: Mapping[Global, Function], persistent: Callable[[Any], Any]) -> None:
        self.functions, self.persistent = functions, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[Any, Any] = {}
        self.steps = 0

    def run(self, file: Any) -> Any:
        for opcode, arg, _ in pickletools.genops(file):
            self.spend(1)
            self.step(opcode.name, arg)
        value = self.stack.pop()
        check_depth(value)
        return value

    def spend(self, steps: int) -> None:
        self.steps += steps
        if self.steps > _MOST_STEPS:
            raise Refused(f"takes more than {_MOST_STEPS} steps")

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def marked(self) -> list:
        """What lies above the last mark, taken away with it."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def top(self, n: int) -> list:
        if n > len(self.stack):
            raise IndexError
        items = self.stack[-n:]
        del self.stack[-n:]
        return items

    def step(self, name: str, arg: Any) -> None:
        if name in _VALUES:
            self.push(arg)
        elif name in _CONSTANTS:
            self.push(_CONSTANTS[name])
        elif name in _EMPTY:
            self.push(_EMPTY[name]())
        elif not (self.arrange(name, arg) or self.contain(name) or self.refer(name, arg)):
            raise Refused(f"has {name}, which no checkpoint needs")

    def arrange(self, name: str, arg: Any) -> bool:
        """The opcodes that move things on the stack and to and from the memo. False: it is none of them."""
        match name:
            case "BINGET" | "LONG_BINGET" | "GET":
                self.push(self.memo[arg])
            case "BINPUT" | "LONG_BINPUT" | "PUT" | "MEMOIZE":
                place = len(self.memo) if name == "MEMOIZE" else arg
                if not 0 <= place < _LARGEST_MEMO:
                    raise KeyError
                self.memo[place] = self.stack[-1]
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "POP" if self.stack:
                self.stack.pop()
            case "POP" | "POP_MARK":
                self.marked()
            case "DUP":
                self.push(self.stack[-1])
            case "PROTO":
                if arg > _HIGHEST_PROTOCOL:
                    raise Refused(f"is of protocol {arg}")
            case "FRAME" | "STOP":
                pass
            case _:
                return False
        return True

    def contain(self, name: str) -> bool:
        """The opcodes that make and fill containers. False: it is none of them."""
        match name:
            case "TUPLE1" | "TUPLE2" | "TUPLE3":
                self.push(tuple(self.top(int(name[-1]))))
            case "TUPLE":
                self.push(tuple(self.marked()))
            case "LIST":
                self.push(self.marked())
            case "FROZENSET":
                self.push(make_set(self.marked(), frozenset))
            case "DICT":
                self.push(fill({}, self.marked()))
            case "APPEND" | "APPENDS":
                items = self.top(1) if name == "APPEND" else self.marked()
                self.target(list, "items").extend(items)
            case "SETITEM" | "SETITEMS":
                items = self.top(2) if name == "SETITEM" else self.marked()
                fill(self.target(dict, "entries"), items)
            case "ADDITEMS":
                members = make_set(self.marked())
                self.target(set, "").update(members)
            case _:
                return False
        return True

    def target(self, kind: type, part: str) -> Any:
        """The container on top of the stack, or what stands for it in an Inert."""
        on_top = self.stack[-1]
        if type(on_top) is Inert and part:
            return getattr(on_top, part)
        if type(on_top) is not kind:
            raise Refused(f"fills a {type(on_top).__name__} as if it were a {kind.__name__}")
        return on_top

    def refer(self, name: str, arg: Any) -> bool:
        """The opcodes that, in Python's unpickler, import, call and fill objects. False: it is none of them."""
        match name:
            case "GLOBAL":
                self.push(_global(*arg.split(" ", 1)))
            case "STACK_GLOBAL":
                self.push(_global(*self.top(2)))
            case "REDUCE" | "NEWOBJ":
                self.push(self.make(*self.top(2)))
            case "NEWOBJ_EX":
                self.push(self.make(*self.top(3)))
            case "INST":
                self.push(self.make(_global(*arg.split(" ", 1)), tuple(self.marked())))
            case "OBJ":
                what, *args = self.marked()
                self.push(self.make(what, tuple(args)))
            case "BUILD":
                self.build(self.stack.pop(), self.stack[-1])
            case "PERSID":
                self.push(self.persistent(arg))
            case "BINPERSID":
                self.push(self.persistent(self.stack.pop()))
            case "BINSTRING" | "SHORT_BINSTRING":  # of Python 2; pickletools reads them as Latin-1
                self.push(arg.encode("latin-1").decode("utf-8", "surrogateescape"))
            case _:
                return False
        return True

    def make(self, what: Any, args: Any, kwargs: Any = None) -> Any:
        if type(what) not in (Global, Inert) or type(args) is not tuple or type(kwargs) not in (dict, type(None)):
            raise Refused("calls what cannot be called")
        function = self.functions.get(what) if type(what) is Global and not kwargs else None
        if function:
            if len(args) > _MOST_ARGUMENTS:
                raise Refused(f"gives {what} {len(args)} arguments")
            for x in args:  # the functions may copy them, the same ones again and again
                self.spend(len(x) if type(x) in (list, set) else len(x) >> 6 if type(x) in (str, bytes) else 0)
            made = function(args)
            if made is not NotImplemented:
                return made
        return Inert(what, args, kwargs)

    def build(self, state: Any, on_top: Any) -> None:
        if type(on_top) is Inert:
            on_top.state = state
        elif type(on_top) is not dict:  # an OrderedDict's attributes, such as a state dict's _metadata, are dropped
            raise Refused(f"fills a {type(on_top).__name__}")


def _global(module: Any, name: Any) -> Global:
    if type(module) is not str or type(name) is not str:
        raise Refused("imports what is no name")
    return Global(_PYTHON_2.get(module, module), name)
