"""The kernel on ARM: built for NEON by a cross compiler and run in an emulator, it computes what it computes here.

Debian: apt-get install g++-aarch64-linux-gnu qemu-user. The model that `KernelDecoder` describes is written to a file
with the memory that it points to; a small program reads it, sets the pointers anew and calls the kernel.
"""

import ctypes
import platform
import shutil
import struct
import subprocess

import pytest
import torch

from litgpt_core.generation import kernel_build
from litgpt_core.generation import kernel_structs as structs
from litgpt_core.generation.decoder import Feed
from litgpt_core.generation.kernel import KernelDecoder
from litgpt_core.generation.kernel_build import load_kernel
from litgpt_core.model import grid
from litgpt_core.model.config import GPTConfig
from litgpt_core.model.gpt import GPT
from litgpt_core.model.init import initialize
from litgpt_core.model.quantized import PackedMatrix, QuantLinear
from litgpt_core.model.structure import structure

COMPILER = shutil.which("aarch64-linux-gnu-g++")
EMULATOR = shutil.which("qemu-aarch64") or shutil.which("qemu-aarch64-static")
pytestmark = [
    pytest.mark.nightly,  # the compiler takes half a minute
    pytest.mark.skipif(not (COMPILER and EMULATOR), reason="needs g++-aarch64-linux-gnu and qemu-user"),
    pytest.mark.skipif(
        platform.machine() != "x86_64", reason="compares with a build for x86-64 that has as many lanes"
    ),
]
PROGRAM = r"""
#include "decode.cpp"
#include <cstdio>
#include <cstdlib>

static FILE* file;
static int64_t number() {
    int64_t value = 0;
    if (fread(&value, sizeof value, 1, file) != 1) exit(3);
    return value;
}

int main(int, char** arguments) {
    file = fopen(arguments[1], "rb");
    std::vector<char*> memory(number());
    for (char*& each : memory) {
        const int64_t size = number();
        each = static_cast<char*>(aligned_alloc(64, (size + 127) / 64 * 64));
        if (int64_t(fread(each, 1, size, file)) != size) return 4;
    }
    for (int64_t left = number(); left > 0; left--) {
        char* place = memory[number()];
        place += number();
        char* target = memory[number()];
        target += number();
        std::memcpy(place, &target, sizeof target);
    }
    const Model* model = reinterpret_cast<Model*>(memory[0]);
    const int64_t n = number();
    std::vector<int64_t> ids(n), sequences(n), positions(n), rows(n);
    for (int64_t i = 0; i < n; i++) ids[i] = number(), positions[i] = rows[i] = i;
    std::vector<float> logits(n * model->vocabulary), scratch(lc_scratch_size(model, n, 1));
    const Tokens tokens{n, ids.data(), sequences.data(), positions.data(), n, rows.data()};
    lc_forward(model, &tokens, logits.data(), scratch.data(), 1, nullptr);
    FILE* out = fopen(arguments[2], "wb");
    fwrite(logits.data(), sizeof(float), logits.size(), out);
    fclose(out);
    puts(lc_instructions());
}
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arm")
    source, program = folder / "program.cpp", folder / "program"
    source.write_text(PROGRAM, encoding="utf-8")
    flags = [flag for flag in kernel_build.FLAGS if flag not in ("-shared", "-fPIC")]
    command = [COMPILER, *flags, "-mcpu=cortex-a76", "-static", f"-I{kernel_build.SOURCES}", "-o", str(program)]
    done = subprocess.run([*command, str(source)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return program


@pytest.fixture
def eight_lanes(kernel, monkeypatch):
    """The kernel for processors without AVX-512, whose vectors are as long as those for NEON."""
    load_kernel.cache_clear()
    monkeypatch.setattr(kernel_build, "_flags", lambda: (*kernel_build.FLAGS, "-march=x86-64-v3"))
    yield
    load_kernel.cache_clear()


def pointers(kind, base=0):
    """Offsets of the pointers in a ctypes struct."""
    for name, field in kind._fields_:
        at = base + getattr(kind, name).offset
        if field is ctypes.c_void_p or issubclass(field, ctypes._Pointer):
            yield at
        elif issubclass(field, ctypes.Structure):
            yield from pointers(field, at)


def written(decoder, ids):
    """The decoder's model, the memory that it points to, and the tokens."""
    model = decoder._struct
    layers = bytes(ctypes.string_at(model.layers, ctypes.sizeof(structs.Layer) * model.n_layer))
    tensors = [*decoder._kept, decoder._cache, *(decoder._packed or {}).values()]
    tensors += [*decoder._model.parameters(), *decoder._model.buffers()]
    found = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in tensors if tensor.numel()}
    memory = [bytes(model), layers, *(ctypes.string_at(at, size) for at, size in found.items())]
    places = [(0, at) for at in pointers(structs.Model)]
    size = ctypes.sizeof(structs.Layer)
    places += [(1, layer * size + at) for layer in range(model.n_layer) for at in pointers(structs.Layer)]
    moved = []
    for buffer, at in places:
        address = struct.unpack_from("<q", memory[buffer], at)[0]
        if address == ctypes.cast(model.layers, ctypes.c_void_p).value:
            moved.append((buffer, at, 1, 0))
        elif address:
            target, begin = next((i, a) for i, (a, n) in enumerate(found.items()) if a <= address < a + n)
            moved.append((buffer, at, 2 + target, address - begin))
    content = struct.pack("<q", len(memory))
    for each in memory:
        content += struct.pack("<q", len(each)) + each
    content += struct.pack("<q", len(moved)) + b"".join(struct.pack("<4q", *each) for each in moved)
    return content + struct.pack(f"<q{len(ids)}q", len(ids), *ids)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["fp32", "bf16"])
