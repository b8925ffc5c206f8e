"""Check fitted tokenizers in LeRobot's own hands: its tokenizer step, and pi0-fast's decoder.

    python scripts/check_lerobot_tokenizer.py                  # a dataset of the demo
    python scripts/check_lerobot_tokenizer.py ROOT ...         # copies of these datasets

Needs lerobot 0.4.4 and torch. For each dataset and normalization mode it fits a tokenizer of the
native width on 400 chunks, cuts the same chunks from the frames again, and checks on each:

- LeRobot's ActionTokenizerProcessorStep gives as many tokens as the fit's report forecasts.
- pi0-fast's decoder, which knows `min_token` alone, gives back exactly what was quantized.
- Twenty times out of range, its error is no larger than that of the published class, which clips at
  the corpus's own minimum.
"""

from __future__ import annotations

import argparse
import importlib.machinery
import shutil
import sys
import tempfile
import types
from collections import Counter
from pathlib import Path

import numpy as np

CHUNK_SIZE, N_CHUNKS, SCALE = 50, 400, 10.0
MODES = ("min_max", "quantile", "mean_std")
FAR = np.float32(20)


def without_torchvision() -> None:
    """Let lerobot import without a torchvision that works, which none of this uses."""
    try:
        import torchvision.ops  # noqa: F401

        return
    except (ImportError, RuntimeError):  # absent, or built for another torch
        for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
            del sys.modules[name]
        sys.modules["torchvision"] = None
    import datasets  # noqa: F401 - looks for torchvision, and must not find the stand-in
    from transformers import AutoProcessor  # noqa: F401

    for name in ("", ".transforms", ".transforms.functional", ".transforms.v2"):
        module = types.ModuleType(f"torchvision{name}")
        module.__path__ = []
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
        sys.modules[module.__name__] = module
        parent, _, child = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    sys.modules["torchvision.transforms.v2"].Transform = object


def text_tokenizer(folder: Path) -> Path:
    """Write a stand-in for the text tokenizer, whose last ids the step gives to actions."""
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["<bos>", "<eos>", "<unk>", "Action", ":", "|"]
    model = models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>")
    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    special = {"bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(folder)
    return folder


def fitted(root: Path, mode: str, out: Path):
    """Fit a tokenizer; return its report, normalized chunks, and what was quantized of them."""
    from opentau_prep.config.load import mixture_from_roots
    from opentau_prep.context import RunContext
    from opentau_prep.frames.chunks import chunk_rows, gather_chunks
    from opentau_prep.frames.read import read_frames
    from opentau_prep.metadata.resolve import resolve_mixture
    from opentau_prep.stats.compute import prepare_stats
    from opentau_prep.stats.options import StatsOptions
    from opentau_prep.tokenizer.options import FitOptions
    from opentau_prep.tokenizer.prepare import prepare_tokenizer, sample_mixture
    from opentau_prep.tokenizer.quantize import quantize

    context = RunContext(workers=1)
    resolved = resolve_mixture(mixture_from_roots([root]))
    prepare_stats(resolved, context, StatsOptions(published="keep"))
    resolved = resolve_mixture(mixture_from_roots([root]))
    entry = resolved.entries[0]
    width = entry.meta.features[entry.name_map.columns["actions"]].shape[0]
    options = FitOptions(CHUNK_SIZE, width, N_CHUNKS, normalization=mode, scale=SCALE)
    report = prepare_tokenizer(resolved, context, options, out)
    sampling = sample_mixture(resolved, context, options)
    draws = sampling.plans[0].draws
    column = entry.name_map.columns["actions"]
    frames = read_frames(entry.meta, [column], entry.episodes.tolist()).columns[column]
    soft = chunk_rows(
        draws.start,
        draws.first,
        draws.end,
        chunk_size=CHUNK_SIZE,
        fps=entry.meta.fps,
        action_freq=None,
    )
    native = gather_chunks(frames, soft, "nearest").astype(np.float32)
    normal = options.convention.normalize(native, *sampling.heads.stats_of(0))
    assert np.array_equal(quantize(normal, SCALE), sampling.corpus.values[0]), "other chunks"
    return report.document, normal, sampling.corpus.in_share


def step_lengths(processor, chunks: np.ndarray, text: Path) -> list[int]:
    """Return how many action tokens LeRobot's step makes of each chunk."""
    import torch
    from lerobot.processor.tokenizer_processor import ActionTokenizerProcessorStep

    step = ActionTokenizerProcessorStep(
        action_tokenizer_input_object=processor,
        max_action_tokens=chunks[0].size + 8,
        paligemma_tokenizer_name=str(text),
    )
    mask = step._tokenize_action(torch.from_numpy(chunks).to(torch.float32).requires_grad_())[1]
    around = step._paligemma_tokenizer
    n_around = (
        1 + len(around.encode("Action: ", add_special_tokens=False)) + len(around.encode("|"))
    )
    return (mask.sum(dim=1) - n_around).tolist()


def decoded_by_policy(processor, ids: list[list[int]], shape: tuple[int, int]) -> np.ndarray:
    """Return what pi0-fast's own decoder makes of token ids.

    The method is compiled from the installed file, since importing its module takes the packages of
    every policy.
    """
    import ast
    import logging

    import lerobot
    from scipy.fftpack import idct

    path = Path(lerobot.__file__).parent / "policies/pi0_fast/modeling_pi0_fast.py"
    tree = ast.parse(path.read_text())
    nodes = (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef))
    (method,) = [node for node in nodes if node.name == "decode_actions_with_fast"]
    names = {"np": np, "logging": logging, "idct": idct}
    exec(compile(ast.Module([method], []), str(path), "exec"), names)
    policy = types.SimpleNamespace(action_tokenizer=processor)
    return names[method.name](policy, ids, shape[0], shape[1], relaxed_decoding=False)


