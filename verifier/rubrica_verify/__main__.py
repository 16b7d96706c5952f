"""``python -m rubrica_verify``."""

from rubrica_verify.cli import main

raise SystemExit(main())
