"""Export to and import from other formats, one subpackage each: `huggingface`."""
