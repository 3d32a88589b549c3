// The model beside the page: it loads, reads and writes here, so that the page never waits.
//
// One message asks for one thing; "stop" is looked for between two tokens.
"use strict";

importScripts("model.js");

const loading = new bitnetc.Loading(new URL("./", self.location.href).href, {
  progress: (at) => say({ type: "progress", ...at }),
});
let model = null;
let stopped = false;

const say = (message) => self.postMessage(message);

// Lets messages in: resolves when what has arrived was handled.
const { port1, port2 } = new MessageChannel();
const turn = () =>
  new Promise((resume) => {
    port1.onmessage = resume;
    port2.postMessage(0);
  });

const seconds = () => performance.now() / 1000;

async function describe() {
  const info = await loading.describe();
  say({ type: "described", info, kept: await loading.kept() });
}

async function load() {
  model = await loading.run();
  model.start(Math.min(model.info.context, 4096));
  say({ type: "ready", cached: loading.cached, memory: model.memoryBytes, context: model.context });
}

// The prompt in steps that are short enough to be stopped, then token by token.
async function generate(count, settings) {
  let step = Math.min(8, model.info.batch);
  for (let left = count; left > 0; ) {
    const at = seconds();
    left = model.read(step);
    if (left < 0) throw new Error("the model refused its own tokens");
    if (seconds() - at < 0.05) step = Math.min(2 * step, model.info.batch);
    say({ type: "reading", done: count - left, total: count });
    await turn();
    if (stopped) return { why: "stopped", tokens: 0, rate: 0, read: count - left };
  }
  return { read: count, ...(await write(settings)) };
}

async function write(settings) {
  const began = seconds();
  let tokens = 0;
  let why = null;
  for (; tokens < settings.most; tokens++) {
    const piece = model.next(settings);
    if (piece === null) {
      why = model.ended;
      break;
    }
    if (piece) say({ type: "text", text: piece });
    await turn();
    if (stopped) {
      tokens++;
      why = "stopped";
      break;
    }
  }
  const rate = tokens > 1 ? (tokens - 1) / (seconds() - began) : 0;
  why ??= model.info.chat && model.ends(settings) ? "end" : "limit";
  return { why, tokens, rate };
}

// A new conversation; its system message is checked when the first message comes.
function converse(system, seed) {
  model.converse(system);
  model.seed(seed);
}

const requests = {
  describe,
  load,

  // A new text begins with a seed of its own; a conversation has one for all of its answers.
  async begin({ text, settings }) {
    model.seed(settings.seed);
    const done = await generate(model.prompt(text), settings);
    say({ type: "done", ...done, memory: model.memoryBytes });
  },

  async continue({ settings }) {
    say({ type: "done", read: 0, ...(await write(settings)), memory: model.memoryBytes });
  },

  async ask({ text, settings, first, system }) {
    if (first) converse(system, settings.seed);
    const done = await generate(model.ask(text), settings);
    const rest = model.finish();
    if (rest) say({ type: "text", text: rest });
    say({ type: "done", ...done, memory: model.memoryBytes });
  },
};

self.onmessage = async ({ data }) => {
  if (data.type === "stop") {
    stopped = true;
    return;
  }
  stopped = false;
  try {
    await requests[data.type](data);
  } catch (error) {
    const known = error instanceof bitnetc.ModelError;
    if (!known) console.error(error);
    say({
      type: "failed",
      kind: known ? error.kind : "broken",
      message: known ? error.message : "The model stopped unexpectedly; load the page again.",
    });
  }
};
