"""Reading scheduled HLO."""

import pytest

from groupvit_jax.aot import hlo

TEXT = """\
HloModule jit_step, is_scheduled=true

FileNames
1 "step.py"

%test (at: (s32[], f32[8])) -> pred[] {
  %at = (s32[]{:T(128)}, f32[8]{0:T(128)}) parameter(0)
  %n = s32[]{:T(128)} constant(12)
  %i = s32[]{:T(128)} get-tuple-element(%at), index=0
  ROOT %less = pred[]{:T(512)} compare(%i, %n), direction=LT
}

%inside (a: s32[], b: s32[]) -> pred[] {
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %more = pred[] compare(%b, %a), direction=GT
}

%test.fused (at: (s32[], f32[8])) -> pred[] {
  %at = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%at), index=0
  %n = s32[] constant(7)
  ROOT %less = pred[] fusion(%i, %n), kind=kLoop, calls=%inside
}

%test.data (at: (s32[], f32[8])) -> pred[] {
  %at = (s32[], f32[8]) parameter(0)
  %i = s32[] get-tuple-element(%at), index=0
  %x = f32[8] get-tuple-element(%at), index=1
  %n = s32[] custom-call(%x), custom_call_target="Count"
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

%test.float (at: (f32[], f32[8])) -> pred[] {
  %at = (f32[], f32[8]) parameter(0)
  %sum = f32[] get-tuple-element(%at), index=0
  %n = f32[] constant(100)
  ROOT %less = pred[] compare(%sum, %n), direction=LT
}

%body (at: (s32[], f32[8])) -> (s32[], f32[8]) {
  ROOT %at = (s32[], f32[8]) parameter(0)
}

ENTRY %main (x: f32[8]) -> f32[8] {
  %x = f32[8]{0:T(128)} parameter(0), metadata={op_name="batch[\\'image\\']"}
  %pair = (bf16[64,6,260]{2,1,0:T(8,128)(2,1)S(1)}, /*index=1*/f32[4]{0}) fusion(%x), kind=kLoop, calls=%inside, \
metadata={op_name="jit(step)/jvp(TwoTowers)/a(b)/add" stack_frame_id=3}, \
backend_config={"window_config":{"estimated_cycles":"1826"}}
  %from_condition = (s32[], f32[8]) while(%x), condition=%test, body=%body
  %from_fusion = (s32[], f32[8]) while(%x), condition=%test.fused, body=%body
  %from_compiler = (s32[], f32[8]) while(%x), condition=%test.data, body=%body, \
backend_config={"known_trip_count":{"n":"5"}}
  %from_data = (s32[], f32[8]) while(%x), condition=%test.data, body=%body
  %from_float = (f32[], f32[8]) while(%x), condition=%test.float, body=%body
  %choice = f32[8] conditional(%x, %x), branch_computations={%test, %body}
  ROOT %out = f32[8] all-reduce(%x), channel_id=3, to_apply=%inside
}
"""


@pytest.fixture(scope="module")
def main():
    module = hlo.parse(TEXT)
    return module, module.computations[module.entry]


def test_an_instruction_with_a_tuple_of_tiled_arrays_is_read(main):
    pair = main[1]["pair"]
    assert (pair.opcode, pair.inputs, pair.called) == ("fusion", ["x"], {"calls": ["inside"]})
    assert hlo.elements(pair.shape) == ["bf16[64,6,260]{2,1,0:T(8,128)(2,1)S(1)}", "f32[4]{0}"]
    assert pair.op_name == "jit(step)/jvp(TwoTowers)/a(b)/add" and pair.cycles == 1826


def test_what_an_instruction_lacks_is_none(main):
    out = main[1]["out"]
    assert out.cycles is None and out.op_name == "" and out.target == "" and out.channel == "3"
    assert main[1]["pair"].channel is None


def test_branches_are_read_as_called(main):
    assert main[1]["choice"].called == {"branch_computations": ["test", "body"]}


@pytest.mark.parametrize("loop, trips", [("from_condition", 12), ("from_fusion", 7), ("from_compiler", 5),
                                         ("from_data", None), ("from_float", None)])
def test_a_loop_runs_as_often_as_the_compiler_or_its_condition_says(main, loop, trips):
    assert main[0].trips(main[1][loop]) == trips


@pytest.mark.parametrize("shape, size", [("bf16[64,6,260]{2,1,0:T(8,128)(2,1)S(1)}", 64 * 6 * 260 * 2), ("f32[]", 4),
                                         ("pred[3]{0:T(512)}", 3), ("u4[3]{0}", 2), ("f8e4m3fn[10,2]{1,0}", 20),
                                         ("(f32[2]{0:T(128)}, (s32[3]{0}, u8[5]{0}))", 25), ("f32[0,4]", 0)])
def test_an_array_takes_the_bytes_of_its_elements(shape, size):
    assert hlo.size(shape) == size


def test_a_text_cut_short_is_an_error():
    with pytest.raises(ValueError, match="parenthesis"):
        hlo.parse("ENTRY %main () -> f32[] {\n  %a = f32[] add(%b, %c\n}")
