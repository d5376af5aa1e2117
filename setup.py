"""Installation of imagen_jax; `pip install -e .[train,test]` for development."""

import pathlib
import re

import setuptools

HERE = pathlib.Path(__file__).parent
VERSION = re.search(
    r'__version__ = "([^"]+)"', (HERE / "imagen_jax/__init__.py").read_text()
).group(1)

TRAIN = [
    "grain>=0.2.15",
    "tensorboardX>=2.6.2",
    "gcsfs>=2024.6",
    "pyarrow>=15.0",
    "protobuf>=4.25",
    "google-crc32c>=1.5",
]
# clu and tensorflow-datasets need the last two at run time without declaring them.
SEQIO = [
    "seqio>=0.0.19",
    "tensorflow-datasets>=4.9.4",
    "tensorflow>=2.16",
    "clu>=0.0.12",
    "tensorboard>=2.16",
    "importlib_resources>=6.0",
]
# CLIP's and BERT's.
TOKENIZERS = ["tokenizers>=0.20"]
# The page to draw on.
SERVE = ["aiohttp>=3.9"]
TEST = [
    *TOKENIZERS,
    *SERVE,
    "pytest>=8.0",
    "pytest-xdist>=3.5",
    "beartype>=0.18",
    "ruff>=0.6",
    "pyright>=1.1.380",
    "huggingface_hub>=0.25",
    # Compiles for TPUs on a CPU.
    "libtpu>=0.0.40",
    # Drives the page in the Chromium that is there; it brings none.
    "playwright>=1.45",
    # Run the notebooks.
    "nbclient>=0.10",
    "ipykernel>=6.29",
]

setuptools.setup(
    name="imagen_jax",
    version=VERSION,
    description="Imagen, the text-to-image pixel cascade, in JAX and Flax for TPUs.",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE", "NOTICE"],
    python_requires=">=3.11",
    # The experiments live at the top level; the wheel carries them as a sub-package.
    packages=[
        *setuptools.find_packages(include=["imagen_jax", "imagen_jax.*"]),
        "imagen_jax.configs",
        *(
            f"imagen_jax.configs.{p.name}"
            for p in sorted((HERE / "configs").iterdir())
            if p.is_dir() and not p.name.startswith("_")
        ),
    ],
    package_dir={"imagen_jax.configs": "configs"},
    package_data={
        "imagen_jax": ["py.typed"],
        "imagen_jax.data": ["assets/*"],
        "imagen_jax.text": ["assets/*"],
        "imagen_jax.published": ["emoji/*", "emoji_scorer/*"],
        "imagen_jax.serving": ["page/*"],
    },
    install_requires=[
        "jax>=0.10.2",
        "flax>=0.12.8",
        "optax>=0.2.5",
        "orbax-checkpoint>=0.11.22",
        # Which it brings along; checkpoints of t5x are read with them.
        "tensorstore>=0.1.71",
        "msgpack>=1.0",
        "ml-collections>=1.0",
        "absl-py>=2.1",
        "numpy>=1.26",
        "pillow>=10.3",
        "safetensors>=0.4.5",
        "sentencepiece>=0.2.0",
        "etils[epath]>=1.7",
        "jaxtyping>=0.2.34",
        "tqdm>=4.66",
    ],
    extras_require={
        "train": TRAIN,
        "seqio": SEQIO,
        "tokenizers": TOKENIZERS,
        "serve": SERVE,
        "tpu": ["jax[tpu]>=0.10.2"],
        "plan": ["libtpu>=0.0.40"],
        "hub": ["huggingface_hub>=0.25"],
        "cuda": ["jax[cuda13]>=0.10.2"],
        "test": TEST,
    },
    entry_points={"console_scripts": ["imagen-jax = imagen_jax.commands.main:main"]},
)
