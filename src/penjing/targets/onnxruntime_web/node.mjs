// Answers requests that come through standard input, one after the other, until it closes:
// node node.mjs FOLDER [compiled]
// FOLDER holds node_modules/onnxruntime-web. "compiled": V8 optimises each function of the runtime before it runs it first, and not
// while models are being measured.
// A message is the size of its header and of its bytes (two 32-bit numbers), the header (JSON), and the bytes.

import fs from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import v8 from "node:v8";

import { Models } from "./models.mjs";

const [folder, tier] = process.argv.slice(2);
if (tier === "compiled") {
  v8.setFlagsFromString("--no-liftoff");
  v8.setFlagsFromString("--wasm-lazy-compilation");
}
const require = createRequire(path.join(path.resolve(folder), "package.json"));
const cjsFs = require("node:fs"); // the runtime prints through this object's writeSync
const ort = require("onnxruntime-web");
ort.env.wasm.numThreads = 1;

function captured(action) {
  const { writeSync } = cjsFs;
  let printed = "";
  cjsFs.writeSync = (file, text, ...more) => {
    if (file !== 1) return writeSync(file, text, ...more);
    printed += text;
    return text.length;
  };
  try {
    action();
  } finally {
    cjsFs.writeSync = writeSync;
  }
  return printed;
}

function resident(key) {
  const line = fs.readFileSync("/proc/self/status", "utf8").split("\n").find((one) => one.startsWith(key));
  return 1024 * parseInt(line.split(/\s+/)[1]);
}

class NodeModels extends Models {
  // Returns the peak of this process, and the part of it that came after the runtime was loaded, which a tiny model makes sure of.
  async memory({ tiny, size, inputs, runs }, bytes) {
    await this.open({ id: "tiny" }, bytes.subarray(0, tiny));
    const before = resident("VmRSS:");
    await this.open({ id: "model" }, bytes.subarray(tiny, tiny + size));
    for (let call = 0; call < runs; call++) await this.run({ id: "model", inputs }, bytes.subarray(tiny + size));
    const peak = resident("VmHWM:");
    return [{ memory: [peak, Math.max(0, peak - before)] }, []];
  }
}

function written(data) {
  return new Promise((resolve, reject) => process.stdout.write(data, (error) => (error ? reject(error) : resolve())));
}

async function reply(header, chunks) {
  const text = Buffer.from(JSON.stringify(header));
  const sizes = Buffer.alloc(8);
  sizes.writeUInt32LE(text.length, 0);
  sizes.writeUInt32LE(chunks.reduce((sum, chunk) => sum + chunk.byteLength, 0), 4);
  for (const part of [sizes, text, ...chunks]) await written(part);
}

async function* messages() {
  let waiting = [];
  let size = 0;
  const input = process.stdin[Symbol.asyncIterator]();
  const take = async (count) => {
    while (size < count) {
      const { value, done } = await input.next();
      if (done) return null;
      waiting.push(value);
      size += value.length;
    }
    const all = Buffer.concat(waiting);
    waiting = [all.subarray(count)];
    size -= count;
    return all.subarray(0, count);
  };
  for (let sizes = await take(8); sizes !== null; sizes = await take(8)) {
    const text = await take(sizes.readUInt32LE(0));
    const bytes = await take(sizes.readUInt32LE(4));
    if (text === null || bytes === null) return;
    yield [JSON.parse(text), new Uint8Array(bytes)];
  }
}

const models = new NodeModels(ort, "wasm", captured);
for await (const [request, bytes] of messages()) {
  try {
    await reply(...(await models.answer(request, bytes)));
  } catch (error) {
    await reply({ error: String(error?.message ?? error) }, []);
  }
}
