"""Reads the user's files and writes rlaif's own: JSONL, JSON, CSV, Parquet, Hugging Face datasets, data frames."""

from rlaif.io.prompts import messages_id, read_prompts
from rlaif.io.responses import read_responses
from rlaif.io.rows import Readable, read_rows
from rlaif.io.tables import read_table, replacing, replacing_folder, write_jsonl, write_parquet, write_table

__all__ = [
    "Readable",
    "messages_id",
    "read_prompts",
    "read_responses",
    "read_rows",
    "read_table",
    "replacing",
    "replacing_folder",
    "write_jsonl",
    "write_parquet",
    "write_table",
]
