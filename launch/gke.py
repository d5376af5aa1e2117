"""Run a command on TPU slices of a Kubernetes cluster, as a JobSet.

  python launch/gke.py base --accelerator v5p-128 --slices 2 --image IMAGE -- \\
    imagen-jax train --config imagen/base_64 --config.mesh.slices=2 \\
      --workdir gs://BUCKET/base
  python launch/gke.py base --follow
  python launch/gke.py base --stop

The cluster has JobSet installed and one TPU node pool a slice; launch/Dockerfile makes
the image. A pod that is taken away gets SIGTERM and saves; then all pods are made anew,
and the same command goes on from its checkpoint, as often as that happens. Failures of
the command itself are tried again `--max_restarts` times.
"""

import argparse
import json
import re
import shlex

import accelerators
import shell
import training_command

CONTAINER = "imagen-jax"
JOB = "slice"


def arguments() -> argparse.Namespace:
    """Read the command line."""
    p = argparse.ArgumentParser(description=__doc__, usage="NAME [flags]")
    p.add_argument("name", help="the JobSet's name")
    p.add_argument("--namespace", default="default")
    p.add_argument(
        "--accelerator", metavar="TYPE", help="a slice, such as v5p-128 or v6e-16"
    )
    p.add_argument("--slices", type=int, default=1, help="so many slices, one job")
    p.add_argument("--image", help="a container image with imagen-jax")
    p.add_argument(
        "--service_account", help="Kubernetes account that may write the bucket"
    )
    p.add_argument("--spot", action="store_true", help="on Spot nodes")
    p.add_argument(
        "--node_selector",
        action="append",
        default=[],
        metavar="LABEL=VALUE",
        help="a label that the nodes must have; may be repeated",
    )
    p.add_argument(
        "--grace", type=int, default=300, help="seconds to save in after SIGTERM"
    )
    p.add_argument(
        "--max_restarts", type=int, default=10, help="after failures of the command"
    )
    later = p.add_argument_group("afterwards, without a command")
    later = later.add_mutually_exclusive_group()
    later.add_argument(
        "--follow", action="store_true", help="show the first pod's log as it grows"
    )
    later.add_argument("--status", action="store_true", help="tell what each pod does")
    later.add_argument(
        "--stop", action="store_true", help="let it save its state, and delete it"
    )
    args = training_command.parse(p)
    if bool(args.command) == bool(args.follow or args.status or args.stop):
        p.error("give a command after --, or --follow, --status or --stop")
    if args.command and not (args.accelerator and args.image):
        p.error("--accelerator and --image are needed to start a command")
    if args.slices < 1 or args.grace < 1 or args.max_restarts < 0:
        p.error("--slices and --grace must be positive, --max_restarts not negative")
    return args


def check_name(name: str, slices: int, hosts: int) -> None:
    """Refuse a name whose pods' names would be refused, long after.

    Raises:
      LaunchError: for a name that is too long or has other characters.
    """
    longest = 63 - len(f"-{JOB}-{slices - 1}-{hosts - 1}")
    if not re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", name) or len(name) > longest:
        raise shell.LaunchError(
            f"NAME must be at most {longest} lower-case letters, digits and inner "
            f"hyphens, got {name!r}."
        )


