"""A pickle is read as data: what plain ones hold comes out, nothing in any is run, and broken or endless ones end in
one line."""

import collections
import io
import itertools
import pickle
import pickletools
import struct
import sys
import tracemalloc
import types

import pytest
from forbidden import nothing_runs
from opcodes import Call, Name, Raw, emit, pickled

from groupvit_jax.errors import InputError
from groupvit_jax.interop import pickles
from groupvit_jax.interop.inert import Global, Inert
from groupvit_jax.interop.torch_tensors import NAMES


def load(data: bytes, persistent=None):
    def refuse(claim):
        raise InputError("no persistent ids here")

    with nothing_runs():
        return pickles.load(io.BytesIO(data), "x.pth", NAMES, persistent or refuse)


def refused(data: bytes, match: str = "x.pth: its pickle .*: download it again", persistent=None):
    with pytest.raises(InputError, match=match) as error:
        load(data, persistent)
    assert "\n" not in str(error.value) and len(str(error.value)) < 300


SHARED = [1]
PLAIN = {
    "numbers": [0, 1, -1, 255, 65535, -(1 << 31), 1 << 40, -(1 << 63), 1 << 2000, 0.0, -1.5, float("inf")],
    "constants": [None, True, False],
    "strings": ["", "a", "é\n'\"\\", "\ud800", "x" * 300, "y" * 70000],
    "containers": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, [[]], {"a": {"b": ({},)}}],
    "keys": {1: 1, 1.5: 1, None: 1, "a": 1, b"b": 1, (1, "a", None): 1, (): 1, -(1 << 63): 1},
    "long": [list(range(3000)), {i: str(i) for i in range(3000)}],
    "shared": [SHARED, SHARED, (SHARED, SHARED)],
    "bytes": [b"", b"a", bytes(range(256)), b"z" * 70000, bytearray(b""), bytearray(b"abc\xff")],
    "sets": [set(), {1, "a", None}, frozenset(), frozenset({1, 2}), {(1, 2)}],
    "ordered": collections.OrderedDict(b=1, a=[2]),
}


def deep_types(x):
    kind = dict if type(x) is collections.OrderedDict else type(x)
    return kind, [deep_types(y) for y in (x.values() if kind is dict else x)] if kind in (dict, list, tuple) else []


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("kind", PLAIN)
def test_plain_content_is_what_was_pickled(kind, protocol):
    loaded = load(pickle.dumps(PLAIN[kind], protocol=protocol))
    assert loaded == PLAIN[kind] and deep_types(loaded) == deep_types(PLAIN[kind])


def test_what_was_shared_is_shared():
    a, b, (c, d) = load(pickle.dumps(PLAIN["shared"]))
    assert a is b is c is d


def test_the_file_is_left_where_the_pickle_ends():
    file = io.BytesIO(pickle.dumps(1) + pickle.dumps([2]) + b"rest")
    assert [pickles.load(file, "", {}, None) for _ in range(2)] == [1, [2]] and file.read() == b"rest"


def test_python_2_pickles_are_read():
    assert load(b"(lp0\nS'a\\n'\np1\naI01\naL12L\naF1.5\naVb\\u00e9\na.") == ["a\n", True, 12, 1.5, "bé"]
    assert load(b"\x80\x02U\x03\xc3\xa9a.") == "éa"  # a str is taken for UTF-8, as torch.load takes it
    pairs = Call(Name("collections", "OrderedDict"), ([["a", 1], ["b", 2]],))
    assert load(pickled(pairs)) == {"a": 1, "b": 2}


