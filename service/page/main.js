/** Connects drawing/, the paper and what is sent; asking/, what counts beside it; results/, the photos; why/, their explanation; and shared/. */

import { createAbout, offerFolders } from "./gallery.js";
import { drawByKeys, listenToShortcuts } from "./keys.js";
import { createLiveSearch, watchServer } from "./server.js";
import { createOptions, createWord } from "./asking/choices.js";
import { createDrawn } from "./asking/drawn.js";
import { offerFilter } from "./asking/filter.js";
import { createParts } from "./asking/parts.js";
import { Paper } from "./drawing/paper.js";
import { createQuery } from "./drawing/query.js";
import { connectTools } from "./drawing/tools.js";
import { createFound } from "./results/found.js";
import { createKept } from "./results/kept.js";
import { Notice } from "./results/notice.js";
import { createViewer } from "./results/viewer.js";
import * as api from "./shared/api.js";
import { byId } from "./shared/dom.js";
import { alsoCounts, building, trouble, unready } from "./shared/words.js";
import { createWhy } from "./why/why.js";

// This many fit a screen beside the sketch, and take a few seconds.
const EXPLAINED = 6;
// Photos keep their places, and one variant of the drawing is looked at, for as long as strokes follow each other.
const REST_MS = 900;
const FEW_PHOTOS = 2000;

const paper = new Paper(byId("paper"));
const query = createQuery(paper, {
  changed: queryChanged,
  turn: (...how) => parts.turn(...how),
  back: searchAgain,
  // The page may load nothing from another host, so it cannot fetch the image itself.
  refuse: (other) => notice.say(...(other === "address"
    ? ["That is an address, not an image", "Save the image and drop its file here, or copy the image itself and paste it."]
    : ["That is text, not an image", "Copy the drawing as a PNG or an SVG, in Excalidraw by Shift+Alt+C, and paste it again."])),
});
const refreshTools = connectTools(paper, query);
const notice = new Notice((marks) => paper.add(marks));
const about = createAbout((folder) => api.remove(folder).finally(() => void server.check()));
offerFolders(build);
const parts = createParts(() => query.clear());
offerFilter(parts);
const word = createWord(parts);
const drawn = createDrawn(paper, parts, word, { changed: searchIfReady, step: () => query.turn(false, true) });
const why = createWhy(explanationRefused);
const viewer = createViewer({ search: useAsQuery, explain: (photo) => why.open(subject(), [photo]), explainable }, parts);
const found = createFound({ changed: offerMore, away: (gone) => server.checkLater(gone) }, notice, parts, viewer);
const search = createLiveSearch(runSearch, { busy: found.busy, found: showFound, trouble: searchFailed });
const server = watchServer({
  told: (info) => {
    offer(info.ready || Boolean(building(info.build)), info.ready);
    about.show(info);
    for (const part of [found, notice, viewer]) part.know(info);
  },
  ready: ({ model, index, limits }) => {
    options.offer(model, limits);
    word.offer(model, index);
    state.few = index.photos <= FEW_PHOTOS;
    searchAgain();
  },
  unready: (info) => found.say(...unready(info)),
  trouble: (error) => {
    offer(error.status !== 401, error.status !== 401);
    found.fail(error);
  },
});
const options = createOptions(searchIfReady);

createKept(paper, query, () => [...new Set([...parts.params().text, ...drawn.said()])].join(", "));

const state = {
  few: true,
  // Whether this server explains at all, and the query whose photos it has refused to explain.
  explains: true,
  refused: null,
  // How often the drawing has changed, and after how many changes the photos shown were searched for.
  changes: 0,
  shownAfter: 0,
  resting: 0,
  // Whether the running search follows a stroke. Then results already shown keep their places.
  drawingOn: false,
};

