"""LitGPT's files: verified to be unchanged, synced by one command, and monitored for changes of the names we use."""
