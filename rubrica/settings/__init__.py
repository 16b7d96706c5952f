"""Settings, one frozen class per process: TOML file, then environment; unknown keys are errors, secrets are paths."""
