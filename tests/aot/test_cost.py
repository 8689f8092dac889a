"""Totals of programs small enough to be added up by hand."""

import pytest

from groupvit_jax.aot import cost, hlo

WORK = 'kind=kLoop, calls=%inside, backend_config={{"window_config":{{"estimated_cycles":"{}"}}}}'.format


def measure(entry: str, others: str = ""):
    return cost.measure(hlo.parse(f"""\
%inside (p: f32[1024]) -> f32[1024] {{
  %p = f32[1024] parameter(0)
  ROOT %costly = f32[1024] copy(%p), backend_config={{"window_config":{{"estimated_cycles":"999999"}}}}
}}

%test (at: s32[]) -> pred[] {{
  %i = s32[] parameter(0)
  %n = s32[] constant(12)
  ROOT %less = pred[] compare(%i, %n), direction=LT
}}
{others}
ENTRY %main (x: f32[1024]) -> f32[1024] {{
  %x = f32[1024] parameter(0)
{entry}
}}
"""))


def computation(name: str, *lines: str) -> str:
    return f"\n%{name} (x: f32[1024]) -> f32[1024] {{\n  %x = f32[1024] parameter(0)\n" + "\n".join(lines) + "\n}\n"


def test_a_fusion_costs_its_own_number_and_not_what_is_inside():
    assert measure(f"  ROOT %a = f32[1024] fusion(%x), {WORK(100)}").cycles == 100


def test_loops_in_loops_multiply():
    inner = computation("inner", f"  ROOT %a = f32[1024] fusion(%x), {WORK(10)}")
    outer = computation("outer", f"  %a = f32[1024] fusion(%x), {WORK(1)}",
                        "  ROOT %w = f32[1024] while(%a), condition=%test, body=%inner, "
                        'backend_config={"known_trip_count":{"n":"3"}}')
    found = measure("  ROOT %w = f32[1024] while(%x), condition=%test, body=%outer", inner + outer)
    assert found.cycles == 12 * (1 + 3 * 10) and found.endless == 0


def test_a_loop_of_unknown_length_counts_once_and_is_told():
    until = computation("until", "  ROOT %l = pred[] custom-call(%x), custom_call_target=\"Converged\"")
    body = computation("body", f"  ROOT %a = f32[1024] fusion(%x), {WORK(10)}")
    found = measure("  ROOT %w = f32[1024] while(%x), condition=%until, body=%body", until + body)
    assert found.cycles == 10 and found.endless == 1


def test_what_another_core_does_beside_is_counted_too():
    other = computation("other", "  %g = f32[8192] all-gather(%x), channel_id=4",
                        "  ROOT %s = f32[1024] fusion(%x), kind=kCustom, calls=%inside")
    found = measure('  %c = ((f32[1024]), f32[1024]) call-start(%x), async_execution_thread="sparsecore", '
                    "to_apply=%other\n  ROOT %d = f32[1024] call-done(%c)", other)
    assert found.collective_bytes == {"all-gather": 32768} and len(found.uncosted_fusions) == 1
    assert not found.uncosted_others


def test_a_conditional_costs_its_costliest_branch_and_a_call_what_it_calls():
    branches = computation("few", f"  ROOT %a = f32[1024] fusion(%x), {WORK(5)}") + computation(
        "many", f"  ROOT %a = f32[1024] fusion(%x), {WORK(7)}")
    assert measure("  ROOT %c = f32[1024] conditional(%x, %x, %x), branch_computations={%few, %many, %few}",
                   branches).cycles == 7
    assert measure("  ROOT %c = f32[1024] call(%x), to_apply=%few", branches).cycles == 5


def test_a_fusion_without_cycles_is_listed_as_often_as_it_runs():
    body = computation("body", "  ROOT %g = f32[1024] fusion(%x), kind=kCustom, calls=%inside, "
                       'metadata={op_name="jit(step)/gather"}')
    found = measure("  ROOT %w = f32[1024] while(%x), condition=%test, body=%body", body)
    (run,) = found.uncosted_fusions
    assert (run.instruction.op_name, run.times, run.bytes) == ("jit(step)/gather", 12, 8192) and found.cycles == 0