def check(root: Path, mode: str, scratch: Path) -> str:
    from transformers import AutoProcessor

    from opentau_prep.tokenizer.quantize import dequantize, quantize

    out = scratch / f"{root.name}-{mode}"
    document, chunks, held = fitted(root, mode, out)
    processor = AutoProcessor.from_pretrained(str(out), trust_remote_code=True)
    lengths = step_lengths(processor, chunks, text_tokenizer(scratch / "text"))
    forecast = document["token_lengths"]["total"]["counts"]
    found = Counter(str(n) for n, own in zip(lengths, held, strict=True) if own or not held.any())
    assert found == forecast, "LeRobot's step makes other lengths than the report says"
    shape = chunks.shape[1:]
    size = {"time_horizon": shape[0], "action_dim": shape[1]}
    exact = dequantize(quantize(chunks, SCALE), SCALE, **size)
    decoded = decoded_by_policy(processor, processor(chunks), shape)
    rounding, error = np.abs(exact - chunks).max(), np.abs(decoded - chunks).max()
    assert np.allclose(decoded, exact, rtol=0, atol=1e-9), "the policy decodes other numbers"
    far = chunks * FAR
    own = np.abs(decoded_by_policy(processor, processor(far), shape) - far).max()
    lowest = int(quantize(chunks, SCALE)[~held].min())
    published = dequantize(np.maximum(quantize(far, SCALE), lowest), SCALE, **size)
    clipped = np.abs(published - far).max()
    assert own <= clipped, "clips more than the published class"
    return (
        f"{len(chunks)} chunks of {shape[0]} x {shape[1]}, {np.mean(lengths):.1f} tokens: error"
        f" {error:.3f} (rounding {rounding:.3f}); {FAR:g} times out of range {own:.2f}"
        f" (published class {clipped:.2f})"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("roots", nargs="*", type=Path)
    args = parser.parse_args()
    without_torchvision()
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        roots = args.roots
        if not roots:
            from opentau_prep.demo.mixture import write_demo

            roots = [write_demo(scratch / "demo").parent / "datasets/demo/bimanual_fold"]
        for root in roots:
            copied = scratch / "roots" / root.name
            shutil.copytree(root, copied, copy_function=shutil.copyfile)
            for each in (copied, *(p for p in copied.rglob("*") if p.is_dir())):
                each.chmod(0o755)
            for mode in MODES:
                print(f"{root.name}, {mode}: {check(copied, mode, scratch)}", flush=True)


if __name__ == "__main__":
    main()
