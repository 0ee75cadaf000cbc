// Keeps a page of the console live: the server sends the whole page once a second, and only what differs is
// replaced, so that focus, selection and scrolling stay. Without this script the pages work, and do not move.
"use strict";

const root = document.documentElement;
let stream = null;
let retry = 0; // timers
let silence = 0;
let last = 0; // when the server was heard
let failing = false;

// live updates

function connect() {
  disconnect();
  stream = new EventSource(location.href);
  stream.onopen = heard;
  stream.onmessage = (event) => {
    heard();
    const page = new DOMParser().parseFromString(event.data, "text/html");
    document.title = page.title;
    update(document.body, page.body);
  };
  stream.onerror = () => {
    if (!failing) {
      failing = true; // a stream that only ended is open again in half a second
      clearTimeout(silence);
      silence = setTimeout(() => show("reconnecting"), 2000);
    }
    if (stream.readyState === EventSource.CLOSED) retry = setTimeout(connect, 3000);
  };
}

function heard() {
  const now = performance.now();
  clearTimeout(silence);
  silence = setTimeout(() => show("not responding"), Math.max(5000, 3 * (now - last)));
  last = now;
  failing = false;
  show("live");
}

function disconnect() {
  clearTimeout(retry);
  clearTimeout(silence);
  failing = false;
  last = performance.now();
  if (stream !== null) stream.close();
  stream = null;
}

document.addEventListener("visibilitychange", () => {
  // A browser has six connections to a server: hidden tabs must not hold them.
  if (root.dataset.live === "paused") return;
  if (document.hidden) disconnect();
  else connect();
});

function pause() {
  if (stream === null) return connect();
  disconnect();
  show("paused");
}

function show(state) {
  root.dataset.live = state;
  const button = document.getElementById("live");
  button.hidden = false;
  if (button.textContent !== state) button.textContent = state;
  document.getElementById("help-button").hidden = false;
}

// replacing what differs

const KEPT = new Set(["open", "hidden", "data-live"]); // attributes that this script or the reader sets

function update(old, now) {
  for (const { name } of [...old.attributes]) {
    if (!now.hasAttribute(name) && !KEPT.has(name)) old.removeAttribute(name);
  }
  for (const { name, value } of now.attributes) {
    if (!KEPT.has(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
  if (old.id === "live") return; // its text is that of this script
  let next = old.firstChild;
  for (const wanted of [...now.childNodes]) {
    const found = match(next, wanted);
    if (found === null) {
      old.insertBefore(wanted, next);
    } else {
      if (found !== next) old.insertBefore(found, next);
      else next = next.nextSibling;
      if (found.nodeType === Node.ELEMENT_NODE) update(found, wanted);
      else if (found.nodeValue !== wanted.nodeValue) found.nodeValue = wanted.nodeValue;
    }
  }
  while (next !== null) {
    const following = next.nextSibling;
    next.remove();
    next = following;
  }
}

function match(next, wanted) {
  const key = keyOf(wanted);
  for (let each = next; each !== null; each = each.nextSibling) {
    if (each.nodeName === wanted.nodeName && keyOf(each) === key) return each;
    if (key === null) return null; // without a key, only the same place is the same thing
  }
  return null;
}

function keyOf(node) {
  return node.nodeType === Node.ELEMENT_NODE ? node.dataset.key || node.id || null : null;
}

// search as you type

let typing = 0;
document.addEventListener("input", (event) => {
  if (event.target.name !== "q") return;
  clearTimeout(typing);
  typing = setTimeout(() => {
    const address = new URL(location.href);
    address.searchParams.set("q", event.target.value);
    history.replaceState(null, "", address);
    connect();
  }, 150);
});

document.addEventListener("submit", (event) => {
  if (event.target.id === "search") event.preventDefault();
});

// keyboard

function move(step) {
  const rows = [...document.querySelectorAll("[data-row]")];
  if (rows.length === 0) return;
  const at = rows.indexOf(document.activeElement);
  rows[at < 0 ? 0 : Math.min(Math.max(at + step, 0), rows.length - 1)].focus();
}

const KEYS = {
  j: () => move(1),
  k: () => move(-1),
  p: pause,
  "/": () => {
    const search = document.querySelector("input[type=search]");
    if (search === null) location.href = "/keys#search";
    else search.select();
  },
  "?": () => document.getElementById("help").showModal(),
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.target.matches("input, textarea, select")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const page = document.querySelector(`nav [data-nav="${CSS.escape(event.key)}"]`);
  const action = page !== null ? () => page.click() : KEYS[event.key];
  if (action === undefined || document.getElementById("help").open) return;
  event.preventDefault();
  action();
});

document.addEventListener("click", (event) => {
  if (event.target.closest("#live")) pause();
  if (event.target.closest("#help-button")) KEYS["?"]();
});

if (location.hash === "#search") KEYS["/"]();
connect();
