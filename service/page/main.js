/**
 * The page: makes its parts and connects them.
 *
 * drawing/ has the paper, its tools and what is sent to the server; results/ the photos found, and the messages in place
 * of them; why/ the explanation of results; shared/ what the others use: the HTTP API, storage, elements and texts.
 */

import { About } from "./about.js";
import { Keys } from "./keys.js";
import { Cursor } from "./drawing/cursor.js";
import { Paper } from "./drawing/paper.js";
import { Query } from "./drawing/query.js";
import { Tools } from "./drawing/tools.js";
import { Groups } from "./results/groups.js";
import { LiveSearch } from "./results/live_search.js";
import { Notice } from "./results/notice.js";
import { Options } from "./results/options.js";
import { Pages } from "./results/pages.js";
import { Parts } from "./results/parts.js";
import { KindReading, PhotoReading } from "./results/reading.js";
import { alone, Results } from "./results/results.js";
import { Viewer } from "./results/viewer.js";
import { Api, Away } from "./shared/api.js";
import { element, part } from "./shared/dom.js";
import { ENDS, building, noPhotos, sentence, shownCount, timings, trouble } from "./shared/words.js";
import { Why } from "./why/why.js";

const CHECK_AGAIN_MS = 3000;
// This many fit a screen beside the sketch, and take a few seconds.
const EXPLAINED = 6;

const api = new Api();
const paper = new Paper(part("paper"));
const query = new Query(paper);
const tools = new Tools(paper, query);
const notice = new Notice((marks) => paper.do(...marks));
const about = new About();
const options = new Options();
const why = new Why(api, explanationRefused);
const parts = new Parts(api, () => query.clear());
const viewer = new Viewer(api, {
  search: useAsSketch,
  explain: (photo) => why.open(sketched.snapshot, [photo]),
  explainable: () => explainable,
  like: (photo) => parts.like(photo),
  unlike: (photo) => parts.unlike(photo),
  likes: (photo) => parts.likes(photo),
});
const results = new Results(
  part("results"),
  api,
  {
    open: (photos, place) => viewer.open(photos, place, sketched.params.view === "photos"),
    lost: () => part("parts-undo").focus({ preventScroll: true }),
  },
  parts,
);
const groups = new Groups(api, (photos, place) => viewer.open(photos, place));
const search = new LiveSearch(runSearch, { busy: showBusy, found: showFound, trouble: showError });
const pages = new Pages(fetchPage, addPage);

// The snapshot and the parameters that found what is shown. Later pages are asked for with the same ones.
let sketched = null;
let limits = null;
// Whether this server explains at all, and whether it does so for the photos that are shown.
let explains = true;
let explainable = false;
// Whether the search that runs follows from drawing on. Then what is shown already keeps its place.
let drawingOn = false;
let checkTimer = 0;
let serverKnown = false;

async function runSearch(signal) {
  const stay = drawingOn;
  const { blob, ...drawn } = await query.snapshot();
  // An empty sheet is no part of the query.
  const snapshot = { ...drawn, blob: query.empty ? null : blob };
  if (limits && snapshot.blob?.size > limits.max_upload_bytes) {
    // The server would close the connection in the middle of the upload, and the page would report it as away.
    throw new Error(`The image is too large; this server takes ${Math.floor(limits.max_upload_bytes / 2 ** 20)} MiB.`);
  }
  const params = { ...options.params, ...parts.params };
  return { answer: await api.search(snapshot.blob, params, signal), snapshot, params, stay };
}

/** Another page of the search that is shown. */
async function fetchPage(page, signal) {
  const { snapshot, params } = sketched;
  return api.search(snapshot.blob, { ...params, ...page }, signal);
}

function showBusy(yes) {
  part("found").classList.toggle("busy", yes);
  part("results").setAttribute("aria-busy", String(yes));
  if (yes) {
    pages.stop();
  }
}

function showFound({ answer, snapshot, params, stay }) {
  clearTimeout(checkTimer);
  // Later pages are of what this one shows, whoever chose it.
  const taken = { ...params, view: answer.kinds ? "kinds" : "photos" };
  const same = sketched?.params.view === taken.view;
  sketched = { snapshot, params: taken };
  viewer.forget();
  results.show(answer.kinds ?? alone(answer.results), Boolean(answer.kinds) && stay && same);
  parts.know(results.kinds.map(({ best }) => best));
  groups.show(answer.clusters, answer.select);
  const { sizes } = options;
  pages.start(answer.kinds ? new KindReading(answer, sizes) : new PhotoReading(answer, sizes), ENDS[taken.view]);
  part("found").classList.remove("stale");
  if (!results.kinds.length) {
    showMessage(...noPhotos(parts.none));
    return;
  }
  notice.hide();
  // What is explained is how a sketch and a photo go together.
  offerWhy(explains && snapshot.blob !== null);
  showCount();
  part("timings").replaceChildren(...timings(answer).map((text) => element("span", { textContent: text })));
}