async function runSearch(signal) {
  // A search without the drawing yields another list.
  const stay = state.drawingOn && !query.empty();
  const after = state.changes;
  const taken = await query.snapshot();
  const snapshot = query.empty() ? { ...taken, blob: null, things: [], strokes: [] } : taken;
  const { limits } = server;
  if (snapshot.blob?.size === 0) { throw new Error("The file is empty."); }
  if (limits && snapshot.blob?.size > limits.max_upload_bytes) {
    // The server would close the connection in the middle of the upload, and the page would report it as away.
    throw new Error(`The image is too large; this server accepts at most ${Math.floor(limits.max_upload_bytes / 2 ** 20)} MiB.`);
  }
  const kind = snapshot.kind === "photo" ? { kind: "photo" } : {};
  const { like, text } = parts.params();
  const listed = snapshot.blob || like.length || text.length ? {} : { view: "photos" };
  // Who draws looks for one photo, which a stack may hide; but of many photos, stacks show more kinds on a page.
  const auto = state.few && snapshot.blob && snapshot.kind === "sketch" ? "photos" : settledView();
  const params = { ...options.params(auto), ...parts.params(), ...(stay ? options.quick() : {}), ...kind, ...drawn.params(snapshot), ...listed };
  const body = bodyOf(snapshot);
  return { answer: await api.search(body, params, signal), asked: { snapshot: { ...snapshot, body }, params }, stay, after };
}

/** The view that the server chose for this drawing, which nothing beside the drawing changes; undefined if it is to choose. */
function settledView() {
  const asked = found.asked();
  return asked && state.shownAfter === state.changes && !asked.params.quality ? asked.params.view : undefined;
}

function showFound({ answer, asked, stay, after }) {
  server.rest();
  state.shownAfter = after;
  found.show(answer, asked, stay);
  parts.hide(answer);
  if (!byId("word-unknown").textContent) { word.unknown(null, answer.word_instead); }
  drawn.know(asked.snapshot, answer, after === state.changes);
  clearTimeout(state.resting);
  state.resting = setTimeout(penRests, REST_MS);
}

/** Drop an unknown word and search for the rest; otherwise show the error. */
function searchFailed(error) {
  state.shownAfter = -1;
  drawn.hush();
  const unknown = error.code === "unknown_word";
  // The search before the name of a thing comes back by itself.
  const ofThing = unknown ? drawn.dropWord(error.message) : undefined;
  const dropped = ofThing?.name ?? (unknown ? parts.dropWord(!query.empty() || parts.params().like.length > 0) : undefined);
  if (dropped === undefined) {
    found.fail(error);
    return;
  }
  word.unknown(dropped, error.nearest, !nothing(), ofThing?.rename);
  if (!ofThing) {
    refresh();
    searchAgain();
  }
}

/** The pen rests: the best first, by all variants of the drawing. */
function penRests() { found.asked()?.params.quality ? searchNow() : found.order(); }

/** The body for a snapshot of the query: one picture, with its strokes if it was drawn here. */
function bodyOf({ blob, strokes }) {
  if (!blob || !strokes.length) { return blob; }
  const form = new FormData();
  form.append("file", blob, "drawing.png");
  form.append("strokes", JSON.stringify(strokes.map(({ sent }) => sent)));
  return form;
}

function queryChanged() {
  refreshTools();
  state.changes += 1;
  found.age();
  parts.draw(query.empty() ? null : query.kind());
  drawn.forget();
  refresh();
  if (nothing()) {
    showInvitation();
  } else if (byId("live").checked && server.ready) {
    state.drawingOn = true;
    search.soon();
  } else {
    search.stop();
  }
}

/** Show only usable controls: the paper, and those above the photos. */
function offer(drawing, choosing) {
  byId("desk").hidden = !drawing;
  byId("bar").hidden = !choosing;
}

/** Explain the current drawing: search with it first, if the results shown are for an earlier one. */
async function explain() {
  if (state.shownAfter !== state.changes && !nothing()) {
    state.drawingOn = false;
    await search.now();
  }
  if (explainable() && state.shownAfter === state.changes) { why.open(subject(), found.best().slice(0, EXPLAINED)); }
}

