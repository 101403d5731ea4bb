"""Decoding with the C++ kernel: passes it a description of a `GPT`, owns the cache, and transfers tokens.

The kernel reads the model's matrices in place (fp32 or bf16, no copy) and computes in fp32 with an fp32 cache, so its
logits equal those of the fp32 model with the stored weights, up to the order of sums.

With `packed_weights`, for many sequences at once, it multiplies a repacked copy of the matrices. This is faster, needs
the memory of the copy, and makes every bit of a sequence's logits independent of the number of other sequences. The
cache then has the dtype of the weights, as in PyTorch, because the fp32 caches of many sequences would dominate the
memory traffic of a step. On processors that multiply pairs of bfloat16 (AVX512-BF16), the factors of products with
packed bfloat16 weights are rounded to bfloat16; everything else stays fp32.

With `kv_cache="int8"` the cache has 8-bit keys and values with a scale per token and head (`model.kv_cache`).

Matrices of integers (`model.quantized`) are read in the order of their file. Activations that they multiply are
rounded to 8 bits per group of 32, and results do not depend on the batch.

`kernel_support` names what is not supported. The kernel also samples, so that one call can decode several tokens of
each sequence.
"""

from __future__ import annotations

import ctypes
import itertools
import math
from collections.abc import Sequence
from ctypes import byref, c_double, c_int64
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from litgpt_core.generation import kernel_structs as structs
from litgpt_core.generation.decoder import Decoder, Feed
from litgpt_core.generation.kernel_build import load_kernel
from litgpt_core.generation.kernel_support import weights_obstacle
from litgpt_core.generation.packed_weights import PackedLayout
from litgpt_core.generation.sampling import non_finite_error
from litgpt_core.generation.weight_memory import allocate_tensors
from litgpt_core.model.attention import CausalSelfAttention
from litgpt_core.model.block import Block
from litgpt_core.model.mlp import GptNeoxMLP, LLaMAMLP
from litgpt_core.model.norm import RMSNorm
from litgpt_core.model.quantized import PackedMatrix, QuantEmbedding, QuantLinear
from litgpt_core.model.rope import score_scaling
from litgpt_core.model.structure import structure

if TYPE_CHECKING:
    from litgpt_core.generation.sampling_settings import SamplingSettings
    from litgpt_core.model.gpt import GPT

CHUNK = 32
"""Tokens per call, of one prompt or of several sequences: the weights are read once for all of them."""
HUGE_CACHE_BYTES = 128 * 2**20
"""Largest cache that is allocated in huge pages."""


