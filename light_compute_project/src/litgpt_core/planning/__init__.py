"""What a run would need: memory, time and money, computed from its config."""
