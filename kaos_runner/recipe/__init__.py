"""The recipe language: types, schema, source with marks, templates, loading."""
