"""Action chunks to tokens and back: the processor of a fitted tokenizer's folder.

    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    ids = processor(chunks)            # (B, T, D) normalized actions -> B lists of token ids
    chunks = processor.decode(ids)     # -> (B, T, D) float64

It takes the calls of the published FAST processor, `fit` among them. It differs where that one
loses data: every byte is in the vocabulary, so that every chunk of finite numbers is encoded; a
decoded sequence of the wrong length (policies generate those) is filled or cut and counted, never
replaced by zeros without a word.

Code point of a number = its distance from `min_token`, and nothing else: `ord(c) + min_token` gives
the number back. Numbers without a code point are clipped and counted.
"""

import logging
import math
from pathlib import Path

import numpy as np
from scipy import fft
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast
from transformers.processing_utils import ProcessorMixin

logger = logging.getLogger(__name__)

# The last code point before the surrogates, which UTF-8 does not carry; U+FFFD is broken UTF-8.
_MAX_DISTANCE, _REPLACEMENT = 0xD7FF, 0xFFFD
_SETTINGS = ("scale", "vocab_size", "min_token", "action_dim", "time_horizon")
_SUBFOLDER = "bpe_tokenizer"


class UniversalActionProcessor(ProcessorMixin):
    """Encodes normalized action chunks with a DCT and a byte-level BPE, and decodes them.

    Args:
        bpe_tokenizer: The fast tokenizer of the folder.
        scale: Quantization steps per unit of DCT coefficient.
        vocab_size: Vocabulary the BPE was fitted for.
        min_token: The quantized number that has code point 0.
        action_dim: D of the chunks to decode; else that of the last chunks seen.
        time_horizon: T of the chunks to decode; else that of the last chunks seen.

    Attributes:
        malformed_chunks: How many decoded chunks had a wrong length or broken bytes so far.
        clipped_values: How many encoded numbers had no code point so far.
    """

    attributes = ["bpe_tokenizer"]  # noqa: RUF012 - transformers 4 reads a plain list
    bpe_tokenizer_class = "AutoTokenizer"

    def __init__(
        self,
        bpe_tokenizer,
        scale=10.0,
        vocab_size=2048,
        min_token=0,
        *,
        action_dim=None,
        time_horizon=None,
    ):
        self.scale = scale
        self.vocab_size = vocab_size
        self.min_token = min_token
        self.action_dim = action_dim
        self.time_horizon = time_horizon
        self.called_action_dim = action_dim
        self.called_time_horizon = time_horizon
        self.malformed_chunks = 0
        self.clipped_values = 0
        super().__init__(bpe_tokenizer)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs):
        """Return the processor of a folder or hub id; settings given here win over the stored ones.

        transformers drops stored keyword-only settings (the chunk shape) and, from version 5 on,
        looks for the tokenizer in a subfolder first; reading both here gives every version the same
        processor.
        """
        given = {name: kwargs.pop(name) for name in _SETTINGS if name in kwargs}
        stored, _ = cls.get_processor_dict(pretrained_model_name_or_path, **dict(kwargs))
        settings = {name: stored[name] for name in _SETTINGS if name in stored}
        folder = Path(str(pretrained_model_name_or_path))
        # save_pretrained of transformers 5 moves the tokenizer into a subfolder.
        if (folder / _SUBFOLDER / "tokenizer.json").is_file():
            kwargs["subfolder"] = str(Path(kwargs.get("subfolder", "")) / _SUBFOLDER)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(pretrained_model_name_or_path, **kwargs)
        return cls(tokenizer, **{**settings, **given})

    @classmethod
    def fit(
        cls,
        action_data,
        scale=10,
        vocab_size=1024,
        *,
        time_horizon=None,
        action_dim=None,
        headroom=10.0,
    ):
        """Return a processor fitted on action chunks.

        Args:
            action_data: Normalized chunks, (T, D) each; arrays or tensors.
            scale: Quantization steps per unit of DCT coefficient.
            vocab_size: Tokens in all, the 256 bytes included.
            time_horizon: T of the chunks to decode.
            action_dim: D of the chunks to decode.
            headroom: Chunks of values within [-headroom, headroom] keep all of their numbers.
        """
        chunks = [_as_float(chunk) for chunk in action_data]
        rows = [np.rint(fft.dct(c, axis=0, norm="ortho") * scale).reshape(-1) for c in chunks]
        if not rows:
            raise ValueError("there are no chunks to fit on")
        lowest = min(float(row.min()) for row in rows)
        if not all(np.isfinite(row).all() for row in rows):
            raise ValueError("action chunks hold values that are not finite")
        bound = math.ceil(headroom * math.sqrt(max(map(len, chunks))) * scale)
        min_token = int(max(min(-bound, lowest), -(_MAX_DISTANCE // 2)))
        tokenizer = Tokenizer(models.BPE())
        tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.decoder = decoders.ByteLevel()
        trainer = trainers.BpeTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            show_progress=False,
            special_tokens=[],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        )
        texts = (_text(np.clip(row - min_token, 0, _MAX_DISTANCE)) for row in rows)
        tokenizer.train_from_iterator(texts, trainer=trainer, length=len(rows))
        return cls(
            PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False),
            scale=scale,
            vocab_size=vocab_size,
            min_token=min_token,
            action_dim=action_dim,
            time_horizon=time_horizon,
        )

    def __call__(self, action_chunk):
        """Return the token ids of each chunk.

        Args:
            action_chunk: (B, T, D) normalized actions, or one (T, D) chunk; arrays or tensors of
                any float dtype, on any device, with or without gradients.

        Returns:
            A list of B lists of ids.

        Raises:
            ValueError: Another number of axes, or a value that is not finite.
        """
        chunks = _as_float(action_chunk)
        if chunks.ndim == 2:
            chunks = chunks[None]
        if chunks.ndim != 3:
            raise ValueError(f"expected (batch, time, action dim) chunks, got shape {chunks.shape}")
        self.called_time_horizon, self.called_action_dim = chunks.shape[1:]
        if not len(chunks):
            return []
        points = self._code_points(chunks)
        text, length = _text(points), points.shape[1]
        texts = [text[i * length : (i + 1) * length] for i in range(len(points))]
        codes = self.bpe_tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        return [code.ids for code in codes]

    def decode(self, tokens, *, time_horizon=None, action_dim=None):
        """Return the chunks that token ids stand for.

        A sequence that decodes to too few numbers is filled up with zero coefficients (the highest
        frequencies come last), one that decodes to too many is cut; both are logged and counted in
        `malformed_chunks`.

        Args:
            tokens: B lists of token ids.
            time_horizon: T; else the constructor's, else that of the last chunks seen.
            action_dim: D; else the constructor's, else that of the last chunks seen.

        Returns:
            (B, T, D) float64 normalized actions.

        Raises:
            ValueError: T or D is not known.
        """
        horizon = time_horizon or self.time_horizon or self.called_time_horizon
        dim = action_dim or self.action_dim or self.called_action_dim
        if not horizon or not dim:
            raise ValueError("give time_horizon and action_dim, or encode a chunk first")
        self.called_time_horizon, self.called_action_dim = horizon, dim
        rows = [[int(token) for token in row] for row in tokens]
        if not rows:
            return np.zeros((0, horizon, dim))
        values = self._values(rows, horizon * dim)
        coefficients = values.reshape(len(rows), horizon, dim) / self.scale
        return fft.idct(coefficients, axis=1, norm="ortho")

    def batch_decode(self, tokens, **kwargs):
        """Return what `decode` returns: it works on batches."""
        return self.decode(tokens, **kwargs)

    def _code_points(self, chunks):
        scaled = np.rint(fft.dct(chunks, axis=1, norm="ortho") * self.scale)
        if not np.isfinite(scaled).all():
            raise ValueError("action chunks hold values that are not finite")
        distance = scaled.reshape(len(chunks), -1).astype(np.float64) - self.min_token
        beyond = int(np.count_nonzero((distance < 0) | (distance > _MAX_DISTANCE)))
        if beyond and not self.clipped_values:
            logger.warning(
                "%d action values are beyond the tokenizer's headroom and are clipped; later ones"
                " are only counted, in clipped_values",
                beyond,
            )
        self.clipped_values += beyond
        return np.clip(distance, 0, _MAX_DISTANCE)

    def _values(self, rows, length):
        """Return (B, length) numbers; zeros where a row gives too few, or broken bytes."""
        backend = self.bpe_tokenizer.backend_tokenizer
        texts = backend.decode_batch(rows, skip_special_tokens=False)
        counts = np.array([len(text) for text in texts])
        points = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4").astype(np.int64)
        owner = np.repeat(np.arange(len(rows)), counts)
        place = np.arange(len(points)) - np.repeat(np.cumsum(counts) - counts, counts)
        broken = points == _REPLACEMENT
        values = np.zeros((len(rows), length), dtype=np.int64)
        kept = (place < length) & ~broken
        values[owner[kept], place[kept]] = points[kept] + self.min_token
        self._report(counts, length, owner[broken])
        return values

    def _report(self, counts, length, broken_rows):
        wrong = counts != length
        wrong[broken_rows] = True
        malformed = int(np.count_nonzero(wrong))
        if malformed:
            self.malformed_chunks += malformed
            logger.warning(
                "%d of %d decoded action chunks are malformed (%d of %d numbers on average):"
                " missing and broken numbers are set to zero, surplus ones are dropped",
                malformed,
                len(counts),
                round(float(counts[wrong].mean())),
                length,
            )


def _text(points):
    return points.astype("<u4").tobytes().decode("utf-32-le")


def _as_float(values):
    """Return chunks as a float32 or float64 array."""
    if isinstance(values, (list, tuple)) and values and hasattr(values[0], "detach"):
        return np.stack([_as_float(each) for each in values])
    if hasattr(values, "detach"):  # a tensor; NumPy has no bfloat16
        values = values.detach().cpu()
        values = values.float() if values.dtype.itemsize < 4 else values
    array = np.asarray(values)
    return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)
