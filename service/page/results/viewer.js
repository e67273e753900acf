/** The dialog with the whole photo and its actions. */

import * as api from "../shared/api.js";
import { show } from "../shared/history.js";
import { breakable, download, element, byId } from "../shared/dom.js";
import { boxed, fileName, numberOf, photoFacts, shownThings, trouble } from "../shared/words.js";

const ENLARGED = 2.5;
const MOST = 8;
const STEP = 1.5;
const KEYS = { "+": STEP, "=": STEP, "-": 1 / STEP, 0: 0 };
/** `react` can `search` with a photo's file and `explain` a result where `explainable`; photos go into `parts`. */
export function createViewer(react, parts) {
  const [dialog, image, note, boxes] = [byId("viewer"), byId("viewer-image"), byId("viewer-note"), byId("viewer-boxes")];
  const zoom = new Zoom(image);
  let photos = [];
  let place = 0;
  // A rank is one of so many; 0: unknown.
  let total = 0;

  const photo = () => photos[place];
  const small = () => `${photo().thumbnail_url}?size=1024`;
  const whole = () => photo().photo_url ?? small();
  const list = (paths) => byId("viewer-paths").replaceChildren(...paths.map((path) => element("li", {}, ...breakable(path))));
  const say = (text) => (note.textContent = text);

  const actions = {
    previous: () => step(-1),
    next: () => step(1),
    like: () => parts.like(photo()),
    unlike: () => parts.unlike(photo()),
    why: () => react.explain(photo()),
    copy,
    async reveal() {
      await api.reveal(photo().id);
      say("Its folder is open in the file manager.");
    },
    async download() {
      const name = image.alt;
      download(await api.file(whole()), name);
    },
    /** Search with the thumbnail: it is large enough for the network, and every browser can show it. */
    async search() {
      const name = image.alt;
      const blob = await api.file(small());
      dialog.close();
      react.search(new File([blob], name, { type: blob.type }));
    },
  };
  for (const [name, act] of Object.entries(actions)) {
    byId(`viewer-${name}`).addEventListener("click", async () => {
      try {
        await act();
      } catch (error) {
        say(trouble(error).join(": "));
      }
    });
  }
  image.addEventListener("load", () => {
    // A small photo is not enlarged to a whole large screen, where its pixels would be visible.
    image.style.maxWidth = `${ENLARGED * image.naturalWidth}px`;
    image.style.maxHeight = `${ENLARGED * image.naturalHeight}px`;
    boxes.style.setProperty("--ratio", `${image.naturalWidth / image.naturalHeight}`);
    boxes.style.maxWidth = image.style.maxWidth;
    dialog.classList.remove("loading");
  });
  // Browsers cannot show every format that can be indexed, and the file may be gone: then the thumbnail is shown.
  image.addEventListener("error", () => {
    if (image.dataset.path !== small()) {
      void api.show(image, small());
      return;
    }
    dialog.classList.remove("loading");
    note.textContent || say("This photo can no longer be opened.");
  });
  dialog.addEventListener("keydown", (event) => {
    const by = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
    if (by) {
      event.preventDefault();
      step(by);
    } else if (!event.ctrlKey && !event.metaKey && zoom.press(event)) {
      event.preventDefault();
    }
  });
  // The focus goes to the photo that was shown last, which may not be the one that was opened.
  dialog.addEventListener("close", () => dialog.open || document.querySelector(`#results [data-photo="${photo()?.id}"]`)?.focus());
  // A click on the backdrop has the dialog itself as its target; everything inside has an element of its own.
  dialog.addEventListener("click", (event) => event.target === dialog && dialog.close());

  function step(by) {
    if (place + by in photos) {
      place += by;
      fill();
    }
  }

  function fill() {
    const { group, rank, paths, link: page, photo_url: original, thumbnail_url: thumbnail } = photo();
    const name = fileName(paths[0]);
    const found = rank !== undefined;
    byId("viewer-title").replaceChildren(...breakable(name));
    byId("viewer-title").title = name;
    byId("viewer-found").hidden = !found;
    if (found) {
      byId("viewer-rank-label").textContent = group ? "Group" : "Rank";
      byId("viewer-rank").textContent = total ? `${rank} of ${total.toLocaleString("en")}` : `${numberOf(photo())}`;
    }
    byId("viewer-why").hidden = !found || !react.explainable();
    byId("viewer-paths-label").textContent = paths.length > 1 ? "Paths of this photo" : "Path";
    list(paths);
    const link = byId("viewer-link");
    Object.assign(link, { hidden: !page, href: page ?? "" });
    link.textContent = `Open at ${link.hostname}`;
    say("");
    byId("viewer-previous").disabled = place === 0;
    byId("viewer-next").disabled = place === photos.length - 1;
    image.alt = name;
    // The thumbnail of the grid is there at once; the photo takes its place when it has come.
    const shown = [.../** @type {NodeListOf<HTMLImageElement>} */ (document.querySelectorAll("#results img"))].find(({ dataset }) => dataset.path?.startsWith(`${thumbnail}?`));
    const visible = shown?.naturalWidth && !api.hasKey() ? `url("${shown.currentSrc}")` : "";
    image.parentElement.style.setProperty("--small", visible || "none");
    image.removeAttribute("src");
    dialog.classList.add("loading");
    zoom.reset();
    byId("viewer-original").hidden = !original || api.hasKey();
    byId("viewer-original").href = (original ?? "").slice(1);
    void api.show(image, whole());
    void describe(photo());
  }

  /** Say when and with what the photo was taken, as far as its file and the server tell. */
  async function describe(one) {
    const facts = byId("viewer-facts");
    facts.replaceChildren();
    outline([]);
    byId("viewer-download").hidden = false;
    const known = one.photo_url && (await api.facts(one.id).catch(({ status }) => ({ gone: status === 404 })));
    if (one !== photo()) { return; }
    if (known?.gone) {
      byId("viewer-download").hidden = byId("viewer-original").hidden = true;
      say("The file of this photo is gone, or has changed.");
    } else if (known?.bytes) {
      const rows = photoFacts(known).flatMap((row) => row.map((textContent, i) => element(i ? "dd" : "dt", { textContent })));
      facts.replaceChildren(...rows);
      outline(shownThings(known));
    }
  }

  /** Put these boxes over the photo, the smallest uppermost. */
  function outline(things) {
    const items = things.map((thing) => {
      const [left, top, right, bottom] = thing.box;
      const style = `inset: ${100 * top}% ${100 - 100 * right}% ${100 - 100 * bottom}% ${100 * left}%`;
      return { area: (right - left) * (bottom - top), item: element("li", { style }, element("span", {}, boxed(thing))) };
    });
    boxes.replaceChildren(...items.sort((a, b) => b.area - a.area).map(({ item }) => item));
    byId("viewer-things-switch").hidden = !items.length;
  }

  /** Copy where the photo lies: on the disk, where the server tells, else in the gallery. */
  async function copy() {
    const one = photo();
    const [{ paths, files = paths }] = await api.photos([one.id]).catch(() => [one]);
    if (one !== photo()) { return; }
    list(files);
    try {
      await navigator.clipboard.writeText(files.join("\n"));
      say("Copied.");
    } catch {
      // Browsers allow the clipboard only to pages that came by HTTPS or from this machine.
      getSelection().selectAllChildren(byId("viewer-paths"));
      say("The path is selected: copy it with Ctrl C.");
    }
  }

  return {
    /** Show the photo at this place, from 0; `of` so many that were found, 0 if unknown. */
    open(found, at, of) {
      [photos, place, total] = [found, at, of];
      fill();
      if (!dialog.open) { show(dialog, () => photos.length > 0); }
    },
    /** Other photos were found. The browser's Forward cannot open the earlier ones again. */
    forget() {
      photos = dialog.open ? photos : [];
    },
    know({ allows }) {
      byId("viewer-reveal").hidden = !allows.reveal;
    },
  };
}

