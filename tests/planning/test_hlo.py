"""Programs as the TPU's compiler prints them, cut to what matters."""

from imagen_jax.planning import collectives, hlo, schedule

# A loop of 16 rounds with an all-gather of bf16[8] over 4 chips (64 bytes whole) and an
# all-reduce of f32[4]; outside it a fused reduce-scatter of f32[32].
TEXT = """\
HloModule jit_step, is_scheduled=true

%add.1 (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %add = f32[] add(%x, %y)
}

%all-reduce-scatter.2 (p: f32[32]) -> f32[8] {
  %p = f32[32]{0:T(128)} parameter(0)
  %zero = s32[] constant(0)
  %all-reduce.9 = f32[32]{0:T(128)} all-reduce(%p), replica_groups={{0,1,2,3}}, to_apply=%add.1
  ROOT %slice.1 = f32[8]{0:T(128)} dynamic-slice(%all-reduce.9, %zero), dynamic_slice_sizes={8}
}

%body (arg: (s32[], bf16[8])) -> (s32[], bf16[8]) {
  %arg = (s32[], bf16[8]{0:T(256)(128)(2,1)}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %part = bf16[8]{0:T(256)(128)(2,1)S(1)} get-tuple-element(%arg), index=1
  %gather = bf16[32]{0} all-gather(%part), replica_groups=mesh['axis_0'=4] {'axis_0'}, dimensions={0}
  %sum = f32[4]{0} fusion(%gather), kind=kLoop, calls=%compute, backend_config={"estimated_cycles":"100"}
  %reduced = f32[4]{0} all-reduce(%sum), replica_groups=[1,4]<=[4], to_apply=%add.1
  %alone = f32[4]{0} all-reduce(%sum), replica_groups=[4,1]<=[4], to_apply=%add.1
  ROOT %out = (s32[], bf16[8]{0}) tuple(%i, %part)
}

%compute (g: bf16[32]) -> f32[4] {
  %g = bf16[32]{0} parameter(0)
  ROOT %dot.1 = f32[4]{0} dot(%g, %g)
}

%move (m: f32[8]) -> f32[8] {
  %m = f32[8]{0} parameter(0)
  ROOT %copy.2 = f32[8]{0} copy(%m)
}

%cond (arg.1: (s32[], bf16[8])) -> pred[] {
  %arg.1 = (s32[], bf16[8]{0}) parameter(0)
  %i.1 = s32[] get-tuple-element(%arg.1), index=0
  %n = s32[] constant(16)
  ROOT %lt = pred[] compare(%i.1, %n), direction=LT
}

ENTRY %main (a: (s32[], bf16[8]), b: f32[32]) -> f32[8] {
  %a = (s32[], bf16[8]{0}) parameter(0)
  %b = f32[32]{0} parameter(1)
  %while.1 = (s32[], bf16[8]{0}) while(%a), condition=%cond, body=%body
  %scattered = f32[8]{0} fusion(%b), kind=kCustom, calls=%all-reduce-scatter.2, backend_config={"estimated_cycles":"0"}
  %halo = f32[8]{0} collective-permute(%scattered), source_target_pairs={{0,1},{1,2}}
  ROOT %moved = f32[8]{0} fusion(%halo), kind=kLoop, calls=%move, backend_config={"estimated_cycles":"400"}
}
"""  # noqa: E501


def test_collectives_are_counted_as_often_as_their_loop_runs():
    found = collectives.count(hlo.parse(TEXT))
    assert found["all-gather"] == collectives.Traffic(16, 16 * 64, 64)
    # The one over groups of one chip moves nothing.
    assert found["all-reduce"] == collectives.Traffic(16, 16 * 16, 16)
    assert found["collective-permute"] == collectives.Traffic(1, 32, 32)


def test_a_fused_all_reduce_and_slice_is_a_reduce_scatter():
    found = collectives.count(hlo.parse(TEXT))
    assert found["reduce-scatter"] == collectives.Traffic(1, 128, 128)
    assert collectives.moved(found) == 16 * 64 + 2 * 16 * 16 + 32 + 128


def test_a_trip_count_that_the_compiler_wrote_goes_first():
    known = TEXT.replace(
        "body=%body", 'body=%body, backend_config={"known_trip_count":{"n":"3"}}'
    )
    assert collectives.count(hlo.parse(known))["all-gather"].count == 3


def test_cycles_of_moves_are_told_from_those_of_work():
    cycles = schedule.cycles(hlo.parse(TEXT))
    assert (cycles.total, cycles.moves) == (16 * 100 + 400, 400)
    assert cycles.share == 0.2


def test_sizes_of_shapes():
    assert hlo.shape_bytes("bf16[3,3,512,256]{3,2,1,0:T(8,128)(2,1)}") == 9 * 2**18
    assert hlo.shape_bytes("(f32[2,2]{1,0}, s8[3], pred[])") == 16 + 3 + 1


def test_sorts_are_found_in_every_computation():
    assert schedule.sorts(hlo.parse(TEXT)) == 0
    sorting = TEXT.replace("f32[8]{0} copy(%m)", "f32[8]{0} sort(%m)")
    assert schedule.sorts(hlo.parse(sorting)) == 1