@pytest.fixture
def gone():
    """Classes of a module that was there when they were pickled, and is not when they are read."""
    module = types.ModuleType("gone")
    exec("""class Config:
    def __init__(self): self.lr = 0.1
class Stateful(Config):
    def __getstate__(self): return ("state", [1])
class Dict(dict): pass
class List(list): pass
class Keyword:
    def __new__(cls, *, a=0): return super().__new__(cls)
    def __getnewargs_ex__(self): return (), {"a": 1}
class Outer:
    class Inner: pass
def function(): pass
""", module.__dict__)
    sys.modules["gone"] = module

    def dumps(make, protocol=2):
        data = pickle.dumps(make(module), protocol=protocol)
        del sys.modules["gone"]
        return data

    yield dumps
    sys.modules.pop("gone", None)


def fields(x: Inert):
    return str(x.what), x.args, x.kwargs, x.state, x.items, x.entries


def filled(module):
    made = module.Dict(a=1)
    made.lr = 2
    return made


@pytest.mark.parametrize("make, expected", [
    (lambda m: m.Config(), ("gone.Config", (), None, {"lr": 0.1}, [], {})),
    (lambda m: m.Stateful(), ("gone.Stateful", (), None, ("state", [1]), [], {})),
    (filled, ("gone.Dict", (), None, {"lr": 2}, [], {"a": 1})),
    (lambda m: m.List([1, 2, 3]), ("gone.List", (), None, None, [1, 2, 3], {})),
    (lambda m: collections.defaultdict(m.Dict, a=1), ("collections.defaultdict", (Global("gone", "Dict"),), None, None,
                                                      [], {"a": 1})),
])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_objects_of_a_module_that_is_gone_are_kept_as_data(gone, make, expected, protocol):
    assert fields(load(gone(make, protocol))) == expected


def test_keywords_of_an_object_are_kept(gone):
    loaded = load(gone(lambda m: m.Keyword(), 4))
    assert (loaded.args, loaded.kwargs) == ((), {"a": 1})


def test_names_are_only_names(gone):
    assert load(gone(lambda m: [m.Config, m.function, m.Outer.Inner], 4)) == [
        Global("gone", "Config"), Global("gone", "function"), Global("gone", "Outer.Inner")]


def test_an_object_may_hold_itself(gone):
    def parent(m):
        made = m.Config()
        made.child = m.Config()
        made.child.parent = made
        return made

    loaded = load(gone(parent))
    assert loaded.state["child"].state["parent"] is loaded


