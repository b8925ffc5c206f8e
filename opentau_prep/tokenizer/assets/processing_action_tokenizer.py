"""Action chunks to tokens and back: the processor of a fitted tokenizer's folder.

    processor = AutoProcessor.from_pretrained(folder, trust_remote_code=True)
    ids = processor(chunks)            # (B, T, D) normalized actions -> B lists of token ids
    chunks = processor.decode(ids)     # -> (B, T, D) float64

It takes the calls of the published FAST processor. It differs where that one loses data: every
chunk of finite numbers is encoded so that it decodes to exactly what was quantized, and a decoded
sequence of the wrong length (policies generate those) is mended and counted, never replaced by
zeros in silence.
"""

import logging
from pathlib import Path

import numpy as np
from scipy import fft
from transformers import PreTrainedTokenizerFast
from transformers.processing_utils import ProcessorMixin

logger = logging.getLogger(__name__)

# Code point of a number = its distance from min_token. Distances step over the surrogates and
# U+FFFD, which UTF-8 cannot carry or uses for broken bytes; negative ones wrap round to the end of
# Unicode.
_SURROGATES, _N_SURROGATES, _REPLACEMENT = 0xD800, 0x800, 0xFFFD
_WRAP, _UNICODE_END = 0x80000, 0x110000
_MAX_DISTANCE, _MIN_DISTANCE = _WRAP - _N_SURROGATES - 2, _WRAP - _UNICODE_END
_SETTINGS = ("scale", "vocab_size", "min_token", "action_dim", "time_horizon")
_SUBFOLDER = "bpe_tokenizer"


class UniversalActionProcessor(ProcessorMixin):
    """Encodes normalized action chunks with a DCT and a byte-level BPE, and decodes them.

    Args:
        bpe_tokenizer: The fast tokenizer of the folder.
        scale: Quantization steps a unit of DCT coefficient.
        vocab_size: Vocabulary the BPE was fitted for.
        min_token: The quantized number that has code point 0.
        action_dim: D of the chunks to decode; else that of the last chunks seen.
        time_horizon: T of the chunks to decode; else that of the last chunks seen.

    Attributes:
        mended_chunks: How many decoded chunks had a wrong length or broken bytes so far.
        saturated_values: How many encoded numbers were too large for a code point so far.
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
        self.mended_chunks = 0
        self.saturated_values = 0
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

    def __call__(self, action_chunk):
        """Return the token ids of each chunk.

        Args:
            action_chunk: (B, T, D) normalized actions, or one (T, D) chunk; arrays or CPU tensors.

        Returns:
            A list of B lists of ids.

        Raises:
            ValueError: Another number of dims, or a value that is not finite.
        """
        chunks = np.asarray(action_chunk)
        if chunks.ndim == 2:
            chunks = chunks[None]
        if chunks.ndim != 3:
            raise ValueError(f"expected (batch, time, action dim) chunks, got shape {chunks.shape}")
        if not np.issubdtype(chunks.dtype, np.floating):
            chunks = chunks.astype(np.float32)
        self.called_time_horizon, self.called_action_dim = chunks.shape[1:]
        if not len(chunks):
            return []
        points = self._code_points(self._quantize(chunks))
        text = points.astype("<u4").tobytes().decode("utf-32-le")
        length = points.shape[1]
        texts = [text[i * length : (i + 1) * length] for i in range(len(points))]
        codes = self.bpe_tokenizer.backend_tokenizer.encode_batch(texts, add_special_tokens=False)
        return [code.ids for code in codes]

    def decode(self, tokens, *, time_horizon=None, action_dim=None):
        """Return the chunks that token ids stand for.

        A sequence that decodes to too few numbers is filled up with zero coefficients (the highest
        frequencies come last), one that decodes to too many is cut; both are logged and counted in
        `mended_chunks`.

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

    def _quantize(self, chunks):
        scaled = np.rint(fft.dct(chunks, axis=1, norm="ortho") * self.scale)
        if not np.isfinite(scaled).all():
            raise ValueError("action chunks hold values that are not finite")
        values = scaled.reshape(len(chunks), -1)
        low, high = self.min_token + _MIN_DISTANCE, self.min_token + _MAX_DISTANCE
        beyond = int(np.count_nonzero((values < low) | (values > high)))
        if beyond:
            self.saturated_values += beyond
            logger.warning("%d action values are absurdly large; they were cut to fit", beyond)
        return np.clip(values.astype(np.float64), low, high).astype(np.int64)

    def _code_points(self, values):
        distance = values - self.min_token
        points = np.where(distance < 0, distance + _UNICODE_END, distance)
        lifted = (distance >= _SURROGATES) * _N_SURROGATES
        return points + lifted + (distance + lifted >= _REPLACEMENT)

    def _values(self, rows, length):
        """Return (B, length) numbers, mended where a row gives another count or broken bytes."""
        backend = self.bpe_tokenizer.backend_tokenizer
        texts = backend.decode_batch(rows, skip_special_tokens=False)
        counts = np.array([len(text) for text in texts])
        points = np.frombuffer("".join(texts).encode("utf-32-le"), dtype="<u4").astype(np.int64)
        owner = np.repeat(np.arange(len(rows)), counts)
        place = np.arange(len(points)) - np.repeat(np.cumsum(counts) - counts, counts)
        broken = points == _REPLACEMENT
        wrapped = points >= _WRAP
        distance = points - ((points > _REPLACEMENT) & ~wrapped) - wrapped * _UNICODE_END
        distance -= ((points >= _SURROGATES + _N_SURROGATES) & ~wrapped) * _N_SURROGATES
        values = np.zeros((len(rows), length), dtype=np.int64)
        kept = (place < length) & ~broken
        values[owner[kept], place[kept]] = distance[kept] + self.min_token
        self._report(counts, length, owner[broken])
        return values

    def _report(self, counts, length, broken_rows):
        wrong = counts != length
        wrong[broken_rows] = True
        mended = int(np.count_nonzero(wrong))
        if mended:
            self.mended_chunks += mended
            logger.warning(
                "mended %d of %d decoded action chunks (%d of %d numbers on average): too few were "
                "filled up with zeros, too many cut, broken ones set to zero",
                mended,
                len(counts),
                round(float(counts[wrong].mean())),
                length,
            )