function refresh() {
  byId("search").disabled = nothing() && !byId("word").value.trim();
  byId("save").disabled = query.isFile() || nothing();
  byId("clear").disabled = query.empty() && parts.none();
}

const nothing = () => query.empty() && !parts.enough();
function showInvitation() {
  search.stop();
  found.invite();
  drawn.hush();
}

function searchIfReady(anew = false) {
  if (server.ready) {
    state.shownAfter = anew ? -1 : state.shownAfter;
    searchAgain();
  }
}

function searchAgain() { nothing() ? showInvitation() : searchNow(); }

/** Search at once, and show the best first; while the server cannot answer, as soon as it can. */
function searchNow() {
  state.drawingOn = false;
  void (server.ready ? search.now() : server.check());
}

async function useAsQuery(photo) {
  await query.take(photo, "photo", true);
  // The open photo has closed only now, and the browser has brought back where the page was.
  window.scrollTo({ top: 0 });
}

/** The server has refused to explain: 404 means these photos, 405 means any. */
function explanationRefused(status) {
  state.explains &&= status === 404;
  state.refused = found.asked();
  offerMore();
}

/** The subject of explanations: the drawing or photo of the query, else the liked photos, else the words. */
function subject() {
  const { snapshot, params } = found.asked();
  const asked = Object.fromEntries(["things", "places", "colours", "text"].flatMap((name) => (params[name] ? [[name, params[name]]] : [])));
  const byWords = !snapshot.blob && !params.like.length;
  const also = alsoCounts(byWords ? { ...params, text: [] } : params, Boolean(snapshot.blob));
  return { ...snapshot, asked, also, guesses: snapshot.blob ? drawn.guesses() : new Map(), liked: snapshot.blob ? [] : params.like.map((id) => ({ id, name: parts.nameOf(id) })) };
}

function explainable() {
  const asked = found.asked();
  const possible = state.explains && asked !== null && asked !== state.refused;
  return possible && (asked.snapshot.blob !== null || asked.params.like.length + asked.params.text.length > 0);
}

function offerMore() { byId("why-open").hidden = !explainable(); }

/** Add a folder to the index; null: update only the indexed ones. Returns whether it began; else `note` shows why not. */
async function build(folder, note) {
  try {
    await api.build(folder);
    note.textContent = "";
    about.begun(folder);
  } catch (error) {
    note.textContent = trouble(error).at(-1);
    return false;
  }
  void server.check();
  return true;
}

paper.addEventListener("start", () => {
  notice.rest();
  search.hold();
  clearTimeout(state.resting);
});
parts.onChange(() => {
  refresh();
  found.age();
  // Other photos are shown from the first one on.
  if (byId("found").getBoundingClientRect().top < 0) { byId("found").scrollIntoView(); }
  searchAgain();
});
byId("search").addEventListener("click", async () => {
  // A name or a word that was being typed counts, too.
  await drawn.sorted();
  if (!word.submit()) { searchNow(); }
});
byId("word").addEventListener("input", refresh);
byId("why-open").addEventListener("click", () => void explain());
byId("look-again").addEventListener("click", () => void build(null, byId("about-note")));
byId("clear").addEventListener("click", () => {
  word.unknown(null);
  drawn.reset();
  const alone = parts.none();
  parts.clear();
  query.clear(alone);
});
byId("building-on").addEventListener("click", () => void build(null, byId("building-text")));
byId("key-form").addEventListener("submit", (event) => {
  event.preventDefault();
  api.useKey(byId("key").value);
  void server.check();
});
drawByKeys(paper);
listenToShortcuts(paper, query);
showInvitation();
parts.show();
await query.restore();
if (!query.empty()) {
  byId("hint").textContent = "Your last drawing is back. Clear begins a new one.";
  document.addEventListener("pointerdown", () => (byId("hint").textContent = ""), { once: true });
}
refresh();
void server.check();
