from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib import resources

import numpy as np
import pytest

from opentau_prep.errors import ConfigError, DataError
from opentau_prep.tokenizer.bpe import encode_points, train_bpe
from opentau_prep.tokenizer.folder import (
    ProcessorSettings,
    load_tokenizer,
    processor_files,
    read_settings,
)
from opentau_prep.tokenizer.quantize import (
    clip_values,
    code_points,
    dequantize,
    min_token_of,
    quantize,
)

SETTINGS = ProcessorSettings(
    scale=10.0, vocab_size=400, min_token=-127, action_dim=4, time_horizon=12
)


def _chunks(n: int, seed: int = 0) -> np.ndarray:
    steps = np.random.default_rng(seed).normal(size=(n, 12, 4)).astype(np.float32)
    return np.cumsum(steps, axis=1, dtype=np.float32) / 8


@pytest.fixture(scope="module")
def tokenizer():
    return train_bpe(code_points(quantize(_chunks(300), 10), -127), vocab_size=400)


@pytest.fixture(scope="module")
def folder(tokenizer, tmp_path_factory):
    path = tmp_path_factory.mktemp("processor")
    for name, content in processor_files(tokenizer, SETTINGS).items():
        (path / name).write_bytes(content)
    return path


@pytest.fixture(scope="module")
def processor(folder, tmp_path_factory):
    pytest.importorskip("transformers")
    module = _module(folder)
    return module.UniversalActionProcessor.from_pretrained(str(folder))


def _module(folder):
    import importlib.util

    spec = importlib.util.spec_from_file_location(
        "shipped_processor", folder / "processing_action_tokenizer.py"
    )
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_processor_files_same_input_same_bytes(tokenizer):
    assert processor_files(tokenizer, SETTINGS) == processor_files(tokenizer, SETTINGS)


def test_processor_files_settings_and_tokenizer_come_back(tokenizer):
    files = processor_files(tokenizer, SETTINGS)
    assert read_settings(files["processor_config.json"]) == SETTINGS
    assert load_tokenizer(files["tokenizer.json"]).to_str() == tokenizer.to_str()
    config = json.loads(files["processor_config.json"])
    assert config["auto_map"] == {
        "AutoProcessor": "processing_action_tokenizer.UniversalActionProcessor"
    }


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"scale": 1}', b'{"scale": 0}'])
def test_read_settings_foreign_file_raises(content):
    with pytest.raises(DataError, match="processor_config"):
        read_settings(content)


def test_load_tokenizer_foreign_file_raises():
    with pytest.raises(DataError, match=r"tokenizer\.json"):
        load_tokenizer(b"{}")


def test_processor_settings_not_positive_raises():
    with pytest.raises(ConfigError, match="scale"):
        ProcessorSettings(scale=0, vocab_size=300, min_token=0, action_dim=1, time_horizon=1)


def test_shipped_source_imports_nothing_of_this_package():
    source = resources.files("opentau_prep.tokenizer") / "assets/processing_action_tokenizer.py"
    imported = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Import):
            imported.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module.split(".")[0])
    assert imported == {
        *("logging", "math", "numpy", "pathlib", "scipy"),
        *("tokenizers", "transformers"),
    }


def test_package_fits_without_importing_transformers():
    code = "import sys, opentau_prep.tokenizer; assert 'transformers' not in sys.modules"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


@pytest.mark.parametrize("factor", [1, 2.5, 300])
def test_processor_ids_and_chunks_equal_the_library(processor, tokenizer, factor):
    chunks = _chunks(20, seed=1) * np.float32(factor)
    values = quantize(chunks, 10)
    ids = processor(chunks)
    assert ids == encode_points(tokenizer, code_points(values, -127)).rows()
    values = clip_values(values, -127)
    expected = dequantize(values, 10, time_horizon=12, action_dim=4)
    before = processor.malformed_chunks
    assert np.array_equal(processor.decode(ids), expected)
    assert processor.malformed_chunks == before


def test_processor_text_calls_of_published_class_work(processor):
    chunk = _chunks(1, seed=2)
    text = "".join(chr(v + 127) for v in quantize(chunk, 10)[0].tolist())
    ids = processor.bpe_tokenizer(text)["input_ids"]
    assert ids == processor(chunk)[0]
    assert processor.bpe_tokenizer.decode(ids) == text


def test_processor_single_chunk_and_tensor_like_input(processor):
    class Tensor:
        def __init__(self, values):
            self.values = values

        def __array__(self, dtype=None, copy=None):
            return self.values

    chunk = _chunks(1, seed=3)
    assert processor(chunk[0]) == processor(chunk) == processor(Tensor(chunk))


def test_processor_wrong_lengths_are_malformed_and_counted(processor, caplog):
    chunks = _chunks(2, seed=4)
    ids = processor(chunks)
    before = processor.malformed_chunks
    decoded = processor.decode([ids[0][:-2], ids[0] + ids[1], ids[1], []])
    assert processor.malformed_chunks == before + 3
    assert "3 of 4 decoded action chunks are malformed" in caplog.text
    whole = processor.decode(ids)
    assert np.array_equal(decoded[1], whole[0])
    assert np.array_equal(decoded[2], whole[1])
    assert not decoded[3].any()
    assert 0 < np.abs(decoded[0] - whole[0]).max() < 1


