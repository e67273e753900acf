/** The page: its parts, and what each of them does to the others. */

import { About } from "./about.js";
import { Keys } from "./keys.js";
import { Cursor } from "./drawing/cursor.js";
import { Paper } from "./drawing/paper.js";
import { Query } from "./drawing/query.js";
import { Tools } from "./drawing/tools.js";
import { Groups } from "./results/groups.js";
import { LiveSearch } from "./results/live_search.js";
import { Notice } from "./results/notice.js";
import { Pages } from "./results/pages.js";
import { Results } from "./results/results.js";
import { Viewer } from "./results/viewer.js";
import { Api, Away } from "./shared/api.js";
import { choice, element, part } from "./shared/dom.js";
import { building, count, sentence, timings, trouble } from "./shared/words.js";
import { Why } from "./why/why.js";

const LOOK_AGAIN_MS = 3000;
const PAGE_SIZES = [10, 20, 50, 100, 200];
// As many as fit a screen beside the sketch, and as can be waited for.
const EXPLAINED = 6;

const api = new Api();
const paper = new Paper(part("paper"));
const query = new Query(paper);
const tools = new Tools(paper, query);
const notice = new Notice((marks) => paper.do(...marks));
const about = new About();
const why = new Why(api, unexplained);
const viewer = new Viewer(api, {
  search: useAsSketch,
  explain: (photo) => why.open(sketched.snapshot, [photo]),
  explainable: () => explainable,
});
const results = new Results(part("results"), api, (place) => viewer.open(shown, place));
const groups = new Groups(api, (photos, place) => viewer.open(photos, place));
const search = new LiveSearch(ask, { busy, found, trouble: tell });
const pages = new Pages(askOn, add);

let shown = [];
// What the photos shown were found with; a page that is asked for later belongs to the same drawing.
let sketched = null;
let limits = null;
// Whether this server explains at all, and whether it does so for the photos that are shown.
let explains = true;
let explainable = false;
let careful = true;
let lookAgain = 0;
let acquainted = false;

async function ask(signal) {
  const snapshot = await query.snapshot();
  if (limits && snapshot.blob.size > limits.max_upload_bytes) {
    // The server would close the connection in the middle of it, which looks as if it were away.
    throw new Error(`The image is too large; this server takes ${Math.floor(limits.max_upload_bytes / 2 ** 20)} MiB.`);
  }
  const params = { method: careful ? "auto" : "ret", k: part("count").value || "20" };
  return { answer: await api.search(snapshot.blob, params, signal), snapshot, params };
}

/** Another page of the search that is shown. */
async function askOn(page, signal) {
  const { snapshot, params } = sketched;
  return api.search(snapshot.blob, { ...params, ...page }, signal);
}

function busy(yes) {
  part("found").classList.toggle("busy", yes);
  part("results").setAttribute("aria-busy", String(yes));
  if (yes) {
    pages.stop();
  }
}

function found({ answer, snapshot, params }) {
  clearTimeout(lookAgain);
  sketched = { snapshot, params };
  shown = answer.results;
  results.show(shown);
  groups.show(answer.clusters);
  pages.start(answer, { page: Number(params.k), most: limits?.max_k ?? Number(params.k) });
  part("found").classList.remove("stale");
  if (!shown.length) {
    say("No photos", "The index has none to show. Build it over a folder with photos, and search again.");
    return;
  }
  notice.hide();
  offerWhy(explains);
  tellNumber();
  part("timings").replaceChildren(...timings(answer).map((text) => element("span", { textContent: text })));
}

function add(more) {
  // A place in this list: what was found in clusters that were opened later comes after what was found before.
  const ranked = more.map((result, i) => ({ ...result, rank: shown.length + i + 1 }));
  results.add(ranked, shown.length);
  shown = [...shown, ...ranked];
  tellNumber();
}

function tellNumber() {
  part("status").textContent = `${count(shown.length, "photo")}, best first`;
}

function tell(error) {
  say(...trouble(error));
  // What is still there belongs to an older sketch.
  part("found").classList.add("stale");
  if (error.status === 401) {
    notice.askForKey();
  } else if (error instanceof Away || error.status === 503) {
    watch();
  }
}

function say(title, text, share) {
  notice.say(title, text, share);
  nothing();
}

function nothing() {
  part("status").textContent = "";
  part("timings").replaceChildren();
  offerWhy(false);
  groups.show([]);
  pages.stop();
}

function invite() {
  search.stop();
  shown = [];
  results.show(shown);
  part("found").classList.remove("stale");
  notice.invite();
  nothing();
}

/** Ask the server how it is until it can answer, or a build is over. */
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
    acquainted = false;
    tell(error);
    return;
  }
  limits = info.limits;
  about.show(info);
  const build = building(info.build);
  if (!info.ready) {
    acquainted = false;
    say("Not ready yet", `${sentence(info.reason)}${build ? ` ${build.text}` : ""}`, build?.share);
  }
  if (!info.ready || build) {
    watch();
  }
  if (info.ready && !acquainted) {
    acquainted = true;
    offer(info.model);
    renew();
  }
}

function offer(model) {
  const choosable = model.methods.includes("ret") && (model.best_method !== "ret" || model.diffuses);
  part("care").hidden = !choosable;
  const sizes = new Set([...PAGE_SIZES.filter((size) => size <= limits.max_k), limits.default_k]);
  const select = part("count");
  const wanted = sizes.has(Number(select.value)) ? select.value : String(limits.default_k);
  select.replaceChildren(...[...sizes].sort((a, b) => a - b).map((size) => new Option(`${size} at a time`, String(size))));
  select.value = wanted;
}

function renew() {
  if (query.empty) {
    invite();
  } else {
    void search.now();
  }
}

function useAsSketch(photo) {
  window.scrollTo({ top: 0 });
  void query.take(photo);
}

/** The explanation is not to be had: of these photos (404), or of any (405). */
function unexplained(status) {
  explains &&= status === 404;
  offerWhy(false);
}

function offerWhy(yes) {
  explainable = yes;
  part("why-open").hidden = !yes;
}

function hear(text) {
  part("heard").textContent = text;
}

paper.addEventListener("start", () => search.hold());
query.addEventListener("change", () => {
  if (query.empty) {
    invite();
  } else if (part("live").checked) {
    search.soon();
  } else {
    search.stop();
    part("found").classList.add("stale");
  }
});
part("search").addEventListener("click", () => void search.now());
part("count").addEventListener("change", renew);
choice("care", (value) => {
  careful = value === "careful";
  if (acquainted) {
    renew();
  }
});
part("why-open").addEventListener("click", () => why.open(sketched.snapshot, shown.slice(0, EXPLAINED)));
part("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useKey(part("key").value);
  void meet();
});
new Cursor(paper, part("paper"), part("cursor"), hear);
new Keys(paper, query);
invite();
await query.restore();
tools.refresh();
void meet();
