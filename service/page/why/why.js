/** The dialog that says why photos were found. */

import * as api from "../shared/api.js";
import { show as appear } from "../shared/history.js";
import { choice, choose, element, byId } from "../shared/dom.js";
import { Overlay } from "./overlay.js";
import { createPlain } from "./plain.js";
import { VIEWS, bestMatches, middleFirst, offer, partsOf } from "./views.js";
import { fileName, methodName, numberOf, percent, score, sentence, trouble } from "../shared/words.js";

// Colour-blind people can also distinguish them, and each has a letter.
const PINS = [["A", "#d55e00"], ["B", "#0072b2"], ["C", "#b0478a"], ["D", "#00785a"]];
const HOVER = ["\u2022", "#1e1f1c"];
const PINNED_AT_FIRST = 3;
const NEAREST = 8;

/** @param {(status: number) => void} gone called with the HTTP status when the server cannot explain these photos */
export function createWhy(gone) {
  const [dialog, body, details, liked, wait] = [byId("why"), byId("why-body"), byId("why-details"), byId("why-liked"), byId("why-wait")];
  const [image, share] = [byId("why-sketch-image"), byId("why-share")];
  const question = new api.Latest();
  const closer = new api.Latest();
  const showPlain = createPlain();
  let subject = null;
  let yours = "";
  let results = [];
  // Of the technical details: the parts of the sketch, the pictures, and the state, see views.js; null until they are shown.
  let parts = [];
  let pictures = [];
  let state = null;

  // The event comes a moment after the dialog has closed. By then the dialog may be open again.
  dialog.addEventListener("close", () => dialog.open || stop());
  byId("why-again").addEventListener("click", () => (details.hidden ? locate() : load()));
  liked.addEventListener("change", locate);
  details.addEventListener("toggle", () => details.open && !state && !closer.busy && load());
  choice("why-view", () => set({}));
  share.addEventListener("input", () => set({}));
  new ResizeObserver(draw).observe(body);

  const alike = () => !subject.blob || subject.kind === "photo";

  const compared = () => ({
    ...subject.asked,
    ...(subject.body ? { kind: subject.kind } : liked.value ? { like: liked.value } : {}),
    photo: results.map(({ id }) => id),
  });

  function stop() {
    question.stop();
    closer.stop();
  }

  /** Show where the photos have what was searched with. The technical details begin anew. */
  function locate() {
    stop();
    say("Looking\u2026");
    byId("why-plain").hidden = true;
    details.hidden = true;
    details.open = false;
    choose("why-view", "parts");
    share.value = share.defaultValue;
    void question.ask((signal) => api.locate(subject.body, compared(), signal), showFirst, fail);
  }

  function showFirst(answer) {
    const some = answer.things.length > 0;
    // Only pictures can be compared with all that the network sees.
    details.hidden = !subject.blob && !liked.value;
    byId("why-plain").hidden = !some;
    if (!some && details.hidden) { say("Where photos show what these words name is not known."); } else { wait.hidden = true; }
    // Without regions of photos only the network's view of them can be shown.
    details.open = !some && !details.hidden;
    if (some) { showPlain(answer, subject, liked.value, results, yours); }
  }

  function fail(error) {
    if (error.status === 404 || error.status === 405) { gone(error.status); }
    say(trouble(error).join(": "), true);
  }

  function load() {
    say("Looking closely\u2026");
    void closer.ask(explain, begin, fail);
  }

  /** The answer of POST /explain, once its picture of the sketch is loaded. */
  async function explain(signal) {
    const answer = await api.explain(subject.body, { ...compared(), nearest: NEAREST }, signal);
    signal.throwIfAborted();
    image.src = answer.sketch.image;
    await image.decode();
    return answer;
  }

  function begin(answer) {
    parts = partsOf(image, answer.grid);
    // A part of which the network keeps nothing is found nowhere.
    const ordered = middleFirst(parts);
    const found = ordered.filter((one) => bestMatches(answer.photos[0], one.cells).size);
    const first = (found.length ? found : ordered).slice(0, PINNED_AT_FIRST);
    const pins = parts.filter((one) => first.includes(one)).map((one, i) => pin(one, PINS[i]));
    offer(answer);
    state = { answer, pins, hovered: null, chosen: answer.photos[0] };
    fill(answer);
    wait.hidden = true;
    body.hidden = false;
    show();
  }

  function say(text, again = false) {
    state = null;
    body.hidden = true;
    wait.hidden = false;
    byId("why-wait-text").textContent = text;
    byId("why-again").hidden = !again;
  }

  function fill(answer) {
    image.alt = `${sentence(yours)} as the computer sees it`;
    byId("why-parts").ariaLabel = `Parts of ${yours}`;
    byId("why-parts").replaceChildren(...parts.map(area));
    const cards = answer.photos.map((photo, place) => card(photo, results[place], answer.grid));
    byId("why-photos").replaceChildren(...cards.map(({ item }) => item));
    pictures = [{ overlay: new Overlay(byId("why-sketch-overlay"), image, answer.grid) }, ...cards];
    showNearest(answer, results, yours);
    byId("why-facts").replaceChildren(...answer.photos.map((photo, place) => row(photo, results[place])));
    byId("why-source").textContent = source(answer);
  }

  /** A part of the sketch, over it. */
  function area(one) {
    const made = element("button", { type: "button", title: one.name, ariaLabel: one.name, onclick: () => turn(one) });
    for (const [event, hovered] of [["pointerenter", one], ["pointerleave", null], ["focus", one], ["blur", null]]) {
      made.addEventListener(event, () => set({ hovered }));
    }
    return element("li", { style: `grid-area: ${1 + Math.floor(one.place / 3)} / ${1 + (one.place % 3)}` }, made);
  }

  function card(photo, result, grid) {
    const name = `${numberOf(result)}: ${fileName(result.paths[0])}`;
    const canvas = element("canvas");
    const picture = element("img", { src: photo.image, alt: "", onload: draw });
    const layers = element("span", { className: "layers" }, picture, canvas);
    const says = element("p", { className: "says row" });
    const onclick = () => set({ chosen: photo });
    const button = element("button", { type: "button", ariaLabel: name, onclick }, layers);
    const item = element("li", {}, button, element("p", { className: "name", textContent: name }), says);
    return { overlay: new Overlay(canvas, picture, grid), item, photo, button, says };
  }

  function turn(one) {
    const others = state.pins.filter((old) => old.part !== one);
    const pinned = others.length < state.pins.length;
    const kept = others.slice(-(PINS.length - 1));
    const free = PINS.find(([letter]) => kept.every((old) => old.letter !== letter));
    byId("why-said").textContent = pinned ? `${one.name} is unpinned.` : `${one.name} is pinned as ${free[0]}.`;
    set({ pins: pinned ? others : [...kept, pin(one, free)] });
  }

  function set(change) {
    if (state) {
      Object.assign(state, change);
      show();
    }
  }

  const controls = () => ({ view: checked("why-view").value, share: Number(share.value) / 100 });

  function show() {
    const { view } = controls();
    byId("why-lead").textContent = VIEWS[view].lead(yours);
    byId("why-network").textContent = (alike() && VIEWS[view].alike) || VIEWS[view].network;
    dialog.dataset.view = view;
    for (const control of /** @type {NodeListOf<HTMLElement>} */ (dialog.querySelectorAll("[data-of]"))) {
      control.hidden = !control.dataset.of.split(" ").includes(view);
    }
    byId("why-share-value").textContent = `${share.value} %`;
    draw();
  }

  function draw() {
    if (!state || body.hidden) { return; }
    const { hovered, pins, chosen } = state;
    const pointed = hovered && !pins.some((old) => old.part === hovered);
    const drawn = { ...state, ...controls(), pins: pointed ? [...pins, pin(hovered, HOVER)] : pins };
    const view = VIEWS[drawn.view];
    for (const { overlay, photo, button, says } of pictures) {
      overlay.clear();
      if (!photo) {
        view.sketch?.(overlay, drawn);
        continue;
      }
      view.photo?.(overlay, drawn, photo);
      button.ariaPressed = String(photo === chosen);
      says.replaceChildren(...(view.says?.(drawn, photo) ?? []).map(remark));
    }
    parts.forEach((one, i) => {
      const face = byId("why-parts").children[i].firstElementChild;
      const kept = pins.find((old) => old.part === one);
      face.ariaPressed = String(Boolean(kept));
      face.dataset.letter = kept?.letter ?? "";
    });
  }

  return {
    /** Say why these photos were found: by what was searched with, `of`, see `subject` in main.js, or one of the photos `of.liked`. */
    open(of, photos) {
      subject = of;
      results = photos;
      yours = !of.blob ? (of.liked.length ? "the photo you like" : "your words") : of.kind === "photo" ? "your photo" : "your drawing";
      liked.replaceChildren(...of.liked.map(({ id, name }) => new Option(`Compared with ${name}`, id)));
      liked.hidden = Boolean(of.blob) || of.liked.length < 2;
      byId("why-title").textContent = photos.length > 1 ? "Why these photos?" : `Why ${fileName(photos[0].paths[0])}?`;
      appear(dialog, () => false);
      locate();
    },
  };
}

