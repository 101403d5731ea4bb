"""The shipped models side by side, and one of them built: what its config says, and what it then has.

python light_compute_project/examples/04_model_zoo.py
python light_compute_project/examples/04_model_zoo.py llama_gqa
"""

from __future__ import annotations

import argparse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="baseline", help="file of configs/model without its ending")
    name = parser.parse_args().model

    from litgpt_core.planning.zoo import find, zoo

    # 1. From the configs alone: nothing is built, torch is not imported.
    for model in zoo():
        best = f"{model.measured[0].val_bpb:.3f} bits per byte" if model.measured else ""
        print(f"{model.name:<18}{model.parameters:>15,} parameters  {model.flops:8.1e} FLOP per token  {best}")

    # 2. One of them, built: the parameters are those that the config promised.
    chosen = find(name)
    import torch

    from litgpt_core import GPT

    with torch.device("cpu" if chosen.parameters < 50e6 else "meta"):  # meta: shapes without memory
        model = GPT(chosen.config)
    assert model.num_parameters() == chosen.parameters
    logits = model(torch.zeros(1, 8, dtype=torch.long, device=model.lm_head.weight.device))
    print(f"\n{name}: {chosen.description}")
    print(f"8 tokens in, logits of shape {tuple(logits.shape)} out; trained by: {chosen.command}")


if __name__ == "__main__":
    from litgpt_core.core.console import run_script

    run_script(main)
