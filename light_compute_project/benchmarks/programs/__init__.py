"""One module per program: its `RunSpec` for training, for generating, or for both. No torch: `--help` reads these."""