/** Zooming into a picture and panning it: by wheel, pinch, drag, double click, and the keys + - 0. */
class Zoom {
  #image;
  #stage;
  #scale = 1;
  #shift = [0, 0];
  #pointers = new Map();

  constructor(image) {
    this.#image = image;
    this.#stage = image.parentElement;
    const on = (kind, react) => this.#stage.addEventListener(kind, react, { passive: false });
    on("wheel", (event) => {
      event.preventDefault();
      this.#by(Math.exp(-event.deltaY / 300), placeOf(event));
    });
    on("dblclick", (event) => this.#by(this.#scale > 1 ? 0 : STEP ** 2, placeOf(event)));
    on("pointerdown", (event) => {
      this.#pointers.set(event.pointerId, placeOf(event));
      this.#stage.setPointerCapture(event.pointerId);
    });
    on("pointermove", (event) => this.#pointers.has(event.pointerId) && this.#move(event));
    ["pointerup", "pointercancel"].forEach((kind) => on(kind, ({ pointerId }) => this.#pointers.delete(pointerId)));
  }

  /** Zoom by the key of this event. Returns whether it is one that does. */
  press({ key }) { return key in KEYS && this.#by(KEYS[key]); }
  reset() { this.#by(0); }

  #move(event) {
    const before = [...this.#pointers.values()];
    this.#pointers.set(event.pointerId, placeOf(event));
    const after = [...this.#pointers.values()];
    const [from, to] = [before, after].map((all) => [0, 1].map((axis) => all.reduce((sum, place) => sum + place[axis], 0) / all.length));
    this.#shift = this.#shift.map((shift, axis) => shift + to[axis] - from[axis]);
    const apart = (/** @type {number[][]} */ [a, b]) => (b ? Math.max(1, Math.hypot(a[0] - b[0], a[1] - b[1])) : 1);
    this.#by(apart(after) / apart(before), to);
  }

  /** Enlarge by this factor, so that what is at a place stays there; by 0: back to the whole picture. */
  #by(/** @type {number} */ factor, /** @type {number[]} */ place = null) {
    const { left, top, width, height } = this.#stage.getBoundingClientRect();
    const scale = Math.min(MOST, Math.max(1, this.#scale * factor));
    const most = [this.#image.clientWidth, this.#image.clientHeight].map((side) => (side * (scale - 1)) / 2);
    this.#shift = [left + width / 2, top + height / 2].map((middle, axis) => {
      const away = place ? place[axis] - middle : 0;
      return Math.min(most[axis], Math.max(-most[axis], away - ((away - this.#shift[axis]) * scale) / this.#scale));
    });
    this.#scale = scale;
    this.#stage.style.setProperty("--zoom", scale > 1 ? `translate(${this.#shift[0]}px, ${this.#shift[1]}px) scale(${scale})` : "none");
    return true;
  }
}

const placeOf = ({ clientX, clientY }) => [clientX, clientY];
