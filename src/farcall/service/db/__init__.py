"""The store: tables, engine with group commit, migrations. Only this package and `store` modules know SQL."""
