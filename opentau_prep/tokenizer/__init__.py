"""The FAST action tokenizer: sampling, fitting, evaluating, and the folder that training loads."""

from opentau_prep.tokenizer.bpe import train_bpe
from opentau_prep.tokenizer.folder import ProcessorSettings, processor_files

__all__ = ["ProcessorSettings", "processor_files", "train_bpe"]
