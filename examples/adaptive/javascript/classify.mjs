// Classify texts with an adaptive ONNX file. Needs onnxruntime-node and @huggingface/tokenizers.
//
// node classify.mjs MODEL_DIR "what a film" "it was not for me" --speed=0.5

import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Tokenizer } from "@huggingface/tokenizers";
import * as ort from "onnxruntime-node";

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { speed: { type: "string", default: "0.5" } }, // or one for each student: 0.1,0,0.3
});
const [folder, ...texts] = positionals;
const readJson = async (name) => JSON.parse(await readFile(join(folder, name), "utf8"));

// The labels lie in the folder as well; Node's onnxruntime does not show a file's own metadata.
const { labels, task, max_length: maxLength } = await readJson("early_exit.json");
const config = await readJson("tokenizer_config.json");
const tokenizer = new Tokenizer(await readJson("tokenizer.json"), config);
const padId = tokenizer.token_to_id(config.pad_token.content ?? config.pad_token);

/** Encode one text; a long one loses tokens at its end, but not the special token after it. */
function encode(text) {
  const { ids, token_type_ids: segments } = tokenizer.encode(text, { return_token_type_ids: true });
  const cut = (list) =>
    list.length > maxLength ? [...list.slice(0, maxLength - 1), list.at(-1)] : list;
  return { ids: cut(ids), segments: cut(segments ?? ids.map(() => 0)) };
}

/** Make an int64 tensor of rows, padded to the longest of them. */
function padded(rows, value) {
  const length = Math.max(...rows.map((row) => row.length));
  const data = new BigInt64Array(rows.length * length).fill(BigInt(value));
  rows.forEach((row, number) => data.set(row.map(BigInt), number * length));
  return new ort.Tensor("int64", data, [rows.length, length]);
}

const rows = texts.map(encode);
const speed = Float32Array.from(values.speed.split(","), Number);
const inputs = {
  input_ids: padded(rows.map((row) => row.ids), padId),
  attention_mask: padded(rows.map((row) => row.ids.map(() => 1)), 0),
  token_type_ids: padded(rows.map((row) => row.segments), 0),
  speed: new ort.Tensor("float32", speed, [speed.length]),
};

const session = await ort.InferenceSession.create(join(folder, "onnx", "adaptive.onnx"));
const feeds = Object.fromEntries(session.inputNames.map((name) => [name, inputs[name]]));
const { probabilities, exit_layer: exitLayers } = await session.run(feeds);

texts.forEach((text, number) => {
  const row = probabilities.data.slice(number * labels.length, (number + 1) * labels.length);
  // Of several labels each holds by itself; else the likeliest is the answer.
  const holds = (score) => "threshold" in task ? score > task.threshold : score === Math.max(...row);
  const held = labels.map((_, place) => place).filter((place) => holds(row[place]));
  const names = held.map((place) => labels[place]).join(",");
  const scores = held.map((place) => row[place].toFixed(4)).join(",");
  console.log(`${names}\t${scores}\tlayer ${exitLayers.data[number]}\t${text}`);
});