const checked = (name) => /** @type {HTMLInputElement} */ (document.querySelector(`[name=${name}]:checked`));
const pin = (one, /** @type {string[]} */ [letter, colour]) => ({ part: one, letter, colour });

/** A photo's row in the words of the network: name, relation score, distance of [Ret], and how many tokens were compared. */
function row(photo, result) {
  const relation = photo.relation_score === null ? "\u2013" : score(photo.relation_score);
  const facts = [relation, score(photo.ret_distance), `${photo.sketch_cells.length} \u00d7 ${photo.photo_cells.length}`];
  const name = element("th", { scope: "row", textContent: fileName(result.paths[0]) });
  return element("tr", {}, name, ...facts.map((textContent) => element("td", { textContent })));
}

function source({ model, method, generation, timings_ms }) {
  const stages = Object.entries(timings_ms).map(([stage, ms]) => `${stage} ${Math.round(ms)} ms`);
  return `${model}, ${methodName(method)}, index generation ${generation}; ${stages.join(", ")}`;
}

function remark(/** @type {{text: string, colour?: string}} */ { text, colour }) {
  const word = element("span", { textContent: text });
  word.style.borderColor = colour ?? "transparent";
  return word;
}

/** Show the photos that look most like the drawing, called `yours`, and like each of the `results` of an answer of POST /explain. */
function showNearest({ nearest, photos }, results, yours) {
  const near = new Set(nearest.map(({ id }) => id));
  const others = new Set(photos.flatMap((photo) => photo.nearest.map(({ id }) => id)));
  byId("why-nearest-yours").ariaLabel = `Photos that look most like ${yours}`;
  byId("why-nearest-yours").replaceChildren(
    ...nearest.map((photo) => small(photo, others.has(photo.id) ? "also looks like a photo found" : "")),
  );
  byId("why-nearest").replaceChildren(
    ...photos.map((photo, place) => {
      const name = fileName(results[place].paths[0]);
      const row = photo.nearest.map((one) => small(one, near.has(one.id) ? `also looks like ${yours}` : ""));
      return element("li", {},
        element("img", { className: "face", src: photo.image, alt: "" }),
        element("p", { className: "name", textContent: `${numberOf(results[place])}: ${name}` }),
        element("p", { className: "says row", textContent: rankOf(photo) }),
        element("ul", { className: "nearest row", ariaLabel: `Photos that look most like ${name}` }, ...row),
      );
    }),
  );
}

/** A small picture with how alike it is. `both`: what else is said of it, which then has a frame. @type {(photo: any, both: string) => HTMLElement} */
function small({ paths, cosine, thumbnail_url }, both) {
  const image = api.picture(thumbnail_url, { alt: fileName(paths[0]), title: paths[0] });
  const said = both && element("span", { className: "unseen", textContent: `. ${sentence(both)}` });
  return element("li", { className: both ? "both" : "" }, image, element("p", {}, percent(cosine), said));
}

const rankOf = ({ ret_rank: rank }) => (rank === null ? "Not in the index" : `By looks alone: rank ${rank.toLocaleString("en")}`);
