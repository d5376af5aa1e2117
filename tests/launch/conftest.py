import pytest

from tests.launch import fakes as fake_programs


@pytest.fixture
def fakes(tmp_path):
    return fake_programs.Fakes(tmp_path)
