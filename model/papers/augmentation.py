"""Random variations of training pictures, computed on whole batches."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

# Side of augmented pictures in pixels; training pictures are stored at this size.
SIDE = 224


class Augmentation:
    """Draws variations from one random generator, so that a training step is reproducible from its seed.

    All pictures are float32 in [0, 1], (b, c, H, W). Sketches are "ink": 1 where the pen was, 0 on paper.
    """

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)

    def sketches(self, ink: torch.Tensor) -> torch.Tensor:
        """Sketches rotated, sheared, bent, mirrored, drawn with another pen, partly erased."""
        ink = self._pen(ink)
        grid = self._affine(len(ink), turn=15, scale=(0.85, 1.2), shear=0.15, shift=0.08) + self._bend(ink, 0.05)
        ink = F.grid_sample(ink, grid, padding_mode="zeros", align_corners=False)
        return self._erase(ink, share=0.3)

    def photos(self, photos: torch.Tensor) -> torch.Tensor:
        """Photos cropped, mirrored, with other brightness, contrast and colours."""
        grid = self._affine(len(photos), turn=8, scale=(0.6, 1.0), shear=0.05, shift=0.15)
        photos = F.grid_sample(photos, grid, padding_mode="reflection", align_corners=False)
        b = len(photos)
        grey = photos.mean(dim=1, keepdim=True)
        saturation = self._uniform(b, 0.3, 1.4).view(b, 1, 1, 1)
        saturation = torch.where(self._uniform(b, 0, 1).view(b, 1, 1, 1) < 0.1, torch.zeros(()), saturation)
        photos = grey + (photos - grey) * saturation
        mean = photos.mean(dim=(1, 2, 3), keepdim=True)
        contrast, light = self._uniform(b, 0.7, 1.3).view(b, 1, 1, 1), self._uniform(b, -0.15, 0.15).view(b, 1, 1, 1)
        return ((photos - mean) * contrast + mean + light).clamp(0, 1)

    def drawn(self, photos: torch.Tensor) -> torch.Tensor:
        """Photos (b, 3, H, W) as line drawings in ink (b, 1, H, W): an extended difference of Gaussians whose
        scale and threshold vary from picture to picture."""
        grey = photos.mean(dim=1, keepdim=True)
        lines = []
        for picture in grey:
            sigma = float(self._uniform(1, 0.9, 2.4))
            fine, coarse = blur(picture[None], sigma), blur(picture[None], 1.6 * sigma)
            edge = (coarse - fine).abs() if float(self._uniform(1, 0, 1)) < 0.5 else (coarse - fine).clamp(min=0)
            top = torch.quantile(edge, float(self._uniform(1, 0.94, 0.985))).clamp(min=1e-3)
            lines.append(torch.tanh(2 * (edge / top - float(self._uniform(1, 0.35, 0.75))).clamp(min=0)))
        ink = torch.cat(lines)
        return ink / ink.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-3)

    def _pen(self, ink: torch.Tensor) -> torch.Tensor:
        choice = torch.randint(0, 4, (len(ink), 1, 1, 1), generator=self.generator)
        thick = F.max_pool2d(ink, 3, stride=1, padding=1)
        soft = blur(ink, 0.8)
        soft = soft / soft.amax(dim=(1, 2, 3), keepdim=True).clamp(min=1e-3)
        ink = torch.where(choice == 0, thick, torch.where(choice == 1, soft, ink))
        return ink * self._uniform(len(ink), 0.7, 1.0).view(-1, 1, 1, 1)

    def _erase(self, ink: torch.Tensor, share: float) -> torch.Tensor:
        b, _, h, w = ink.shape
        centre = torch.rand(b, 2, 1, generator=self.generator)
        half = self._uniform(b, 0.05, 0.18).view(b, 1)
        rows = ((torch.arange(h) / h)[None] - centre[:, 0]).abs() < half
        columns = ((torch.arange(w) / w)[None] - centre[:, 1]).abs() < half
        chosen = self._uniform(b, 0, 1).view(b, 1, 1) < share
        hole = rows[:, :, None] & columns[:, None, :] & chosen
        return ink.masked_fill(hole[:, None], 0.0)

    def _affine(self, b: int, turn: float, scale: tuple[float, float], shear: float, shift: float) -> torch.Tensor:
        """(b, SIDE, SIDE, 2) sampling grid; ``network_input`` later scales the pictures to the network's size."""
        angle = self._uniform(b, -turn, turn) * math.pi / 180
        zoom = self._uniform(b, *scale)
        mirror = torch.where(self._uniform(b, 0, 1) < 0.5, -1.0, 1.0)
        cos, sin = torch.cos(angle) * zoom, torch.sin(angle) * zoom
        lean = self._uniform(b, -shear, shear)
        theta = torch.stack(
            [
                cos * mirror,
                lean - sin,
                self._uniform(b, -shift, shift),
                sin * mirror,
                cos,
                self._uniform(b, -shift, shift),
            ],
            dim=1,
        ).view(b, 2, 3)
        return F.affine_grid(theta, [b, 1, SIDE, SIDE], align_corners=False)

    def _bend(self, ink: torch.Tensor, strength: float) -> torch.Tensor:
        field = torch.randn(len(ink), 2, 5, 5, generator=self.generator) * strength
        smooth = F.interpolate(field, size=(SIDE, SIDE), mode="bicubic", align_corners=True)
        return smooth.permute(0, 2, 3, 1)

    def _uniform(self, count: int, low: float, high: float) -> torch.Tensor:
        return torch.rand(count, generator=self.generator) * (high - low) + low


def blur(images: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian blur of (b, c, H, W), borders replicated; sigma in pixels."""
    radius = max(1, math.ceil(2.5 * sigma))
    x = torch.arange(-radius, radius + 1, dtype=images.dtype)
    kernel = torch.exp(-(x**2) / (2 * sigma**2))
    kernel = kernel / kernel.sum()
    b, c, h, w = images.shape
    flat = F.pad(images.reshape(b * c, 1, h, w), (radius,) * 4, mode="replicate")
    flat = F.conv2d(F.conv2d(flat, kernel.view(1, 1, 1, -1)), kernel.view(1, 1, -1, 1))
    return flat.reshape(b, c, h, w)