def test_processor_broken_bytes_are_malformed(processor):
    lead = processor.bpe_tokenizer.convert_tokens_to_ids("Ã")
    zero = processor.bpe_tokenizer.convert_tokens_to_ids(chr(0x100 + 33 + 127 - 0x7F))
    before = processor.malformed_chunks
    decoded = processor.decode([[lead] + [zero] * 47])
    assert processor.malformed_chunks == before + 1
    assert np.isfinite(decoded).all()
    assert np.abs(decoded).max() < 1e3


def test_processor_not_finite_raises(processor):
    chunk = _chunks(1)
    chunk[0, 3, 2] = np.nan
    with pytest.raises(ValueError, match="not finite"):
        processor(chunk)


def test_processor_absurd_value_saturates_and_counts(processor):
    chunk = _chunks(1)
    chunk[0, :, 0] = 1e8
    before = processor.clipped_values
    (ids,) = processor(chunk)
    assert processor.clipped_values > before
    assert np.isfinite(processor.decode([ids])).all()


class FakeTensor:
    """A tensor as torch's are: NumPy cannot read it with gradients, on a device or in bfloat16."""

    class dtype:  # noqa: N801
        def __init__(self, itemsize):
            self.itemsize = itemsize

    def __init__(self, values, itemsize=2, state="grad, cuda"):
        self.values, self.state, self.dtype = values, state, self.dtype(itemsize)

    def detach(self):
        return FakeTensor(self.values, self.dtype.itemsize, self.state.replace("grad, ", ""))

    def cpu(self):
        assert "grad" not in self.state
        return FakeTensor(self.values, self.dtype.itemsize, "")

    def float(self):
        return FakeTensor(self.values.astype(np.float32), 4, self.state)

    def __array__(self, dtype=None, copy=None):
        assert self.state == ""
        assert self.dtype.itemsize >= 4
        return self.values


def test_processor_takes_tensors_of_any_dtype_and_device(processor):
    chunks = _chunks(3, seed=5)
    ids = processor(chunks)
    assert processor(FakeTensor(chunks)) == ids
    assert processor([FakeTensor(chunk) for chunk in chunks]) == ids
    assert processor(chunks.astype(np.float16)) == processor(
        chunks.astype(np.float16).astype(np.float32)
    )


def test_processor_fit_has_the_published_signature_and_decodes(processor):
    chunks = _chunks(60, seed=6)
    fitted = type(processor).fit(list(chunks), scale=20, vocab_size=300, time_horizon=12)
    expected = min_token_of(int(quantize(chunks, 20).min()), chunk_size=12, scale=20, headroom=10)
    assert (fitted.scale, fitted.vocab_size, fitted.min_token) == (20, 300, expected)
    assert (fitted.time_horizon, fitted.action_dim) == (12, None)
    points = code_points(quantize(chunks, 20), expected)
    trained = train_bpe(points, vocab_size=300)
    assert fitted(chunks) == encode_points(trained, points).rows()
    quantized = dequantize(quantize(chunks, 20), 20, time_horizon=12, action_dim=4)
    assert np.array_equal(fitted.decode(fitted(chunks)), quantized)
    wide = processor.fit([FakeTensor(chunk) for chunk in chunks], 20, 300, headroom=0)
    assert wide.min_token == quantize(chunks, 20).min()


def test_processor_fit_on_nothing_or_nan_raises(processor):
    with pytest.raises(ValueError, match="no chunks"):
        processor.fit([])
    with pytest.raises(ValueError, match="not finite"):
        processor.fit([np.full((4, 2), np.nan)])


def test_processor_decodes_by_min_token_alone(processor):
    """LeRobot's pi0-fast adds min_token to `ord` and does not call the processor's decode."""
    chunks = _chunks(10, seed=7) * np.float32(3)
    for ids, values in zip(processor(chunks), quantize(chunks, 10), strict=True):
        text = processor.bpe_tokenizer.decode(ids)
        numbers = np.array([ord(c) for c in text]) + processor.min_token
        assert numbers.tolist() == clip_values(values, -127).tolist()


def test_processor_empty_batch(processor):
    assert processor(np.zeros((0, 12, 4), dtype=np.float32)) == []
    assert processor.decode([]).shape == (0, 12, 4)


@pytest.mark.slow
def test_auto_processor_fresh_process_offline_round_trips(folder, tmp_path):
    pytest.importorskip("transformers")
    code = (
        "import sys, socket, numpy as np\n"
        "def refuse(*a, **k): raise OSError('no network in this test')\n"
        "socket.socket.connect = refuse\n"
        "from transformers import AutoProcessor\n"
        "p = AutoProcessor.from_pretrained(sys.argv[1], trust_remote_code=True)\n"
        "assert (p.action_dim, p.time_horizon, p.min_token, p.scale) == (4, 12, -127, 10.0)\n"
        "x = np.sin(np.arange(96, dtype=np.float32)).reshape(2, 12, 4)\n"
        "assert np.abs(p.decode(p(x)) - x).max() < 0.2\n"
        "p.save_pretrained(sys.argv[2])\n"
        "q = AutoProcessor.from_pretrained(sys.argv[2], trust_remote_code=True)\n"
        "assert q(x) == p(x) and q.min_token == -127 and q.time_horizon == 12\n"
    )
    env = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home")}
    arguments = [str(folder), str(tmp_path / "saved")]
    run = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=env, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
