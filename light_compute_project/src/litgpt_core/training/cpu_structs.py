"""The structs of `kernels/shapes.hpp` for ctypes, field by field. Their fields are documented there."""

from __future__ import annotations

import ctypes
from ctypes import POINTER, Structure, c_double, c_int64, c_void_p

ACTIVATIONS = {"gelu": 0, "gelu_tanh": 1, "silu": 2}


class NormStruct(Structure):
    """A norm; `present` = 0 is the identity."""

    _fields_ = (
        *(("present", c_int64), ("weight", c_void_p), ("bias", c_void_p)),
        *(("eps", c_double), ("offset", c_double)),
    )


class WeightAndBias(Structure):
    """A weight and a bias, or their gradients."""

    _fields_ = (("weight", c_void_p), ("bias", c_void_p))


NORMS = ("norm_1", "norm_q", "norm_k", "norm_2")
MATRICES = ("qkv", "proj", "fc", "fc_value", "mlp_proj")
SIZES = ("batch", "length", "width", "heads", "groups", "head_size", "rope_pairs", "hidden")


class BlockStruct(Structure):
    """Sizes, options and weights of one block."""

    _fields_ = (
        *((name, c_int64) for name in (*SIZES, "gated", "activation", "rms", "bfloat16")),
        ("score_scale", c_double),
        *((name, NormStruct) for name in NORMS),
        *((name, WeightAndBias) for name in MATRICES),
        *((name, c_void_p) for name in ("cosine", "sine")),
    )


class BlockGradient(Structure):
    """Where the gradients of the weights go."""

    _fields_ = tuple((name, WeightAndBias) for name in (*NORMS, *MATRICES))


KEPT = ("statistics_1", "statistics_2", "qkv", "mixed", "partitions", "middle", "hidden")


class Kept(Structure):
    """What a backward pass reads."""

    _fields_ = tuple((name, c_void_p) for name in KEPT)


def declare(library: ctypes.CDLL) -> None:
    """Declare the types of the library's functions, and check that the struct sizes agree."""
    block, kept = POINTER(BlockStruct), POINTER(Kept)
    library.lc_train_scratch.argtypes = (block, c_int64, c_int64)
    library.lc_train_scratch.restype = library.lc_train_multiple.restype = c_int64
    library.lc_train_has_bfloat16.restype = c_int64
    library.lc_block_forward.argtypes = (block, kept, c_void_p, c_void_p, c_void_p, c_int64)
    library.lc_block_backward.argtypes = (
        *(block, kept, c_void_p, c_void_p, c_void_p),
        *(POINTER(BlockGradient), c_void_p, c_int64),
    )
    library.lc_loss_scratch.argtypes = (c_int64,) * 6
    library.lc_loss_scratch.restype = c_int64
    library.lc_loss_forward.argtypes = (
        *(c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64, c_int64),
        *(c_void_p, c_void_p, c_void_p, c_int64, c_int64),
    )
    library.lc_loss_backward.argtypes = (
        *(c_void_p, c_void_p, c_void_p, c_double, c_int64, c_int64, c_int64),
        *(c_void_p, c_void_p, c_void_p, c_int64, c_int64, c_int64),
    )
    library.lc_loss_forward.restype = library.lc_loss_backward.restype = None
    library.lc_block_forward.restype = library.lc_block_backward.restype = None
    kinds = (BlockStruct, BlockGradient, Kept)
    sizes = (c_int64 * len(kinds))()
    library.lc_train_struct_sizes(sizes)
    assert list(sizes) == [ctypes.sizeof(kind) for kind in kinds], "cpu_structs.py and shapes.hpp differ"
