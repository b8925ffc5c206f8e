"""The FAST action tokenizer: sampling, fitting, evaluating, and the folder that training loads."""

from opentau_prep.tokenizer.bpe import train_bpe
from opentau_prep.tokenizer.folder import ProcessorSettings, processor_files
from opentau_prep.tokenizer.options import FitOptions
from opentau_prep.tokenizer.prepare import prepare_tokenizer

__all__ = ["FitOptions", "ProcessorSettings", "prepare_tokenizer", "processor_files", "train_bpe"]
