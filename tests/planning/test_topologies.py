import pytest

from imagen_jax.planning import topologies


@pytest.mark.parametrize(
    ("name", "written", "chips", "hosts"),
    [
        ("v4:4x8x8", "v4:4x8x8", 256, 64),
        ("v4-512", "v4:4x8x8", 256, 64),  # Cloud counts the two cores of a chip
        ("v5p-8", "v5p:2x2x1", 4, 1),
        ("v5litepod-16", "v5e:4x4", 16, 4),
        ("v5e-1", "v5e:1x1", 1, 1),
        ("v6e-256", "v6e:16x16", 256, 64),
    ],
)
def test_names_of_both_forms_are_counted_in_chips(name, written, chips, hosts):
    topology = topologies.parse(name)
    assert (str(topology), topology.chips, topology.hosts) == (written, chips, hosts)


def test_slices_multiply_the_chips():
    topology = topologies.parse("v5e:16x16", slices=2)
    assert topology.chips == 512
    assert str(topology) == "2 x v5e:16x16"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("v3-8", "with kind v4, v5p, v5e, v6e"),
        ("v4", "must be KIND:SHAPE"),
        ("v4:4x8", "v4 has 3 dimensions"),
        ("v4-7", "sizes of v4: 8, 16, 32"),
        ("v5e-3", "sizes of v5e: 1, 4, 8"),
    ],
)
def test_other_names_are_refused_in_one_line(name, words):
    with pytest.raises(ValueError, match=words) as error:
        topologies.parse(name)
    assert "\n" not in str(error.value)


def test_known_sizes_have_as_many_chips_as_their_shape():
    for shapes in topologies.SHAPES.values():
        for chips, shape in shapes.items():
            product = 1
            for side in shape:
                product *= side
            assert product == chips


def test_a_missing_compiler_is_said_with_its_cure(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ImportError, match="pip install libtpu"):
        topologies.prepare_environment()
