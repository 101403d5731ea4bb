"""`lcp tokenizer` as a script: the same function, in src/litgpt_core/commands/train_tokenizer.py."""

from litgpt_core.cli import run

if __name__ == "__main__":
    run("tokenizer")
