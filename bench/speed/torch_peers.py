"""What users of PyTorch would take: DCGAN as it is commonly shipped and tuned, and torchvision's networks, tuned.

Runs in .venv-peers, which has PyTorch, torchvision and NumPy, and nothing of this project.
"""

import itertools
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn
from torch.nn.functional import cross_entropy, softplus

from bench.speed.images import discs

IMAGES = 1024
DEVICE = torch.device("cuda" if torch.cuda.is_available() else "cpu")
Steps = Callable[[int], None]
Work = tuple[Steps, dict[str, Any]]

# ---- the networks of jobs/gan/networks.py, plain ---------------------------------------------------------------------


class Generator(nn.Module):
    """Latents float [n, latent] -> images float [n, 1, size, size] in [-1, 1]."""

    def __init__(self, image_size: int, width: int, latent: int) -> None:
        super().__init__()
        sides = [4 * 2**i for i in range((image_size // 4).bit_length())]
        channels = [*(_channels(image_size, width, side) for side in sides[:-1]), 1]
        self.first = channels[0]
        self.project = nn.Linear(latent, 16 * self.first, bias=False)
        parts: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            parts += [nn.BatchNorm2d(before), nn.LeakyReLU(0.2, inplace=True)]
            parts += [nn.ConvTranspose2d(before, after, 4, 2, 1, bias=after == 1)]
        self.main = nn.Sequential(*parts, nn.Tanh())

    def forward(self, latents: torch.Tensor) -> torch.Tensor:
        """Return images."""
        return self.main(self.project(latents).view(-1, self.first, 4, 4))


class Discriminator(nn.Sequential):
    """Images float [n, 1, size, size] -> logits float [n, 1, 1, 1]."""

    def __init__(self, image_size: int, width: int) -> None:
        sides = [image_size // 2**i for i in range((image_size // 4).bit_length())]
        channels = [1, *(_channels(image_size, width, side) for side in sides[1:])]
        parts: list[nn.Module] = []
        for before, after in itertools.pairwise(channels):
            parts += [nn.Conv2d(before, after, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True), nn.Dropout(0.3)]
        super().__init__(*parts, nn.Conv2d(channels[-1], 1, 4))


def _channels(image_size: int, width: int, side: int) -> int:
    return min(8, image_size // 2 // side) * width


# ---- DCGAN -----------------------------------------------------------------------------------------------------------


def dcgan_shipped(image_size: int, width: int, batch: int, latent: int) -> Work:
    """The loop of https://github.com/pytorch/examples/tree/main/dcgan: float32, and five values fetched in each step.

    The images are in memory, decoded and normalized.
    """
    generator, discriminator = _gan(image_size, width, latent)
    dataset = torch.utils.data.TensorDataset(_scaled(image_size))
    loader = torch.utils.data.DataLoader(dataset, batch, shuffle=True, drop_last=True)
    criterion = nn.BCELoss()
    of_discriminator, of_generator = (_adam(model) for model in (discriminator, generator))

    def judge(images: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(discriminator(images)).view(-1)

    def batches() -> Iterator[torch.Tensor]:
        while True:
            for (images,) in loader:
                yield images

    data = batches()
    real_label, fake_label = torch.ones(batch, device=DEVICE), torch.zeros(batch, device=DEVICE)

    def work(count: int) -> None:
        for _ in range(count):
            discriminator.zero_grad()
            output = judge(next(data).to(DEVICE))
            loss_real = criterion(output, real_label)
            loss_real.backward()
            output.mean().item()
            fake = generator(torch.randn(batch, latent, device=DEVICE))
            output = judge(fake.detach())
            loss_fake = criterion(output, fake_label)
            loss_fake.backward()
            output.mean().item()
            of_discriminator.step()
            generator.zero_grad()
            output = judge(fake)
            loss_generator = criterion(output, real_label)
            loss_generator.backward()
            output.mean().item()
            of_generator.step()
            (loss_real + loss_fake).item()
            loss_generator.item()

    return work, _facts("as shipped")


def dcgan_tuned(image_size: int, width: int, batch: int, latent: int, compiling: bool = True) -> Work:
    """The same training as fast as PyTorch does it: the fastest of float32 and bfloat16, compiled and not.

    channels_last; one pass for real and drawn images; no gradients of weights that are not updated; fused Adam;
    nothing is fetched before the end.
    """
    images = _scaled(image_size).to(DEVICE)

    def candidate(precision: torch.dtype, compiled: bool) -> Steps:
        generator, discriminator = (
            model.to(memory_format=torch.channels_last) for model in _gan(image_size, width, latent)
        )
        of_discriminator, of_generator = (_adam(model, fused=True) for model in (discriminator, generator))
        draw, judge = (torch.compile(model) if compiled else model for model in (generator, discriminator))

        def work(count: int) -> None:
            for _ in range(count):
                real = images[torch.randint(IMAGES, (batch,), device=DEVICE)]
                with _autocast(precision):
                    fake = draw(torch.randn(batch, latent, device=DEVICE))
                    logits = judge(torch.cat([real, fake.detach().to(real.dtype)]).contiguous(**_LAST)).float()
                loss = softplus(-logits[:batch]).mean() + softplus(logits[batch:]).mean()
                of_discriminator.zero_grad()
                loss.backward()
                of_discriminator.step()
                discriminator.requires_grad_(False)
                with _autocast(precision):
                    logits = judge(fake).float()
                of_generator.zero_grad()
                softplus(-logits).mean().backward()
                of_generator.step()
                discriminator.requires_grad_(True)
            logits.sum().item()

        return work

    return _fastest(candidate, compiling)


def _gan(image_size: int, width: int, latent: int) -> tuple[nn.Module, nn.Module]:
    torch.manual_seed(0)
    return Generator(image_size, width, latent).to(DEVICE), Discriminator(image_size, width).to(DEVICE)


def _adam(model: nn.Module, fused: bool = False) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), 2e-4, betas=(0.5, 0.999), fused=fused)


# ---- classifiers -----------------------------------------------------------------------------------------------------


def torchvision_tuned(network: str, image_size: int, batch: int, compiling: bool = True) -> Work:
    """Training of a network of torchvision: channels_last, fused AdamW, nothing fetched, the faster number format."""
    images = _scaled(image_size).repeat(1, 3, 1, 1).contiguous(**_LAST).to(DEVICE)
    labels = torch.arange(IMAGES, device=DEVICE) % 2

    def candidate(precision: torch.dtype, compiled: bool) -> Steps:
        model = getattr(torchvision.models, network)(num_classes=2).to(DEVICE, memory_format=torch.channels_last)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3, weight_decay=0.05, fused=True)
        infer = torch.compile(model) if compiled else model

        def work(count: int) -> None:
            for _ in range(count):
                chosen = torch.randint(IMAGES, (batch,), device=DEVICE)
                with _autocast(precision):
                    logits = infer(images[chosen]).float()
                loss = cross_entropy(logits, labels[chosen], label_smoothing=0.1)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            loss.item()

        return work

    return _fastest(candidate, compiling)


# ---- common ----------------------------------------------------------------------------------------------------------

_LAST: dict[str, Any] = {"memory_format": torch.channels_last}


def _scaled(image_size: int) -> torch.Tensor:
    """Return images float32 [n, 1, size, size] in [-1, 1]."""
    return torch.from_numpy(discs(IMAGES, image_size).astype(np.float32)[:, None] / 127.5 - 1)


def _autocast(precision: torch.dtype) -> Any:
    return torch.autocast(DEVICE.type, precision) if precision != torch.float32 else nullcontext()


def _fastest(candidate: Callable[[torch.dtype, bool], Steps], compiling: bool) -> Work:
    """Return the fastest of the candidates: each takes two steps before it is measured, and the best of two counts."""
    compiled = (False, True) if compiling and shutil.which("g++") else (False,)
    best: tuple[float, Steps, str] | None = None
    for precision, compiles in itertools.product((torch.float32, torch.bfloat16), compiled):
        steps = candidate(precision, compiles)
        steps(2)
        seconds = min(_seconds(steps, 1) for _ in range(2))
        if best is None or seconds < best[0]:
            best = seconds, steps, f"{str(precision).removeprefix('torch.')}, {'' if compiles else 'not '}compiled"
    assert best
    return best[1], _facts(best[2])


def _seconds(steps: Steps, count: int) -> float:
    began = time.perf_counter()
    steps(count)
    return time.perf_counter() - began


def _facts(chosen: str) -> dict[str, Any]:
    return {"chosen": chosen, "threads": torch.get_num_threads()}
