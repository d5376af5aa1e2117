"""Keep a command going on a queued resource until it has ended."""

import argparse
import time

import accelerators
import cloud_tpu
import shell
import training_command
import workers

UNREACHABLE = 5  # so many looks that fail: the machines are given up
SOUND = 30  # after so many good looks, earlier failures are forgotten


class Watch:
    """Asks for the resource, starts the command, watches both, and begins again.

    There is no state here but counts: the state is the resource's, the run's on the
    first worker, and the checkpoints'. A new watch takes over from one that has died.
    """

    def __init__(
        self,
        sh: shell.Shell,
        resource: cloud_tpu.QueuedResource,
        args: argparse.Namespace,
        slice_: accelerators.Slice,
        command: list[str],
    ):
        """Prepare to run `command` on `resource`, made of `slice_`s."""
        self._sh, self._resource, self._args = sh, resource, args
        self._slice, self._command = slice_, command
        self._failures = 0

    def run(self) -> int:
        """Go on until the command has ended; returns its status."""
        while True:
            self._obtain()
            seen = self._run_once()
            if seen == "stopped":
                shell.say("The command was stopped; give it again to go on.")
                return training_command.STOPPED
            if seen == "ended 0":
                if not self._args.keep:
                    self._release()
                return 0
            if seen.startswith("failed"):
                self._failures += 1
                if self._failures > self._args.max_restarts:
                    raise shell.LaunchError(
                        f"the command {seen} {self._failures} times; see its log with "
                        f"--follow. {self._resource.name} was kept; --delete it."
                    )
                shell.say(f"The command {seen}.")
            self._pause("starting it again")

    def _obtain(self) -> None:
        """Return when the resource is active; ask for it as often as that takes."""
        tries = 0
        state = self._state(dry="")
        while state != "ACTIVE":
            if not state:
                self._sh.run(self._resource.create(self._slice))
                state = self._state(dry="ACTIVE")
            elif state in ("FAILED", "SUSPENDED"):
                shell.say(f"{self._resource.name} is {state}; a new one is asked for.")
                self._release()
                if tries:
                    self._pause("asking again", times=2 ** min(tries, 5))
                tries += 1
                state = self._state(dry="")
            else:
                self._pause(f"{self._resource.name} is {state}")
                state = self._state(dry="ACTIVE")

    def _run_once(self) -> str:
        """Start the command unless it runs, and watch it.

        Returns:
          "ended 0"; "stopped", by hand; "failed ..."; or "gone", when the machines are
          or will be taken away, or have started anew.
        """
        seen = self._look(dry="none")
        if seen == "running":
            shell.say("A command runs there already and is watched; --stop ends it.")
            return self._watch()
        try:
            if seen != "none":  # some worker may not have noticed the end
                self._sh.run(self._resource.on("all", workers.STOP))
            cloud_tpu.set_up_and_start(
                self._sh, self._resource, self._args, self._command
            )
        except shell.LaunchError as error:
            shell.say(str(error))
            return "failed to start" if self._active() else "gone"
        shell.say("Started; --follow shows its log.")
        return self._watch()

    def _watch(self) -> str:
        """Look until there is something to do; returns as `_run_once`."""
        looks = missed = 0
        while True:
            self._pause()
            if not self._active():
                return "gone"
            seen = self._look(dry="ended 0")
            looks, missed = looks + 1, missed + 1 if seen == "unreachable" else 0
            if looks == SOUND:
                self._failures = 0
            if missed == UNREACHABLE:
                shell.say(f"{self._resource.name} cannot be reached; it is given up.")
                self._release()
                return "gone"
            if seen in ("none", "lost", f"ended {training_command.STOPPED}"):
                return "gone"
            if seen in ("ended 0", "stopped"):
                return seen
            if seen.startswith("ended"):
                # Or another machine was taken away, and its state is not known yet.
                self._pause()
                failed = f"failed with status {seen.split()[1]}"
                return failed if self._active() else "gone"

    def _active(self) -> bool:
        return self._state(dry="ACTIVE") == "ACTIVE"

    def _state(self, *, dry: str) -> str:
        for _ in range(UNREACHABLE):  # a watch of weeks outlives a network that fails
            try:
                return self._sh.output(self._resource.state(), dry=dry)
            except shell.MissingProgram:
                raise
            except shell.LaunchError as error:
                shell.say(str(error))
                self._pause("asking for its state again")
        return self._sh.output(self._resource.state(), dry=dry)

    def _look(self, *, dry: str) -> str:
        """What the first worker does, as `workers.LOOK` prints it, or "unreachable"."""
        try:
            return self._sh.output(self._resource.on("0", workers.LOOK), dry=dry)
        except shell.LaunchError:
            return "unreachable"

    def _release(self) -> None:
        """Delete the resource; one that is being taken away may refuse for a while."""
        for _ in range(UNREACHABLE):
            if self._sh.status(self._resource.delete()) == 0:
                return
            self._pause("deleting it again")
        raise shell.LaunchError(
            f"{self._resource.name} could not be deleted; see above."
        )

    def _pause(self, why: str = "", *, times: int = 1) -> None:
        seconds = self._args.interval * times
        if why:
            shell.say(f"{why}, in {seconds:g} s." if times > 1 else f"{why}; waiting.")
        if not self._sh.dry_run:
            time.sleep(seconds)
