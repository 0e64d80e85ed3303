"""Golden numbers: the reference toolbox's tables on a seeded synthetic scene, restated here."""

from __future__ import annotations

import numpy as np
import pytest

from pancrafter_cli.metrics.reduced import ergas, sam


def reference_pair(bands: int, n: int = 256) -> tuple[np.ndarray, np.ndarray]:
    """Truth and a disturbed copy, by the closed formulas the reference values were computed from."""
    i, j, b = np.arange(n)[None, :, None], np.arange(n)[None, None, :], np.arange(bands)[:, None, None]
    h = ((7919 * i + 104729 * j + 1299709 * b + 31 * i * j) % 1009) / 1009
    h2 = ((6101 * i + 3571 * j + 15485863 * b + 17 * i * j) % 997) / 997
    tau = 2 * np.pi
    truth = np.floor(
        500
        + 40 * b
        + 220 * np.sin(tau * (i * (b + 3) / 97 + j / 53))
        + 150 * np.cos(tau * (i / 61 - j * (b + 2) / 113))
        + 90 * ((i // 12 + j // 20) % 2)
        + 60 * h
    )
    return truth, truth + 18 * np.sin(tau * (i / 17 + j / 23 + b / 5)) + 24 * (h2 - 0.5)


@pytest.mark.parametrize(
    ("bands", "total", "expected_sam", "expected_ergas"),
    [(8, 374549254, 1.09903794, 0.52024494), (4, 166315022, 1.21026816, 0.57574232)],
)
def test_ergas_and_sam_of_the_reference_toolbox(
    bands: int, total: int, expected_sam: float, expected_ergas: float
) -> None:
    truth, fused = reference_pair(bands)
    assert truth.sum() == total
    assert sam(truth, fused) == pytest.approx(expected_sam, abs=1e-7)
    assert ergas(truth, fused, 4) == pytest.approx(expected_ergas, abs=1e-7)


def test_a_mask_leaves_pixels_out() -> None:
    truth, fused = reference_pair(4)
    valid = np.zeros((256, 256), dtype=bool)
    valid[20:-21, 20:-21] = True
    assert sam(truth, fused, valid) == pytest.approx(1.20703794, abs=1e-7)  # the toolbox's 21-pixel cut
    assert ergas(truth, fused, 4, valid) == pytest.approx(0.57579883, abs=1e-7)
