"""What a user writes, for test_types.py: what mypy takes each thing to be is beside it. It is never run."""

from typing import reveal_type

from PIL import Image

import groupvit_jax as gv

model = gv.load("runs/quickstart")
reveal_type(model)  # groupvit_jax.inference.Model
image = Image.open("zebra.jpg")
out = model.segment(image, classes=["zebra", "grass"], background=0.3, protocol="groupvit")
reveal_type(out.labels)  # numpy.ndarray
reveal_type(out.scores)  # numpy.ndarray
reveal_type(out.names)  # tuple[str, ...]
reveal_type(model.encode_image([image]))  # numpy.ndarray
reveal_type(model.encode_text("a zebra"))  # numpy.ndarray
reveal_type(model.similarity([image], ["a zebra", "a coin"]))  # numpy.ndarray
reveal_type(gv.tokenize(["a zebra"], 32))  # numpy.ndarray
reveal_type(gv.__version__)  # str
