"""What `runner doctor` looks at: facts are gathered here, and judged in `health`, which does no I/O."""
