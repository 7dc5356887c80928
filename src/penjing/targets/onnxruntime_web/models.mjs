// Loads and runs models with onnxruntime-web, and measures them: the same in Node and in a page.

const ARRAYS = {
  float32: Float32Array, float64: Float64Array, float16: Uint16Array, int8: Int8Array, uint8: Uint8Array, int16: Int16Array,
  uint16: Uint16Array, int32: Int32Array, uint32: Uint32Array, int64: BigInt64Array, uint64: BigUint64Array, bool: Uint8Array,
};
const OPTIONS = { graphOptimizationLevel: "all", logSeverityLevel: 4 };
const WARM_UP_MS = 200; // of untimed calls per model, before the first round
const BURST_MS = 10; // of timed calls of one model in a row, after one untimed call that refills the caches
const LEAST_ROUNDS = 3; // rounds that are made even past the time limit

export class Models {
  // `captured(action)` returns what the runtime prints while it acts.
  constructor(ort, provider, captured) {
    Object.assign(this, { ort, provider, captured, sessions: new Map() });
  }

  // Answers one request; bytes of the request and of the answer are those of arrays, one behind the other.
  async answer(request, bytes) {
    for (const id of request.close ?? []) await this.#close(id);
    const answer = await this[request.do](request, bytes);
    return answer ?? [{}, []];
  }

  async ready() {}

  async open({ id }, bytes) {
    this.sessions.set(id, await this.#session(bytes));
  }

  async run({ id, inputs }, bytes) {
    const session = this.sessions.get(id);
    const results = await session.run(this.#feeds(inputs, bytes));
    const values = session.outputNames.map((name) => results[name]);
    const chunks = values.map(({ data }) => new Uint8Array(data.buffer, data.byteOffset, data.byteLength));
    return [{ outputs: values.map(({ type, dims }) => ({ dtype: type, shape: dims })) }, chunks];
  }

  // Times calls in turns, as targets/bench/_turns.py does. Jobs are a list, since an object puts names that are numbers first.
  async times({ jobs, runs, limit }, bytes) {
    const calls = {};
    let start = 0;
    for (const { name, id, inputs, size } of jobs) {
      const feeds = this.#feeds(inputs, bytes.subarray(start, start + size));
      const session = this.sessions.get(id);
      calls[name] = () => session.run(feeds);
      start += size;
    }
    return [{ times: await inTurns(calls, runs, 1e3 * limit) }, []];
  }

  // Returns the events of the runtime's own profile, of so many calls behind those that warm up.
  async profile({ size, inputs, warmUp, runs }, bytes) {
    const feeds = this.#feeds(inputs, bytes.subarray(size));
    const session = await this.#session(bytes.subarray(0, size), { enableProfiling: true });
    for (let call = 0; call < warmUp + runs; call++) await session.run(feeds);
    const printed = this.captured(() => session.endProfiling());
    await session.release();
    return [{ printed }, []];
  }

  async #session(bytes, more = {}) {
    const options = { ...OPTIONS, ...more, executionProviders: [this.provider] };
    return this.ort.InferenceSession.create(bytes, options);
  }

  async #close(id) {
    await this.sessions.get(id)?.release();
    this.sessions.delete(id);
  }

  #feeds(inputs, bytes) {
    let start = bytes.byteOffset;
    const feeds = {};
    for (const { name, dtype, shape } of inputs) {
      const size = shape.reduce((a, b) => a * b, 1) * ARRAYS[dtype].BYTES_PER_ELEMENT;
      const values = new ARRAYS[dtype](bytes.buffer.slice(start, start + size)); // a copy, which is aligned
      feeds[name] = new this.ort.Tensor(dtype, values, shape);
      start += size;
    }
    return feeds;
  }
}

async function inTurns(calls, runs, limit) {
  const bursts = {};
  const times = {};
  for (const [name, call] of Object.entries(calls)) {
    bursts[name] = Math.max(1, Math.min(runs, Math.floor(BURST_MS / (await warmUp(call)))));
    times[name] = [];
  }
  const order = Object.keys(calls);
  const end = performance.now() + limit;
  const few = () => Object.values(times).some((found) => found.length < runs);
  for (let rounds = 0; rounds < LEAST_ROUNDS || (few() && performance.now() < end); rounds++) {
    for (const name of order) {
      await calls[name]();
      for (let repeat = 0; repeat < bursts[name]; repeat++) {
        const start = performance.now();
        await calls[name]();
        times[name].push((performance.now() - start) / 1e3);
      }
    }
    order.reverse();
  }
  return times;
}

// Calls for a while; returns the milliseconds of the fastest call.
async function warmUp(call) {
  let fastest = Infinity;
  const end = performance.now() + WARM_UP_MS;
  for (let rounds = 0; rounds < 3 || performance.now() < end; rounds++) {
    const start = performance.now();
    await call();
    fastest = Math.min(fastest, performance.now() - start);
  }
  return Math.max(fastest, 1e-3);
}
