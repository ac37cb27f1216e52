"""The weights of golden models: the same formula as `crates/testkit/src/formula.rs` and `models.rs`. Needs numpy."""

import numpy as np

GAMMA = 0x9E3779B97F4A7C15
MASK = (1 << 64) - 1


def formula(seed: int, name: str, n: int) -> np.ndarray:
    """n numbers in [-1, 1) for a tensor, f32."""
    h = 0xCBF29CE484222325
    for byte in name.encode():
        h = ((h ^ byte) * 0x100000001B3) & MASK
    h ^= (seed * GAMMA) & MASK
    with np.errstate(over="ignore"):
        z = np.uint64(h) + np.arange(1, n + 1, dtype=np.uint64) * np.uint64(GAMMA)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z = z ^ (z >> np.uint64(31))
    return (z >> np.uint64(40)).astype(np.float32) / np.float32(1 << 23) - np.float32(1)


def weight(seed: int, name: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight of a random model: norms are near 1, biases small, matrices keep the size of what they multiply."""
    u = formula(seed, name, int(np.prod(shape))).reshape(shape)
    if name.endswith("norm.weight"):
        return np.float32(1) + np.float32(0.25) * u
    if name.endswith(".bias"):
        return np.float32(0.25) * u
    return u * np.float32(np.sqrt(3.0 / shape[-1]))


if __name__ == "__main__":
    print(formula(7, "model.norm.weight", 3).tolist())
