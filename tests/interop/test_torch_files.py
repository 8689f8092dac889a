"""Files of `torch.save` are read as PyTorch reads them, and hostile, broken and foreign ones end in one line."""

import collections
import pickle
import struct
import sys
import tarfile
import tracemalloc
import types
import zipfile

import numpy as np
import pytest
import torch
from forbidden import nothing_runs
from opcodes import NUMBERS, PARAMETER, V1, V2, V3, Call, Name, Stored, pickled, storage, tensor, write_zip

from groupvit_jax.errors import InputError
from groupvit_jax.interop import torch_files
from groupvit_jax.interop.inert import Global, Inert
from groupvit_jax.interop.torch_tensors import File, Record, Storage, Tensor

FORMATS = {"zip": {}, "legacy": {"_use_new_zipfile_serialization": False}}
DTYPES = ("float64 float32 float16 bfloat16 int64 int32 int16 int8 uint64 uint32 uint16 uint8 bool").split()


def read(path):
    """What is in the file, with the arrays of its tensors in their places, everything read while nothing runs."""
    def arrays(x):
        if type(x) is Tensor:
            made = x.array()
            assert made.shape == x.shape and made.dtype == x.dtype
            return made
        if type(x) in (list, tuple):
            return type(x)(map(arrays, x))
        return {key: arrays(value) for key, value in x.items()} if type(x) is dict else x

    with nothing_runs():
        return arrays(torch_files.read(path))


def refused(path, match):
    with pytest.raises(InputError, match=match) as error, nothing_runs():
        torch_files.read(path)
    assert "\n" not in str(error.value) and str(path) in str(error.value)


def bits(x: torch.Tensor) -> np.ndarray:
    return x.detach().contiguous().reshape(-1).view(torch.uint8).numpy()


def same(array: np.ndarray, x: torch.Tensor):
    assert array.flags.c_contiguous and array.flags.writeable
    assert array.shape == tuple(x.shape) and str(array.dtype) == str(x.dtype).removeprefix("torch.")
    np.testing.assert_array_equal(array.reshape(-1).view(np.uint8), bits(x))


@pytest.fixture(params=FORMATS)
def save(tmp_path, request):
    def save(content):
        torch.save(content, tmp_path / "x.pth", **FORMATS[request.param])
        return tmp_path / "x.pth"

    return save


def make(dtype: str, shape=(3, 4)) -> torch.Tensor:
    return torch.testing.make_tensor(shape, dtype=getattr(torch, dtype), device="cpu")


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_are_pytorchs_bit_for_bit(save, dtype):
    tensors = {"matrix": make(dtype), "number": make(dtype, ()), "none": make(dtype, (2, 0, 3))}
    for name, array in read(save(tensors)).items():
        same(array, tensors[name])


def test_a_model_and_its_optimizer(save):
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(2, 3)).sum().backward()
    optimizer.step()
    content = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3, "best": (0.5, None),
               "parameter": torch.nn.Parameter(torch.ones(2, 2), requires_grad=False)}
    loaded = read(save(content))
    assert list(loaded) == list(content) and (loaded["epoch"], loaded["best"]) == (3, (0.5, None))
    assert list(loaded["model"]) == list(content["model"]) and type(loaded["model"]) is dict
    for name, x in content["model"].items():
        same(loaded["model"][name], x)
    for i, state in content["optimizer"]["state"].items():
        for name, x in state.items():
            same(loaded["optimizer"]["state"][i][name], x)
    assert loaded["optimizer"]["param_groups"] == content["optimizer"]["param_groups"]
    same(loaded["parameter"], content["parameter"])


BASE = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
VIEWS = {
    "whole": BASE, "transposed": BASE.permute(2, 0, 1), "offset": BASE[1:, 2], "steps": BASE[::2, 1::2, ::3],
    "one number": BASE[2, 3, 4], "expanded": BASE[0, 0, :1].expand(7, 5), "a row many times": BASE[1, :1].expand(6, 5),
    "overlapping": BASE.as_strided((4, 3), (2, 1), 5), "nothing": BASE[3:], "nothing of it": BASE[1:1, 2:],
    "an axis of one": BASE.as_strided((1, 5), (1000, 1), 55), "diagonal": BASE[0].diagonal(),
}


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", VIEWS)
def test_views_of_one_storage(tmp_path, name, format):
    torch.save([BASE, VIEWS[name]], tmp_path / "x.pth", **FORMATS[format])
    base, view = read(tmp_path / "x.pth")
    same(view, VIEWS[name])
    view[...] = -1  # the caller's own
    same(base, BASE)


