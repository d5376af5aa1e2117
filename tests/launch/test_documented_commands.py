"""Every launch command in docs/launching.md and in the scripts' heads is accepted."""

import ast
import re
import shlex

import pytest

from tests.launch.fakes import ROOT

SCRIPTS = ("tpu_vm", "queued_resources", "gke", "slurm", "sweep")


def documented() -> list[str]:
    texts = [(ROOT / "docs" / "launching.md").read_text()]
    for name in SCRIPTS:
        tree = ast.parse((ROOT / "launch" / f"{name}.py").read_text())
        texts.append(ast.get_docstring(tree) or "")
    joined = "\n".join(texts).replace("\\\n", " ")
    return re.findall(r"^ +(python launch/.*)$", joined, re.MULTILINE)


def test_every_script_is_documented():
    for name in SCRIPTS:
        assert sum(f"launch/{name}.py" in line for line in documented()) >= 2, name


@pytest.mark.parametrize("line", documented())
def test_a_documented_command_is_accepted(fakes, line):
    # A sweep looks for what has finished, and there is no such bucket.
    words = shlex.split(line.replace("gs://BUCKET", "/bucket"), comments=True)
    at = words.index("--") if "--" in words else len(words)
    if words[1] == "launch/sweep.py" and "..." in words[at:]:
        words[words.index("...") :] = ["--config", "shapes/base"]
    if "--file" in words:
        (fakes.folder / "lr.toml").write_text("[grid]\nseed = [0, 1]\n")
    words.insert(at, "--dry_run")
    done = fakes.launch(words[1].removeprefix("launch/"), *words[2:])
    assert done.returncode == 0 and done.stdout, done.stderr
