import jax
import jax.numpy as jnp

from imagen_jax.planning import compiling, plans

MESSAGE = """\
RESOURCE_EXHAUSTED: XLA:TPU compile permanent error. Ran out of memory in memory space \
hbm. Used 17.50G of 15.75G hbm. Exceeded hbm capacity by 1.75G.

Total hbm usage >= 17.75G:
    reserved        258.00M
    program          16.00G

  Largest program allocations in hbm:

  1. Size: 8.00G
     Operator: op_name="jit(train_step)/up_0/res_0/conv_0/conv_general_dilated"
     Shape: bf16[2048,64,64,512]{3,0,2,1:T(8,128)(2,1)}
     Unpadded size: 8.00G
     XLA label: fusion.1 = fusion(...)
     Allocation type: HLO temp
     ==========================

  2. Size: 512.00M
     Shape: f32[128,1024]{1,0}
     Unpadded size: 512.00M
     ==========================
"""


def test_the_compilers_complaint_is_read():
    need, limit, buffers = compiling.read_exhausted(MESSAGE)
    assert (need, limit) == (int(17.5 * 2**30), int(15.75 * 2**30))
    assert [b.bytes for b in buffers] == [8 * 2**30, 512 * 2**20]
    assert buffers[0].shape == "bf16[2048,64,64,512]"
    assert buffers[0].operator.endswith("conv_0/conv_general_dilated")
    assert buffers[1].operator == ""


def test_a_complaint_without_buffers_is_read_too():
    short = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the "
        "total memory required for HLO temporaries (27.06G) exceeds available HBM "
        "(15.75G). HLO module: jit_f."
    )
    need, limit, buffers = compiling.read_exhausted(short)
    assert (need, limit) == (int(27.06 * 2**30), int(15.75 * 2**30))
    assert buffers == ()


def test_the_largest_arrays_of_a_traced_program_are_named_by_their_module():
    def f(x):
        with jax.named_scope("inner"):
            y = jax.jit(lambda a: a @ a.T)(x)
        return y.sum()

    jaxpr = jax.make_jaxpr(f)(jax.ShapeDtypeStruct((64, 2), jnp.float32)).jaxpr
    (first,) = compiling.largest(jaxpr, number=1)
    assert (first.bytes, first.shape) == (4 * 64 * 64, "f32[64,64]")
    assert "inner" in first.operator and first.whole


def test_a_program_that_does_not_fit_is_one_line_with_its_largest_buffers():
    need, limit, buffers = compiling.read_exhausted(MESSAGE)
    values = dict.fromkeys(plans.Plan.__dataclass_fields__, 0)
    plan = plans.Plan(
        **values
        | {
            "fits": False,
            "peak_bytes": need,
            "memory_bytes": limit,
            "buffers": buffers,
        }
    )
    line = plans.verdict(plan)
    assert "\n" not in line
    assert line.startswith("DOES NOT FIT: needs 18.79 GB of 16.91 GB a chip")
    assert "8.59 GB bf16[2048,64,64,512] of jit(train_step)/up_0" in line