def test_bytes_sets_and_sizes(save):
    content = {"bytes": b"a\xff", "none": b"", "array": bytearray(b"abc"), "set": {1, 2}, "frozen": frozenset({3}),
               "size": torch.Size([1, 2]), "ordered": collections.OrderedDict(b=1, a=2)}
    assert read(save(content)) == {**content, "size": (1, 2), "ordered": {"b": 1, "a": 2}}


@pytest.mark.filterwarnings("ignore:torch.quantize_per_tensor")
def test_tensors_of_other_kinds_stay_inert(save):
    content = {"complex": torch.ones(2, dtype=torch.complex64), "sparse": torch.eye(2).to_sparse(),
               "quantized": torch.quantize_per_tensor(torch.ones(2), 1.0, 0, torch.qint8),
               "device": torch.device("cpu"), "negative": torch._neg_view(torch.ones(2))}
    loaded = read(save({**content, "plain": torch.ones(2)}))
    assert {name for name, x in loaded.items() if type(x) is Inert} == set(content)
    same(loaded["plain"], torch.ones(2))


def test_a_bare_storage_and_a_dtype(save):
    loaded = read(save([torch.ones(2).untyped_storage(), torch.float16]))
    assert type(loaded[0]) is Storage and loaded[1] == Global("torch", "float16")


def test_a_whole_module_is_data(save):
    loaded = read(save(torch.nn.Linear(2, 3)))
    assert type(loaded) is Inert and loaded.what == Global("torch.nn.modules.linear", "Linear")
    assert loaded.state["_parameters"]["weight"].shape == (3, 2)


def test_a_configuration_whose_module_is_gone(save):
    module = types.ModuleType("gone")
    exec("""class Config(dict):
    def __getstate__(self): return {"parent": self, "flags": {"readonly": True}}""", module.__dict__)
    sys.modules["gone"] = module
    config = module.Config(model=module.Config(type="GroupViT"))
    path = save({"config": config, "state_dict": {"w": torch.ones(2)}})
    del sys.modules["gone"]
    loaded = read(path)
    assert loaded["config"].what == Global("gone", "Config") and loaded["config"].state["parent"] is loaded["config"]
    assert loaded["config"].entries["model"].entries == {"type": "GroupViT"}
    same(loaded["state_dict"]["w"], torch.ones(2))


