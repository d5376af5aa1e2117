"""How many pictures a second one core reads from JPEG tars; the table of docs/data.md.

`python -m tests.benchmarks.data_speed [--pictures N] [--seconds S] [--minutes M]`. With
`--minutes` it also reads for so long and prints the memory used at intervals.
"""

import argparse
import io
import os
import pathlib
import resource
import tarfile
import tempfile
import time

import numpy as np
from PIL import Image

from imagen_jax.data import picture_task

# The power of frequency by which amplitudes fall: JPEGs then have about 2 bits a pixel,
# as photographs have. (At 1, the law of natural scenes without their edges, 5.)
DETAIL = 1.4
# (side of the pictures in the files, stage's resolution, crop)
CASES = (
    (512, 64, None),
    (512, 256, None),
    (512, 256, 64),
    (1280, 64, None),
    (1280, 256, None),
    (1280, 1024, 256),
)


def photograph(side: int, number: int) -> bytes:
    """A JPEG (quality 90, 4:3) with about a photograph's share of fine detail."""
    draw = np.random.default_rng(number)
    height, width = side, side * 4 // 3
    frequency = np.hypot(
        np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None, :]
    )
    amplitude = np.maximum(frequency, 1.0 / width) ** -DETAIL
    planes = []
    for _ in range(3):
        phase = np.exp(2j * np.pi * draw.uniform(size=frequency.shape))
        planes.append(np.fft.irfft2(amplitude * phase, (height, width)))
    grey = planes[0]
    x = np.stack([grey + 0.3 * plane for plane in planes], -1)
    x = 128 + 50 * (x - x.mean()) / x.std()
    file = io.BytesIO()
    pixels = np.clip(x, 0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()


def write(folder: pathlib.Path, side: int, number: int) -> float:
    """Write a tar of pictures and captions; returns their mean size in kB."""
    folder.mkdir()
    total = 0
    with tarfile.open(folder / "00000.tar", "w") as tar:
        for i in range(number):
            data = photograph(side, i)
            total += len(data)
            for suffix, part in (("jpg", data), ("txt", b"a photograph")):
                member = tarfile.TarInfo(f"{i:06d}.{suffix}")
                member.size = len(part)
                tar.addfile(member, io.BytesIO(part))
    return total / number / 1e3


def source_of(path: str, resolution: int):
    settings = picture_task.PictureSettings(path=path, heldout=0.0)
    return picture_task.source(settings, "train", resolution=resolution, batch_size=1)


def rate(source, resolution: int, crop: int | None, seconds: float) -> float:
    """Pictures a second by this one thread."""
    window = None if crop is None else (crop // 2, crop // 2, crop)
    source.example(0, 0, resolution, window)
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        done += 1
        source.example(0, done, resolution, window)
    return done / (time.perf_counter() - start)


def memory() -> float:
    """This process's resident memory in MB."""
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=100)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--minutes", type=float, default=0.0)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        sizes = {
            side: write(root / str(side), side, args.pictures)
            for side in sorted({case[0] for case in CASES})
        }
        print("| JPEG, shorter side | kB | to | crop | pictures/s, one core |")
        print("|---|---|---|---|---|")
        for side, resolution, crop in CASES:
            source = source_of(str(root / str(side)), resolution)
            found = rate(source, resolution, crop, args.seconds)
            print(
                f"| {side} | {sizes[side]:.0f} | {resolution} | {crop or ''} | "
                f"{found:,.0f} |"
            )
        end, source = (
            time.monotonic() + 60 * args.minutes,
            source_of(str(root / "512"), 64),
        )
        done = 0
        while time.monotonic() < end:
            for _ in range(2000):
                source.example(0, done, 64)
                done += 1
            print(f"{done:>8} pictures, {memory():.0f} MB")
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"peak memory {peak:.0f} MB")


if __name__ == "__main__":
    main()