def test_work_of_other_kinds_without_cycles_is_listed_and_what_costs_nothing_is_not():
    found = measure("  %b = f32[1024] bitcast(%x)\n  %z = s32[] constant(1)\n  %n = s32[] add(%z, %z)\n"
                    "  %s = (f32[1024], f32[1024], u32[]) copy-start(%b)\n  %d = f32[1024] copy-done(%s)\n"
                    "  ROOT %r = f32[1024] reverse(%d), dimensions={0}")
    assert [run.instruction.name for run in found.uncosted_others] == ["r"]


@pytest.mark.parametrize("line, kind, size", [
    ("%c = f32[8192] all-gather(%x), channel_id=1", "all-gather", 32768),
    ("%c = (f32[1024], f32[8192]) all-gather-start(%x), channel_id=1", "all-gather", 32768),
    ("%c = ((f32[1024], f32[1]), (f32[8192], f32[8])) all-gather-start(%x), channel_id=1", "all-gather", 32800),
    ("%c = f32[1024] all-reduce-start(%x), channel_id=1, to_apply=%inside", "all-reduce", 4096),
    ("%c = (f32[1024], bf16[8]) all-reduce(%x, %x), channel_id=1, to_apply=%inside", "all-reduce", 4112),
    ("%c = f32[128] reduce-scatter(%x), channel_id=1, to_apply=%inside", "reduce-scatter", 512),
    ("%c = f32[1024] all-to-all(%x), channel_id=1", "all-to-all", 4096),
    ("%c = (f32[1024], f32[1024], u32[]) collective-permute-start(%x), channel_id=1", "collective-permute", 4096),
])  # fmt: skip
def test_a_collective_moves_its_output(line, kind, size):
    assert measure(f"  {line}").collective_bytes == {kind: size}


def test_the_end_of_an_asynchronous_collective_moves_nothing_more():
    found = measure("  %c = (f32[1024], f32[8192]) all-gather-start(%x), channel_id=1\n"
                    "  ROOT %d = f32[8192] all-gather-done(%c)")
    assert found.collective_bytes == {"all-gather": 32768} and not found.uncosted_others


def test_a_channel_repeated_in_several_fusions_counts_once_and_another_beside_it():
    part = computation("part", "  ROOT %g = f32[8192] all-gather(%x), channel_id=4")
    found = measure("\n".join(f"  %f{i} = f32[8192] fusion(%x), kind=kCustom, calls=%part" for i in range(3))
                    + "\n  %g = f32[8192] all-gather(%x), channel_id=5", part)
    assert found.collective_bytes == {"all-gather": 2 * 32768}


def test_a_collective_in_a_loop_counts_as_often_as_it_runs():
    body = computation("body", "  ROOT %g = f32[1024] all-reduce(%x), channel_id=4, to_apply=%inside")
    found = measure("  ROOT %w = f32[1024] while(%x), condition=%test, body=%body", body)
    assert found.collective_bytes == {"all-reduce": 12 * 4096}


def test_custom_calls_are_listed_by_target_and_the_compilers_marks_are_not():
    found = measure('  %k = f32[1024] custom-call(%x, %x), custom_call_target="tpu_custom_call", '
                    'backend_config={"custom_call_config":{"cost_estimate":{"flops":"5000"}}}\n'
                    '  %l = f32[1024] custom-call(%k), custom_call_target="tpu_custom_call"\n'
                    '  ROOT %m = f32[1024] custom-call(%x), custom_call_target="ConcatBitcast"')
    assert cost.by_target(found.custom_calls) == {
        "tpu_custom_call": {"count": 2, "bytes": 3 * 4096 + 2 * 4096, "claimed_flops": 5000}}
    assert found.marks == {"ConcatBitcast": 1}
