"""The tables of the database and how an older database becomes this one.

Room: service. May: SQL.
"""

from __future__ import annotations

import sqlite3

from sandboxd.errors import SandboxdError

Migrations = tuple[tuple[str, ...], ...]  # one entry per version; PRAGMA user_version counts those applied

MIGRATIONS: Migrations = (
    (
        """
        CREATE TABLE function_versions (
            name        TEXT NOT NULL,
            version     TEXT NOT NULL,
            code_digest TEXT NOT NULL,
            record      TEXT NOT NULL,  -- every field of model.function.FunctionVersion, as JSON
            PRIMARY KEY (name, version)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE access_keys (
            id          TEXT PRIMARY KEY,
            secret      TEXT NOT NULL,  -- as it is: SigV4 cannot be checked with less
            description TEXT NOT NULL,
            create_date TEXT NOT NULL
        ) STRICT, WITHOUT ROWID
        """,
    ),
    (
        """
        CREATE TABLE aliases (
            function TEXT NOT NULL,
            name     TEXT NOT NULL,
            record   TEXT NOT NULL,  -- every field of model.function.Alias, as JSON
            PRIMARY KEY (function, name)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE settings (
            kind      TEXT NOT NULL,
            function  TEXT NOT NULL,
            qualifier TEXT NOT NULL,  -- empty: of the function itself
            document  TEXT NOT NULL,  -- JSON
            PRIMARY KEY (function, qualifier, kind)
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE layers (
            name         TEXT PRIMARY KEY,
            last_version INTEGER NOT NULL  -- numbers are never given twice
        ) STRICT, WITHOUT ROWID
        """,
        """
        CREATE TABLE layer_versions (
            layer   TEXT NOT NULL,
            version INTEGER NOT NULL,
            record  TEXT NOT NULL,  -- every field of model.layer.LayerVersion, as JSON
            PRIMARY KEY (layer, version)
        ) STRICT, WITHOUT ROWID
        """,
        """
        INSERT INTO settings
            SELECT 'Tags', name, '', extra.value ->> 1 FROM function_versions, json_each(record, '$.extra') AS extra
            WHERE version = '$LATEST' AND extra.value ->> 0 = 'Tags'
        """,
        """
        UPDATE function_versions SET record = json_remove(
            json_set(record, '$.settings', json('[]'), '$.layers', json('[]'), '$.unzipped', json('[0, 0]')), '$.extra')
        """,
        """
        CREATE TABLE principals (
            kind   TEXT NOT NULL,  -- user or role
            name   TEXT NOT NULL,
            record TEXT NOT NULL,  -- every field of store.principals.Identity, as JSON
            PRIMARY KEY (kind, name)
        ) STRICT, WITHOUT ROWID
        """,
        """
        INSERT INTO principals VALUES ('user', 'admin', json_object(
            'name', 'admin', 'account', '', 'create_date', strftime('%Y-%m-%dT%H:%M:%S+00:00', 'now'),
            'documents', json_object('AdministratorAccess',
                '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "*", "Resource": "*"}}')))
        """,
        "ALTER TABLE access_keys ADD COLUMN user TEXT NOT NULL DEFAULT 'admin'",
    ),
    (
        # Another account has a database of its own: its users are marked here, and store.moving takes them there.
        """
        UPDATE principals SET kind = kind || '@' || (record ->> '$.account') WHERE record ->> '$.account' <> ''
        """,
        "UPDATE principals SET record = json_remove(record, '$.account')",
    ),
)


def migrate(connection: sqlite3.Connection, migrations: Migrations) -> None:
    """Bring the database to this version, in one transaction. Raises SandboxdError where a newer one wrote it."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > len(migrations):
        raise SandboxdError(f"the database has schema {version}; this sandboxd knows up to {len(migrations)}")
    if version == len(migrations):  # a disk that is full takes no write
        return
    connection.execute("BEGIN IMMEDIATE")
    for statements in migrations[version:]:
        for statement in statements:
            connection.execute(statement)
    connection.execute(f"PRAGMA user_version = {len(migrations)}")
    connection.execute("COMMIT")
