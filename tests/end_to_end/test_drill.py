"""Two faults; `python -m tests.end_to_end.drill` goes through all of them."""

import shutil

import pytest

from tests.checkpoints import file_faults
from tests.end_to_end import drill


@pytest.mark.slow
def test_a_coordinator_killed_in_a_save_costs_nothing_but_time(tmp_path):
    """Two hosts of one device; the survivor's end and the run's are both checked."""
    whole = drill.unharmed(tmp_path, devices=1)
    words = drill.hurt(tmp_path / "hurt", "coordinator", devices=1)
    assert "host 1 of 2" in words[1] and "Start the job again" in words[1]
    same = drill.restart(tmp_path / "hurt", drill.HOSTS, devices=1)
    drill.compare(same, whole, exact=True)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")
def test_a_save_killed_at_any_file_operation_leaves_a_whole_checkpoint(tmp_path):
    """Each ninth here; the drill takes all of them."""
    assert "killed at" in file_faults.run(tmp_path, every=9)
