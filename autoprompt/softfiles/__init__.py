"""Soft prompts as files, and back: a format of our own that keeps everything, and adapters of PEFT.

Only safetensors and JSON are read and written, never a pickle, and nothing in a file is run.
"""

from autoprompt.softfiles.adapters import export_peft, import_peft, peft_rows
from autoprompt.softfiles.own import about_soft, keep_soft, load_soft, save_soft

__all__ = ["about_soft", "export_peft", "import_peft", "keep_soft", "load_soft", "peft_rows", "save_soft"]
