/** The dialog that says why photos were found. */

import * as api from "../shared/api.js";
import { show } from "../shared/history.js";
import { check, choice, choose, element, byId } from "../shared/dom.js";
import { showNearest } from "./nearest.js";
import { Overlay } from "./overlay.js";
import { largestFirst, middleFirst, paintPart, partAt, partsOf } from "./regions.js";
import { Plain } from "./plain.js";
import { VIEWS, bestMatches, offer } from "./views.js";
import { fileName, methodName, numberOf, score, sentence, trouble } from "../shared/words.js";

// Colour-blind people can also distinguish them, and each has a letter.
const PINS = [["A", "#d55e00"], ["B", "#0072b2"], ["C", "#b0478a"], ["D", "#00785a"]];
const HOVER = ["\u2022", "#1e1f1c"];
const PINNED_AT_FIRST = 3;
const FACE = 80;
const NEAREST = 8;

export class Why {
  #dialog = byId("why");
  #gone;
  #question = new api.Latest();
  #closer = new api.Latest();
  #plain = new Plain();
  #subject = null;
  #results = [];
  #parts = [];
  #pictures = [];
  #state = null;

  /** @param {(status: number) => void} gone called with the HTTP status when the server cannot explain these photos */
  constructor(gone) {
    this.#gone = gone;
    // The event comes a moment after the dialog has closed. By then the dialog may be open again.
    this.#dialog.addEventListener("close", () => this.#dialog.open || this.#stop());
    byId("why-again").addEventListener("click", () => (byId("why-details").hidden ? this.#locate() : this.#load()));
    byId("why-liked").addEventListener("change", () => this.#locate());
    byId("why-details").addEventListener("toggle", ({ target }) => target.open && !this.#state && !this.#closer.busy && this.#load());
    choice("why-view", () => this.#choose());
    choice("why-from", () => this.#set({}));
    for (const control of ["why-eye", "why-share", "why-step"]) {
      byId(control).addEventListener("input", () => this.#set({}));
    }
    this.#listenToSketch(byId("why-sketch"));
    new ResizeObserver(() => this.#draw()).observe(byId("why-body"));
  }

  /**
   * Say why `results` were found. They are compared with the `subject`: what was searched with, see Query.snapshot, and
   * where its blob is null one of the photos `liked`, [{id, name}, ...]; `asked` has how its things were searched for.
   */
  open(subject, results) {
    this.#subject = subject;
    const liked = subject.liked.map(({ id, name }) => new Option(`Compared with ${name}`, id));
    byId("why-liked").replaceChildren(...liked);
    byId("why-liked").hidden = Boolean(subject.blob) || liked.length < 2;
    this.#results = results;
    byId("why-title").textContent = results.length > 1 ? "Why these photos?" : `Why ${fileName(results[0].paths[0])}?`;
    show(this.#dialog, () => false);
    this.#locate();
  }

  #stop() {
    this.#question.stop();
    this.#closer.stop();
  }

  /** Show where the photos have what was searched with. The technical details begin anew. */
  #locate() {
    this.#stop();
    this.#wait("Looking\u2026");
    byId("why-plain").hidden = true;
    byId("why-details").hidden = true;
    byId("why-details").open = false;
    choose("why-view", "parts");
    check("why-from", "own");
    byId("why-share").value = byId("why-share").defaultValue;
    const { body } = this.#subject;
    void this.#question.ask((signal) => api.locate(body, this.#compared, signal), (answer) => this.#located(answer), (error) => this.#fail(error));
  }

  #located(answer) {
    byId("why-wait").hidden = true;
    byId("why-details").hidden = false;
    const some = answer.things.length > 0;
    byId("why-plain").hidden = !some;
    // Without regions of photos only the network's view of them can be shown.
    byId("why-details").open = !some;
    if (some) {
      this.#plain.show(answer, this.#subject, byId("why-liked").value, this.#results, this.#yours);
    }
  }

  /** What the photos are compared with, as parameters, and the photos. */
  get #compared() {
    const { body, kind, asked } = this.#subject;
    return { ...(body ? { kind, ...asked } : { like: byId("why-liked").value }), photo: this.#results.map(({ id }) => id) };
  }

  #fail(error) {
    if (error.status === 404 || error.status === 405) {
      this.#gone(error.status);
    }
    this.#wait(trouble(error).join(": "), true);
  }

  get #alike() {
    return !this.#subject.blob || this.#subject.kind === "photo";
  }

  get #yours() {
    const { blob, kind } = this.#subject;
    return !blob ? "the photo you like" : kind === "photo" ? "your photo" : "your drawing";
  }

  #load() {
    this.#wait("Looking closely\u2026");
    void this.#closer.ask((signal) => this.#ask(signal), (answer) => this.#begin(answer), (error) => this.#fail(error));
  }

  #begin(answer) {
    this.#parts = partsOf(this.#subject, byId("why-sketch-image"), answer.grid);
    // A part of which the network keeps nothing is found nowhere.
    const ordered = (this.#alike ? middleFirst : largestFirst)(this.#parts);
    const found = ordered.filter((one) => bestMatches(answer.photos[0], one.cells).size);
    const first = (found.length ? found : ordered).slice(0, PINNED_AT_FIRST);
    const pins = this.#parts.filter((one) => first.includes(one)).map((one, i) => pin(one, PINS[i]));
    offer(answer);
    this.#state = { answer, pins, hovered: null, chosen: answer.photos[0] };
    this.#fill();
    byId("why-wait").hidden = true;
    byId("why-body").hidden = false;
    this.#show();
  }

  /** The answer of POST /explain, once its picture of the sketch is loaded. */
  async #ask(signal) {
    const answer = await api.explain(this.#subject.body, { ...this.#compared, nearest: NEAREST }, signal);
    signal.throwIfAborted();
    byId("why-sketch-image").src = answer.sketch.image;
    await byId("why-sketch-image").decode();
    return answer;
  }

  #wait(text, again = false) {
    this.#state = null;
    byId("why-body").hidden = true;
    byId("why-wait").hidden = false;
    byId("why-wait-text").textContent = text;
    byId("why-again").hidden = !again;
  }

  #fill() {
    const { answer } = this.#state;
    byId("why-sketch-image").alt = `${sentence(this.#yours)} as the computer sees it`;
    byId("why-parts").ariaLabel = `Parts of ${this.#yours}`;
    byId("why-parts").replaceChildren(...this.#parts.map((one) => element("li", {}, this.#chip(one))));
    const cards = answer.photos.map((photo, place) => this.#card(photo, place));
    byId("why-photos").replaceChildren(...cards.map(({ item }) => item));
    const sketch = new Overlay(byId("why-sketch-overlay"), byId("why-sketch-image"), answer.grid);
    this.#pictures = [{ overlay: sketch }, ...cards];
    const eyes = answer.sketch.attention.map((_, i) => new Option(`Attention head ${i + 1}`, `head ${i}`));
    const layers = answer.sketch.attention_layers.map((_, i) => new Option(`Layer ${i + 1}`, `layer ${i}`));
    byId("why-eye").replaceChildren(new Option("All attention heads", "all"), ...eyes, ...layers);
    byId("why-step").max = answer.sketch.kept.length;
    byId("why-step").value = answer.sketch.kept.length;
    byId("why-cross").hidden = answer.photos.every((photo) => photo.cross_attention === null);
    showNearest(answer, this.#results, this.#yours);
    byId("why-facts").replaceChildren(...answer.photos.map((photo, place) => row(photo, this.#results[place])));
    byId("why-source").textContent = source(answer);
  }

  #chip(one) {
    const face = element("canvas", { width: FACE, height: FACE });
    paintPart(face, one);
    const onclick = () => this.#pin(one);
    const chip = element("button", { type: "button", title: one.name, ariaLabel: one.name, onclick }, face);
    for (const [event, hovered] of [["pointerenter", one], ["pointerleave", null], ["focus", one], ["blur", null]]) {
      chip.addEventListener(event, () => this.#set({ hovered }));
    }
    return chip;
  }

  #card(photo, place) {
    const result = this.#results[place];
    const name = `${numberOf(result)}: ${fileName(result.paths[0])}`;
    const canvas = element("canvas");
    // The overlay is also made of the picture.
    const image = element("img", { src: photo.image, alt: "", onload: () => this.#draw() });
    const picture = element("span", { className: "layers" }, image, canvas);
    const says = element("p", { className: "says row" });
    const onclick = () => this.#set({ chosen: photo });
    const button = element("button", { type: "button", ariaLabel: name, onclick }, picture);
    const item = element("li", {}, button, element("p", { className: "name", textContent: name }), says);
    return { overlay: new Overlay(canvas, image, this.#state.answer.grid), item, photo, button, says };
  }

  #pin(one) {
    const { pins } = this.#state;
    const others = pins.filter((old) => old.part !== one);
    const said = byId("why-said");
    if (others.length < pins.length) {
      said.textContent = `${one.name} is unpinned.`;
      this.#set({ pins: others });
      return;
    }
    const kept = others.slice(-(PINS.length - 1));
    const free = PINS.find(([letter]) => kept.every((old) => old.letter !== letter));
    said.textContent = `${one.name} is pinned as ${free[0]}.`;
    this.#set({ pins: [...kept, pin(one, free)] });
  }

  #choose() {
    this.#set({});
    // On a phone the row of views is wider than the screen. Its neighbours also come into sight.
    const label = document.querySelector("[name=why-view]:checked").parentElement;
    label.scrollIntoView({ block: "nearest", inline: "center" });
  }

  #set(change) {
    if (this.#state) {
      Object.assign(this.#state, change);
      this.#show();
    }
  }

  get #controls() {
    return {
      view: document.querySelector("[name=why-view]:checked").value,
      from: document.querySelector("[name=why-from]:checked").value,
      eye: byId("why-eye").value,
      share: Number(byId("why-share").value) / 100,
      step: Number(byId("why-step").value),
    };
  }

  #show() {
    const { view, share, step } = this.#controls;
    byId("why-lead").textContent = VIEWS[view].lead(this.#yours);
    byId("why-network").textContent = (this.#alike && VIEWS[view].alike) || VIEWS[view].network;
    this.#dialog.dataset.view = view;
    for (const control of this.#dialog.querySelectorAll("[data-of]")) {
      control.hidden = !control.dataset.of.split(" ").includes(view);
    }
    byId("why-share-value").textContent = `${Math.round(100 * share)} %`;
    byId("why-step-value").textContent = step ? `${step} of ${this.#state.answer.sketch.kept.length}` : "none";
    this.#draw();
  }

  #draw() {
    if (!this.#state || byId("why-body").hidden) {
      return;
    }
    const { hovered, pins, chosen } = this.#state;
    const controls = this.#controls;
    const view = VIEWS[controls.view];
    const pointed = hovered && !pins.some((old) => old.part === hovered);
    const state = { ...this.#state, ...controls, pins: pointed ? [...pins, pin(hovered, HOVER)] : pins };
    for (const { overlay, photo, button, says } of this.#pictures) {
      overlay.clear();
      if (!photo) {
        view.sketch(overlay, state);
        continue;
      }
      view.photo(overlay, state, photo);
      button.setAttribute("aria-pressed", String(photo === chosen));
      says.replaceChildren(...view.says(state, photo).map(said));
    }
    this.#parts.forEach((one, i) => {
      const chip = byId("why-parts").children[i].firstElementChild;
      const kept = pins.find((old) => old.part === one);
      chip.setAttribute("aria-pressed", String(Boolean(kept)));
      chip.style.setProperty("--pin", kept?.colour ?? "var(--line)");
      chip.dataset.letter = kept?.letter ?? "";
    });
  }

  #listenToSketch(figure) {
    const at = (event) => {
      const box = figure.getBoundingClientRect();
      const point = { x: (event.clientX - box.left) / box.width, y: (event.clientY - box.top) / box.height };
      return this.#state && this.#controls.view === "parts" ? partAt(this.#parts, point) : null;
    };
    figure.addEventListener("pointermove", (event) => {
      const hovered = event.pointerType === "touch" ? null : at(event);
      if (this.#state && hovered !== this.#state.hovered) {
        this.#set({ hovered });
      }
    });
    figure.addEventListener("pointerleave", () => this.#set({ hovered: null }));
    figure.addEventListener("click", (event) => {
      const one = at(event);
      if (one) {
        this.#pin(one);
      }
    });
  }
}

const pin = (one, [letter, colour]) => ({ part: one, letter, colour });

/** A photo's row in the words of the network: name, relation score, distance of [Ret], and how many tokens were compared. */
function row(photo, result) {
  const facts = [
    photo.relation_score === null ? "\u2013" : score(photo.relation_score),
    score(photo.ret_distance),
    `${photo.sketch_cells.length} \u00d7 ${photo.photo_cells.length}`,
  ];
  const name = element("th", { scope: "row", textContent: fileName(result.paths[0]) });
  return element("tr", {}, name, ...facts.map((textContent) => element("td", { textContent })));
}

function source({ model, method, generation, timings_ms }) {
  const stages = Object.entries(timings_ms).map(([stage, ms]) => `${stage} ${Math.round(ms)} ms`);
  return `${model}, ${methodName(method)}, index generation ${generation}; ${stages.join(", ")}`;
}

function said({ text, colour }) {
  const word = element("span", { textContent: text });
  word.style.borderColor = colour ?? "transparent";
  return word;
}
