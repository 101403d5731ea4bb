"""What runs inside measured processes. A module imports only what its own program needs."""