SYSTEM = Name("posix", "system")
COMMAND = ("true",)  # harmless, for when it does run
HOSTILE = {  # name: (opcodes, protocol-2 header and end are added)
    "os.system": emit(Call(Name("os", "system"), COMMAND)),
    "posix.system": emit(Call(SYSTEM, COMMAND)),
    "by stack": b"\x8c\x05posix\x8c\x06system\x93" + emit(COMMAND) + b"R",
    "eval": emit(Call(Name("builtins", "eval"), ("__import__('os').system('true')",))),
    "python 2's eval": emit(Call(Name("__builtin__", "eval"), ("1",))),
    "exec": emit(Call(Name("builtins", "exec"), ("import os",))),
    "getattr": emit(Call(Call(Name("builtins", "getattr"), (Name("os", "path"), "exists")), ("/",))),
    "import": emit(Call(Call(Name("builtins", "__import__"), ("antigravity",)), ())),
    "dotted": emit(Call(Name("collections", "OrderedDict.__init__.__globals__"), ())),
    "nested": emit(Call(Call(Call(SYSTEM, COMMAND), ()), ())),
    "as an argument": emit([Call(Name("collections", "Counter"), (Call(SYSTEM, COMMAND),))]),
    "reconstructor": emit(Call(Name("copy_reg", "_reconstructor"), (Name("os", "_wrap_close"),
                                                                   Name("builtins", "object"), None))),
    "attrgetter": emit(Call(Call(Name("operator", "attrgetter"), ("system",)), (Name("os", "path"),))),
    "partial": emit(Call(Name("functools", "partial"), (SYSTEM, *COMMAND))) + b")R",
    "Popen": emit(Call(Name("subprocess", "Popen"), (["true"],))),
    "pickle in a pickle": emit(Call(Name("_pickle", "loads"), ("x",))),
    "torch.storage": emit(Call(Name("torch.storage", "_load_from_bytes"), ("x",))),
    "numpy": emit(Call(Name("numpy", "load"), ("/tmp/x.npy",))),
    "codec": emit(Call(Name("_codecs", "encode"), ("x", "zlib_codec"))),
    "NEWOBJ": emit(SYSTEM) + emit(COMMAND) + b"\x81",
    "NEWOBJ_EX": emit(SYSTEM) + emit(COMMAND) + emit({"a": 1}) + b"\x92",
    "keywords": emit(Name("collections", "OrderedDict")) + b")" + emit({"a": 1}) + b"\x92",
    "INST": b"(" + emit(COMMAND[0]) + b"iposix\nsystem\n",
    "OBJ": b"(" + emit(SYSTEM) + emit(COMMAND[0]) + b"o",
    "state": emit(Call(Name("argparse", "Namespace"), ())) + emit({"__class__": SYSTEM, "__reduce__": SYSTEM}) + b"b",
    "appends": emit(Call(Name("gone", "List"), ())) + b"(" + emit(Call(SYSTEM, COMMAND)) + b"e",
    "items": emit(Call(Name("gone", "Dict"), ())) + emit(Call(SYSTEM, COMMAND)) + emit(1) + b"s",
    "lambda": emit(Call(Name("types", "FunctionType"), (Call(Name("marshal", "loads"), ("x",)), {}))),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_would_run_is_kept_as_data(name):
    loaded = load(b"\x80\x02" + HOSTILE[name] + b".")
    assert type(loaded[0] if type(loaded) is list else loaded) is Inert


@pytest.mark.parametrize("name", ["posix.system", "by stack", "eval", "Popen", "INST", "OBJ"])
def test_the_watch_would_see_it_run(name):
    with pytest.raises(AssertionError, match="pickle.find_class"), nothing_runs():
        pickle.loads(b"\x80\x04" + HOSTILE[name] + b".")


BROKEN = {
    "nothing": b"",
    "garbage": b"\xff\xfe\x00garbage",
    "no end": b"\x80\x02]",
    "empty stack": b".",
    "a later protocol": b"\x80\x06N.",
    "no mark": b"t.",
    "a mark and no tuple": b"(\x85.",
    "too few for a tuple": b"N\x86.",
    "an unknown memo": b"h\x05.",
    "a memo of nothing": b"q\x01.",
    "a memo of a negative number": b"Np-1\n.",
    "a memo of an endless number": b"Np" + str(1 << 70).encode() + b"\n.",
    "a number of text": b"Ix\n.",
    "a number of too much text": b"I" + b"9" * 10000 + b"\n.",
    "text without an end": b"Sabc",
    "text without quotes": b"Sabc\n.",
    "no UTF-8": b"X\x01\x00\x00\x00\xff.",
    "half a name": b"cos\n",
    "a name that is a number": b"K\x01K\x02\x93.",
    "a call of a number": b"K\x01)R.",
    "a call with a list": emit(SYSTEM) + b"]R.",
    "a call with keywords that are none": emit(SYSTEM) + b")]\x92.",
    "EXT1": b"\x82\x01.", "EXT2": b"\x83\x01\x00.", "EXT4": b"\x84\x01\x00\x00\x00.",
    "a buffer": b"\x97.", "a read-only buffer": b"N\x98.",
    "state of a list": b"]}b.", "state of a name": emit(SYSTEM) + b"}b.", "state of a number": b"K\x01}b.",
    "state of a string": b"U\x01a}b.", "state of nothing": b"}b.",
    "appended to a dict": b"}K\x01a.", "appended to a tuple": b")K\x01a.", "appended to a name": emit(SYSTEM) + b"Na.",
    "items of a list": b"]K\x01K\x01s.", "items of None": b"NK\x01K\x01s.", "items of an odd number": b"}(K\x01u.",
    "added to a list": b"](K\x01\x90.", "added to a set that is kept": emit(Call(Name("x", "Set"), ())) + b"(N\x90.",
    "a list as a key": b"}]Ns.", "a dict as a key": b"}}Ns.", "a set as a key": b"}\x8fNs.",
    "a nested tuple as a key": b"}" + emit((1, (2,))) + b"Ns.", "a list in a set": b"\x8f(]\x90.",
    "a list in a frozenset": b"(]\x91.", "a list in a tuple as a key": b"}]\x85Ns.",
    "a bytearray as a key": b"}\x96" + bytes(8) + b"Ns.",
    "an endless integer as a key": b"}" + emit(1 << 70) + b"Ns.",
    "a set of one list of a list": pickled(Call(Name("builtins", "set"), ([[1]],))),
    "an OrderedDict of two": pickled(Call(Name("collections", "OrderedDict"), ([], []))),
    "a key that is a list of an OrderedDict": pickled(Call(Name("collections", "OrderedDict"), ([[[], 1]],))),
    "too many arguments": pickled(Call(Name("builtins", "bytes"), (1,) * 100)),
    "no Latin-1": pickled(Call(Name("_codecs", "encode"), ("\u20ac", "latin1"))),
    "a parameter of nothing": pickled(Call(Name("torch._utils", "_rebuild_parameter"), ())),
    "a tensor of nothing": pickled(Call(Name("torch._utils", "_rebuild_tensor_v2"), ())),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_pickle_ends_in_one_line(name):
    refused(BROKEN[name])


@pytest.mark.parametrize("protocol", range(6))
def test_a_pickle_that_is_cut_off_anywhere_ends_in_one_line(protocol):
    content = {"a": [1, 1.5, b"b", "c" * 300, (1, 2), {3}, 1 << 70], "o": collections.OrderedDict(a=1)}
    data = pickle.dumps(content, protocol)
    for end in range(len(data)):
        refused(data[:end])


STACKS = (b"", b"(", b"N", b"(N", b"]", b"}", b")", b"((", b"K\x01K\x02K\x03", b"]]]", b"]}N", b"cx\ny\n)",
          b"cx\ny\n)R", b"cx\ny\n)}", b"\x8f(", b"U\x01aU\x01b")
ARGUMENTS = (b"", b"\x00" * 8, b"\x01" * 9, b"\xff" * 9, b"1\n2\n", b"'a'\n", b"x y\nz\n", b"'\\x0g'\n", b"\\U\n")


@pytest.mark.filterwarnings("ignore:invalid escape sequence")
@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda opcode: opcode.name)
def test_every_opcode_on_every_stack_gives_a_value_or_one_line(opcode):
    for stack, argument in itertools.product(STACKS, ARGUMENTS):
        try:
            load(stack + opcode.code.encode("latin-1") + argument + b".", persistent=lambda claim: claim)
        except InputError as error:
            assert str(error).startswith("x.pth: its pickle ")


HUGE = b"\xff" * 7 + b"\x7f"
LIES = {
    "BINUNICODE8": b"\x8d" + HUGE, "BINBYTES8": b"\x8e" + HUGE, "BYTEARRAY8": b"\x96" + HUGE, "BINBYTES": b"B" + HUGE,
    "LONG4": b"\x8b\xff\xff\xff\x7f", "BINSTRING": b"T\xff\xff\xff\x7f", "BINUNICODE": b"X\xff\xff\xff\xff",
    "negative": b"\x8b\xff\xff\xff\xff", "FRAME": b"\x95" + HUGE, "memo": b"]r\xff\xff\xff\xff" * 100,
    "memos": b"]" + b"".join(b"r" + (i * 40_000_000).to_bytes(4, "little") for i in range(100)),
}


@pytest.mark.parametrize("name", LIES)
def test_a_length_that_lies_takes_no_memory(name):
    tracemalloc.start()
    with pytest.raises(InputError):
        load(b"\x80\x04" + LIES[name])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1 << 20


@pytest.mark.parametrize("name, opcodes", {
    "a list in itself": b"]q\x00h\x00a.",
    "a list in its dict in itself": b"]q\x00}K\x01h\x00sa.",
    "a tuple in its list": b"]q\x00h\x00\x85a.",
    "too deep lists": b"]" * 1000 + b"a" * 999 + b".",
    "too deep tuples": b")" + b"\x85" * 100_000 + b".",
    "deep where it is met again": b"]" + b"]" * 150 + b"a" * 149 + b"q\x00a" + b"h\x00" + b"\x85" * 60 + b"a.",
    "too deep dicts": b"}" + b"K\x01}" * 1000 + b"s" * 1000 + b".",
}.items())
def test_what_could_not_be_walked_is_refused(name, opcodes):
    refused(opcodes, "holds itself or is too deep")


def test_what_is_shared_again_and_again_is_no_deeper_than_it_is():
    value, depth = load(b")" + b"2\x86" * 100 + b"."), 0  # a tuple of twice a tuple of twice ...
    while value:
        value, depth = value[0], depth + 1
    assert depth == 100


BOMB = b")" + b"2\x86" * 60  # 2**60 empty tuples, to whom walks them


@pytest.mark.parametrize("opcodes", [
    b"}" + BOMB + b"Ns.",
    b"}" + BOMB + b"\x85Ns.",
    b"\x8f(" + BOMB + b"\x90.",
    b"(" + BOMB + b"\x91.",
    pickled(Call(Name("builtins", "set"), ([Raw(BOMB)],))),
    pickled(Call(Name("collections", "OrderedDict"), ([[Raw(BOMB), 1]],))),
    b"}" + emit((0,) * 10_000) + b"Ns.",
    # Numbers of which many have one hash: multiples of 2**61 - 1, and pairs, as the hash of a tuple is no secret.
    b"}" + emit(1 << 64) + b"Ns.", b"}" + emit((1 << 32, 1)) + b"Ns.", b"}" + emit((1, 0.5)) + b"Ns.",
])
def test_a_key_that_takes_for_ever_is_refused(opcodes):
    refused(opcodes, "as a key")


AGAIN = b"h\x00h\x01\x85R" * 1000


@pytest.mark.parametrize("opcodes", [
    # The same string or list, made anew again and again: each time a few bytes that ask for many.
    emit(Name("_codecs", "encode")) + b"q\x00" + emit("x" * 100_000) + b"q\x01"
    + b"h\x00h\x01X\x06\0\0\0latin1\x86R" * 1000,
    emit(Name("builtins", "bytearray")) + b"q\x00B" + struct.pack("<I", 100_000) + bytes(100_000) + b"q\x01" + AGAIN,
    emit(Name("builtins", "set")) + b"q\x00" + emit(list(range(1000))) + b"q\x01" + AGAIN,
    emit(Name("collections", "OrderedDict")) + b"q\x00" + emit([[i, i] for i in range(1000)]) + b"q\x01" + AGAIN,
    b"\x8f" * 100_001,
], ids=["strings", "bytes", "sets", "dicts", "opcodes"])
def test_endless_work_is_refused(opcodes, monkeypatch):
    monkeypatch.setattr(pickles, "_MOST_STEPS", 100_000)
    refused(opcodes + b".", "takes more than .* steps")


def test_persistent_ids_are_the_callers():
    assert load(b"K\x01K\x02\x86Q.", lambda claim: ("claimed", claim)) == ("claimed", (1, 2))
    assert load(b"Pabc\n.", lambda claim: ("claimed", claim)) == ("claimed", "abc")


@pytest.mark.parametrize("error", [MemoryError, RecursionError, OverflowError])
def test_what_does_not_fit_ends_in_one_line(error):
    def fails(claim):
        raise error

    refused(b"NQ.", persistent=fails)
