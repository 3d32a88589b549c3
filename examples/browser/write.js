// The page's module in Node.js (18 or later):
//
//     node write.js austen/web "It is a truth universally acknowledged, that"
"use strict";

const fs = require("node:fs/promises");
const path = require("node:path");
const { fileURLToPath, pathToFileURL } = require("node:url");

const [folder, text] = process.argv.slice(2);

// model.js asks for files as a page does; here they lie on the disk.
globalThis.fetch = async (url) => new Response(await fs.readFile(fileURLToPath(url.split("?")[0])));
require(path.resolve(folder, "model.js"));

async function main() {
  const model = await bitnetc.load(pathToFileURL(path.resolve(folder) + path.sep).href);
  model.start(512);
  model.prompt(text);
  while (model.read() > 0);
  model.seed(1);
  const { temperature, top_k, top_p } = model.info.sampling;
  process.stdout.write(text);
  for (let made = 0; made < 60; made++) {
    const piece = model.next({ temperature, topK: top_k, topP: top_p });
    if (piece === null) break;
    process.stdout.write(piece);
  }
  process.stdout.write("\n");
}

main().catch((error) => {
  console.error(error.message);
  process.exitCode = 1;
});
