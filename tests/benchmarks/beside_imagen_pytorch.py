"""Training and sampling steps beside imagen-pytorch's, at equal size, in one run.

Both draw 32 px pictures from text that comes encoded, with U-Nets of nearly the same
number of parameters, the same channels, blocks and levels of attention, float32, Adam,
clipping and an average of the parameters; sampling with guidance (two passes) and
dynamic thresholding. Each is a process of its own with as many threads; they take
turns, step by step, so that what else the machine does hits both.

  python3.11 -m venv pytorch && pytorch/bin/pip install imagen-pytorch
  python -m tests.benchmarks.beside_imagen_pytorch pytorch/bin/python
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

DIM, SIDE, LENGTH, WIDTH, STEPS = 64, 32, 32, 256, 10
WHAT = ("train", "sample")


def ours(batch: int) -> tuple[int, dict[str, Callable[[], object]]]:
    """(parameters, one call of each kind) of this package."""
    import jax

    from imagen_jax import partitioning
    from imagen_jax.benchmark import timing
    from imagen_jax.commands import configs
    from imagen_jax.planning import programs

    config = configs.load("imagen/base_64")
    flags = {
        "network.channels": DIM,
        "network.channel_mult": (1, 2, 4),
        "network.num_res_blocks": 2,
        "network.attention_levels": (1, 2),
        "network.text_features": WIDTH,
        "network.dtype": "float32",
        "network.remat": "none",
        "text.encoder.d_model": WIDTH,
        "text.length": LENGTH,
        "stage.resolution": SIDE,
        "data.embeddings": "ahead",
        "training.kernel_dtype": "float32",
        "optimizer.kind": "adam",
        "optimizer.clip_norm": 1.0,
        "sampling.steps": STEPS,
        "sampling.w": 3.0,
        "sampling.threshold": "dynamic",
    }
    configs.override(config, [f"--config.{k}={v}" for k, v in flags.items()])
    mesh = partitioning.make_mesh({"data": -1})
    made, calls = {}, {}
    for kind in WHAT:
        made[kind] = program = programs.make(config, kind, mesh, batch)
        compiled = program.trace().lower().compile()
        arguments = list(timing.made_up(program.arguments))

        def call(compiled=compiled, arguments=arguments, kind=kind):
            result = jax.block_until_ready(compiled(*arguments))
            if kind == "train":
                arguments[1] = result[0]

        calls[kind] = call
    return made["train"].parameters, calls


def theirs(batch: int) -> tuple[int, dict[str, Callable[[], object]]]:
    """The same of imagen-pytorch; runs where it is installed."""
    import torch
    import transformers

    # It asks the hub for a T5's width when it is imported, which no text needs here.
    transformers.T5Config.from_pretrained = classmethod(
        lambda cls, *args, **kwargs: cls(d_model=WIDTH)
    )
    from imagen_pytorch import Imagen, Unet

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    device = "cuda" if torch.cuda.is_available() else "cpu"
    unet = Unet(
        dim=DIM,
        dim_mults=(1, 2, 4),
        num_resnet_blocks=2,
        layer_attns=(False, True, True),
        layer_cross_attns=(False, True, True),
        text_embed_dim=WIDTH,
        cond_dim=WIDTH,
    )
    imagen = Imagen(
        unets=(unet,),
        image_sizes=(SIDE,),
        timesteps=STEPS,
        text_embed_dim=WIDTH,
        cond_drop_prob=0.1,
    ).to(device)
    parameters = list(imagen.unets[0].parameters())
    average = [p.detach().clone() for p in parameters]
    optimizer = torch.optim.Adam(parameters, lr=1e-4)
    pictures = torch.rand(batch, 3, SIDE, SIDE, device=device)
    text = torch.randn(batch, LENGTH, WIDTH, device=device)
    mask = torch.ones(batch, LENGTH, dtype=torch.bool, device=device)

    def train():
        imagen.train()
        loss = imagen(pictures, text_embeds=text, text_masks=mask, unet_number=1)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad()
        torch._foreach_lerp_(average, [p.detach() for p in parameters], 1e-4)
        loss.item()

    def sample():
        imagen.sample(
            text_embeds=text, text_masks=mask, cond_scale=3.0, use_tqdm=False
        ).cpu()

    return sum(p.numel() for p in parameters), {"train": train, "sample": sample}


def work(who: str, batch: int) -> None:
    """Answer each line, "train" or "sample", with the seconds of one call."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not mix with the answers
    size, calls = {"ours": ours, "theirs": theirs}[who](batch)
    for call in calls.values():
        call()
    print(json.dumps({"parameters": size}), file=answers, flush=True)
    for line in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        calls[line.strip()]()
        told = {
            "wall": time.perf_counter() - wall,
            "cpu": time.process_time() - cpu,
        }
        print(json.dumps(told), file=answers, flush=True)


class Worker:
    """One side, in a process of its own."""

    def __init__(self, python: str, who: str, batch: int):
        self.command = [python, __file__, "worker", who, str(batch)]
        cores = len(os.sched_getaffinity(0))
        devices = f"--xla_force_host_platform_device_count={cores}"
        self.process = subprocess.Popen(
            self.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={
                **os.environ,
                "PYTHONPATH": os.getcwd(),
                "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {devices}".strip(),
                "OMP_WAIT_POLICY": "passive",
            },
        )
        self.parameters = self.answer()["parameters"]

    def answer(self) -> dict:
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"This ended; run it to see why: {self.command}")
        return json.loads(line)

    def ask(self, what: str) -> dict:
        print(what, file=self.process.stdin, flush=True)
        return self.answer()


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("python", help="of an environment that has imagen-pytorch")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=8)
    args = parser.parse_args()
    sides = {
        "imagen_jax": Worker(sys.executable, "ours", args.batch),
        "imagen-pytorch": Worker(args.python, "theirs", args.batch),
    }
    found = {(what, name): [] for what in WHAT for name in sides}
    for _ in range(args.rounds):
        for what in WHAT:
            for name, side in sides.items():
                found[what, name].append(side.ask(what))
    sizes = ", ".join(f"{n} {s.parameters / 1e6:.1f}M" for n, s in sides.items())
    print(f"{SIDE} x {SIDE}, batch {args.batch}; parameters: {sizes}\n")
    print("| step | | wall s, least | median | CPU s, least |\n|---|---|---|---|---|")
    for what in WHAT:
        part = 1 if what == "train" else STEPS
        least = {}
        for name in sides:
            wall = [told["wall"] / part for told in found[what, name]]
            cpu = min(told["cpu"] / part for told in found[what, name])
            least[name] = min(wall)
            middle = statistics.median(wall)
            print(f"| {what} | {name} | {min(wall):.3f} | {middle:.3f} | {cpu:.3f} |")
        ratio = least["imagen-pytorch"] / least["imagen_jax"]
        print(f"| {what} | ratio | {ratio:.2f} times as fast | | |")
    for side in sides.values():
        side.process.kill()


if __name__ == "__main__":
    if sys.argv[1:2] == ["worker"]:
        work(sys.argv[2], int(sys.argv[3]))
    else:
        main()
