"""Write position grids and their resampled versions under both rules.

    python pos_embed.py OUT.safetensors

Keys: `grid.N` [N, N, 4]; `dino.N.HxW` and `timm.N.HxW` [H, W, 4], from `grid.N`. Each is checked
against a plain-Python resampler written from the rule's definition, which also says what the rules are.
"""
import argparse
import math
import pathlib

import torch

import common

DIM = 4
CASES = {
    14: [(21, 14), (28, 28), (16, 24), (7, 9), (14, 14), (13, 15), (1, 30)],
    37: [(32, 24), (16, 16), (40, 52)],
}


def cubic(x: float, a: float) -> float:
    """Keys' cubic convolution kernel."""
    x = abs(x)
    if x <= 1:
        return ((a + 2) * x - (a + 3)) * x * x + 1
    return a * (((x - 5) * x + 8) * x - 4) if x < 2 else 0.0


def matrix_dino(n: int, size: int) -> torch.Tensor:
    """[size, n] weights of DINO's rule: taps around (i + 0.5) / factor - 0.5, edges repeated, A = -0.75."""
    factor = (size + 0.1) / n
    m = torch.zeros(size, n, dtype=torch.float64)
    for i in range(size):
        centre = (i + 0.5) / factor - 0.5
        first = math.floor(centre)
        for tap in range(first - 1, first + 3):
            m[i, min(max(tap, 0), n - 1)] += cubic(centre - tap, -0.75)
    return m


def matrix_timm(n: int, size: int) -> torch.Tensor:
    """[size, n] weights of timm's rule: the kernel (A = -0.5) widened when shrinking, cut at the edges,
    normalised to sum 1. This is also how Pillow resizes."""
    ratio = n / size
    widen = max(ratio, 1.0)
    m = torch.zeros(size, n, dtype=torch.float64)
    for i in range(size):
        centre = (i + 0.5) * ratio
        lo = max(int(centre - 2 * widen + 0.5), 0)
        hi = min(int(centre + 2 * widen + 0.5), n)
        for j in range(lo, hi):
            m[i, j] = cubic((j + 0.5 - centre) / widen, -0.5)
    return m / m.sum(1, keepdim=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=pathlib.Path)
    out = parser.parse_args().out
    torch.set_num_threads(1)
    rules = {"dino": (common.resample_dino, matrix_dino), "timm": (common.resample_timm, matrix_timm)}
    tensors, worst = {}, dict.fromkeys(rules, 0.0)
    for n, sizes in CASES.items():
        grid = torch.randn(n, n, DIM, generator=common.generator(n))
        tensors[f"grid.{n}"] = grid
        for h, w in sizes:
            for rule, (resample, matrix) in rules.items():
                got = resample(grid.reshape(1, n * n, DIM), (n, n), (h, w)).reshape(h, w, DIM)
                tensors[f"{rule}.{n}.{h}x{w}"] = got
                if (h, w) == (n, n):
                    assert torch.equal(got, grid)  # equal sizes are left alone
                    continue
                want = torch.einsum("hy,wx,yxd->hwd", matrix(n, h), matrix(n, w), grid.double())
                worst[rule] = max(worst[rule], (got - want).abs().max().item())
    common.write_tensors(out, tensors)
    print(f"{out.name}: {out.stat().st_size / 1e3:.0f} kB; max difference from the definition {worst}")
    assert max(worst.values()) < 5e-5  # torch computes the positions in f32


if __name__ == "__main__":
    main()
