"""Classify texts with an adaptive ONNX file. Needs onnxruntime, tokenizers and numpy, no FastBERT.

python classify.py MODEL_DIR "what a film" "it was not for me" --speed 0.5
"""

import argparse
import json
from pathlib import Path

import numpy as np
import onnxruntime as ort
from tokenizers import Tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description="Classify texts with onnx/adaptive.onnx.")
    parser.add_argument("model", type=Path, help="model folder")
    parser.add_argument("texts", nargs="+", metavar="text")
    parser.add_argument("--speed", default="0.5", help="0 to 1, or one for each student: 0.1,0,0.3")
    arguments = parser.parse_args()

    session = ort.InferenceSession(
        arguments.model / "onnx" / "adaptive.onnx", providers=["CPUExecutionProvider"]
    )
    metadata = session.get_modelmeta().custom_metadata_map
    labels = np.array(json.loads(metadata["labels"]))
    task = json.loads(metadata["task"])
    tokenizer = read_tokenizer(arguments.model, int(metadata["max_length"]))

    inputs = tokens(tokenizer, arguments.texts)
    inputs["speed"] = np.array(arguments.speed.split(","), dtype=np.float32)
    wanted = {item.name for item in session.get_inputs()}  # some models read no segments
    feeds = {name: array for name, array in inputs.items() if name in wanted}
    probabilities, exit_layers = session.run(["probabilities", "exit_layer"], feeds)

    for text, row, exit_layer in zip(arguments.texts, probabilities, exit_layers, strict=True):
        # Of several labels each holds by itself; else the likeliest is the answer.
        held = row > task["threshold"] if "threshold" in task else row == row.max()
        names = ",".join(labels[held])
        scores = ",".join(f"{score:.4f}" for score in row[held])
        print(f"{names}\t{scores}\tlayer {exit_layer}\t{text}")


def read_tokenizer(folder: Path, max_length: int) -> Tokenizer:
    """Read a tokenizer that cuts long texts and pads short ones to the longest of their batch."""
    config = json.loads((folder / "tokenizer_config.json").read_text(encoding="utf-8"))
    pad = config["pad_token"]
    pad = pad["content"] if isinstance(pad, dict) else pad
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # On the right whatever padding_side says: classifiers read the first token.
    tokenizer.enable_padding(direction="right", pad_id=tokenizer.token_to_id(pad), pad_token=pad)
    tokenizer.enable_truncation(max_length, direction=config.get("truncation_side", "right"))
    return tokenizer


def tokens(tokenizer: Tokenizer, texts: list[str]) -> dict[str, np.ndarray]:
    """Return the tokens of a batch, int64 [rows, length]."""
    rows = tokenizer.encode_batch(texts)
    return {
        "input_ids": np.array([row.ids for row in rows]),
        "attention_mask": np.array([row.attention_mask for row in rows]),
        "token_type_ids": np.array([row.type_ids for row in rows]),
    }


main()