class KernelDecoder(Decoder):
    """See the module docstring. Raises EnvironmentProblem where the kernel cannot be built.

    Args:
        model: On the CPU.
        packed_weights: Multiply a repacked copy of the weights, made at the first generation; in-place changes of the
            model's weights after that have no effect. The cache has the dtype of the weights.
        kv_cache: auto, or int8.
    """

    name = "kernel"
    tokens_are_independent = True
    max_decode_steps = 8

    def __init__(self, model: GPT, *, packed_weights: bool = False, kv_cache: str = "auto") -> None:
        self._library = load_kernel()
        structs.declare(self._library)
        self._model = model
        self._packed: dict[int, Tensor] | None = {} if packed_weights else None
        self._int8_cache = kv_cache == "int8"
        self._threads = 1
        self._kept: list[Tensor] = []  # keeps alive the memory that the kernel's pointers refer to
        self._struct = structs.Model()
        self._logits = self._all_logits = self._scratch = self._cache = torch.empty(0)
        self._scratch_tokens = 0

    def start(self, *, n_sequences: int, length: int) -> None:
        """See `Decoder`. Looks up the addresses of the weights again, because training may have moved them."""
        assert weights_obstacle(self._model) is None, "the model has been moved since choice.py checked it"
        self._threads = torch.get_num_threads()
        self._kept = []
        self._struct = self._describe(n_sequences=n_sequences, length=length)
        self._logits = torch.empty(n_sequences, self._model.config.padded_vocab_size)
        self._scratch_tokens = 0

    def finish(self) -> None:
        """See `Decoder`."""
        self._kept, self._struct, self._scratch_tokens = [], structs.Model(), 0
        self._logits = self._all_logits = self._scratch = self._cache = torch.empty(0)

    def reorder(self, sources: Sequence[int], *, length: int) -> None:
        """See `Decoder`."""
        length = _round_up(length)  # the kernel may store slots in groups of its vector width
        self._cache[:, :, : len(sources), :, :length] = self._cache[:, :, list(sources), :, :length]

    def feed(self, feeds: Sequence[Feed]) -> Tensor:
        """See `Decoder`."""
        rows = _rows(feeds)
        ends, end = [], 0
        for item in feeds:
            end += len(item.ids)
            ends.append(end - 1)
        n_done = 0
        for begin in range(0, len(rows), CHUNK):
            stop = min(begin + CHUNK, len(rows))
            logit_rows = [row - begin for row in ends[n_done:] if row < stop]
            self._forward(rows[begin:stop], logit_rows, self._logits[n_done:])
            n_done += len(logit_rows)
        return self._logits[: len(feeds)]

    def feed_all(self, feeds: Sequence[Feed]) -> Tensor:
        """See `Decoder`."""
        rows = _rows(feeds)
        if self._all_logits.size(0) < len(rows):
            self._all_logits = torch.empty(len(rows), self._model.config.padded_vocab_size)
        for begin in range(0, len(rows), CHUNK):
            part = rows[begin : begin + CHUNK]
            self._forward(part, list(range(len(part))), self._all_logits[begin:])
        return self._all_logits[: len(rows)]

    def _forward(
        self,
        rows: Sequence[tuple[int, int, int]],
        logit_rows: list[int],
        logits: Tensor,
        sampling: structs.SamplingCall | None = None,
    ) -> None:
        n, n_logits = len(rows), len(logit_rows)
        array = c_int64 * n
        sequences, positions, ids = (array(*column) for column in zip(*rows, strict=True))
        tokens = structs.Tokens(n, ids, sequences, positions, n_logits, (c_int64 * n_logits)(*logit_rows))
        if n > self._scratch_tokens:
            size = self._library.lc_scratch_size(byref(self._struct), n, self._threads)
            self._scratch, self._scratch_tokens = torch.empty(size), n
        memory = (logits.data_ptr(), self._scratch.data_ptr())
        self._library.lc_forward(
            byref(self._struct), byref(tokens), *memory, self._threads, sampling and byref(sampling)
        )

    # --- sampling

    def sample(self, logits: Tensor, settings: Sequence[SamplingSettings], *, uniforms: Sequence[float]) -> list[int]:
        """See `Decoder`."""
        assert logits.dtype == torch.float32 and logits.device.type == "cpu"
        logits = logits if logits.stride(-1) == 1 else logits.contiguous()
        n, size = logits.shape
        assert n == len(settings) == len(uniforms)
        sampling = self._sampling_call(settings, [[number] for number in uniforms], vocab_size=size)
        self._library.lc_sample(logits.data_ptr(), n, logits.stride(0), byref(sampling))
        tokens = list(sampling.tokens[:n])
        if structs.NON_FINITE in tokens:
            raise non_finite_error()
        return tokens

    def decode_steps(
        self,
        feeds: Sequence[Feed],
        settings: Sequence[SamplingSettings],
        *,
        uniforms: Sequence[Sequence[float]],
        vocab_size: int,
    ) -> list[list[int | None]]:
        """See `Decoder`; does not return to Python between the tokens."""
        decoded: list[list[int | None]] = []
        steps = len(uniforms[0])
        for begin in range(0, len(feeds), CHUNK):
            part = slice(begin, begin + CHUNK)
            rows = [(item.sequence, item.position, item.ids[0]) for item in feeds[part]]
            assert all(position + steps <= self._struct.slots for _, position, _ in rows)
            sampling = self._sampling_call(settings[part], uniforms[part], vocab_size=vocab_size)
            self._forward(rows, list(range(len(rows))), self._logits, sampling)
            tokens = sampling.tokens[: len(rows) * steps]
            if structs.NON_FINITE in tokens:
                tokens = [None if token == structs.NON_FINITE else token for token in tokens]
            decoded += [tokens[at : at + steps] for at in range(0, len(tokens), steps)]
        return decoded

    def _sampling_call(
        self, settings: Sequence[SamplingSettings], uniforms: Sequence[Sequence[float]], *, vocab_size: int
    ) -> structs.SamplingCall:
        n, steps = len(settings), len(uniforms[0])
        assert n == len(uniforms) and all(len(numbers) == steps for numbers in uniforms)
        rows = (structs.KernelSampling * n)(*[structs.sampling(one) for one in settings])
        numbers = (c_double * (n * steps))(*itertools.chain.from_iterable(uniforms))
        return structs.SamplingCall(steps, vocab_size, rows, numbers, (c_int64 * (n * steps))())

    # --- the description of the model for the kernel

    def _describe(self, *, n_sequences: int, length: int) -> structs.Model:
        model, c, parts = self._model, self._model.config, structure(self._model.config)
        dtype, embedding = model.dtype, model.transformer.wte
        cache_type, wide = self._cache_format()
        slots = _round_up(length) + structs.MAX_LANES  # vector loads may read past the last slot
        row = wide + (4 if self._int8_cache else 0)  # the scale of a row is behind its codes
        cache = self._cache = _cache_memory((c.n_layer, 2, n_sequences, c.n_query_groups, slots, row), cache_type)
        if self._packed is not None:
            self._pack_weights()
        rope = self._rope_addresses(slots)
        layers = (structs.Layer * c.n_layer)()
        for i, block in enumerate(model.transformer.h):
            assert isinstance(block, Block)
            self._describe_layer(layers[i], block)
            layers[i].keys, layers[i].values = cache[i, 0].data_ptr(), cache[i, 1].data_ptr()
            layers[i].rope = rope[parts.layers[i].rope] if rope else None
            layers[i].window = parts.layers[i].window or 0
        scale = torch.full((), c.n_embd**0.5, dtype=dtype).item() if c.scale_embeddings else 1.0
        return structs.Model(
            n_layer=c.n_layer,
            width=c.n_embd,
            heads=c.n_head,
            groups=c.n_query_groups,
            head_size=c.head_size,
            padded_head_size=wide,
            rope_pairs=c.rope_n_elem // 2,
            hidden=c.intermediate_size,
            vocabulary=c.padded_vocab_size,
            slots=slots,
            weights_are_bf16=dtype == torch.bfloat16,
            weights_are_packed=self._packed is not None,
            cache_kind=structs.CACHE_KINDS[str(cache_type).removeprefix("torch.")],
            rms_norm=c.norm_class_name == "RMSNorm",
            parallel=c.parallel_residual,
            shared_norm=c.shared_attention_norm,
            norm_qk_over_all_heads=c.norm_qk and c.norm_qk_type == "olmo2",
            rope_interleaved=c.rope_interleave,
            activation=structs.ACTIVATIONS[parts.layers[0].activation],
            norm_eps=c.norm_eps,
            score_scale=score_scaling(c.rope_adjustments) / math.sqrt(c.attention_scores_scalar or c.head_size),
            score_cap=c.attention_logit_softcapping or 0.0,
            logit_cap=c.final_logit_softcapping or 0.0,
            embedding_scale=scale,
            token_embedding=_integers(embedding.matrix)
            if isinstance(embedding, QuantEmbedding)
            else structs.KernelLinear(embedding.weight.data_ptr()),
            position_embedding=None if model.transformer.wpe is None else model.transformer.wpe.weight.data_ptr(),
            last_norm=self._norm(model.transformer.ln_f),
            head=self._linear(model.lm_head),
            layers=ctypes.cast(layers, ctypes.POINTER(structs.Layer)),
        )

    def _cache_format(self) -> tuple[torch.dtype, int]:
        """Dtype of the cache, and the head size rounded up to whole vectors."""
        size = self._model.config.head_size
        if self._int8_cache:
            return torch.int8, _round_up(size)
        dtype = self._model.dtype if self._packed is not None else torch.float32
        return dtype, _round_up(size, structs.MAX_LANES * 4 // dtype.itemsize)

    def _describe_layer(self, layer: structs.Layer, block: Block) -> None:
        attention, mlp = block.attn, block.mlp
        assert isinstance(attention, CausalSelfAttention) and isinstance(mlp, (GptNeoxMLP, LLaMAMLP))
        layer.norm_1, layer.norm_2 = self._norm(block.norm_1), self._norm(block.norm_2)
        layer.norm_q, layer.norm_k = self._norm(attention.norm_q), self._norm(attention.norm_k)
        layer.post_attention_norm = self._norm(block.post_attention_norm)
        layer.post_mlp_norm = self._norm(block.post_mlp_norm)
        layer.qkv, layer.proj = self._linear(attention.qkv), self._linear(attention.proj)
        layer.mlp_proj = self._linear(mlp.proj)
        if isinstance(mlp, LLaMAMLP):
            layer.fc, layer.fc_value = self._linear(mlp.fc_1), self._linear(mlp.fc_2)
        else:
            layer.fc = self._linear(mlp.fc)

    def _rope_addresses(self, slots: int) -> list[int]:
        """Address of (slots, 2, pairs) cos and sin per rope base; empty with learned positions."""
        rope = self._model.transformer.rope
        if rope is None:
            return []
        cos_sin = rope(torch.arange(slots))
        return [self._keep(torch.stack(pair, dim=1).float().contiguous()).data_ptr() for pair in cos_sin]

    def _norm(self, norm: nn.Module | None) -> structs.Norm:
        if not isinstance(norm, (nn.LayerNorm, RMSNorm)):
            return structs.Norm()
        weight, bias = norm.weight, getattr(norm, "bias", None)
        if isinstance(norm, RMSNorm) and norm.add_unit_offset:
            return structs.Norm(1, self._floats(1 + weight.detach().float()), None)
        return structs.Norm(1, self._floats(weight), self._floats(bias))

    def _linear(self, linear: nn.Module) -> structs.KernelLinear:
        if isinstance(linear, QuantLinear):
            return _integers(linear.matrix, bias=self._floats(linear.bias))
        assert isinstance(linear, nn.Linear)
        weight: Tensor = linear.weight
        if self._packed is not None:
            weight = self._packed[weight.data_ptr()]
        return structs.KernelLinear(weight.data_ptr(), self._floats(linear.bias))

    def _pack_weights(self) -> None:
        """Pack every matrix once, unless the weights have moved; keyed by address, so tied matrices share a copy."""
        linears = [module for module in self._model.modules() if isinstance(module, nn.Linear)]
        matrices = {linear.weight.data_ptr(): linear.weight.detach() for linear in linears}
        if self._packed is not None and self._packed.keys() == matrices.keys():
            return
        layout = PackedLayout(lanes=self._library.lc_lanes(), bf16_depth=self._library.lc_bf16_depth())
        packed = allocate_tensors([layout.shape(matrix) for matrix in matrices.values()], dtype=self._model.dtype)
        for matrix, out in zip(matrices.values(), packed, strict=True):
            layout.pack(matrix, out=out)
        self._packed = dict(zip(matrices, packed, strict=True))

    def _floats(self, vector: Tensor | None) -> int | None:
        return None if vector is None else self._keep(vector.detach().float().contiguous()).data_ptr()

    def _keep(self, tensor: Tensor) -> Tensor:
        self._kept.append(tensor)
        return tensor


def _cache_memory(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """In huge pages, unless it is large: a page that a short text touches is there as a whole."""
    if math.prod(shape) * dtype.itemsize > HUGE_CACHE_BYTES:
        return torch.empty(shape, dtype=dtype)
    return allocate_tensors([shape], dtype=dtype)[0]


def _rows(feeds: Sequence[Feed]) -> list[tuple[int, int, int]]:
    """Sequence, position and id of every token."""
    return [(item.sequence, item.position + i, token) for item in feeds for i, token in enumerate(item.ids)]


def _integers(matrix: PackedMatrix, *, bias: int | None = None) -> structs.KernelLinear:
    return structs.KernelLinear(matrix.codes.data_ptr(), bias, matrix.scale_bits.data_ptr(), matrix.bits)


def _round_up(size: int, multiple: int = structs.MAX_LANES) -> int:
    return -(-size // multiple) * multiple
