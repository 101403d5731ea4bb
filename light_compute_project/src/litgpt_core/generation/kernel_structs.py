"""The structs of `kernels/model.hpp` for ctypes, field by field. Their fields are documented there."""

from __future__ import annotations

import ctypes
import functools
from ctypes import POINTER, Structure, c_double, c_int64, c_void_p

from litgpt_core.generation.sampling_settings import SamplingSettings

ACTIVATIONS = {"gelu": 0, "gelu_tanh": 1, "silu": 2, "relu_squared": 3}
CACHE_KINDS = {"float32": 0, "bfloat16": 1, "int8": 2}
MAX_LANES = 16
"""The widest vector of the kernel, in floats; sizes of the cache are rounded up to it."""
NON_FINITE = -1
"""Instead of a token: a logit is NaN or infinite, or all are -infinity."""


class Norm(Structure):
    """A norm; `present` = 0 is the identity."""

    _fields_ = (("present", c_int64), ("weight", c_void_p), ("bias", c_void_p))


class KernelLinear(Structure):
    """A matrix, its bias, and the scales and bits of integer weights; or two matrices of low rank."""

    _fields_ = (
        *((name, c_void_p) for name in ("weight", "bias", "scales")),
        ("bits", c_int64),
        ("down", c_void_p),
        ("rank", c_int64),
    )


class Layer(Structure):
    """One block and its cache."""

    _fields_ = (
        *((name, Norm) for name in ("norm_1", "norm_q", "norm_k", "post_attention_norm", "norm_2", "post_mlp_norm")),
        *((name, KernelLinear) for name in ("qkv", "proj", "fc", "fc_value", "mlp_proj")),
        *((name, c_void_p) for name in ("keys", "values", "rope")),
        ("window", c_int64),
    )


class Model(Structure):
    """Sizes, options and pointers of the whole model."""

    _fields_ = (
        *(
            (name, c_int64)
            for name in (
                *("n_layer", "width", "heads", "groups", "head_size", "padded_head_size", "rope_pairs", "hidden"),
                *(
                    "vocabulary",
                    "slots",
                    "weights_are_bf16",
                    "weights_are_packed",
                    "cache_kind",
                    "rms_norm",
                    "parallel",
                    "shared_norm",
                ),
                *("norm_qk_over_all_heads", "rope_interleaved", "activation"),
            )
        ),
        *((name, c_double) for name in ("norm_eps", "score_scale", "score_cap", "logit_cap", "embedding_scale")),
        ("token_embedding", KernelLinear),
        ("position_embedding", c_void_p),
        ("last_norm", Norm),
        ("head", KernelLinear),
        ("layers", POINTER(Layer)),
    )


class KernelSampling(Structure):
    """Sampling settings of one sequence."""

    _fields_ = (("temperature", c_double), ("top_p", c_double), ("min_p", c_double), ("top_k", c_int64))


@functools.lru_cache(maxsize=256)
def sampling(settings: SamplingSettings) -> KernelSampling:
    """`settings` as a struct."""
    return KernelSampling(settings.temperature, settings.top_p, settings.min_p, min(settings.top_k or 0, 2**62))


class Tokens(Structure):
    """The input tokens of one call."""

    _fields_ = (
        ("n", c_int64),
        ("ids", POINTER(c_int64)),
        ("sequences", POINTER(c_int64)),
        ("positions", POINTER(c_int64)),
        ("n_logits", c_int64),
        ("logit_rows", POINTER(c_int64)),
    )


class SamplingCall(Structure):
    """Sampling settings, random numbers and output tokens of one call."""

    _fields_ = (
        ("steps", c_int64),
        ("vocabulary", c_int64),
        ("settings", POINTER(KernelSampling)),
        ("uniforms", POINTER(c_double)),
        ("tokens", POINTER(c_int64)),
    )


def declare(library: ctypes.CDLL) -> None:
    """Declare the types of the library's functions, and check that the struct sizes agree."""
    library.lc_scratch_size.argtypes = (POINTER(Model), c_int64, c_int64)
    library.lc_scratch_size.restype = c_int64
    library.lc_lanes.restype = library.lc_bf16_depth.restype = c_int64
    library.lc_forward.argtypes = (POINTER(Model), POINTER(Tokens), c_void_p, c_void_p, c_int64, POINTER(SamplingCall))
    library.lc_sample.argtypes = (c_void_p, c_int64, c_int64, POINTER(SamplingCall))
    library.lc_forward.restype = library.lc_sample.restype = None
    kinds = (Norm, KernelLinear, Layer, Model, KernelSampling, Tokens, SamplingCall)
    sizes = (c_int64 * len(kinds))()
    library.lc_struct_sizes(sizes)
    assert list(sizes) == [ctypes.sizeof(kind) for kind in kinds], "kernel_structs.py and model.hpp differ"
