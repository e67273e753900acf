/** What is searched with: the drawing, which may lie over an image, or an image file that only the server can read. */

import { download, element, part } from "../shared/dom.js";
import { restore, save } from "./saved.js";

// In pixels. Larger than what any network looks at, and small enough for the browser's storage.
const IMAGE_SIDE = 1024;
const IMAGE_BYTES = 500_000;
// As the server decides it: values above this are no ink on white, and of a sheet at least this share is transparent.
const NO_INK = 245;
const LEAST_SHEET = 0.2;
const LOOKED_AT_SIDE = 512;
const SAVED_SIDE = 1024;
// What the browser's storage takes back, see saved.js.
const KEPT_TYPES = ["image/jpeg", "image/png"];
const ADDRESS = /^https?:\S+$/i;

export class Query extends EventTarget {
  #paper;
  #file = null;
  #sheet = part("sheet");

  /**
   * Takes image files that are picked, dropped or pasted.
   *
   * Events: "change" when what is searched with is another one; "address" when not an image came but only its address.
   *
   * @param {import("./paper.js").Paper} paper
   */
  constructor(paper) {
    super();
    this.#paper = paper;
    paper.addEventListener("change", () => this.#drawn());
    part("picture-remove").addEventListener("click", () => this.clear());
    this.#listenForFiles();
  }

  /** Whether there is nothing to search with. */
  get empty() {
    return !this.#file && this.#paper.empty;
  }

  /** Whether it is a file that cannot be shown. */
  get isFile() {
    return this.#file !== null;
  }

  /**
   * What is searched with now. Nothing that is drawn later changes it.
   *
   * @returns {Promise<{blob: Blob, marks: object[], paper: string}>} an image file; the marks (see ink.js) and the colour
   *   of the paper where it is a drawing
   */
  async snapshot() {
    const paper = this.#paper.background;
    if (this.#file) {
      return { blob: this.#file, marks: [], paper };
    }
    const marks = this.#paper.marks;
    // An image with nothing drawn on it is sent as it is.
    const image = marks.length === 1 && marks[0].kind === "image";
    return { blob: image ? fromDataUrl(marks[0].source) : await this.#paper.png(), marks, paper };
  }

  /** Draw again what was there when the page was left. */
  async restore() {
    const actions = await restore(open);
    // A drawing that was begun in the meantime stays.
    if (actions.length && !this.#paper.canUndo && !this.#paper.drawing) {
      this.#paper.do(...actions);
    }
  }

  /** Put an image on the paper, to be searched with and drawn over. */
  async take(file) {
    const url = URL.createObjectURL(file);
    try {
      const source = await toDataUrl(file, await open(url));
      this.#paper.do({ kind: "image", source, image: await open(source) });
    } catch {
      // A format that the browser cannot show may still be one that the server reads.
      this.#file = file;
      part("picture-name").textContent = file.name;
      this.#changed();
    } finally {
      URL.revokeObjectURL(url);
    }
  }

  /** Remove the file, which brings the drawing back; without a file, clear the paper. */
  clear() {
    if (this.#file) {
      this.#file = null;
      this.#changed();
    } else {
      this.#paper.clear();
    }
  }

  /** Give the drawing to the person as a PNG file. */
  async save() {
    download(await this.#paper.png(SAVED_SIDE), "sketch.png");
  }

  #drawn() {
    const marks = this.#paper.marks;
    save([{ kind: "paper", colour: this.#paper.background }, ...marks]);
    this.#file = null;
    this.#changed();
  }

  #changed() {
    part("picture").hidden = !this.#file;
    this.dispatchEvent(new Event("change"));
  }

  #listenForFiles() {
    const input = part("file");
    part("pick").addEventListener("click", () => input.click());
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
function holdsImage({ types }) {
  return types.includes("Files") || types.includes("text/uri-list");
}

async function open(source) {
  const image = element("img", { src: source });
  await image.decode();
  return image;
}

/**
 * An image file as a data URL: its own bytes where they are few, else a smaller JPEG of it on white; or on black, if it has
 * white strokes on nothing. The JPEG is read from a canvas, so a browser that guards against fingerprinting may disturb it.
 */
async function toDataUrl(file, image) {
  if (onlyWhite(image)) {
    return shrunken(image, "#000000");
  }
  const longer = Math.max(image.naturalWidth, image.naturalHeight);
  if (longer > IMAGE_SIDE || file.size > IMAGE_BYTES || !KEPT_TYPES.includes(file.type)) {
    return shrunken(image, "#ffffff");
  }
  return new Promise((done, failed) => {
    const reader = new FileReader();
    reader.addEventListener("load", () => done(reader.result));
    reader.addEventListener("error", () => failed(reader.error));
    reader.readAsDataURL(file);
  });
}

/** The file in a data URL. */
function fromDataUrl(url) {
  const [, type, text] = url.match(/^data:([^;]+);base64,(.*)$/);
  return new Blob([Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0))], { type });
}

/** Whether it is transparent, and nothing in it could be seen on white. */
function onlyWhite(image) {
  const { context, width, height } = sheetWith(image, LOOKED_AT_SIDE);
  const { data } = context.getImageData(0, 0, width, height);
  let clear = 0;
  for (let at = 0; at < data.length; at += 4) {
    const alpha = data[at + 3];
    const least = Math.min(data[at], data[at + 1], data[at + 2]);
    if (255 - ((255 - least) * alpha) / 255 <= NO_INK) {
      return false;
    }
    clear += alpha < 128 ? 1 : 0;
  }
  return clear >= LEAST_SHEET * width * height;
}

function shrunken(image, paper) {
  return sheetWith(image, IMAGE_SIDE, paper).context.canvas.toDataURL("image/jpeg", 0.9);
}

/** A canvas with the image, its longer side at most `most` pixels, on paper of this colour or on none. */
function sheetWith(image, most, paper = "transparent") {
  const scale = Math.min(1, most / Math.max(image.naturalWidth, image.naturalHeight));
  const width = Math.max(1, Math.round(image.naturalWidth * scale));
  const height = Math.max(1, Math.round(image.naturalHeight * scale));
  const context = element("canvas", { width, height }).getContext("2d");
  context.fillStyle = paper;
  context.fillRect(0, 0, width, height);
  context.drawImage(image, 0, 0, width, height);
  return { context, width, height };
}
