"""Checkpoints of a run in one folder: the only file that knows Orbax."""

import os
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath

from imagen_jax.checkpoints import checksums

Tree = Any
Folder = str | os.PathLike


# Replicated arrays are cut among their devices, each of which writes a part. A cut is
# a program to compile, so that a thousand small arrays would take minutes.
SMALLEST_PART = 1 << 20
TYPES = ocp.type_handlers.create_type_handler_registry(
    (int, ocp.type_handlers.ScalarHandler()),
    (float, ocp.type_handlers.ScalarHandler()),
    (np.ndarray, ocp.type_handlers.NumpyHandler()),
    (
        jax.Array,
        ocp.type_handlers.ArrayHandler(
            min_slice_bytes_for_replica_parallel=SMALLEST_PART
        ),
    ),
)


class CheckpointError(RuntimeError):
    """A checkpoint that is not there, cannot be read, or is another model's."""


class Store:
    """The checkpoints of one run, numbered by step, the last few kept.

    Saving is asynchronous: `save` returns when the arrays have left the devices, and a
    folder gets its final name only when it is whole, so a kill at any moment leaves
    the earlier ones intact. Use as a context manager, or call `close`.
    """

    def __init__(self, directory: Folder, *, keep: int = 3):
        """Open or make the folder, and remove what a killed save has left in it."""
        self.directory = _absolute(directory)
        self._saving: int | None = None
        self._manager = ocp.CheckpointManager(
            self.directory,
            item_handlers={
                "state": ocp.PyTreeCheckpointHandler(type_handler_registry=TYPES),
                "position": ocp.JsonCheckpointHandler(),
            },
            options=ocp.CheckpointManagerOptions(
                max_to_keep=keep,
                cleanup_tmp_directories=True,
                async_options=ocp.AsyncOptions(post_finalization_callback=self._seal),
            ),
        )

    def __enter__(self) -> "Store":
        return self

    def __exit__(self, *exception):
        self.close()

    def all_steps(self) -> list[int]:
        """The steps that have a whole checkpoint, oldest first."""
        return steps(self.directory)

    def latest_step(self) -> int | None:
        """The newest step, or None in an empty folder."""
        return max(self.all_steps(), default=None)

    def save(self, step: int, state: Tree, position: Mapping[str, Any]) -> None:
        """Begin to save a tree of arrays and, as JSON, the position in the data.

        A step that is there already is left alone: it holds the same.
        """
        if step in self._manager.all_steps():
            return
        # The next line may wait for the save before, whose seal needs its own step.
        self._manager.wait_until_finished()
        self._saving = step
        self._manager.save(
            step,
            args=ocp.args.Composite(
                state=ocp.args.PyTreeSave(state),
                position=ocp.args.JsonSave(dict(position)),
            ),
        )

    def restore(self, target: Tree, step: int | None = None) -> tuple[Tree, dict]:
        """Read a checkpoint: (state, position).

        Args:
          target: a tree of arrays or of jax.ShapeDtypeStruct with shardings. The
            mesh may be another one than at saving.
          step: which; the newest by default.

        Raises:
          CheckpointError: if there is none, it cannot be read, or its arrays have
            other names or shapes than the target's. An older checkpoint is never
            taken in its place.
        """
        step = find_step(self.directory, step)
        _require_undamaged(self.directory, step)
        _compare(self.directory, step, _saved_tree(self.directory, step), target)
        try:
            read = self._manager.restore(
                step,
                args=ocp.args.Composite(
                    state=ocp.args.PyTreeRestore(
                        item=target,
                        restore_args=ocp.checkpoint_utils.construct_restore_args(
                            target
                        ),
                    ),
                    position=ocp.args.JsonRestore(),
                ),
            )
            return read["state"], dict(read["position"])
        except Exception as error:
            raise _unreadable(self.directory, step, error) from error

    def _seal(self) -> None:
        """Note checksums in a folder that is written, before it gets its final name."""
        if jax.process_index() == 0 and not _remote(self.directory):
            for folder in self.directory.glob(f"{self._saving}.*tmp*"):
                checksums.write(folder)

    def preempted(self, step: int) -> bool:
        """Whether this job, on any of its hosts, has been told to go."""
        return self._manager.reached_preemption(step)

    def wait(self) -> None:
        """Return when everything is written."""
        self._manager.wait_until_finished()

    def close(self) -> None:
        """Wait for what is being written, and let go of the folder."""
        self._manager.close()


