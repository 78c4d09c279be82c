"""PostgreSQL's catalog of our tables, without the order of columns: ALTER TABLE cannot choose that."""

import psycopg

Fact = tuple[str, str, str | None]  # table or 'functions', name ('' for the table itself), what it is
_FACTS = r"""
    SELECT c.relname, '', obj_description(c.oid, 'pg_class') FROM pg_class c
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace
    UNION ALL
    SELECT c.relname, attname, concat_ws(' ', format_type(atttypid, atttypmod), attnotnull, attidentity,
        pg_get_expr(adbin, adrelid), col_description(c.oid, attnum))
    FROM pg_class c JOIN pg_attribute a ON attrelid = c.oid LEFT JOIN pg_attrdef d ON adrelid = c.oid AND adnum = attnum
    WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace AND attnum > 0 AND NOT attisdropped
    UNION ALL
    SELECT tablename, indexname, pg_get_indexdef(indexname::regclass) FROM pg_indexes WHERE schemaname = 'public'
    UNION ALL
    SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint
    WHERE connamespace = 'public'::regnamespace AND contype <> 'n'
    UNION ALL
    SELECT tgrelid::regclass::text, tgname, concat_ws(' ', tgenabled, pg_get_triggerdef(oid)) FROM pg_trigger
    WHERE NOT tgisinternal
    UNION ALL
    SELECT 'functions', proname, trim(regexp_replace(prosrc, '\s+', ' ', 'g')) FROM pg_proc
    WHERE pronamespace = 'public'::regnamespace
    ORDER BY 1, 2, 3"""


def facts(url: str) -> list[Fact]:
    """Tables, columns, indexes, constraints, triggers and functions with all that defines them, and comments."""
    with psycopg.connect(url) as connection:
        return connection.execute(_FACTS).fetchall()
