"""``python -m rubrica`` is the command."""

from rubrica.cli import app

app(prog_name="rubrica")