def steps(directory: Folder) -> list[int]:
    """The steps saved whole in a folder, oldest first; touches nothing in it."""
    root = epath.Path(directory)
    if not root.exists():
        return []
    # A local folder gets its number when it is whole; an object store cannot rename,
    # and is marked instead.
    return sorted(
        int(p.name)
        for p in root.iterdir()
        if p.name.isdigit() and (not _remote(p) or (p / "commit_success.txt").exists())
    )


def find_step(directory: Folder, step: int | None = None) -> int:
    """The step asked for, or the newest one.

    Raises:
      CheckpointError: if it is not there.
    """
    there = steps(directory)
    if not there:
        raise CheckpointError(f"Checkpoint: none in {directory}.")
    if step is None:
        return there[-1]
    if step not in there:
        raise CheckpointError(
            f"Checkpoint: no step {step} in {directory}; there are {there}."
        )
    return step


def load(
    directory: Folder,
    part: str = "ema_params",
    *,
    step: int | None = None,
    target: Tree | None = None,
) -> Tree:
    """Read one part of a checkpoint, for sampling, export or fine-tuning.

    Args:
      directory: the folder of a `Store`; it may still be written to.
      part: "ema_params" or "params", or another field of the saved state.
      step: which; the newest by default.
      target: arrays or jax.ShapeDtypeStruct with shardings, to restore to. Without
        it, the part comes as nested dicts of numpy arrays.

    Raises:
      CheckpointError: as `Store.restore`, or if the state has no such part.
    """
    step = find_step(directory, step)
    _require_undamaged(directory, step)
    path = _absolute(directory) / str(step) / "state"
    saved = _saved_tree(directory, step)
    if part not in saved:
        raise CheckpointError(
            f"Checkpoint: step {step} in {directory} has {sorted(saved)}, not {part!r}."
        )
    if target is None:
        item = jax.tree.map(lambda a: np.empty(a.shape, a.dtype), saved[part])
        arguments = jax.tree.map(
            lambda a: ocp.RestoreArgs(restore_type=np.ndarray), item
        )
    else:
        _compare(directory, step, saved[part], target)
        item = target
        arguments = ocp.checkpoint_utils.construct_restore_args(item)
    try:
        with ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
            return reader.restore(
                path,
                args=ocp.args.PyTreeRestore(
                    item={part: item},
                    restore_args={part: arguments},
                    partial_restore=True,
                ),
            )[part]
    except Exception as error:
        raise _unreadable(directory, step, error) from error


def flatten(tree: Tree) -> dict[str, Any]:
    """{"a": {"b": x}} -> {"a/b": x}."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): leaf
        for path, leaf in leaves
    }


def _saved_tree(directory, step: int) -> dict:
    """The saved state's shapes and dtypes as nested dicts and lists."""
    path = _absolute(directory) / str(step) / "state"
    try:
        handler = ocp.PyTreeCheckpointHandler()
        return handler.metadata(path).tree
    except Exception as error:
        raise _unreadable(directory, step, error) from error


def _absolute(directory: Folder) -> epath.Path:
    # `absolute` would make "gs://bucket" a folder of the working directory.
    path = epath.Path(directory)
    return path if _remote(path) else path.absolute()


def _remote(directory) -> bool:
    return "://" in str(directory)


def _require_undamaged(directory, step: int) -> None:
    if not _remote(directory):
        damage = checksums.find_damage(epath.Path(directory) / str(step))
        if damage:
            raise _unreadable(directory, step, ValueError(damage))


def _compare(directory, step: int, saved: Tree, target: Tree) -> None:
    have, want = flatten(saved), flatten(target)
    wrong = [f"{n} is missing" for n in want if n not in have]
    wrong += [f"{n} is not wanted" for n in have if n not in want]
    wrong += [
        f"{n} has shape {tuple(have[n].shape)}, wanted {tuple(want[n].shape)}"
        for n in want
        if n in have and tuple(have[n].shape) != tuple(want[n].shape)
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            f"Checkpoint: step {step} in {directory} belongs to another model or "
            f"optimizer: {'; '.join(wrong[:3])}{more}. Use the config it was made "
            "with, another workdir, or --init_from to take the parameters that fit."
        )


def _unreadable(directory, step: int, error: Exception) -> CheckpointError:
    reason = " ".join(str(error).split())[:200] or type(error).__name__
    older = [s for s in steps(directory) if s < step]
    after = f"go on from step {older[-1]}" if older else "start anew"
    return CheckpointError(
        f"Checkpoint: step {step} in {directory} cannot be read ({reason}). Remove the "
        f"folder {epath.Path(directory) / str(step)} to {after}."
    )
