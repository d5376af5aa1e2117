"""One host of `accept`'s part "resume", with the fault drill's toy run."""

import argparse
import json
import pathlib
import sys

from etils import epath

from imagen_jax.acceptance import parts
from imagen_jax.commands import joining


def main() -> None:
    """Kill the run and go on with it; what was found goes to OUT."""
    parser = argparse.ArgumentParser()
    parser.add_argument("shared")
    parser.add_argument("out")
    joining.add_arguments(parser)
    args = parser.parse_args()
    words = joining.words(args)

    def training_command(workdir, joining):
        drill = [sys.executable, "-m", "tests.end_to_end.drill", "work"]
        return [*drill, str(workdir), *joining]

    parts.training_command = training_command
    out = pathlib.Path(args.out)
    place = parts.Place(out.parent, epath.Path(args.shared), tuple(words))
    found = parts.resume(place)
    if args.process_id == 0:
        out.write_text(json.dumps(found))


if __name__ == "__main__":
    main()
