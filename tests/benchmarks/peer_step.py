"""The training step that `step_speed.py` compares with: the `transformers` towers in PyTorch, texts padded to 77.

Written as a PyTorch user would who minds his time: images travel as uint8 and are normalised in the step, AdamW is the
fused one, gradients are set to None. The port has no drop-path, and nothing is flipped or erased here: less to do than
ours has. On a GPU: bfloat16 autocast and `torch.compile`.
"""

import math
import os
import time

import numpy as np
import torch
import torch.nn.functional as F
import transformers

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_SCALE = 100.0


class Peer(torch.nn.Module):
    """forward(images uint8 [b 3 h w], tokens int64 [b t 77]) -> the caption loss plus the multi-label loss."""

    def __init__(self):
        super().__init__()
        self.model = transformers.GroupViTModel(transformers.GroupViTConfig())  # the published sizes
        self.multi_label_scale = torch.nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        for name, x in (("mean", MEAN), ("std", STD)):
            self.register_buffer(name, 255 * torch.tensor(x)[:, None, None], persistent=False)

    def forward(self, images: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        model, (b, t, _) = self.model, tokens.shape
        pooled = model.vision_model((images - self.mean) / self.std).pooler_output  # [b c]
        words = model.text_model(tokens.flatten(0, 1)).pooler_output  # [b*t c]
        image = F.normalize(model.visual_projection(pooled).float(), dim=-1)
        texts = F.normalize(model.text_projection(words).float(), dim=-1).unflatten(0, (b, t))
        with torch.autocast(images.device.type, enabled=False):
            return (contrast(image, texts[:, :1], model.logit_scale)
                    + contrast(image, texts[:, 1:], self.multi_label_scale))


def contrast(image: torch.Tensor, texts: torch.Tensor, log_scale: torch.Tensor) -> torch.Tensor:
    """Unit images [b d] against all unit texts [b k d] with target 1/k on their own k, each text against all images."""
    b, k, _ = texts.shape
    logits = log_scale.exp().clamp(max=MAX_SCALE) * image @ texts.flatten(0, 1).T  # [b b*k]
    own = torch.arange(b, device=image.device).repeat_interleave(k)  # [b*k]
    targets = F.one_hot(own, b).T / k
    return 0.5 * (F.cross_entropy(logits, targets) + F.cross_entropy(logits.T, own))


class Step:
    """step(images, tokens) -> loss: gradient, clipping by the global norm, AdamW; numpy goes in.

    `optim` are the fields of `config.optim`; the learning rate stays that of the peak.
    """

    def __init__(self, optim: dict, batch: int, device: str):
        torch.manual_seed(0)
        self.device, self.clip = torch.device("cuda" if device == "gpu" else "cpu"), optim["clip_norm"]
        self.peer = Peer().train().to(self.device)
        self.loss = torch.compile(self.peer) if device == "gpu" else self.peer
        decays = lambda name, x: name.endswith("scale") if x.ndim == 0 else x.ndim >= 2  # noqa: E731
        named = list(self.peer.named_parameters())
        groups = [{"params": [x for name, x in named if decays(name, x) == decay], "weight_decay": rate}
                  for decay, rate in ((True, optim["weight_decay"]), (False, 0.0))]
        self.optimizer = torch.optim.AdamW(groups, lr=optim["lr"] * batch / optim["lr_batch"], eps=optim["eps"],
                                           betas=(optim["b1"], optim["b2"]), fused=True)

    def __call__(self, images: np.ndarray, tokens: np.ndarray) -> float:
        images, tokens = (torch.from_numpy(x).to(self.device) for x in (images, tokens))
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda"):
            loss = self.loss(images.permute(0, 3, 1, 2), tokens)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.peer.parameters(), self.clip)
        self.optimizer.step()
        return loss.item()

    def best_threads(self, images: np.ndarray, tokens: np.ndarray) -> int:
        """One thread or all cores', by the time of a step each after one to warm up: where other programs use the
        cores, PyTorch's threads wait for each other."""
        times = {}
        for n in {1, os.cpu_count()}:
            torch.set_num_threads(n)
            self(images, tokens)
            begun = time.perf_counter()
            self(images, tokens)
            times[n] = time.perf_counter() - begun
        return min(times, key=times.get)

    def device_memory(self) -> float:
        return torch.cuda.max_memory_allocated() / 2**30 if self.device.type == "cuda" else math.nan
