"""Programs that only note how they were called, and launch scripts that call them."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]
FAKE = """\
#!{python} -SE
import json, os, sys
folder = {folder!r}
words = sys.argv[1:]
name = os.path.basename(sys.argv[0])
reads = name == "sbatch" or "-f" in words
call = [[name, *words], sys.stdin.read() if reads else ""]
with open(folder + "/calls", "a") as file:
    file.write(json.dumps(call) + "\\n")
answers = json.load(open(folder + "/answers"))
line = " ".join(words)
for part, given in answers.items():
    if part in line and given:
        answer = given.pop(0) if len(given) > 1 else given[0]
        json.dump(answers, open(folder + "/answers", "w"))
        if isinstance(answer, int):
            sys.exit(answer)
        print(answer)
        break
"""


class Fakes:
    """gcloud, kubectl, sbatch and git in a folder of their own.

    Attributes:
      answers: part of a command line -> what the program says when it is called so, one
        after the other, the last for ever; a number is its exit status.
    """

    def __init__(self, folder: pathlib.Path, **answers):
        self.folder = folder
        bin_folder = folder / "bin"
        bin_folder.mkdir()
        for name in ("gcloud", "kubectl", "sbatch", "git"):
            program = bin_folder / name
            program.write_text(FAKE.format(python=sys.executable, folder=str(folder)))
            program.chmod(0o755)
        self.environment = {
            "PATH": f"{bin_folder}:/usr/bin:/bin",
            "PYTHONPATH": str(ROOT),
            "TMPDIR": str(folder),
            "HOME": str(folder),
        }
        self.answer({})

    def answer(self, answers: dict) -> None:
        """Set what the programs say, and forget the calls."""
        (self.folder / "answers").write_text(json.dumps(answers))
        (self.folder / "calls").write_text("")

    def calls(self) -> list:
        """[[program, word, ...], standard input] of every call."""
        return [
            json.loads(line)
            for line in (self.folder / "calls").read_text().splitlines()
        ]

    def words(self, program: str = "gcloud") -> list[list[str]]:
        """The command lines of one program."""
        return [words[1:] for words, _ in self.calls() if words[0] == program]

    def launch(self, script: str, *words: str) -> subprocess.CompletedProcess:
        """Run a launch script with the programs in its path."""
        return subprocess.run(
            [sys.executable, str(ROOT / "launch" / script), *words],
            env=self.environment, cwd=self.folder, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip

    def bash(self, text: str) -> subprocess.CompletedProcess:
        """Give text to bash, with the programs in its path."""
        return subprocess.run(
            ["bash", "-e", "-c", text],
            env=self.environment, capture_output=True, text=True, timeout=60,
        )  # fmt: skip


def error_of(done: subprocess.CompletedProcess) -> str:
    """The one line of a script that refused, with nothing done."""
    assert done.returncode == 2 and done.stdout == "", done
    lines = [line for line in done.stderr.splitlines() if "error: " in line]
    assert len(lines) == 1 and "Traceback" not in done.stderr, done.stderr
    return lines[0].partition("error: ")[2]
