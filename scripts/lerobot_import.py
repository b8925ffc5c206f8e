"""Make `import lerobot.datasets` work where torchvision has no build for the installed torch."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
import types
from typing import Any

__all__ = ["prepare"]


def prepare() -> None:
    """Put an empty stand-in for torchvision in its place, unless it is installed."""
    if importlib.util.find_spec("torchvision") is not None:
        return
    for name in ("", ".transforms", ".transforms.v2", ".transforms.v2.functional", ".io"):
        _stand_in(f"torchvision{name}")


def _stand_in(name: str) -> None:
    module = types.ModuleType(name)
    module.__spec__ = importlib.machinery.ModuleSpec(name, None)
    module.__path__ = []
    module.__dict__["__getattr__"] = _class_named
    sys.modules[name] = module
    parent, _, child = name.rpartition(".")
    if parent:
        setattr(sys.modules[parent], child, module)


def _class_named(name: str) -> Any:
    if name.startswith("__"):
        raise AttributeError(name)
    return _to_tensor() if name == "ToTensor" else type(name, (), {})


def _to_tensor() -> type:
    """Return what LeRobot's dataset makes of an image that it loads."""
    import numpy as np
    import torch

    class ToTensor:
        def __call__(self, image: Any) -> Any:
            return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255

    return ToTensor