def test_any_name_of_the_file_and_no_checksums(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(torch.ones(2), tmp_path / "été 1.x.pth.tar")
    finally:
        torch.serialization.set_crc32_options(True)
    same(read(tmp_path / "été 1.x.pth.tar"), torch.ones(2))


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_of_the_other_byte_order(tmp_path, dtype):
    x = make(dtype)
    torch.save(x, tmp_path / "x.pth")
    with zipfile.ZipFile(tmp_path / "x.pth") as archive:
        pickle, numbers = archive.read("x/data.pkl"), archive.read("x/data/0")
    swapped = np.frombuffer(numbers, f"u{x.element_size()}").byteswap().tobytes()
    same(read(write_zip(tmp_path / "y.pth", pickle, {"byteorder": b"big", "data/0": swapped})), x)


def test_numbers_are_read_when_asked_for_and_from_the_same_file(tmp_path, monkeypatch):
    torch.save(torch.ones(2), tmp_path / "x.pth")
    monkeypatch.chdir(tmp_path)
    tensor = torch_files.read("x.pth")
    monkeypatch.chdir("/")
    same(tensor.array(), torch.ones(2))
    torch.save(torch.zeros(2), tmp_path / "x.pth")
    with pytest.raises(InputError, match="has changed since it was opened: load it again"):
        tensor.array()
    (tmp_path / "x.pth").unlink()
    with pytest.raises(InputError, match="cannot read .*x.pth .No such file"):
        tensor.array()


def test_a_file_that_became_shorter_while_it_was_read_is_named(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    with pytest.raises(InputError, match="is cut off: download it again"):
        Record(File.at(tmp_path / "x"), 0, 4).read(0, 4)


def test_a_large_storage_is_not_read_for_one_number(tmp_path, monkeypatch):
    torch.save(torch.zeros(1 << 20)[5:6], tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    tensor = torch_files.read(tmp_path / "x.pth")
    assert tensor.span == 1
    same(tensor.array(), torch.zeros(1))


# Claims of a tensor that do not fit the storage "0" of 6 float32.
V3_DTYPE = (False, Call(Name("collections", "OrderedDict"), ()))
CLAIMS = {
    "beyond": tensor((7,), (1,)), "a row beyond": tensor((3, 3), (3, 1)), "by its stride": tensor((2, 3), (4, 1)),
    "by its offset": tensor((2, 3), (3, 1), 1), "an empty one beyond": tensor((0,), (1,), 7),
    "a negative offset": tensor((2,), (1,), -1), "a negative stride": tensor((2,), (-1,), 5),
    "a negative size": tensor((-2,), (1,)), "axes without strides": tensor((2, 3), (1,)),
    "a size that is a string": tensor(("a",), (1,)), "a size that is a bool": tensor((True,), (1,)),
    "a list as shape": tensor([2, 3], [3, 1]), "a huge offset": tensor((2,), (1,), 1 << 70),
    "a huge size": tensor((1 << 62, 4), (0, 0)), "huge sizes": tensor((1 << 62,) * 60, (0,) * 60),
    "a huge empty one": tensor((0, 1 << 62), (1, 1)), "a huge stride": tensor((2,), (1 << 62,)),
    "too many axes": tensor((1,) * 65, (1,) * 65), "a shape that is none": tensor(None, None),
    "more bytes than there are": Call(V3, (storage(kind="UntypedStorage", numel=24), 1, (3,), (1,), *V3_DTYPE,
                                           Name("torch", "float64"))),
    "version 1": Call(V1, (storage(), 0, (7,), (1,))),
    "an expanded one": tensor((1 << 25,), (0,)),
    "a longer storage than its file": tensor(stored=storage(numel=7)),
    "a huge storage": tensor(stored=storage(numel=1 << 62)),
    "a storage of negative size": tensor(stored=storage(numel=-1)),
    "a bare storage of negative size": storage(numel=-1),
    "another file": tensor(stored=storage("archive/data.pkl")), "the pickle": tensor(stored=storage("../data.pkl")),
    "another storage": tensor(stored=storage("1")), "a path as a key": tensor(stored=storage("../data/0")),
    "a path out of it": tensor(stored=storage("../../../../etc/passwd")),
    "an absolute path": tensor(stored=storage("/etc/passwd")),
    "a number as a key": tensor(stored=storage(0)), "a list as a key": tensor(stored=storage(["0"])),
    "an endless key": tensor(stored=storage("0" * 1000)),
    "no tuple": tensor(stored=Stored("storage")), "an empty tuple": tensor(stored=Stored(())),
    "a short tuple": tensor(stored=Stored(("storage",))),
    "a long tuple": tensor(stored=storage("0", 6, "FloatStorage", None)),
    "another kind of claim": tensor(stored=Stored(("module", None, None, None))),
    "a storage without a kind": tensor(stored=Stored(("storage", "FloatStorage", "0", "cpu", 6))),
    "a storage of a call": tensor(stored=Stored(("storage", Call(Name("os", "system"), ("true",)), "0", "cpu", 6))),
}


@pytest.mark.parametrize("name", CLAIMS)
def test_a_tensor_that_its_file_cannot_hold_is_refused(tmp_path, name):
    refused(write_zip(tmp_path / "x.pth", pickled({"w": CLAIMS[name]})), "holds a tensor")


@pytest.mark.parametrize("claim, expected", [
    (tensor(), [[0, 1, 2], [3, 4, 5]]), (tensor((), (), 5), 5), (tensor((0,), (1,), 6), []),
    (tensor((0, 5), (1 << 62, 1 << 62)), np.empty((0, 5))),
    (tensor((1, 2), (1 << 62, 5)), [[0, 5]]), (Call(V1, (storage(), 1, (2,), (2,))), [1, 3]),
    (tensor((2,), (1,), 0, Stored(("storage", Name("torch.cuda", "FloatStorage"), "0", "cuda:0", 6))), [0, 1]),
])
def test_a_tensor_that_just_fits_is_read(tmp_path, claim, expected):
    np.testing.assert_array_equal(read(write_zip(tmp_path / "x.pth", pickled(claim))), expected)


def test_an_expanded_tensor_of_a_small_file_is_read(tmp_path):
    path = write_zip(tmp_path / "x.pth", pickled(tensor((1 << 24,), (0,), 3)))
    assert (torch_files.read(path).array() == 3).all()


def test_kinds_of_storages_to_come_stay_inert(tmp_path):
    path = write_zip(tmp_path / "x.pth", pickled(tensor(stored=storage(kind="Float4Storage"))))
    assert type(read(path)) is Inert


@pytest.mark.parametrize("call", [
    Call(V2, (5, 0, (1,), (1,), False, None)), Call(V3, (storage(), 0, (1,), (1,), False, None, Name("torch", "int3"))),
    Call(V3, (storage(), 0, (1,), (1,), False, None, Name("numpy", "int8"))), Call(PARAMETER, (5, False, None)),
    Call(Name("collections", "OrderedDict"), (5,)), Call(Name("torch", "Size"), (5,)),
    Call(Name("builtins", "bytearray"), (1 << 40,)), Call(Name("builtins", "set"), ("abc",)),
])
def test_what_is_called_with_other_arguments_stays_inert(tmp_path, call):
    assert type(read(write_zip(tmp_path / "x.pth", pickled(call)))) is Inert


def test_what_is_read_says_what_it_is(tmp_path):
    call = Call(Name("a", "b"), ())
    path = write_zip(tmp_path / "x.pth", pickled([tensor(), Call(call, ()), call]))
    assert repr(torch_files.read(path)) == "[Tensor(shape=(2, 3), dtype=float32), Inert(...), Inert(a.b)]"


def entries(path, *names_and_content):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in names_and_content:
            archive.writestr(zipfile.ZipInfo(name), content)
    return path


GOOD = pickled({"w": tensor()})


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_compressed_zip_is_refused(tmp_path, compression):
    bomb = write_zip(tmp_path / "x.pth", GOOD, {"data/1": bytes(1 << 24)}, compression=compression)
    refused(bomb, "compressed or encrypted.*unpack it")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", ["a/data.pkl", "a/data/0", "a/version"])
def test_two_files_of_one_name_are_refused(tmp_path, name):
    refused(entries(tmp_path / "x.pth", ("a/data.pkl", GOOD), ("a/data/0", NUMBERS), ("a/version", b"3"), (name, GOOD)),
            "damaged or cut off: download it again")


@pytest.mark.parametrize("names", [["data.pkl"], ["a/b/data.pkl"], ["a/data.pkl", "b/data.pkl"], ["word/document.xml"],
                                   ["a/data.pkl/"], ["x.npy"]])
def test_a_zip_that_is_no_checkpoint_is_named(tmp_path, names):
    path = entries(tmp_path / "x.pth", *[(name, GOOD) for name in names])
    refused(path, "is not a PyTorch checkpoint: name the .pth")


@pytest.mark.parametrize("name", ["../../evil", "/tmp/evil", "a/../../evil", "a/data/../../../evil", "a\\..\\evil",
                                  "a/data/", "a/\x00b", "a/" + "x" * 60_000])
def test_names_that_lead_elsewhere_are_only_names(tmp_path, name):
    folder = tmp_path / "in" / "it"
    folder.mkdir(parents=True)
    path = entries(folder / "x.pth", ("a/data.pkl", GOOD), ("a/data/0", NUMBERS), (name, b""))
    np.testing.assert_array_equal(read(path)["w"], [[0, 1, 2], [3, 4, 5]])
    assert [x for x in tmp_path.rglob("*") if x.is_file()] == [path]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_named(tmp_path):
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.ones(1, 2)), str(tmp_path / "x.pt"))
    refused(tmp_path / "x.pt", "is a TorchScript program: load it in PyTorch and torch.save")


@pytest.mark.parametrize("field, offset, value", [
    ("sizes", 20, struct.pack("<II", 1 << 30, 1 << 30)), ("compressed size", 20, struct.pack("<I", 5)),
    ("size", 24, struct.pack("<I", 1 << 31)), ("encrypted", 8, b"\x01"), ("method", 10, b"\x63"),
    ("place", 42, struct.pack("<I", 10)), ("another's place", 42, bytes(4)), ("far place", 42, b"\xfe\xff\xff\xff"),
    ("version", 6, b"\xff"), ("64 bits", 20, b"\xff" * 8), ("name", 28, b"\xff"), ("checksum", 16, b"1234"),
])
def test_a_table_of_contents_that_lies_is_refused(tmp_path, field, offset, value):
    data = bytearray(write_zip(tmp_path / "x.pth", GOOD).read_bytes())
    at = data.rindex(b"archive/data/0") - 46 + offset  # of its entry in the table at the end
    data[at : at + len(value)] = value
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(InputError, match="damaged|compressed or encrypted|without its numbers"):
        read(tmp_path / "x.pth")


def test_a_last_file_that_ends_after_the_zip_is_refused(tmp_path):
    data = bytearray(write_zip(tmp_path / "x.pth", GOOD).read_bytes())
    at = data.rindex(b"archive/version") - 46 + 20
    data[at : at + 8] = struct.pack("<II", 1 << 30, 1 << 30)
    (tmp_path / "x.pth").write_bytes(data)
    refused(tmp_path / "x.pth", "damaged")


def test_only_what_is_in_its_folder_counts(tmp_path):
    parts = ("a/data.pkl", GOOD), ("a/data/0", NUMBERS), ("data/0", b"no numbers"), ("b/data/0", b"nor here")
    np.testing.assert_array_equal(read(entries(tmp_path / "x.pth", *parts))["w"], [[0, 1, 2], [3, 4, 5]])
    refused(entries(tmp_path / "x.pth", ("a/data.pkl", GOOD), ("data/0", NUMBERS)), "without its numbers")


def test_files_that_lie_in_each_other_are_refused(tmp_path):
    """Two names of the same bytes would count twice: the way a small zip becomes a large one."""
    data = bytearray(write_zip(tmp_path / "x.pth", GOOD, {"data/1": bytes(24)}).read_bytes())
    first, second = (data.rindex(name) - 46 for name in (b"archive/data/0", b"archive/data/1"))
    data[second + 42 : second + 46] = data[first + 42 : first + 46]
    (tmp_path / "x.pth").write_bytes(data)
    refused(tmp_path / "x.pth", "damaged")


@pytest.mark.parametrize("where", [b"\x80\x02}", NUMBERS])
def test_a_flipped_bit_is_found(tmp_path, where):
    data = bytearray(write_zip(tmp_path / "x.pth", GOOD).read_bytes())
    data[data.index(where) + 4] ^= 1
    (tmp_path / "x.pth").write_bytes(data)
    with pytest.raises(InputError, match="is damaged, a checksum is wrong: download it again"):
        read(tmp_path / "x.pth")


def test_a_checksum_is_taken_once_for_all_tensors_of_a_storage(tmp_path):
    first, second = torch_files.read(write_zip(tmp_path / "x.pth", pickled([tensor(), tensor((), (), 5)])))
    assert second.storage.record.checksum
    first.array()
    assert not second.storage.record.checksum and second.array() == 5


def test_an_unknown_byte_order_is_refused(tmp_path):
    refused(write_zip(tmp_path / "x.pth", GOOD, {"byteorder": b"middle"}), "unknown byte order")


CONTENT = {"a": torch.arange(5), "b": torch.ones(2, 2).T, "c": [1, "x", torch.tensor(3.0)]}


def test_a_file_that_is_cut_off_anywhere_ends_in_one_line(save, tmp_path):
    path = save(CONTENT)
    whole = path.read_bytes()
    for end in range(0, len(whole), 1 if len(whole) < 1000 else 7):
        path.write_bytes(whole[:end])
        with pytest.raises(InputError, match="cut off|not a PyTorch checkpoint|without its numbers"):
            read(path)


MAGIC = 0x1950A86A20F9469CFC6C
WHOLE = tensor(stored=storage("0", 6, "FloatStorage", None))


def legacy(path, content=WHOLE, keys=("0",), length=6, numbers=NUMBERS, magic=MAGIC, protocol=1001):
    pickles = magic, protocol, {"little_endian": True}, content, list(keys) if type(keys) is tuple else keys
    path.write_bytes(b"".join(map(pickled, pickles)) + struct.pack("<q", length) + numbers)
    return path


def old(*claim: object) -> Call:
    return tensor((2,), (1,), stored=storage(*claim))


def test_the_old_format_as_put_together_here_is_read(tmp_path):
    np.testing.assert_array_equal(read(legacy(tmp_path / "x.pth")), [[0, 1, 2], [3, 4, 5]])


def test_views_of_storages_of_the_old_format(tmp_path):
    stored = storage("0", 6, "FloatStorage", ("1", 2, 3))
    path = legacy(tmp_path / "x.pth", [tensor((3,), (1,), stored=stored), tensor((2,), (1,), 1, stored)])
    assert [x.tolist() for x in read(path)] == [[2, 3, 4], [3, 4]]
    refused(legacy(path, tensor((4,), (1,), stored=stored)), "reaches beyond its numbers")


LEGACY = {
    "no keys": {"keys": ()}, "another key": {"keys": ("1",)}, "a key twice": {"keys": ("0", "0")},
    "no list": {"keys": "0"}, "a key that is none": {"keys": (["0"],)}, "more keys": {"keys": ("0", "1")},
    "another length": {"length": 5}, "a negative length": {"length": -1}, "fewer numbers": {"numbers": NUMBERS[:-1]},
    "no numbers": {"numbers": b""},
    "a huge storage": {"content": old("0", 1 << 60, "FloatStorage", None), "length": 1 << 60},
    "one storage of two sizes": {"content": [WHOLE, old("0", 5, "FloatStorage", None)]},
    "one storage of kinds of two sizes": {"content": [WHOLE, old("0", 6, "DoubleStorage", None)]},
    "an unknown kind": {"content": old("0", 6, "NewStorage", None)},
    "no view": {"content": old("0", 6, "FloatStorage")},
    "a view beyond": {"content": old("0", 6, "FloatStorage", ("1", 4, 3))},
    "a negative view": {"content": old("0", 6, "FloatStorage", ("1", -1, 3))},
    "a view of strings": {"content": old("0", 6, "FloatStorage", ("1", "0", "3"))},
    "a view that is a number": {"content": old("0", 6, "FloatStorage", 1)},
    "a tensor beyond": {"content": tensor((7,), (1,), stored=storage("0", 6, "FloatStorage", None))},
    "another protocol": {"protocol": 1002}, "a protocol that is none": {"protocol": [1]},
    "another number": {"magic": 5}, "a string": {"magic": "PyTorch"},
}


@pytest.mark.parametrize("name", LEGACY)
def test_an_old_file_that_lies_is_refused(tmp_path, name):
    refused(legacy(tmp_path / "x.pth", **LEGACY[name]),
            "holds a tensor|damaged or cut off|unknown version|not a PyTorch")


@pytest.mark.parametrize("lie", [b"S'" + b"x" * (8 << 20), b"X\xff\xff\xff\xff", b"\x8e" + b"\xff" * 6 + b"\0\0"])
def test_an_old_file_does_not_ask_for_more_memory_than_it_has(tmp_path, lie):
    path = legacy(tmp_path / "x.pth")
    path.write_bytes(path.read_bytes().split(b"ctorch")[0] + lie)
    tracemalloc.start()
    refused(path, "broken or cut off")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04", b"<!DOCTYPE html>", b"\x89HDF\r\n\x1a\n", bytes(5000),
                                     b"version https://git-lfs.github.com/spec/v1\n", pickle.dumps({}), b"\x80\x02."])
def test_what_is_no_checkpoint_is_named(tmp_path, content):
    (tmp_path / "x.pth").write_bytes(content)
    refused(tmp_path / "x.pth", "is not a PyTorch checkpoint: name the .pth|damaged or cut off")


def test_the_oldest_format_is_named(tmp_path):
    with tarfile.open(tmp_path / "x.pth", "w") as tar:
        tar.addfile(tarfile.TarInfo("storages"))
    refused(tmp_path / "x.pth", "load it in PyTorch and torch.save")


def test_no_file(tmp_path):
    refused(tmp_path / "none.pth", "cannot read .*No such file.*: name the .pth")
    refused(tmp_path, "is not a file: name the .pth")
    with pytest.raises(InputError, match="cannot read"):
        torch_files.read("a\x00b")
    refused("/dev/null", "is not a file")
