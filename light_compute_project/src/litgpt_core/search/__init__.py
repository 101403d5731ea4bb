"""Many runs: grids and studies, each run a child process."""
