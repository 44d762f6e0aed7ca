"""Real judgments that other people recorded, taken in by a YAML file that says what each field means.

A recording gives prompts and responses (as `prompts.path`), replies to whatever is asked about them (as the replay
engine's `path`) and what people say of them (`read_gold`, for `rlaif calibrate`). docs/recordings.md is its manual.
"""

from rlaif.recordings.recording import Recording, files_of, is_recording, load, read_gold

__all__ = ["Recording", "files_of", "is_recording", "load", "read_gold"]
