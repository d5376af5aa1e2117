"""The command line `imagen-jax COMMAND ...`; a command is one module beside this."""

import argparse
import importlib
import importlib.metadata
import importlib.util
import os
import pathlib
import sys
from collections.abc import Sequence

COMMANDS = {
    "sample": "draw pictures from prompts",
    "grid": "draw one prompt with many values of two settings, as one picture",
    "serve": "a page to draw on, in a browser",
    "edit": "change, extend, enlarge or vary a picture of your own",
    "train": "train a stage or a text encoder from a config",
    "data": "check, summarise, convert or preview your own pictures",
    "embed": "encode a data set's captions once, before training",
    "plan": "compile a config for TPUs that are not here: does it fit, how long",
    "accept": "twenty minutes that tell whether this machine is up to it",
    "bench": "time a config on the devices that are here",
    "params": "count the parameters of a config's networks",
    "convert": "turn published weights into a model directory",
    "export": "put trained stages together into a model directory",
    "evaluate": "check drawn pictures against their captions",
}

PCI = pathlib.Path("/sys/bus/pci/devices")
GOOGLE = "0x1ae0"  # As a vendor of PCI devices; JAX finds TPUs by it too.


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status.

    Errors that a user can mend are one line on standard error and status 2.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = argparse.ArgumentParser(
        prog="imagen-jax",
        description="Imagen, the text-to-image pixel cascade, in JAX.",
        epilog="`imagen-jax COMMAND --help` tells a command's flags.",
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, summary in COMMANDS.items():
        # Only the command asked for is imported: the others may need what is absent.
        sub = commands.add_parser(name, help=summary, description=summary)
        if argv[:1] == [name]:
            importlib.import_module(f"imagen_jax.commands.{name}").add_arguments(sub)
    known, rest = parser.parse_known_args(argv)
    if rest and not getattr(known, "takes_config", False):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    use_all_cores()
    leave_absent_tpus()
    command = importlib.import_module(f"imagen_jax.commands.{known.command}")
    try:
        return command.run(known, rest) or 0
    except BrokenPipeError:  # The reader of our output has gone, as `| head` does.
        return 1
    except (ValueError, OSError, RuntimeError, ImportError) as error:
        if os.environ.get("IMAGEN_JAX_DEBUG") == "1":
            raise
        print(f"imagen-jax: error: {one_line(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("imagen-jax: interrupted.", file=sys.stderr)
        return 130


def one_line(error: Exception) -> str:
    """The error's text without line breaks."""
    text = " ".join(str(error).split())
    return text or type(error).__name__


def use_all_cores() -> None:
    """Let XLA's CPU backend split the batch over the cores of a small machine.

    Its convolutions use one core for the shapes of small networks; as many virtual
    devices as cores makes training and sampling faster. It says nothing to a GPU or a
    TPU, and yields to a choice made in XLA_FLAGS.
    """
    flag = "--xla_force_host_platform_device_count"
    flags = os.environ.get("XLA_FLAGS", "")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    if flag not in flags and 1 < cores <= 16:
        os.environ["XLA_FLAGS"] = f"{flags} {flag}={cores}".strip()


def leave_absent_tpus() -> None:
    """Choose the CPU where the TPU's compiler is installed but no TPU is.

    `imagen-jax plan` needs libtpu; every other command would look for chips with it,
    and complain. It says nothing where JAX_PLATFORMS is set or a GPU's plugin is there.
    """
    if "JAX_PLATFORMS" in os.environ or importlib.util.find_spec("libtpu") is None:
        return
    vendors = (path.read_text().strip() for path in PCI.glob("*/vendor"))
    chips = any(vendor == GOOGLE for vendor in vendors)
    if not chips and not importlib.metadata.entry_points(group="jax_plugins"):
        os.environ["JAX_PLATFORMS"] = "cpu"


if __name__ == "__main__":
    sys.exit(main())
