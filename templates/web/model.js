// A compiled model in a browser's worker or in Node.js, without a page: loading, text, logits.
//
//     importScripts("model.js");                      // or require("./model.js")
//     const model = await bitnetc.load("./", { progress: (p) => console.log(p.done, p.total) });
//     model.start(512);
//     model.prompt("It is a truth");
//     while (model.read() > 0);
//     model.seed(1);
//     for (let piece; (piece = model.next({ temperature: 0.6, topK: 0, topP: 0.9 })) !== null; )
//       console.log(piece);
//
// The runtime is NAME.wasm; model.json says which files hold the weights and the tokenizer's
// tables. They are written into the runtime's memory as they arrive, each is compared with its
// SHA-256, and each is kept in the browser's Cache under a name that its content gives.
"use strict";

(() => {
  const ATTEMPTS = 3; // downloads of one file before the person is asked
  const PAUSE = 400; // milliseconds before the second, twice as long before the third

  // (func (result v128) (i8x16.splat (i32.const 0)))
  const SIMD = Uint8Array.of(
    0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15,
    11,
  );

  // kind: "simd", "download", "hash", "memory" or "fit"; the message is one sentence.
  class ModelError extends Error {
    constructor(kind, message) {
      super(message);
      this.kind = kind;
    }
  }

  function supported() {
    try {
      return typeof WebAssembly === "object" && WebAssembly.validate(SIMD);
    } catch {
      return false;
    }
  }

  const NO_SIMD =
    "This browser cannot run the model because it has no WebAssembly SIMD; " +
    "Chrome 91, Firefox 89 and Safari 16.4 are the first that have it.";

  const mebibytes = (bytes) => `${Math.ceil(bytes / 2 ** 20)} MB`;

  // fetch() that says in one sentence what went wrong.
  async function get(url, options) {
    const file = new URL(url).pathname.split("/").pop();
    let response;
    try {
      response = await fetch(url, options);
    } catch {
      const or = options.integrity ? ", or its file is not of this model" : "";
      throw new ModelError("download", `The server cannot be reached for ${file}${or}.`);
    }
    if (!response.ok)
      throw new ModelError("download", `The server answered ${response.status} for ${file}.`);
    return response;
  }

  // The browser's Cache for this model; null where there is none, as without https.
  async function open(name) {
    try {
      return await caches.open(`bitnetc ${name}`);
    } catch {
      return null;
    }
  }

  // model.json, which names the files of this version.
  async function describe(base) {
    const response = await get(new URL("model.json", base).href, { cache: "no-cache" });
    try {
      return await response.json();
    } catch {
      throw new ModelError("download", "The file model.json on the server is damaged.");
    }
  }

  // One loading, which can be tried again: what has arrived stays.
  class Loading {
    constructor(base, options = {}) {
      this.base = base;
      this.progress = options.progress ?? (() => {});
      this.store = undefined;
      this.info = null; // model.json
      this.exports = null;
      this.image = 0; // where weights and tables lie in memory
      this.parts = 0; // that have arrived
      this.done = 0; // bytes of them
      this.cached = true; // whether all that has arrived was kept here before
    }

    async describe() {
      if (!supported()) throw new ModelError("simd", NO_SIMD);
      this.info ??= await describe(this.base);
      if (this.store === undefined) this.store = await open(this.info.name);
      return this.info;
    }

    // Whether all parts are in the Cache, so that nothing is downloaded.
    async kept() {
      if (!this.store) return false;
      for (const part of this.info.parts)
        if (!(await this.store.match(this.url(part.file)))) return false;
      return true;
    }

    url(file) {
      return new URL(file, this.base).href;
    }

    async run() {
      await this.describe();
      await this.prepare();
      for (const { parts } = this.info; this.parts < parts.length; this.parts++) {
        await this.part(parts[this.parts]);
        this.done += parts[this.parts].bytes;
      }
      await this.forget();
      return new Model(this.exports, this.info, this.image);
    }

    // The runtime, and memory for weights and tables.
    async prepare() {
      if (this.image) return;
      const { module, image_bytes } = this.info;
      const url = `${this.url(module.file)}?${module.sha256.slice(0, 16)}`;
      let code = await this.store?.match(url);
      if (!code) {
        const bytes = await (await get(url, { integrity: module.integrity })).arrayBuffer();
        code = new Response(bytes);
        await this.store?.put(url, code.clone()).catch(() => {});
      }
      try {
        const { instance } = await WebAssembly.instantiate(await code.arrayBuffer(), {});
        this.exports = instance.exports;
        this.image = this.exports.take(image_bytes);
      } catch (error) {
        if (!(error instanceof RangeError)) throw error;
      }
      if (!this.image)
        throw new ModelError(
          "memory",
          `The model needs ${mebibytes(image_bytes)} of memory, and this device does not give it.`,
        );
    }

    // One file into memory: from the Cache, else from the server, at most ATTEMPTS times.
    async part(part) {
      const url = this.url(part.file);
      const kept = await this.store?.match(url);
      if (kept) {
        if (await this.receive(part, kept, this.cached)) return;
        await this.store.delete(url);
      }
      this.cached = false;
      for (let attempt = 1; ; attempt++) {
        try {
          // A browser with a Cache need not keep the file a second time.
          const cache = this.store ? "no-store" : attempt > 1 ? "reload" : "default";
          if (!(await this.receive(part, await get(url, { cache }), false)))
            throw new ModelError(
              "hash",
              `The file ${part.file} on the server is damaged or not of this model.`,
            );
          const put = this.store?.put(url, new Response(this.bytes(part).slice()));
          await put?.catch(() => {}); // without room the model still runs
          return;
        } catch (error) {
          if (!(error instanceof ModelError) || attempt === ATTEMPTS) throw error;
          await new Promise((resume) => setTimeout(resume, PAUSE * attempt));
        }
      }
    }

    bytes(part) {
      return new Uint8Array(this.exports.memory.buffer, this.image + part.at, part.bytes);
    }

    // A response's bytes into memory; whether they are those of the part.
    async receive(part, response, cached) {
      const room = this.bytes(part);
      const reader = response.body.getReader();
      let size = 0;
      this.exports.hash_begin();
      for (;;) {
        let chunk;
        try {
          chunk = await reader.read();
        } catch {
          throw new ModelError("download", "The connection was lost before the download was complete.");
        }
        if (chunk.done) break;
        const { value } = chunk;
        if (size + value.length > part.bytes) {
          await reader.cancel();
          return false;
        }
        room.set(value, size);
        this.exports.hash(room.byteOffset + size, value.length);
        size += value.length;
        this.progress({ done: this.done + size, total: this.info.image_bytes, cached });
      }
      const digest = new Uint8Array(this.exports.memory.buffer, this.exports.hash_end(), 32);
      const hex = Array.from(digest, (byte) => byte.toString(16).padStart(2, "0")).join("");
      return size === part.bytes && hex === part.sha256;
    }

    // Removes what an earlier version of the model left in the Cache.
    async forget() {
      if (!this.store) return;
      const { module, parts } = this.info;
      const current = new Set(parts.map((part) => this.url(part.file)));
      current.add(`${this.url(module.file)}?${module.sha256.slice(0, 16)}`);
      for (const request of await this.store.keys())
        if (request.url.startsWith(this.base) && !current.has(request.url))
          await this.store.delete(request);
    }
  }

  // A loaded model; start() gives it a session.
  class Model {
    constructor(exports, info, image) {
      this.exports = exports;
      this.info = info;
      this.image = image;
      this.context = 0;
      this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
    }

    get memoryBytes() {
      return this.exports.memory.buffer.byteLength;
    }

    // Makes room for `context` positions, or for half as many until the device gives the memory.
    start(context) {
      for (let room = context; room >= Math.min(context, 128); room >>= 1)
        if (this.exports.start(this.image, room) === 0) {
          this.context = room;
          return;
        }
      throw new ModelError("memory", "This device does not give the memory for a session.");
    }

    // Text into memory; its size in bytes, or -1 when it is too long for the session.
    write(text) {
      const bytes = new TextEncoder().encode(text);
      const at = this.exports.input(bytes.length);
      if (!at) return -1;
      new Uint8Array(this.exports.memory.buffer, at, bytes.length).set(bytes);
      return bytes.length;
    }

    begin(text, tokenize) {
      const bytes = this.write(text);
      const count = bytes < 0 ? -1 : tokenize(bytes);
      if (count === 0) throw new ModelError("fit", "The text is empty.");
      if (count < 0)
        throw new ModelError(
          "fit",
          `This text does not fit: the model holds ${this.context} tokens at a time.`,
        );
      this.decoder = new TextDecoder("utf-8", { ignoreBOM: true });
      return count;
    }

    // Begins a new text; how many tokens there are to read.
    prompt(text) {
      return this.begin(text, this.exports.prompt);
    }

    // The next message of a conversation; how many tokens there are to read.
    ask(text) {
      return this.begin(text, this.exports.ask);
    }

    // A new conversation, after a system message or "".
    converse(system = "") {
      const bytes = this.write(system);
      if (bytes < 0 || this.exports.converse(bytes) !== 0)
        throw new ModelError("fit", "The system message does not fit.");
    }

    // The sampler's state, 0 .. 2^32 - 1: equal seeds give equal text, in every program.
    seed(seed) {
      this.exports.seed(seed);
    }

    // Reads at most `most` tokens of what prompt() or ask() began; how many are left.
    read(most = this.info.batch) {
      return this.exports.read(most);
    }

    // The next piece of text, perhaps ""; null at the end, after which `ended` says why.
    next({ temperature, topK, topP }) {
      const size = this.exports.next(temperature, topK, topP);
      if (size === -3) throw new RangeError("nothing was read, or a setting is out of range");
      if (size < 0) {
        this.ended = size === -1 ? "end" : "full";
        return null;
      }
      const bytes = new Uint8Array(this.exports.memory.buffer, this.exports.piece(), size);
      return this.decoder.decode(bytes, { stream: true });
    }

    // Whether the text is at its end: a token is chosen and thrown away, as the program's --chat
    // does at -n, so that the next answer is the same.
    ends({ temperature, topK, topP }) {
      const size = this.exports.next(temperature, topK, topP);
      if (size >= 0) this.exports.drop();
      return size < 0;
    }

    // Ends an answer, so that the next message can follow; text that was cut within a character.
    finish() {
      this.exports.finish();
      return this.decoder.decode();
    }

    // Feeds token ids; the logits of the last one, valid until the next call. null: no room.
    evaluate(ids) {
      const at = this.exports.input(4 * ids.length);
      if (!at) return null;
      new Int32Array(this.exports.memory.buffer, at, ids.length).set(ids);
      const logits = this.exports.evaluate(ids.length);
      if (!logits) return null;
      return new Float32Array(this.exports.memory.buffer, logits, this.info.vocab);
    }

    // Forgets all tokens.
    reset() {
      this.exports.reset();
    }
  }

  // base: the folder's address. options.progress is called with { done, total, cached }.
  const here = globalThis.location?.href;
  const load = (base, options) => new Loading(new URL(base, here).href, options).run();

  globalThis.bitnetc = { load, supported, Loading, ModelError, NO_SIMD };
})();
