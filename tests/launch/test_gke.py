"""The JobSet, read as Kubernetes reads it, and its container's script, run."""

import signal
import subprocess

import pytest
import yaml

from tests.launch.fakes import error_of

TRAIN = [
    "--", "imagen-jax", "train", "--config", "imagen/base_64", "--workdir", "gs://b/base",
]  # fmt: skip
WORDS = ["gke.py", "base", "--image=eu.gcr.io/p/imagen"]
TEXT = """\
kubectl apply -f - <<'END_OF_INPUT'
apiVersion: jobset.x-k8s.io/v1alpha2
kind: JobSet
metadata:
  name: base
  namespace: "default"
  annotations:
    # One node pool a slice: its pods must share the fast network.
    alpha.jobset.sigs.k8s.io/exclusive-topology: cloud.google.com/gke-nodepool
spec:
  failurePolicy:
    maxRestarts: 10
    rules:
    # A pod was taken away: begin again, however often.
    - name: takenAway
      action: RestartJobSetAndIgnoreMaxRestarts
      onJobFailureReasons:
      - PodFailurePolicy
  replicatedJobs:
  - name: slice
    replicas: 1
    template:
      spec:
        parallelism: 4
        completions: 4
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
              containerName: imagen-jax
              operator: In
              values: [143]
        template:
          spec:
            restartPolicy: Never
            terminationGracePeriodSeconds: 300
            hostNetwork: true
            dnsPolicy: ClusterFirstWithHostNet
            nodeSelector:
              cloud.google.com/gke-tpu-accelerator: "tpu-v6e-slice"
              cloud.google.com/gke-tpu-topology: "4x4"
            containers:
            - name: imagen-jax
              image: "eu.gcr.io/p/imagen"
              securityContext:
                privileged: true
              resources:
                limits:
                  google.com/tpu: 4
              command:
              - bash
              - -c
              - |
                stopped= child=
                trap 'stopped=yes; [ -z "$child" ] || kill -TERM "$child" \
2>/dev/null' TERM
                imagen-jax train --config imagen/base_64 --workdir gs://b/base \
--distributed &
                child=$!
                [ -z "$stopped" ] || kill -TERM "$child"
                while :; do  # a signal interrupts wait
                  wait "$child"
                  status=$?
                  kill -0 "$child" 2>/dev/null || break
                done
                if [ -n "$stopped" ] && [ "$status" -eq 0 ]; then status=143; fi
                exit "$status"
END_OF_INPUT
"""


def jobset(fakes, *words):
    """The manifest that kubectl gets, and its only job and pod."""
    done = fakes.launch(*WORDS, *words)
    assert done.returncode == 0, done.stderr
    [(argv, text)] = fakes.calls()
    assert argv == ["kubectl", "apply", "-f", "-"]
    found = yaml.safe_load(text)
    [job] = found["spec"]["replicatedJobs"]
    return found, job, job["template"]["spec"]["template"]["spec"]


def test_a_dry_run_prints_the_whole_manifest(fakes):
    done = fakes.launch(*WORDS, "--accelerator=v6e-16", "--dry_run", *TRAIN)
    assert done.returncode == 0 and done.stdout == TEXT, done.stderr


def test_slices_are_jobs_and_machines_are_pods(fakes):
    _, job, pod = jobset(
        fakes, "--accelerator=v5p-128", "--slices=3", *TRAIN, "--config.mesh.slices=3"
    )
    inner = job["template"]["spec"]
    assert job["replicas"] == 3
    assert inner["parallelism"] == inner["completions"] == 16
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5p-slice",
        "cloud.google.com/gke-tpu-topology": "4x4x4",
    }
    [container] = pod["containers"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}


