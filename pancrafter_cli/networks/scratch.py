"""Memory that is used again for every tile: getting new pages from the system can take longer than a convolution."""

from __future__ import annotations

import threading

import torch
from torch import Tensor


class Scratch:
    """Arrays by name, one set for each thread; what an array holds is lost when its name is asked for again."""

    def __init__(self) -> None:
        self._own = threading.local()

    def pixelwise(self, channels: int, height: int, width: int, dtype: torch.dtype) -> Tensor:
        """An image (1, C, H, W), channels last, of any values; there is one of them."""
        numbers = self.flat("image", channels * height * width, dtype)
        return numbers.view(1, height, width, channels).permute(0, 3, 1, 2)

    def flat(self, name: str, count: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """`count` numbers in a row, of any values."""
        arrays: dict[str, Tensor] = self._own.__dict__
        found = arrays.get(name)
        if found is None or found.numel() < count or found.dtype != dtype:
            arrays.pop(name, None)  # before the new one, so that both are never there
            del found
            arrays[name] = torch.empty(count, dtype=dtype)
        return arrays[name][:count]
