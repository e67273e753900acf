/** The page: its parts, and what each of them does to the others. */

import { Api, Away } from "./api.js";
import { Paper } from "./canvas.js";
import { Query } from "./query.js";
import { Results } from "./results.js";
import { LiveSearch } from "./search.js";
import { Viewer } from "./viewer.js";
import { building, count, facts, methodName, sentence, timings, trouble } from "./words.js";

const LOOK_AGAIN_MS = 3000;
const PAGE_SIZES = [10, 20, 50, 100, 200];

const part = (id) => document.getElementById(id);
const api = new Api();
const paper = new Paper(part("paper"));
const query = new Query(paper);
const viewer = new Viewer(api);
const results = new Results(part("results"), api, (place) => viewer.open(shown, place));
const search = new LiveSearch(ask, { busy, found, trouble: tell });

let shown = [];
let limits = null;
let lookAgain = 0;
let said = "";

async function ask(signal) {
  const sketch = await query.blob();
  if (limits && sketch.size > limits.max_upload_bytes) {
    // The server would close the connection in the middle of it, which looks as if it were away.
    throw new Error(`The image is too large; this server takes ${Math.floor(limits.max_upload_bytes / 2 ** 20)} MiB.`);
  }
  const params = { method: part("method").value };
  if (part("count").value) {
    params.k = part("count").value;
  }
  return api.search(sketch, params, signal);
}

function busy(yes) {
  part("found").classList.toggle("busy", yes);
  part("results").setAttribute("aria-busy", String(yes));
}

function found(answer) {
  clearTimeout(lookAgain);
  shown = answer.results;
  results.show(shown);
  part("found").classList.remove("stale");
  if (!shown.length) {
    notice("No photos", "The index has none to show. Build it over a folder with photos, and search again.");
    return;
  }
  part("notice").hidden = true;
  part("ghosts").hidden = true;
  part("status").textContent = `${count(shown.length, "photo")}, best first`;
  part("timings").replaceChildren(...timings(answer).map((text) => element("span", text)));
}

function tell(error) {
  notice(...trouble(error));
  // What is still there belongs to an older sketch.
  part("found").classList.add("stale");
  part("key-form").hidden = error.status !== 401;
  if (error.status === 401) {
    part("key").focus();
  } else if (error instanceof Away || error.status === 503) {
    watch();
  }
}

function notice(title, text) {
  // Written only where it is another one, so that a screen reader does not say the same twice.
  if (said !== title + text) {
    said = title + text;
    part("notice-title").textContent = title;
    part("notice-text").replaceChildren(...prose(text));
  }
  part("key-form").hidden = true;
  part("ghosts").hidden = true;
  part("notice").hidden = false;
  part("status").textContent = "";
  part("timings").replaceChildren();
}

function invite() {
  search.stop();
  shown = [];
  results.show(shown);
  part("found").classList.remove("stale");
  notice(
    "What are you looking for?",
    "Draw its outline, and photos appear while you draw. You can also drop, paste or choose an image of a sketch.",
  );
  part("ghosts").hidden = false;
}

/** Ask the server how it is until it can answer, then go on. */
function watch() {
  clearTimeout(lookAgain);
  lookAgain = setTimeout(meet, LOOK_AGAIN_MS);
}

/** Learn what the server has; then search, or invite to draw. */
async function meet() {
  let info;
  try {
    info = await api.info();
  } catch (error) {
    tell(error);
    return;
  }
  limits = info.limits;
  part("info").replaceChildren(...facts(info).map((fact) => element("li", fact)));
  if (!info.ready) {
    notice("Not ready yet", `${sentence(info.reason)}${building(info.build)}`);
    watch();
    return;
  }
  offer(info);
  renew();
}

function offer({ model }) {
  const best = ["auto", `Best: ${methodName(model.best_method, model.diffuses)}`];
  options(part("method"), [best, ...model.methods.map((method) => [method, methodName(method)])], "auto");
  const sizes = new Set([...PAGE_SIZES.filter((size) => size <= limits.max_k), limits.default_k]);
  const sorted = [...sizes].sort((a, b) => a - b);
  options(part("count"), sorted.map((size) => [String(size), count(size, "photo")]), String(limits.default_k));
}

function options(select, pairs, first) {
  const wanted = pairs.some(([value]) => value === select.value) ? select.value : first;
  select.replaceChildren(...pairs.map(([value, text]) => new Option(text, value)));
  select.value = wanted;
}

function renew() {
  if (query.empty) {
    invite();
  } else {
    void search.now();
  }
}

/** Text as nodes; what stands between backticks is code. */
function prose(text) {
  return text.split("`").map((words, i) => element(i % 2 ? "code" : "span", words));
}

function element(kind, text) {
  return Object.assign(document.createElement(kind), { textContent: text });
}

function showTools() {
  part("undo").disabled = query.isFile || !paper.canUndo;
  part("redo").disabled = query.isFile || !paper.canRedo;
  part("clear").disabled = query.empty;
  part("search").disabled = query.empty;
  part("invitation").hidden = !paper.empty;
}

function keys(event) {
  const key = event.key.toLowerCase();
  const asked = (event.ctrlKey || event.metaKey) && !event.altKey && (key === "z" || key === "y");
  if (asked && !query.isFile && !event.target.matches("input[type=text]")) {
    event.preventDefault();
    if (key === "y" || event.shiftKey) {
      paper.redo();
    } else {
      paper.undo();
    }
  }
}

paper.addEventListener("start", () => {
  search.hold();
  part("invitation").hidden = true;
});
query.addEventListener("change", () => {
  showTools();
  if (query.empty) {
    invite();
  } else {
    search.soon();
  }
});
const choices = { tool: (value) => (paper.tool = value), width: (value) => (paper.width = Number(value)) };
for (const [name, set] of Object.entries(choices)) {
  for (const radio of document.getElementsByName(name)) {
    radio.addEventListener("change", () => set(radio.value));
    // Browsers restore a choice when a page is loaded again.
    if (radio.checked) {
      set(radio.value);
    }
  }
}
part("undo").addEventListener("click", () => paper.undo());
part("redo").addEventListener("click", () => paper.redo());
part("clear").addEventListener("click", () => query.clear());
part("search").addEventListener("click", () => void search.now());
part("method").addEventListener("change", renew);
part("count").addEventListener("change", renew);
part("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useKey(part("key").value);
  void meet();
});
document.addEventListener("keydown", keys);
showTools();
invite();
void meet();
