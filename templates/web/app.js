// The page: what is shown, and what the person does. The model is in worker.js.
"use strict";

const $ = (id) => document.getElementById(id);
const show = (id, shown = true) => ($(id).hidden = !shown);

const CHAT = document.body.dataset.mode === "chat";
const ASK_BYTES = 100e6; // a larger download begins only when the person says so
const MOST = CHAT ? 512 : 200; // tokens of an answer, unless the settings say otherwise

let worker = null;
let info = null; // model.json
let busy = false;
let first = true; // the next message begins a conversation
let last = null; // the article that is written, or was last

const size = (bytes) =>
  bytes < 10e6 ? `${(bytes / 1e6).toFixed(1)} MB`
  : bytes < 1e9 ? `${Math.round(bytes / 1e6)} MB`
  : `${(bytes / 1e9).toFixed(2)} GB`;
const rate = (tokens) => `${tokens < 10 ? tokens.toFixed(1) : Math.round(tokens)} tokens/s`;

function state(name) {
  document.body.dataset.state = name; // what scripts that drive the page look at
  show("loading", name === "loading");
  show("problem", name === "problem");
  const ready = name === "ready" || name === "busy";
  for (const id of ["log", "composer", "tune", "fresh"]) show(id, ready);
  busy = name === "busy";
  show("send", !busy);
  show("stop", busy);
  $("fresh").disabled = busy;
  $("log").setAttribute("aria-busy", String(busy));
}

function problem(text, again = null) {
  state("problem");
  $("problem-text").textContent = text;
  show("again", again !== null);
  $("again").onclick = again;
  if (again) $("again").focus();
}

// ---- loading ----

function start() {
  if (location.protocol === "file:") {
    problem(
      "A browser does not load a model from a file: serve this folder, for example with " +
        "“python3 -m http.server”, and open the address that it says.",
    );
    return;
  }
  if (!bitnetc.supported()) {
    problem(bitnetc.NO_SIMD);
    return;
  }
  worker = new Worker("worker.js");
  worker.onmessage = ({ data }) => told[data.type](data);
  worker.onerror = () =>
    problem("The page's own files could not be loaded; check the connection.", () =>
      location.reload(),
    );
  worker.postMessage({ type: "describe" });
}

function load() {
  state("loading");
  show("load", false);
  show("loading-bar");
  worker.postMessage({ type: "load" });
}

function keepPage() {
  // Only where the address is secure; without it the page works as long as there is a network.
  navigator.serviceWorker?.register("sw.js").catch(() => {});
}

// ---- writing ----

function settings() {
  const value = (id, otherwise) => {
    const input = $(id);
    return input.value !== "" && input.validity.valid ? Number(input.value) : otherwise;
  };
  const { temperature, top_k, top_p } = info.sampling;
  return {
    temperature: value("temperature", temperature),
    topK: value("top-k", top_k),
    topP: value("top-p", top_p),
    seed: value("seed", Math.floor(Math.random() * 2 ** 32)),
    most: value("most", MOST),
  };
}

function defaults() {
  const { temperature, top_k, top_p } = info.sampling;
  $("temperature").value = String(temperature);
  $("top-k").value = String(top_k);
  $("top-p").value = String(top_p);
  $("seed").value = "";
  $("most").value = String(MOST);
}

function element(name, className, text = "") {
  const made = document.createElement(name);
  made.className = className;
  made.textContent = text;
  return made;
}

function button(text, act) {
  const made = element("button", "quiet", text);
  made.type = "button";
  made.onclick = () => act(made);
  return made;
}

// An article of the log: the question or the beginning, then what the model says.
function open(text) {
  last?.more?.remove(); // the model now holds another text
  const article = element("article", "");
  const said = element("p", "said");
  const given = element(CHAT ? "p" : "span", CHAT ? "asked" : "given", text);
  const written = document.createTextNode("");
  if (CHAT) article.append(given);
  else said.append(given);
  said.append(written);
  const after = element("div", "after");
  article.append(said, after);
  $("log").append(article);
  last = { article, said, written, after, given: text };
}

const whole = () => (CHAT ? "" : last.given) + last.written.data;

function send() {
  const text = $("text").value;
  if (busy || text.trim() === "") return;
  open(text);
  $("text").value = "";
  fit();
  work(CHAT ? "ask" : "begin", { text, first, system: $("system")?.value ?? "" });
}