function addPage(more) {
  // A photo's rank is its place in the list: photos of clusters that are opened later come after those shown already.
  const before = results.kinds.length;
  const photos = sketched.params.view === "photos";
  results.add(photos ? alone(more.map((result, i) => ({ ...result, rank: before + i + 1 }))) : more);
  showCount();
}

function showCount() {
  part("status").textContent = shownCount(results.kinds.length, sketched.params.view, results.ordered);
  part("order").hidden = results.ordered;
}

/** Put the best first again, after kinds have kept their places. */
function order() {
  results.show([...results.kinds].sort((a, b) => a.rank - b.rank));
  showCount();
}

function showError(error) {
  showMessage(...trouble(error));
  // The photos that are still shown belong to an older sketch.
  part("found").classList.add("stale");
  if (error.status === 401) {
    notice.askForKey();
  } else if (error instanceof Away || error.status === 503) {
    checkLater();
  }
}

function showMessage(title, text, share) {
  notice.say(title, text, share);
  clearStatus();
}

function clearStatus() {
  part("status").textContent = "";
  part("timings").replaceChildren();
  part("order").hidden = true;
  offerWhy(false);
  groups.show([], "clusters");
  pages.stop();
}

function showInvitation() {
  search.stop();
  viewer.forget();
  results.show([]);
  part("found").classList.remove("stale");
  notice.invite();
  clearStatus();
}

/** Ask for the server's state again a little later: until it can answer searches and no build is under way. */
function checkLater() {
  clearTimeout(checkTimer);
  checkTimer = setTimeout(checkServer, CHECK_AGAIN_MS);
}

/** Read the server's state and show it; then search, or invite to draw. */
async function checkServer() {
  let info;
  try {
    info = await api.info();
  } catch (error) {
    serverKnown = false;
    showError(error);
    return;
  }
  limits = info.limits;
  about.show(info);
  const build = building(info.build);
  if (!info.ready) {
    serverKnown = false;
    showMessage("Not ready yet", `${sentence(info.reason)}${build ? ` ${build.text}` : ""}`, build?.share);
  }
  if (!info.ready || build) {
    checkLater();
  }
  if (info.ready && !serverKnown) {
    serverKnown = true;
    options.offer(info.model, limits);
    searchAgain();
  }
}

/** Whether there is nothing to search with. */
function nothing() {
  return query.empty && !parts.enough;
}

function searchAgain() {
  if (nothing()) {
    showInvitation();
  } else {
    searchNow();
  }
}

/** Search at once, and show the best first. */
function searchNow() {
  drawingOn = false;
  void search.now();
}

function useAsSketch(photo) {
  window.scrollTo({ top: 0 });
  void query.take(photo);
}

/** The server has refused to explain: 404 means these photos, 405 means any. */
function explanationRefused(status) {
  explains &&= status === 404;
  offerWhy(false);
}

function offerWhy(yes) {
  explainable = yes;
  part("why-open").hidden = !yes;
}

function announce(text) {
  part("heard").textContent = text;
}

paper.addEventListener("start", () => search.hold());
query.addEventListener("change", () => {
  parts.draw(!query.empty);
  part("search").disabled = nothing();
  if (nothing()) {
    showInvitation();
  } else if (part("live").checked) {
    drawingOn = true;
    search.soon();
  } else {
    search.stop();
    part("found").classList.add("stale");
  }
});
parts.addEventListener("change", () => {
  part("search").disabled = nothing();
  // Other photos are shown from the first one on.
  if (part("found").getBoundingClientRect().top < 0) {
    part("found").scrollIntoView();
  }
  searchAgain();
});
query.addEventListener("address", () =>
  notice.say(
    "That is an address, not an image",
    "Save the image first, and drop its file here; or copy the image itself and paste it.",
  ),
);
part("search").addEventListener("click", searchNow);
part("order").addEventListener("click", order);
options.addEventListener("change", () => serverKnown && searchAgain());
part("why-open").addEventListener("click", () => {
  const best = results.kinds.slice(0, EXPLAINED).map((kind) => kind.best);
  why.open(sketched.snapshot, best);
});
part("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useKey(part("key").value);
  void checkServer();
});
new Cursor(paper, part("paper"), part("cursor"), announce);
new Keys(paper, query);
showInvitation();
parts.show();
await query.restore();
tools.refresh();
part("search").disabled = nothing();
void checkServer();
