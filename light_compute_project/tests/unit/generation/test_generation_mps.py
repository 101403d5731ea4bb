"""Sampling on a device without float64, as Apple's MPS is: a tensor that calls itself `mps` and refuses that dtype."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from litgpt_core.generation.beam_search import _Search
from litgpt_core.generation.sampling import SamplingSettings, sample


class MpsTensor(Tensor):
    """Computes on the CPU under the name of MPS. Whatever stays on the device must not be float64."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> MpsTensor:
        wrapper = Tensor._make_wrapper_subclass(
            cls, inner.shape, dtype=inner.dtype, device="mps", strides=inner.stride()
        )
        wrapper.inner = inner
        return wrapper  # type: ignore[no-any-return]

    def tolist(self) -> Any:
        return self.inner.tolist()

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = kwargs.pop("device", None)

        def inside(value: Any) -> Any:
            return value.inner if isinstance(value, MpsTensor) else value

        def outside(value: Any) -> Any:
            if not isinstance(value, Tensor) or (device is not None and torch.device(device).type == "cpu"):
                return value
            if value.dtype == torch.float64:
                raise TypeError(
                    "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64"
                )
            return MpsTensor(value)

        return tree_map(outside, func(*tree_map(inside, args), **tree_map(inside, kwargs)))


def test_the_device_refuses_what_mps_refuses() -> None:
    logits = MpsTensor(torch.randn(2, 8))
    assert logits.device.type == "mps" and type(logits + 1) is MpsTensor and type(logits.cpu()) is Tensor
    with pytest.raises(TypeError, match="float64"):
        logits.double()
    with pytest.raises(TypeError, match="float64"):
        logits.sum(dtype=torch.float64)


@pytest.mark.parametrize(
    "settings",
    [
        SamplingSettings(),
        SamplingSettings(temperature=0.0),
        SamplingSettings(temperature=0.7, top_k=5),
        SamplingSettings(top_p=0.9),
        SamplingSettings(min_p=0.1),
        SamplingSettings(top_k=0, top_p=0.5, min_p=0.05),
    ],
    ids=repr,
)
@pytest.mark.parametrize("size", [40, 2000])
def test_sampling_gives_the_tokens_of_the_cpu(settings: SamplingSettings, size: int) -> None:
    logits = torch.randn(3, size, generator=torch.Generator().manual_seed(0)) * 3
    uniforms = [0.01, 0.5, 0.99]
    expected = sample(logits, [settings] * 3, uniforms=uniforms)
    assert sample(MpsTensor(logits), [settings] * 3, uniforms=uniforms) == expected


def test_beam_search_scores_there_too() -> None:
    logits = torch.randn(1, 12, generator=torch.Generator().manual_seed(1))
    kept = []
    for given in (logits, MpsTensor(logits)):
        search = _Search(beams=3, results=1, length_penalty=1.0, stops=frozenset(), limit=4)
        assert search.step(given) == [0, 0, 0]
        kept.append(search.kept)
    assert kept[0] == kept[1]