def manifest(
    args: argparse.Namespace, slice_: accelerators.Slice, command: list[str]
) -> str:
    """The JobSet, as YAML.

    JobSet makes one job a slice and one pod a machine. GKE tells each pod its place
    (TPU_WORKER_ID, TPU_WORKER_HOSTNAMES, and the MEGASCALE variables of several
    slices), and jax.distributed finds the others by these. Strings from the command
    line stand as JSON, which is YAML.
    """
    selector = {
        "cloud.google.com/gke-tpu-accelerator": slice_.generation.gke,
        "cloud.google.com/gke-tpu-topology": slice_.topology,
        **({"cloud.google.com/gke-spot": "true"} if args.spot else {}),
        **labels(args.node_selector),
    }
    container = container_of(args, slice_, command)
    account = args.service_account
    pod = [
        "restartPolicy: Never",
        f"terminationGracePeriodSeconds: {args.grace}",
        *([f"serviceAccountName: {quoted(account)}"] if account else []),
        "hostNetwork: true",
        "dnsPolicy: ClusterFirstWithHostNet",
        "nodeSelector:",
        *(f"  {name}: {quoted(value)}" for name, value in selector.items()),
        "containers:",
        *container,
    ]
    return f"""\
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: {args.name}
  namespace: {quoted(args.namespace)}
  annotations:
    # One node pool a slice: its pods must share the fast network.
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: {args.max_restarts}
    rules:
    # A pod was taken away: begin again, however often.
    - name: takenAway
      action: RestartJobSetAndIgnoreMaxRestarts
      onJobFailureReasons:
      - PodFailurePolicy
  replicatedJobs:
  - name: {JOB}
    replicas: {args.slices}
    template:
      spec:
        parallelism: {slice_.hosts}
        completions: {slice_.hosts}
        completionMode: Indexed
        backoffLimit: 0
        podFailurePolicy:
          rules:
          - action: FailJob
            onPodConditions:
            - type: DisruptionTarget
              status: "True"
          - action: FailJob
            onExitCodes:
              containerName: {CONTAINER}
              operator: In
              values: [{training_command.STOPPED}]
        template:
          spec:
{indented(pod, 12)}"""


def container_of(
    args: argparse.Namespace, slice_: accelerators.Slice, command: list[str]
) -> list[str]:
    """Lines of the container that runs the command."""
    script = training_command.stoppable(shlex.join(command)) + 'exit "$status"\n'
    # Kubernetes reads $$ as $ and replaces $(NAME).
    script = re.sub(r"\$(?=[$(])", "$$", script)
    variables = training_command.variables(args.env)
    return [
        f"- name: {CONTAINER}",
        f"  image: {quoted(args.image)}",
        "  securityContext:",
        "    privileged: true",
        *(["  env:"] if variables else []),
        *(
            line
            for name, value in variables
            for line in (f"  - name: {name}", f"    value: {quoted(value)}")
        ),
        "  resources:",
        "    limits:",
        f"      google.com/tpu: {slice_.chips_per_host}",
        "  command:",
        "  - bash",
        "  - -c",
        "  - |",
        *(f"    {line}" for line in script.splitlines()),
    ]


def quoted(text: str) -> str:
    """A string for YAML."""
    return json.dumps(text, ensure_ascii=False)


def labels(settings: list[str]) -> dict[str, str]:
    """The labels of `--node_selector LABEL=VALUE` flags."""
    found = {}
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals or not re.fullmatch(r"[A-Za-z0-9./_-]+", name):
            raise shell.LaunchError(
                f"--node_selector must be LABEL=VALUE, got {setting!r}."
            )
        found[name] = value
    return found


def indented(lines: list[str], spaces: int) -> str:
    """Lines of text, so far to the right."""
    return "".join(f"{' ' * spaces}{line}\n" for line in lines)


def main() -> None:
    """Read the command line and do it."""
    args = arguments()
    sh = shell.Shell(dry_run=args.dry_run)
    kubectl = ["kubectl", f"--namespace={args.namespace}"]
    mine = f"jobset.sigs.k8s.io/jobset-name={args.name}"
    if args.follow:
        first = (
            f"{mine},jobset.sigs.k8s.io/job-index=0,"
            "batch.kubernetes.io/job-completion-index=0"
        )
        sh.run([*kubectl, "logs", "--follow", "--tail=-1", f"--selector={first}"])
    if args.status:
        sh.run([*kubectl, "get", "jobset", args.name])
        sh.run([*kubectl, "get", "pods", f"--selector={mine}", "--output=wide"])
    if args.stop:
        sh.run([*kubectl, "delete", "jobset", args.name])
    if args.command:
        slice_ = accelerators.find(args.accelerator)
        if args.slices > 1 and slice_.hosts == 1:
            raise shell.LaunchError(
                f"--slices {args.slices}: GKE joins only slices of several machines, "
                f"and {slice_.name} is one; take a larger slice."
            )
        check_name(args.name, args.slices, slice_.hosts)
        command = training_command.checked(
            args.command, processes=slice_.hosts * args.slices, slices=args.slices
        )
        sh.run(["kubectl", "apply", "-f", "-"], stdin=manifest(args, slice_, command))


if __name__ == "__main__":
    shell.main("gke.py", main)
