"""`lcp merge_lora` as a script: the same function, in src/litgpt_core/commands/merge_lora.py."""

from litgpt_core.cli import run

if __name__ == "__main__":
    run("merge_lora")
