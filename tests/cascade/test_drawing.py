"""Order, chunks, stopping and going on; counted compilations."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from imagen_jax.cascade import cascade, drawing, images, request, text_to_image
from tests import compiling, tiny_cascade

PROMPTS = ["a red cat", "two dogs", "a tree"]


@pytest.fixture(scope="module")
def model():
    return tiny_cascade.model()


def twelve(model, **options):
    return model.sample(PROMPTS, num=4, seed=3, **options)


@pytest.fixture(scope="module")
def whole(model):
    return twelve(model, frames=2)


def assert_same(one, other):
    assert one.stage_names == other.stage_names
    for a, b in zip(one.stages, other.stages, strict=True):
        np.testing.assert_array_equal(a, b)


def stop_at(stage, row):
    def progress(moment):
        if moment.stage == stage and row in moment.rows:
            raise text_to_image.Stop

    return progress


def test_all_chunks_of_a_stage_come_before_the_next_stage(model):
    """So a stage's parameters are asked for once, however many chunks there are."""
    seen, reads = [], []
    counted = dataclasses.replace(
        model,
        params=tuple(
            lambda i=i, read=read: reads.append(i) or read()
            for i, read in enumerate(model.params)
        ),
    )
    counted.resident._limit = 0.0
    twelve(counted, progress=lambda m: seen.append((m.stage, m.rows)))
    order = list(dict.fromkeys(seen))
    first, second = range(8), range(8, 12)
    assert order == [(s, r) for s in ("base", "up") for r in (first, second)]
    assert reads == [0, 1]


def test_a_picture_does_not_depend_on_chunks(model, whole):
    """One bit may differ: other batch shapes sum in another order."""
    other = twelve(dataclasses.replace(model, batch=(16, 8)))
    for a, b in zip(whole.stages, other.stages, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1
    assert len({a.tobytes() for a in whole.images}) == 12


def test_progress_counts_every_step_of_every_chunk(model):
    done = []
    twelve(model, progress=lambda m: done.append((m.done, m.total)))
    assert done == [(i + 1, 12) for i in range(12)]


def test_what_stops_after_a_stage_goes_on_to_the_same_pictures(model, whole):
    base = twelve(model, until="base")
    assert base.stage_names == ("base",) and base.complete
    assert_same(model.resume(base), whole)


def test_what_is_cancelled_keeps_finished_chunks_and_goes_on(model, whole):
    part = twelve(model, progress=stop_at("up", 8))
    assert not part.complete and [len(s) for s in part.stages] == [12, 8]
    assert [len(p) for p in part.latest()] == [16] * 8 + [8] * 4
    assert_same(model.resume(part), whole)
    none = twelve(model, progress=stop_at("base", 0))
    assert none.stages == () and none.latest() == [] and none._repr_png_() is None
    assert_same(model.resume(none), whole)


def test_other_errors_of_a_callback_are_not_swallowed(model):
    def fail(moment):
        raise KeyError(moment.stage)

    with pytest.raises(KeyError):
        model.sample("a cat", progress=fail)


def test_frames_are_spread_over_the_steps_and_end_with_the_picture(model, whole):
    assert [f.shape[:2] for f in whole.frames] == [(2, 12), (2, 12)]
    for frames, stage in zip(whole.frames, whole.stages, strict=True):
        np.testing.assert_array_equal(frames[-1], stage)
        assert (frames[0] != stage).any()
    more = model.sample("a cat", frames=100)
    assert [len(f) for f in more.frames] == [4, 2]  # as many as there are steps


def test_frames_of_what_was_there_before_stand_still(model):
    part = twelve(model, progress=stop_at("up", 8))
    frames = model.resume(part, frames=2).frames
    assert [f.shape[:2] for f in frames] == [(0, 12), (2, 12)]
    np.testing.assert_array_equal(frames[1][0, :8], part.stages[1])


def test_a_later_stage_alone_must_have_all_pictures(model, whole):
    up = dataclasses.replace(whole, stages=(whole.images[:3],), stage_names=("up",))
    with pytest.raises(ValueError, match="each of the 12 pictures"):
        model.resume(up)


def test_drawing_begins_at_the_stage_that_takes_a_given_picture(model, whole):
    """One picture for all prompts, as the base might have drawn it."""
    given = request.Request(low_res=images.to_float(jnp.asarray(whole.stages[0][:1])))
    drawn = model.sample(PROMPTS[:1], num=3, seed=3, given=given)
    assert drawn.stage_names == ("up",) and drawn.images.shape == (3, 16, 16, 3)
    # The first has the noise, too, of the picture that the base drew.
    assert np.abs(drawn.images[0].astype(int) - whole.images[0]).max() <= 1
    assert (drawn.images[1] != drawn.images[0]).any()


def test_memory_that_is_exceeded_names_the_number_to_lower(model, monkeypatch):
    def full(*args, **options):
        raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory")

    monkeypatch.setattr(drawing.Cascade, "draw", full)
    with pytest.raises(RuntimeError, match=r"8 pictures of stage base.*--batch.* to 4"):
        twelve(model)


def test_a_stage_is_one_program_however_many_slices(model):
    before = cascade._advance._cache_size()
    model.sample("a cat", steps=(5, 3))
    assert cascade._advance._cache_size() == before + 2


def test_nothing_is_compiled_for_other_prompts_seeds_numbers_and_settings(model):
    """The whole door: tokens, encoder, every stage, and the turn to uint8."""

    def once(i):
        model.sample(
            [f"prompt {i}", "a dog"],
            num=1 + i % 4,
            seed=i,
            guidance=(1 + i, 2.5 + i),
            aug_level=i / 40,
            percentile=0.9 + i / 300,
            gamma=i / 20,
        )

    once(0)
    with compiling.watched() as programs:
        for i in range(1, 21):
            once(i)
        assert programs == []
        jax.jit(lambda x: x + 1)(1)  # The count can count.
        assert len(programs) == 1


def test_parameters_are_split_over_devices_when_asked(model, whole):
    """Kernels that the mesh divides lie in parts, and the pictures are the same."""
    split = dataclasses.replace(model, mesh={"fsdp": 8})
    drawn = split.sample(PROMPTS, num=4, seed=3)
    kernel = split.resident[1]["text"]["kernel"]
    assert kernel.sharding.shard_shape(kernel.shape) == (2, 8)
    for a, b in zip(whole.stages, drawn.stages, strict=True):
        assert np.abs(a.astype(int) - b).max() <= 1