@pytest.mark.parametrize("options", [{}, {"packed_weights": True}, {"kv_cache": "int8"}, {"bits": 4}], ids=str)
@torch.no_grad()
def test_neon_computes_what_avx2_does(program, eight_lanes, tmp_path, dtype, options):
    """A prompt of 23 tokens at once: products of many rows, attention by rows and alone, norms, rope, activations."""
    options = dict(options)
    bits = options.pop("bits", 0)
    sizes = {"n_layer": 2, "n_head": 4, "n_embd": 64, "block_size": 48, "vocab_size": 100, "padding_multiple": 1}
    sizes |= {"intermediate_size": 96, "n_query_groups": 2}
    model = GPT(GPTConfig(**sizes, norm_class_name="RMSNorm", mlp_class_name="LLaMAMLP")).eval()
    initialize(model, seed=3)
    for path, _ in structure(model.config).linears() if bits else ():
        linear = model.get_submodule(path)
        kind = grid.Grid(bits)
        scales = grid.stored_scales(kind.absmax_scales(grid.grouped(linear.weight)))
        parts = grid.pack(
            kind.codes(grid.grouped(linear.weight), scales).flatten(-2), scales, stored_bits=kind.stored_bits
        )
        parent, _, name = path.rpartition(".")
        matrix = PackedMatrix(*parts, rows=linear.weight.size(0), columns=linear.weight.size(1))
        quant = QuantLinear(matrix, bias=linear.bias, int8_activations=True)
        setattr(model.get_submodule(parent), name, quant)
    decoder = KernelDecoder(model.to(dtype), **options)
    decoder.start(n_sequences=1, length=48)
    decoder._cache.zero_()
    ids = torch.randint(0, 100, (23,), generator=torch.Generator().manual_seed(1)).tolist()
    (tmp_path / "model").write_bytes(written(decoder, ids))
    command = [EMULATOR, str(program), str(tmp_path / "model"), str(tmp_path / "logits")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.strip() == "NEON"
    found = torch.frombuffer(bytearray((tmp_path / "logits").read_bytes()), dtype=torch.float32).view(23, -1)
    expected = decoder.feed_all([Feed(0, 0, ids)])
    assert float(expected.abs().max()) > 0.01
    assert float((found - expected).abs().max() / expected.abs().max()) < 1e-5
