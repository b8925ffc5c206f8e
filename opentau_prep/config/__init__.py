"""What a person wrote in JSON, checked: references, the mixture schema, known datasets.

No dataset is opened here. The modules are imported by name, not from here: `refs`, `names` and
`registry` must not cost the import of pydantic, which `schema` and `load` need.
"""
