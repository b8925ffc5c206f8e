"""What a person wrote in JSON, checked: references, the mixture schema, known datasets.

No dataset is opened here.
"""
