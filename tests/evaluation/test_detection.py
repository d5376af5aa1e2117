import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from imagen_jax.data import emoji, sprites, tasks
from imagen_jax.evaluation import detection
from imagen_jax.models import detector

GRID = 16
TASK = detection.DetectionTask(
    module=detector.Detector(
        num_classes=len(sprites.names()) + 1,  # and what is none of them
        num_backgrounds=len(emoji.BACKGROUNDS),
        stem_channels=8,
        channels=32,
        deep_channels=32,
    )
)


def perfect(objects: np.ndarray, backgrounds: np.ndarray) -> detector.Detections:
    """What a network without error would say."""
    objects = jnp.asarray(objects)
    owner, inner, _ = detection.assign(objects, GRID)
    mine = jnp.take_along_axis(objects[:, None, None], owner[..., None, None], axis=3)[
        ..., 0, :
    ]
    label = jnp.maximum(mine[..., 0].astype(int), 0)
    return detector.Detections(
        present=jnp.where(inner, 9.0, -9.0),
        classes=20.0 * jax.nn.one_hot(label, len(sprites.names())),
        box=detection.box_targets(mine, GRID),
        background=20.0 * jax.nn.one_hot(backgrounds, len(emoji.BACKGROUNDS)),
    )


@pytest.mark.parametrize("split", emoji.SPLITS)
def test_perfect_answers_give_the_placed_objects_back(split):
    scenes = [emoji.scene(3, i, split) for i in range(300)]
    labels = [emoji.labels(scene) for scene in scenes]
    seen = perfect(
        np.stack([label["objects"] for label in labels]),
        np.stack([label["background"] for label in labels]),
    )
    for scene, found in zip(scenes, detection.decode(seen), strict=True):
        found = sorted(
            (sprites.names()[o.label], round(o.x, 4), round(o.y, 4), round(o.side, 4))
            for o in found
        )
        placed = sorted((p.name, *(round(v, 4) for v in p[1:])) for p in scene.placed)
        assert [f[0] for f in found] == [p[0] for p in placed], scene
        np.testing.assert_allclose(
            [f[1:] for f in found], [p[1:] for p in placed], atol=2e-3
        )


def test_every_object_has_cells_and_the_empty_ground_has_none():
    objects = np.full((2, 4, 4), -1.0, np.float32)
    objects[0, 0] = (7, 0.03, 0.97, 0.02)
    owner, inner, near = detection.assign(jnp.asarray(objects), GRID)
    assert bool(inner[0].any()) and int(owner[0][inner[0]][0]) == 0
    assert not bool(near[1].any())


def test_a_weaker_answer_beside_a_stronger_one_is_the_same_object():
    objects = np.full((1, 4, 4), -1.0, np.float32)
    objects[0, 0] = (7, 0.5, 0.5, 0.4)
    seen = perfect(objects, np.array([0]))
    classes = seen.classes.at[0, 7, 7].set(
        20.0 * jax.nn.one_hot(3, len(sprites.names()))
    )
    weaker = seen.present.at[0, 7, 7].set(2.0)
    (found,) = detection.decode(seen._replace(present=weaker, classes=classes))
    assert [o.label for o in found] == [7]


def test_the_far_end_of_a_large_object_is_no_second_one():
    # Centres 0.3 apart: near for the large object, not for two of the mean side.
    (first, rest) = detection.same_object(
        np.array([[0.5, 0.5], [0.8, 0.5], [0.5, 0.95]]), np.array([0.9, 0.2, 0.2])
    )
    assert first == [0, 1] and rest == [2]


def test_cells_of_an_object_vote_on_its_side_by_their_confidence():
    objects = np.full((1, 4, 4), -1.0, np.float32)
    objects[0, 0] = (7, 0.5, 0.5, 0.4)
    seen = perfect(objects, np.array([0]))
    rows, columns = np.nonzero(np.asarray(seen.present[0]) > 0)
    assert len(rows) > 1
    wrong = seen.box.at[0, rows[0], columns[0], 2].add(np.log(2.0))
    (found,) = detection.decode(seen._replace(box=wrong))
    np.testing.assert_allclose(found[0].side, 0.4 * 2.0 ** (1 / len(rows)), rtol=1e-4)


def test_uncertain_answers_are_reported_as_such():
    objects = np.full((1, 4, 4), -1.0, np.float32)
    objects[0, 0] = (7, 0.5, 0.5, 0.4)
    seen = perfect(objects, np.array([0]))
    (found,) = detection.decode(seen._replace(classes=0.0 * seen.classes))
    assert len(found) == 1 and found[0].confidence < 0.1


def batch(num):
    source = tasks.by_name("labelled_emoji", "train")
    examples = [source.example(0, i, 64) for i in range(num)]
    return {
        name: jnp.stack([example[name] for example in examples])
        for name in ("image", "objects", "background")
    }


def test_disturbing_keeps_what_is_shown():
    x = batch(4)["image"].astype(jnp.float32) / 127.5 - 1.0
    disturbed = jax.jit(TASK.disturb)(jax.random.key(0), x)
    assert disturbed.shape == x.shape
    away = float(jnp.sqrt(jnp.mean((disturbed - x) ** 2)))
    assert 0.01 < away < 0.2


@pytest.mark.slow
def test_one_batch_is_learned():
    data = batch(8)
    optimizer = optax.adam(3e-3)

    @jax.jit
    def step(key, params, state):
        def mean(params):
            losses, metrics = TASK.loss(key, params, None, data)
            return losses.mean(), metrics

        (loss, metrics), grads = jax.value_and_grad(mean, has_aux=True)(params)
        updates, state = optimizer.update(grads, state)
        return optax.apply_updates(params, updates), state, loss, metrics

    params = jax.jit(lambda key: nn.unbox(TASK.init(key)))(jax.random.key(0))
    state = optimizer.init(params)
    losses = []
    for i in range(70):
        params, state, loss, metrics = step(jax.random.key(i), params, state)
        losses.append(float(loss))
    assert np.isfinite(losses).all()
    assert losses[-1] < losses[0] / 4, losses[::10]
    assert float(metrics["accuracy"]) > 0.8
