"""Alembic migrations, packaged with the wheel. They only ever go forwards."""
