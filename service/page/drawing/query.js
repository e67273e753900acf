/**
 * What is searched with: the drawing, which may lie over an image, or an image file that only the server can read.
 *
 * An image with nothing drawn on it is searched with as a drawing or as a photo, whichever the person chooses.
 */

import { check, choice, download, byId } from "../shared/dom.js";
import { stepKey } from "../shared/history.js";
import { fromDataUrl, kindOf, kindOfFile, open, toDataUrl } from "./picture.js";
import { restore, save } from "./saved.js";
import { strokesOf } from "./things.js";

const SAVED_SIDE = 1024;
const ADDRESS = /^https?:\S+$/i;

export class Query extends EventTarget {
  #paper;
  #file = null;
  #fileKind = "sketch";
  #sheet = byId("sheet");
  // What was searched with in each step of the history, by its key.
  #steps = new Map();
  #step = stepKey();

  /**
   * Takes image files that are picked, dropped or pasted.
   *
   * Events: "change" when what is searched with is another one; "turn" when it takes the place of another, which Back is
   * to bring back, and "back" once it has; "address" when not an image came but only its address.
   */
  constructor(paper) {
    super();
    this.#paper = paper;
    paper.addEventListener("change", () => this.#drawn());
    byId("picture-remove").addEventListener("click", () => this.clear());
    choice("as", (as) => this.#choose(as));
    this.#listenForFiles();
    window.addEventListener("popstate", () => this.#moved());
    window.addEventListener("step", () => {
      this.#step = stepKey();
      this.#keep();
    });
  }

  get empty() {
    return !this.#file && this.#paper.empty;
  }

  get isFile() {
    return this.#file !== null;
  }

  /** What it is searched with as. @returns {"sketch" | "photo"} */
  get kind() {
    return this.#file ? this.#fileKind : (this.#image?.as ?? "sketch");
  }

  /**
   * What is searched with now. Nothing that is drawn later changes it.
   *
   * @returns {Promise<{blob: Blob, kind: "sketch" | "photo", marks: object[], things: object[], strokes: object[]}>} an
   *   image file, and what it is searched with as; where it is a drawing its marks (see ink.js), its things as far as they
   *   are known, and its strokes, see things.js
   */
  async snapshot() {
    const { kind } = this;
    if (this.#file) {
      return { blob: this.#file, kind, marks: [], things: [], strokes: [] };
    }
    const { marks, things } = this.#paper;
    // An image with nothing drawn on it is sent as it is.
    const image = this.#image;
    if (image) {
      return { blob: fromDataUrl(image.source), kind, marks, things: [], strokes: [] };
    }
    return { blob: await this.#paper.png(), kind, marks, things, strokes: strokesOf(marks) };
  }

  async restore() {
    const actions = await restore();
    // A drawing that was begun in the meantime stays.
    if (actions.length && !this.#paper.canUndo && !this.#paper.drawing) {
      this.#paper.do(...actions);
    }
  }

  /**
   * Put an image on the paper, to be searched with and drawn over.
   *
   * @param {"sketch" | "photo"} [as] what to search with it as; guessed by its look, where nobody says so
   * @param {boolean} [anew] whether it is searched with without the words and photos of the query before
   */
  async take(file, as, anew = false) {
    const url = URL.createObjectURL(file);
    const said = byId("opening");
    said.textContent = "Opening the image\u2026";
    try {
      const given = await open(url);
      const source = await toDataUrl(file, given);
      const image = await open(source);
      await this.#turn(anew);
      this.#paper.replace([{ kind: "image", source, image, as: as ?? kindOf(given, file.type) }]);
    } catch {
      // A format that the browser cannot show may still be one that the server reads.
      await this.#turn(anew);
      this.#file = file;
      this.#fileKind = as ?? kindOfFile(file);
      byId("picture-name").textContent = file.name;
      this.#changed();
    } finally {
      said.textContent = "";
      URL.revokeObjectURL(url);
    }
  }

  /** Remove the file, which brings the drawing back; without a file, clear the paper. `turn`: as a step of the history. */
  clear(turn = true) {
    if (turn) {
      void this.#turn();
    }
    if (this.#file) {
      this.#file = null;
      this.#changed();
    } else {
      this.#paper.clear();
    }
  }

  /** Take a step, so that Back returns to what is there now, if there is something. Dialogs may have to close before it. */
  async #turn(anew = false) {
    if (!this.empty || anew) {
      await new Promise((taken) => {
        window.addEventListener("step", taken, { once: true });
        this.dispatchEvent(new CustomEvent("turn", { detail: anew }));
      });
    }
  }

  #keep() {
    this.#steps.set(this.#step, { marks: this.#paper.marks, file: this.#file, fileKind: this.#fileKind });
  }

  /** The person has moved through the history: what was searched with comes back. */
  #moved() {
    const [from, kept] = [this.#step, this.#steps.get(stepKey())];
    this.#step = stepKey();
    if (from === this.#step || !kept) {
      return;
    }
    this.#paper.replace(kept.marks);
    if (kept.file) {
      [this.#file, this.#fileKind] = [kept.file, kept.fileKind];
      this.#changed();
    }
    this.dispatchEvent(new Event("back"));
  }

  async save() {
    download(await this.#paper.png(SAVED_SIDE), "sketch.png");
  }

  /** The image that is searched with by itself, as its mark; null where something is drawn, too. */
  get #image() {
    const { marks } = this.#paper;
    return marks.length === 1 && marks[0].kind === "image" ? marks[0] : null;
  }

  #choose(as) {
    if (this.#file) {
      this.#fileKind = as;
      this.#changed();
    } else if (this.#image) {
      // Done to the paper, so that undo takes the choice back.
      this.#paper.replace([{ ...this.#image, as }]);
    }
  }

  #drawn() {
    save(this.#paper.marks);
    this.#file = null;
    this.#changed();
  }

  #changed() {
    this.#keep();
    byId("picture").hidden = !this.#file;
    byId("as").hidden = !this.#file && !this.#image;
    check("as", this.kind);
    this.dispatchEvent(new Event("change"));
  }

  #listenForFiles() {
    const input = byId("file");
    byId("pick").addEventListener("click", () => input.click());
    input.addEventListener("change", () => {
      this.#takeFirst(input.files);
      // Otherwise picking the same file again would be no change.
      input.value = "";
    });
    document.addEventListener("paste", ({ clipboardData, target }) => {
      const address = ADDRESS.test(clipboardData.getData("text/plain").trim());
      this.#takeFirst(clipboardData.files, address && !target.matches("input"));
    });
    // Without this, the browser would open a file that is dropped beside the paper, in place of the page.
    document.addEventListener("dragover", (event) => {
      if (holdsImage(event.dataTransfer)) {
        event.preventDefault();
        this.#sheet.classList.add("dropping");
      }
    });
    document.addEventListener("dragleave", (event) => {
      if (!event.relatedTarget) {
        this.#sheet.classList.remove("dropping");
      }
    });
    document.addEventListener("drop", (event) => {
      if (holdsImage(event.dataTransfer)) {
        event.preventDefault();
        this.#sheet.classList.remove("dropping");
        this.#takeFirst(event.dataTransfer.files, true);
      }
    });
  }

  #takeFirst(files, address = false) {
    if (files.length) {
      void this.take(files[0]);
    } else if (address) {
      // The page may load nothing from another host, so it cannot fetch the image itself.
      this.dispatchEvent(new Event("address"));
    }
  }
}

/** Whether what is dragged is a file, or the address of one: an image or a link of another page. */
const holdsImage = ({ types }) => types.includes("Files") || types.includes("text/uri-list");