function work(type, more) {
  if (busy) return;
  state("busy");
  last.after.replaceChildren();
  last.said.classList.add("writing");
  $("status").textContent = "";
  stick = true;
  follow();
  worker.postMessage({ type, settings: settings(), ...more });
}

function stop() {
  if (busy) worker.postMessage({ type: "stop" });
}

function fresh() {
  if (busy) return;
  first = true;
  last = null;
  for (const article of document.querySelectorAll("#log article")) article.remove();
  $("status").textContent = "";
  $("text").focus();
}

async function copy(text, from) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    const area = element("textarea", "unseen");
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
  from.textContent = "Copied";
  setTimeout(() => (from.textContent = "Copy"), 1500);
}

// Why a text ended, unless the model ended it.
const WHY = { limit: " (limit)", stopped: " (stopped)", full: " (no room for more)" };

// What the worker says.
const told = {
  described({ info: found, kept }) {
    info = found;
    defaults();
    $("most").max = String(info.context);
    if (kept || info.image_bytes <= ASK_BYTES) {
      load();
      return;
    }
    $("load").textContent = `Load the model, ${size(info.image_bytes)}`;
    $("load").onclick = load;
    show("load");
    $("load").focus();
  },

  progress({ done, total, cached }) {
    $("progress").value = done / total;
    $("progress-text").textContent = cached
      ? `Kept on this device: ${size(done)} of ${size(total)}`
      : `Downloading ${size(done)} of ${size(total)}`;
  },

  ready({ cached, memory }) {
    document.body.dataset.cached = String(cached);
    facts(memory);
    state("ready");
    keepPage();
    $("text").focus();
  },

  reading({ done, total }) {
    // Short prompts are read before anybody could look.
    if (total >= 64 && done < total) $("status").textContent = `Reading: ${done} of ${total} tokens`;
  },

  text({ text }) {
    if ($("status").textContent.startsWith("Reading")) $("status").textContent = "";
    last.written.appendData(text);
    follow();
  },

  done({ why, tokens, rate: speed, read, memory }) {
    const { said, after } = last;
    said.classList.remove("writing");
    if (CHAT && tokens === 0 && why === "stopped") {
      // Stopped while it was read: the message is no part of the conversation.
      giveBack();
      state("ready");
      facts(memory);
      return;
    }
    first = false;
    const text = whole();
    after.append(button("Copy", (from) => copy(text, from)));
    if (!CHAT && (why === "limit" || (why === "stopped" && tokens > 0))) {
      last.more = button("Continue", () => work("continue", {}));
      after.append(last.more);
    }
    const count = `${tokens} token${tokens === 1 ? "" : "s"}${WHY[why] ?? ""}`;
    after.append(element("p", "", speed ? `${rate(speed)}, ${count}` : count));
    document.body.dataset.read = String(read);
    $("status").textContent = "";
    facts(memory);
    state("ready");
    follow();
    $("text").focus();
  },

  failed({ kind, message }) {
    if (kind === "fit") {
      giveBack();
      state("ready");
      $("status").textContent = message;
    } else if (kind === "simd") {
      problem(message);
    } else {
      problem(message, kind === "broken" ? () => location.reload() : info ? load : start);
    }
  },
};

// Puts what could not be sent back where it was written.
function giveBack() {
  last.article.remove();
  $("text").value = last.given;
  fit();
  $("text").focus();
}

function facts(memory) {
  $("facts").textContent = `On this device, ${size(memory)} of memory`;
}

// ---- the page itself ----

// The log stays at its end while text arrives, unless the person has scrolled up.
let stick = true;

function follow() {
  const log = $("log");
  if (stick) log.scrollTop = log.scrollHeight;
}

// The text field is as tall as its text.
function fit() {
  const text = $("text");
  text.rows = 1;
  while (text.scrollHeight > text.clientHeight && text.rows < 10) text.rows++;
  $("send").disabled = text.value.trim() === "";
}

$("log").addEventListener("scroll", () => {
  const log = $("log");
  stick = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
});
$("text").addEventListener("input", fit);
$("text").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    send();
  }
});
document.addEventListener("keydown", (event) => {
  if (event.key === "Escape") stop();
});
$("compose").addEventListener("submit", (event) => {
  event.preventDefault();
  send();
});
$("settings").addEventListener("submit", (event) => event.preventDefault());
$("stop").onclick = stop;
$("fresh").onclick = fresh;
$("defaults").onclick = defaults;
$("tune").onclick = () => {
  const open = $("settings").hidden;
  show("settings", open);
  $("tune").setAttribute("aria-expanded", String(open));
};
fit();
start();
