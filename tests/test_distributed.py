import os
import pathlib
import socket
import subprocess
import sys
import time

import jax
import pytest

from imagen_jax import distributed
from imagen_jax.commands import joining

ROOT = pathlib.Path(distributed.__file__).parents[1]
HOST = """
import argparse, time, jax
from imagen_jax import distributed
from imagen_jax.commands import joining
parser = argparse.ArgumentParser()
joining.add_arguments(parser)
joining.start(parser.parse_args())
with distributed.ending_together():
    assert jax.process_count() == 2
    if jax.process_index() == 1:
        raise ValueError("the disk\\n is full")
    time.sleep(100)
"""


def slurm(task):
    """What srun tells a task, with a job number that means a free port to JAX."""
    for job in range(1, 100):
        with socket.socket() as free:
            if free.connect_ex(("127.0.0.1", 65535 - 2**12 + 1 + job)):
                break
    return {
        "SLURM_JOB_ID": str(job),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_STEP_NUM_TASKS": "2",
        "SLURM_PROCID": str(task),
        "SLURM_LOCALID": str(task),
    }


@pytest.mark.slow
def test_slurms_tasks_find_each_other_and_end_together(tmp_path):
    plain = {k: v for k, v in os.environ.items() if not k.startswith("SLURM")}
    plain |= {"JAX_PLATFORMS": "cpu", "PYTHONPATH": str(ROOT)}
    told = [slurm(0), slurm(0) | {"SLURM_PROCID": "1", "SLURM_LOCALID": "1"}]
    hosts = [
        subprocess.Popen(
            [sys.executable, "-c", HOST, "--distributed"],
            env=plain | environment,
            stderr=subprocess.PIPE,
            text=True,
        )
        for environment in told
    ]
    _, words = hosts[1].communicate(timeout=200)
    ended = time.monotonic()
    assert hosts[1].returncode == 2, words
    assert "imagen-jax: error: host 1 of 2: the disk is full\n" in words
    _, words = hosts[0].communicate(timeout=200)
    assert time.monotonic() - ended < 30
    assert hosts[0].returncode == distributed.LOST_ANOTHER
    lines = [line for line in words.splitlines() if line.startswith("imagen-jax")]
    assert len(lines) == 1 and "host 0 of 2: another host is gone" in lines[0]


def flags(**given):
    import argparse

    parser = argparse.ArgumentParser()
    joining.add_arguments(parser)
    argv = [f"--{name}={value}" for name, value in given.items()]
    return parser.parse_args(argv)


@pytest.fixture
def joined(monkeypatch):
    """What JAX is asked to join; nothing is joined."""
    calls = []
    monkeypatch.setattr(
        jax.distributed, "initialize", lambda *a, **kw: calls.append((a, kw))
    )
    monkeypatch.setattr(distributed, "_on_abort", lambda line: None)
    return calls


def test_explicit_flags_reach_jax(joined):
    joining.start(flags(coordinator="a:1", num_processes=4, process_id=0))
    ((arguments, keywords),) = joined
    assert arguments == ("a:1", 4, 0)
    assert keywords["heartbeat_timeout_seconds"] < 30


def test_half_an_address_is_refused(joined):
    with pytest.raises(ValueError, match="all three are required"):
        joining.start(flags(coordinator="a:1", num_processes=4))
    assert not joined


def test_without_a_cluster_there_is_nothing_to_join(monkeypatch):
    monkeypatch.setattr(distributed, "_on_abort", lambda line: None)
    for name in list(os.environ):
        if name.startswith(("SLURM", "OMPI", "TPU", "JAX_COORD", "KUBER")):
            monkeypatch.delenv(name)
    refuse = ValueError("coordinator_address should be defined.")

    def initialize(*arguments, **keywords):
        raise refuse

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(ValueError, match=r"no cluster was found .* --coordinator"):
        distributed.join()


def test_tasks_that_do_not_know_each_other_are_refused():
    distributed.require_alone({})
    distributed.require_alone({"SLURM_STEP_NUM_TASKS": "1"})
    with pytest.raises(ValueError, match="SLURM has started 4 processes"):
        distributed.require_alone({"SLURM_STEP_NUM_TASKS": "4"})
    with pytest.raises(ValueError, match="Open MPI has started 2 processes"):
        distributed.require_alone({"OMPI_COMM_WORLD_SIZE": "2"})


def test_alone_an_error_passes_as_it_is():
    with pytest.raises(KeyError), distributed.ending_together():
        raise KeyError("a")
