"""What is read off a compiled program: bytes, kernels and loops of one written by hand."""

import pytest

from benchmarks import compiled

PROGRAM = """HloModule jit_run

%body (p.1: (s32[], f32[2,8])) -> (s32[], f32[2,8]) {
  %p.1 = (s32[], f32[2,8]{1,0}) parameter(0)
  %i = s32[] get-tuple-element(%p.1), index=0
  %x.1 = f32[2,8]{1,0} get-tuple-element(%p.1), index=1
  %doubled = f32[2,8]{1,0} fusion(%x.1), kind=kLoop, calls=%double, metadata={op_name="jit(run)/while/body/mul"}
  ROOT %out.1 = (s32[], f32[2,8]{1,0}) tuple(%i, %doubled)
}

ENTRY %main (a: f32[2,8], b: bf16[8,4]) -> f32[2,8] {
  %a = f32[2,8]{1,0} parameter(0)
  %b = bf16[8,4]{1,0} parameter(1)
  %zero = s32[] constant(0)
  %product = (bf16[2,4]{1,0}, s8[100]{0}) custom-call(%a, %b), custom_call_target="__cublas$gemm"
  %start = (s32[], f32[2,8]{1,0}) tuple(%zero, %a)
  %known = (s32[], f32[2,8]{1,0}) while(%start), condition=%test, body=%body, backend_config={KNOWN}
  ROOT %result = f32[2,8]{1,0} get-tuple-element(%known), index=1
}
"""


def test_a_program_worked_by_hand():
    plan = compiled.read_plan(PROGRAM.replace("{KNOWN}", '{"known_trip_count":{"n":"5"}}'))
    # The product: 64 bytes and 64 read, 16 and 100 written. The loop: five times 64 read and 64 written.
    assert plan.moved == 64 + 64 + 16 + 100 + 5 * 128
    assert plan.kernels == 1 + 5 and plan.loops == []
    assert plan.costly[0] == (640, 5, "fusion f32[2,8]{1,0}", "jit(run)/while/body/mul")


def test_a_loop_of_unknown_length_is_told_and_counted_once():
    plan = compiled.read_plan(PROGRAM.replace("{KNOWN}", "{}"))
    assert plan.loops == ["no op_name"] and plan.kernels == 2 and plan.moved == 244 + 128


@pytest.mark.parametrize(
    "shape, count", [("f32[]", 4), ("(pred[3], u8[2,2]{1,0})", 7), ("bf16[2,3,4]{2,1,0:T(8,128)S(1)}", 48), ("()", 0)]
)
def test_bytes_of_shapes(shape, count):
    assert compiled.shape_bytes(shape) == count


def test_what_is_no_program_is_refused():
    with pytest.raises(ValueError, match="no ENTRY"):
        compiled.read_plan("HloModule empty")
