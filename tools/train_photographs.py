"""Train the demo's second network on four photographs of scikit-image, and write it and one of them into the package.

    python tools/train_photographs.py       (minutes; needs dtdfast[io], PyTorch, scikit-image and Pillow)

It tells crops of the four apart, and knows nothing else of the world: enough to show what a map of a photograph looks
like. The photographs are in the public domain (CC0; the astronaut is NASA's).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from skimage import data

import dtdfast as dtd

SEED, STEPS, BATCH, RATE = 3, 1000, 16, 4e-3
SIDE = 224
NAMES = ("astronaut", "cat", "coffee", "rocket")
SHOWN = "cat"
DATA = Path(__file__).parents[1] / "src" / "dtdfast" / "data"


def network() -> torch.nn.Sequential:
    nn = torch.nn
    return nn.Sequential(  # without padding, whose edge would be a mark of its own
        nn.Conv2d(3, 16, 5, 2), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 24, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(24, 32, 3), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(32, 48, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(48, 4),
    )  # fmt: skip


def crop(photograph: Image.Image, rng: np.random.Generator) -> np.ndarray:
    """A random square of it, from a third of its shorter side up, perhaps mirrored, lighter or darker, on noise."""
    side = int(min(photograph.size) * rng.uniform(0.35, 1))
    left, top = (int(rng.integers(0, size - side + 1)) for size in photograph.size)
    pixels = np.asarray(photograph.resize((SIDE, SIDE), Image.BICUBIC, (left, top, left + side, top + side))) / 255
    pixels = pixels[:, ::-1] if rng.random() < 0.5 else pixels
    grey = pixels.mean(axis=2, keepdims=True)
    pixels = grey + rng.uniform(0, 1.2) * (pixels - grey)  # colours alone shall not do
    return np.clip(pixels * rng.uniform(0.6, 1.3) + rng.normal(0, 0.03, pixels.shape), 0, 1).transpose(2, 0, 1)


def main() -> None:
    torch.manual_seed(SEED)
    torch.set_num_threads(1)
    rng = np.random.default_rng(SEED)
    photographs = [Image.fromarray(getattr(data, n)()) for n in ("astronaut", "chelsea", "coffee", "rocket")]
    model = network()
    optimiser = torch.optim.AdamW(model.parameters(), RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, RATE, STEPS)

    def batch(n: int) -> tuple[torch.Tensor, torch.Tensor]:
        labels = rng.integers(0, 4, n)
        x = np.stack([crop(photographs[k], rng) for k in labels])
        return torch.from_numpy(x.astype(np.float32)), torch.from_numpy(labels)

    for step in range(STEPS):
        x, labels = batch(BATCH)
        loss = torch.nn.functional.cross_entropy(model(x), labels, label_smoothing=0.05)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
        if step % 100 == 0:
            print(step, f"{loss.item():.3f}", flush=True)
    model.bfloat16().float()  # which halves its file in an archive
    model.eval()
    x, labels = batch(200)
    with torch.no_grad():
        right = (model(x).argmax(1) == labels).float().mean()
    dtd.save(dtd.from_torch(model, x[:1]), DATA / "photographs.safetensors")
    shown = photographs[NAMES.index(SHOWN)]
    side = min(shown.size)
    left = (shown.width - side) // 2
    shown.resize((SIDE, SIDE), Image.BICUBIC, (left, 0, left + side, side)).save(
        DATA / "photographs_cat.jpg", quality=85
    )
    sizes = ", ".join(f"{f.name} {f.stat().st_size / 1000:.0f} kB" for f in sorted(DATA.glob("photographs*")))
    print(f"{right:.1%} of 200 new crops; {sizes}")


if __name__ == "__main__":
    main()
