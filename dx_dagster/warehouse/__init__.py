"""PostgreSQL: tables, migrations, merge, marks, vault."""
