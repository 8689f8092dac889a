"""Fashion-MNIST's four files, made up: garments are blocks, bright ones to train on and dim ones to test."""

import gzip
import struct

import numpy as np

BRIGHT, DIM = 240, 80


def idx(values) -> bytes:
    """An array of bytes as an IDX file."""
    values = np.asarray(values, np.uint8)
    return bytes((0, 0, 8, values.ndim)) + struct.pack(f">{values.ndim}I", *values.shape) + values.tobytes()


def photographs(grey: int, number: int) -> tuple[np.ndarray, np.ndarray]:
    """images uint8 [n 28 28], labels uint8 [n]: of each label a block of its own height."""
    labels = np.arange(number, dtype=np.uint8) % 10
    images = np.zeros((number, 28, 28), np.uint8)
    for image, label in zip(images, labels):
        image[2 : 16 + label, 4:24] = grey
    return images, labels


def write(folder, train: int = 30, test: int = 20):
    """The training files as they are, the test files compressed; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    for prefix, grey, number, packed in (("train", BRIGHT, train, False), ("t10k", DIM, test, True)):
        images, labels = photographs(grey, number)
        for name, values in ((f"{prefix}-images-idx3-ubyte", images), (f"{prefix}-labels-idx1-ubyte", labels)):
            if packed:
                (folder / f"{name}.gz").write_bytes(gzip.compress(idx(values)))
            else:
                (folder / name).write_bytes(idx(values))
    return folder
