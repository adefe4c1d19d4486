"""Train the small transformer behind docs/words.md and write src/dtdfast/data/sentiment.*.

    python tools/train_sentiment.py        (needs torch; half a minute)

The sentences are made up, eight words each: the NOUN was WORD ADJECTIVE and|but WORD ADJECTIVE.  An adjective has a
strength from -2 to 2; a word such as "not" before it turns it into a weak one of the other sign.  A sentence is
positive where the two strengths sum to more than 0; sums of 0 are left out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

import dtdfast as dtd

DATA = Path(__file__).parents[1] / "src" / "dtdfast" / "data"
NOUNS = ("film", "plot", "acting", "music", "ending", "script")
ADVERBS = ("very", "truly", "quite", "rather")
NEGATIONS = ("not", "never", "hardly")
STRENGTHS = {
    "good": 1, "fine": 1, "pleasant": 1, "brilliant": 2, "moving": 2, "charming": 2,
    "dull": -1, "weak": -1, "boring": -1, "awful": -2, "terrible": -2, "dreadful": -2,
}  # fmt: skip
VOCABULARY = ("the", "was", "and", "but", *NOUNS, *ADVERBS, *NEGATIONS, *STRENGTHS)
WIDTH, HEADS, TOKENS = 16, 2, 8
TRAINED, HELD_OUT = 6000, 500
NOISE = 0.5  # so that no word speaks by a small difference; maps are then less noisy too


def clause(rng: np.random.Generator) -> tuple[str, str, int]:
    word, adjective = rng.choice([*ADVERBS, *NEGATIONS, *NEGATIONS]), rng.choice([*STRENGTHS])
    strength = STRENGTHS[adjective]
    return word, adjective, -np.sign(strength) if word in NEGATIONS else strength


def sentences(rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Different ones, as word indices, and whether they are positive."""
    found: dict[tuple[str, ...], int] = {}
    while len(found) < TRAINED + HELD_OUT:
        (word, adjective, one), (other_word, other, two) = clause(rng), clause(rng)
        text = ("the", rng.choice(NOUNS), "was", word, adjective, rng.choice(["and", "but"]), other_word, other)
        if one + two:
            found[text] = int(one + two > 0)
    return np.array([[VOCABULARY.index(w) for w in text] for text in found]), np.array([*found.values()])


class Network(nn.Module):
    """One block with norms before attention and MLP, a mean over tokens, two outputs; noisy words in training."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(len(VOCABULARY), WIDTH)
        self.positions = nn.Parameter(0.3 * torch.randn(TOKENS, WIDTH))
        self.before, self.behind = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.up, self.down = nn.Linear(WIDTH, 2 * WIDTH), nn.Linear(2 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 2)

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids) + self.positions
        if self.training:
            x = x + NOISE * torch.randn_like(x)
        h = self.before(x)
        q, k, v = (p(h).unflatten(-1, (HEADS, -1)).transpose(1, 2) for p in (self.q, self.k, self.v))
        mixed = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.o(mixed)
        x = x + self.down(functional.gelu(self.up(self.behind(x))))
        output: Tensor = self.head(x.mean(1))
        return output


def main() -> None:
    torch.manual_seed(0)
    ids, labels = (torch.from_numpy(a) for a in sentences(np.random.default_rng(0)))
    network = Network()
    optimizer = torch.optim.AdamW(network.parameters(), 5e-3, weight_decay=0.3)
    for _ in range(900):
        batch = torch.randint(0, TRAINED, (128,))
        loss = functional.cross_entropy(network(ids[batch]), labels[batch], label_smoothing=0.02)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval().requires_grad_(False)
    held_out: Any = ids[TRAINED:]
    print(f"accuracy {(network(held_out).argmax(1) == labels[TRAINED:]).float().mean():.3f}, loss {loss:.4f}")
    dtd.save(dtd.from_torch(network, held_out[:2]), DATA / "sentiment.safetensors")
    np.savez_compressed(
        DATA / "sentiment_test.npz",
        words=np.array(VOCABULARY),
        ids=held_out.numpy().astype(np.uint8),
        labels=labels[TRAINED:].numpy().astype(np.uint8),
    )


if __name__ == "__main__":
    main()
