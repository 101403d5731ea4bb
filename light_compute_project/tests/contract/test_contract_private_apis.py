"""Private names of torch and Lightning that training relies on, each used in one file. After an upgrade this says which
one is gone, and where it is used.
"""

from __future__ import annotations

import importlib
import inspect
import subprocess
import sys

import pytest

USED = [
    (
        "lightning.pytorch.trainer.connectors.checkpoint_connector",
        "_CheckpointConnector.dump_checkpoint",
        {"weights_only"},
        "training/trainer.py: write the state that Trainer.save_checkpoint collects",
    ),
    (
        "lightning_utilities.core.imports",
        "RequirementCache._check_available",
        set(),
        "training/lean_import.py: falls back to importing Lightning with transformers and matplotlib",
    ),
    (
        "torch.distributed.distributed_c10d",
        "_get_default_store",
        set(),
        "distributed/connect.py: open a TCPStore and pass it to init_process_group",
    ),
    (
        "torch.distributed.distributed_c10d",
        "_abort_process_group",
        set(),
        "distributed/connect.py: leave the group as it is after an error; NCCL may then wait at the exit",
    ),
    (
        "torch.distributed.tensor._utils",
        "compute_local_shape_and_global_offset",
        {"global_shape", "mesh", "placements"},
        "distributed/sharding.py: distribute_tensor(whole.to(device), mesh, placements, src_data_rank=None)",
    ),
]


@pytest.mark.parametrize(("module", "name", "arguments", "instead"), USED, ids=[name for _, name, _, _ in USED])
def test_a_private_name_is_still_there(module: str, name: str, arguments: set[str], instead: str) -> None:
    found = importlib.import_module(module)
    for part in name.split("."):
        assert hasattr(found, part), f"{module}.{name} is gone. Used in {instead}"
        found = getattr(found, part)
    missing = arguments - set(inspect.signature(found).parameters)
    assert not missing, f"{module}.{name} no longer takes {missing}. Used in {instead}"


def test_the_trainer_holds_the_connector_under_the_name_we_use() -> None:
    from lightning import Trainer

    source = inspect.getsource(Trainer.save_checkpoint)
    assert "self._checkpoint_connector.dump_checkpoint(" in source, "look at training/trainer.py: dump_state"


def test_torch_takes_a_missing_triton_and_the_switches_that_we_set() -> None:
    """training/compiler_start.py hides triton from runs on a CPU, and sets TorchInductor's switches by environment."""
    code = (
        "import inspect, os\n"
        "from litgpt_core.training import compiler_start\n"
        "compiler_start.leave_triton_out()\n"
        "from torch.utils._triton import has_triton\n"
        "assert not has_triton(), 'triton is found although sys.modules hides it'\n"
        "from torch._inductor import config, cpu_vec_isa\n"
        "text = inspect.getsource(config) + inspect.getsource(cpu_vec_isa)\n"
        "missing = [s for s in (compiler_start.PROBE_SWITCH, *compiler_start.FOR_PROFILERS) if s not in text]\n"
        "assert not missing, f'TorchInductor no longer reads {missing}'\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