def test_options_arrive_as_they_were_given(fakes):
    found, _, pod = jobset(
        fakes, "--accelerator=v5litepod-8", "--spot", "--namespace=team",
        "--node_selector=a.b/c=1", "--service_account=trainer", "--grace=60",
        "--max_restarts=2", "--env=A=x: \"y\" 'ü'", *TRAIN,
    )  # fmt: skip
    [container] = pod["containers"]
    assert found["metadata"]["namespace"] == "team"
    assert found["spec"]["failurePolicy"]["maxRestarts"] == 2
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["nodeSelector"]["a.b/c"] == "1"
    assert pod["serviceAccountName"] == "trainer"
    assert pod["terminationGracePeriodSeconds"] == 60
    assert container["env"] == [{"name": "A", "value": "x: \"y\" 'ü'"}]
    assert container["resources"]["limits"] == {"google.com/tpu": 8}
    assert "--distributed" not in container["command"][2]  # one machine


def script_of(fakes, *words):
    """The container's script after Kubernetes has replaced $$ and $(NAME)."""
    _, _, pod = jobset(fakes, "--accelerator=v5litepod-8", *TRAIN, *words)
    script = pod["containers"][0]["command"][2]
    # https://kubernetes.io/docs/tasks/inject-data-application: the operator is $.
    done, rest = "", script
    while rest:
        if rest.startswith("$$"):
            done, rest = done + "$", rest[2:]
        elif rest.startswith("$("):
            done, rest = done + "replaced", rest[rest.index(")") + 1 :]
        else:
            done, rest = done + rest[0], rest[1:]
    return done


def program(fakes, text):
    path = fakes.folder / "bin" / "imagen-jax"
    path.write_text(f"#!/bin/bash\n{text}")
    path.chmod(0o755)


@pytest.mark.parametrize("status", [0, 5])
def test_a_container_ends_with_its_command_and_gets_every_word(fakes, status):
    program(fakes, f'printf "%s|" "$@"; exit {status}')
    words = ["$(HOME)", "$$", "a\n  b ", "it's"]
    done = fakes.bash(script_of(fakes, *words))
    assert done.returncode == status
    assert done.stdout.split("|")[5:-1] == words


SAVES = """\
trap 'echo saved; exit {status}' TERM
echo ready
while :; do sleep 0.05; done
"""


@pytest.mark.parametrize(("status", "ended"), [(0, 143), (9, 9)])
def test_a_container_told_to_end_lets_it_save_and_has_not_finished(
    fakes, status, ended
):
    program(fakes, SAVES.format(status=status))
    process = subprocess.Popen(
        ["bash", "-c", script_of(fakes)],
        env=fakes.environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout and process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    rest, _ = process.communicate(timeout=20)
    assert (rest, process.returncode) == ("saved\n", ended)


def test_looking_afterwards(fakes):
    def printed(flag):
        return fakes.launch("gke.py", "base", flag, "--dry_run").stdout

    mine = "jobset.sigs.k8s.io/jobset-name=base"
    assert printed("--follow") == (
        f"kubectl --namespace=default logs --follow --tail=-1 --selector={mine},"
        "jobset.sigs.k8s.io/job-index=0,batch.kubernetes.io/job-completion-index=0\n"
    )
    assert printed("--status") == (
        "kubectl --namespace=default get jobset base\n"
        f"kubectl --namespace=default get pods --selector={mine} --output=wide\n"
    )
    assert printed("--stop") == "kubectl --namespace=default delete jobset base\n"


def test_what_cannot_work_is_one_line(fakes):
    def error(*words):
        return error_of(fakes.launch("gke.py", *words, *TRAIN))

    image = "--image=i"
    one = ["base", image, "--accelerator=v5litepod-8", "--slices=2"]
    assert "GKE joins only slices of several machines" in error(*one)
    for name in ("Base", "b_a", "1a", "a-", "a" * 60):
        assert "NAME must be at most" in error(name, image, "--accelerator=v4-16")
    bad = ["base", image, "--accelerator=v4-16", "--node_selector=x"]
    assert "--node_selector must be LABEL=VALUE, got 'x'" in error(*bad)
    assert error("base", "--accelerator=v4-16")
    assert fakes.calls() == []
