import numpy as np
import pytest
from PIL import Image

from imagen_jax.cascade import animation

# Two stages: 3 frames of 2 pictures, then 2 frames of the first picture alone.
FRAMES = (
    np.arange(3 * 2, dtype=np.uint8).reshape(3, 2, 1, 1, 1)
    * np.full((4, 4, 3), 40, np.uint8),
    np.stack([np.full((1, 8, 8, 3), v, np.uint8) for v in (210, 250)]),
)


def test_a_pictures_frames_follow_each_other_at_one_size():
    frames = animation.of_picture(FRAMES, 0)
    assert [f.size for f in frames] == [(8, 8)] * 5
    assert [f.getpixel((0, 0))[0] for f in frames] == [0, 80, 160, 210, 250]
    assert [f.size for f in animation.of_picture(FRAMES, 1, cell=6)] == [(6, 6)] * 3


def test_on_sheets_a_picture_stays_where_the_next_stage_lacks_it():
    sheets = animation.sheets(FRAMES, ("a", "b"), cell=64)
    assert len(sheets) == 5 and len({s.size for s in sheets}) == 1
    second = [s.getpixel((8 + 64 + 8 + 32, 8 + 32))[0] for s in sheets]
    assert second == [40, 120, 200, 200, 200]


@pytest.mark.parametrize("kind", animation.FORMATS)
def test_every_format_plays_all_frames_and_rests_on_the_last(tmp_path, kind):
    path = tmp_path / f"a.{kind}"
    animation.save(path, animation.of_picture(FRAMES, 0), seconds=1.0)
    with Image.open(path) as moving:
        assert moving.n_frames == 5
        seen, times = [], []
        for i in range(5):
            moving.seek(i)
            moving.load()
            seen.append(moving.convert("RGB").getpixel((0, 0))[0])
            times.append(moving.info["duration"])
    assert seen == [0, 80, 160, 210, 250]
    if kind != "webp":  # Pillow tells a WebP's times when it has shown it.
        assert times == [200] * 4 + [1700]


def test_another_format_is_refused(tmp_path):
    with pytest.raises(ValueError, match="must end in one of"):
        animation.save(tmp_path / "a.mp4", animation.of_picture(FRAMES, 0))
