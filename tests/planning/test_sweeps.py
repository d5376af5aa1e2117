import jax
import pytest

from imagen_jax.commands import configs
from imagen_jax.planning import memory, sweeps, targets, topologies

SLICE = topologies.Topology("v5e", (2, 4))


@pytest.fixture(scope="module")
def config():
    config = configs.load("imagen/base_64")
    flags = {
        "network.channels": 64,
        "network.channel_mult": (1, 2),
        "network.num_res_blocks": 1,
        "network.attention_levels": (1,),
        "network.text_features": 64,
        "text.encoder.d_model": 64,
        "text.length": 8,
        "stage.resolution": 16,
        "data.embeddings": "ahead",
        "data.batch_size": 64,
    }
    configs.override(config, [f"--config.{key}={v}" for key, v in flags.items()])
    return config


@pytest.fixture(scope="module")
def ranked(config):
    return sweeps.rank(config, SLICE, jax.devices(), 0.4)


@pytest.mark.slow
def test_where_all_fits_nothing_is_computed_twice_and_nothing_cut(ranked):
    best = ranked[0]
    assert (best.remat, best.accumulation, best.at_once) == ("none", 1, 64)
    assert [c.seconds for c in ranked] == sorted(c.seconds for c in ranked)
    # Each remat policy on each split of eight chips into data and fsdp.
    assert len(ranked) == 3 * 4


@pytest.mark.slow
def test_a_smaller_memory_cuts_the_batch_and_recomputes(config, ranked, monkeypatch):
    smallest = min(c.bytes for c in ranked)
    limit = smallest / (SLICE.chip.memory_gib * 2**30)
    monkeypatch.setattr(sweeps, "MARGIN", limit)
    found = sweeps.rank(config, SLICE, jax.devices(), 0.4)
    assert found and all(c.bytes <= smallest for c in found)
    assert all(c.accumulation > 1 or c.remat == "full" for c in found)
    monkeypatch.setattr(sweeps, "MARGIN", 1e-9)
    assert sweeps.rank(config, SLICE, jax.devices(), 0.4) == []


def test_a_candidate_becomes_a_config(config, ranked):
    candidate = ranked[-1]
    changed = sweeps.apply(config, candidate)
    assert changed.network.remat == candidate.remat
    assert changed.mesh.to_dict() == candidate.mesh
    assert config.network.remat == "block"


def test_activations_grow_with_the_examples_at_once():
    kept = {
        "none": memory.Kept(1000, 100),
        "block": memory.Kept(300, 100),
        "full": memory.Kept(100, 50),
    }
    assert memory.activations(kept, "none", 2) == 2 * (1000 + 1200)
    assert memory.activations(kept, "block", 1) == 300 + 1200
    assert memory.activations(kept, "full", 1) == 100 + 1200 + 100


def test_targets_have_names_of_their_own_and_slices_that_are():
    names = [target.name for target in targets.TARGETS]
    assert len(set(names)) == len(names)
    for target in targets.TARGETS:
        assert topologies.parse(target.topology).chips >= 1
        assert target.config in configs.names()


def test_the_table_names_what_did_not_run(tmp_path):
    said = targets.table(list(targets.TARGETS[:2]), tmp_path)
    assert said.endswith("Not run yet: t5_xxl_1, t5_xxl_8.")
