import types

import ml_dtypes
import numpy as np
import pytest

from imagen_jax.checkpoints import tensors


class Given:
    """A checkpoint that is a dictionary, and notes what is read."""

    where = "somewhere/model"

    def __init__(self, arrays):
        self.arrays = arrays
        self.asked = []

    def names(self):
        return sorted(self.arrays)

    def shape(self, name):
        return self.arrays[name].shape

    def dtype(self, name):
        return self.arrays[name].dtype

    def read(self, name):
        self.asked.append(name)
        return self.arrays[name]


QUERY = np.arange(6.0, dtype=np.float32).reshape(2, 3)
KEY = QUERY + 10
BIAS = np.arange(4).astype(ml_dtypes.bfloat16)
TABLE = {
    "layer/joined/kernel": tensors.Source(
        ("q", "k"), lambda q, k: np.concatenate([q, k]).T
    ),
    "bias": tensors.Source(("b",)),
}


def like(**shapes):
    return {k: types.SimpleNamespace(shape=shape) for k, shape in shapes.items()}


SHAPES = {"layer": {"joined": like(kernel=(3, 4))}, **like(bias=(4,))}


@pytest.fixture
def given():
    return Given({"q": QUERY, "k": KEY, "b": BIAS})


def refused(given, line, table=TABLE, shapes=SHAPES, **kwargs):
    with pytest.raises(ValueError, match=line) as error:
        tensors.transfer(given, table, shapes, **kwargs)
    assert "somewhere/model" in str(error.value) and "\n" not in str(error.value)
    assert given.asked == []


def test_parameters_are_made_of_their_sources(given):
    assert isinstance(given, tensors.Tensors)
    tree = tensors.transfer(given, TABLE, SHAPES)
    want = np.concatenate([QUERY, KEY]).T
    np.testing.assert_array_equal(tree["layer"]["joined"]["kernel"], want)
    assert tree["bias"].dtype == ml_dtypes.bfloat16


def test_each_parameter_is_placed_before_the_next_is_read(given):
    order = []

    def place(name, array):
        order.append((name, list(given.asked)))
        return array.shape

    tree = tensors.transfer(given, TABLE, SHAPES, place)
    assert order == [("layer/joined/kernel", ["q", "k"]), ("bias", ["q", "k", "b"])]
    assert tree == {"layer": {"joined": {"kernel": (3, 4)}}, "bias": (4,)}


def test_a_missing_tensor_is_named_and_the_others_counted(given):
    del given.arrays["k"], given.arrays["b"]
    refused(given, "tensor b is missing, and 1 more; this is another model")


def test_a_superfluous_tensor_is_named_unless_it_may_stay_unread(given):
    given.arrays |= {"decoder.1": BIAS, "decoder.2": BIAS, "x": BIAS}
    refused(given, r"tensor decoder\.1 has no place .*, and 2 more")
    unused = lambda name: name.startswith("decoder.")  # noqa: E731
    refused(given, "tensor x has no place in this network;", unused=unused)
    del given.arrays["x"]
    tensors.transfer(given, TABLE, SHAPES, unused=unused)
    assert set(given.asked) == {"q", "k", "b"}


def test_a_misshapen_tensor_is_named_with_both_shapes(given):
    given.arrays["b"] = BIAS[:3]
    refused(given, r"b must give bias of shape \(4,\), got \(3,\)")
    given.arrays["b"] = BIAS
    given.arrays["k"] = KEY[:, :2]
    refused(
        given, r"q, k of shape \(2, 3\), \(2, 2\) cannot become layer/joined/kernel"
    )


def test_a_table_and_its_network_have_the_same_parameters(given):
    less = {"bias": TABLE["bias"]}
    refused(given, "the table lacks the parameter layer/joined/kernel", table=less)
    refused(given, "the network has no parameter layer", shapes=like(bias=(4,)))


def test_a_check_allocates_no_tensor():
    class Huge(Given):
        def shape(self, name):
            return (1 << 20, 1 << 20)

    huge = Huge({"a": BIAS})
    table = {"a": tensors.Source(("a",), lambda a: a.T[:5])}
    tensors.check(huge, table, like(a=(5, 1 << 20)))
    assert tensors.size(huge) == 2 << 40


def test_a_checkpoints_files_are_its_own_or_those_below_its_place(tmp_path, given):
    (tmp_path / "a").mkdir()
    for name in ("checkpoint", "a/0.0"):
        (tmp_path / name).write_bytes(b"")
    given.where = str(tmp_path)
    found = [str(path.relative_to(tmp_path)) for path in tensors.files(given)]
    assert found == ["a/0.0", "checkpoint"]
    given.where = str(tmp_path / "checkpoint")
    assert [path.name for path in tensors.files(given)] == ["checkpoint"]
    given.files = ["one", "two"]
    assert tensors.files(given) == ["one", "two"]
