"""What the queue keeps, and how it ends."""

import numpy as np
import pytest

from imagen_jax.cascade.samples import Samples
from imagen_jax.serving import asking, limits, queue


def asked(seed=0):
    return asking.Asked(prompt="a cat", seed=seed)


def drawn(request, progress):
    pictures = np.zeros((1, 10, 10, 3), np.uint8)
    return Samples((request.prompt,), (pictures,), ("base",))


def settled(drawings, names):
    """The states, once all have ended."""

    def ended(name):
        drawing = drawings._drawings.get(name)
        return drawing is None or drawing.state.ended

    with drawings._changed:
        assert drawings._changed.wait_for(lambda: all(map(ended, names)), timeout=30)
    return [d and d.state for d in map(drawings.look, names)]


@pytest.mark.parametrize("bounds", [{"kept": 2}, {"kept_bytes": 700}])
def test_the_oldest_drawings_are_forgotten(bounds):
    """Each holds 300 bytes."""
    drawings = queue.Queue(drawn, limits.Limits(waiting=9, **bounds))
    names = []
    for seed in range(4):
        names.append(drawings.put(asked(seed)).id)
        settled(drawings, names[-1:])
    assert settled(drawings, names) == [None, None, "done", "done"]
    drawings.close()


def test_the_last_drawing_stays_however_large():
    drawings = queue.Queue(drawn, limits.Limits(kept_bytes=1))
    name = drawings.put(asked()).id
    assert settled(drawings, [name]) == ["done"]
    drawings.close()


def test_what_was_sent_is_not_kept():
    drawings = queue.Queue(drawn, limits.Limits())
    picture = np.zeros((4, 4, 3), np.uint8)
    name = drawings.put(asking.Asked(prompt="a cat", picture=picture)).id
    settled(drawings, [name])
    assert drawings.look(name).asked.picture is None
    drawings.close()


def test_a_mistake_of_the_server_is_not_told_to_the_page(capsys):
    def fail(request, progress):
        raise KeyError("something inside")

    drawings = queue.Queue(fail, limits.Limits())
    name = drawings.put(asked()).id
    assert settled(drawings, [name]) == ["failed"]
    assert drawings.look(name).error == "The server failed; its log tells more."
    assert "something inside" in capsys.readouterr().err
    drawings.close()


def test_finished_drawings_are_handed_over():
    found = []
    drawings = queue.Queue(drawn, limits.Limits(), found.append)
    name = drawings.put(asked()).id
    settled(drawings, [name])
    assert [d.id for d in found] == [name] and found[0].samples.complete
    drawings.close()


def test_limits_are_checked():
    with pytest.raises(ValueError, match="pictures must be >= 1, got 0"):
        limits.Limits(pictures=0)
