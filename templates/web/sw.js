// Keeps the page for when there is no network. The newest files win: what is kept answers only
// when the server does not. The model's own files are kept by model.js.
"use strict";

const STORE = "bitnetc pages";
const FILES = ["./", "app.js", "model.js", "worker.js", "style.css", "model.json"];
const known = new Set(FILES.map((file) => new URL(file, self.location.href).href));

const plain = (url) => url.replace(/[?#].*$/, "").replace(/\/index\.html$/, "/");

async function answer(request) {
  const store = await caches.open(STORE);
  const url = plain(request.url);
  try {
    const response = await fetch(request);
    if (response.ok) await store.put(url, response.clone());
    return response;
  } catch (error) {
    const kept = await store.match(url);
    if (kept) return kept;
    throw error;
  }
}

self.addEventListener("install", (event) => {
  const files = FILES.map((file) => new Request(file, { cache: "reload" }));
  event.waitUntil(caches.open(STORE).then((store) => store.addAll(files)));
  self.skipWaiting();
});

self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method === "GET" && known.has(plain(request.url)))
    event.respondWith(answer(request));
});
