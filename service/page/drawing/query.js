/** What is searched with: the drawing, which may lie over an image; an image alone, as a drawing or a photo; or a file. */

import { check, choice, download, byId } from "../shared/dom.js";
import { read, stepKey } from "../shared/history.js";
import { turned } from "./ink.js";
import { fromDataUrl, pastedImage, kindOf, kindOfFile, open, toDataUrl, turnedRight } from "./picture.js";
import { drawingOf, restore, save, withDrawing } from "./saved.js";
import { piecesOf, strokesOf, thingsOf } from "./things.js";

const ADDRESS = /^https?:\S+$/i;

/** @param {Paper} paper @param {QueryReact} react */
export function createQuery(paper, react) {
  let file = /** @type {File} */ (null);
  let fileKind = /** @type {Kind} */ ("sketch");
  /** What was searched with in each step of the history, by its key. @type {Map<number, Kept>} */
  const steps = new Map();
  let step = stepKey();

  paper.addEventListener("change", () => {
    save(paper, step);
    file = null;
    changed();
  });
  byId("picture-remove").addEventListener("click", () => clear());
  choice("as", (/** @type {Kind} */ as) => {
    if (file) {
      fileKind = as;
      changed();
    } else if (image()) {
      // Done to the paper, so that undo takes the choice back.
      paper.replace([{ ...image(), as }, ...paper.marks.slice(1)]);
    }
  });
  listenForFiles((files, other) => (files.length ? void take(files[0]) : other && react.refuse(other)));
  window.addEventListener("popstate", async () => {
    const from = step;
    step = stepKey();
    const kept = from === step ? null : (steps.get(step) ?? (await restore(step)));
    if (!kept) { return; }
    paper.past = kept.past;
    if (kept.file) {
      ({ file, fileKind } = kept);
      changed();
    }
    react.back();
  });
  window.addEventListener("step", () => {
    step = stepKey();
    keep();
    save(paper, step);
  });

  const empty = () => !file && paper.empty;
  /** The image on the paper, below all that is drawn, as its mark; null without one. */
  const image = () => (paper.marks[0]?.kind === "image" ? paper.marks[0] : null);
  const kind = () => (file ? fileKind : (image()?.as ?? "sketch"));
  const keep = () => steps.set(step, { past: paper.past, file, fileKind });

  function changed() {
    keep();
    byId("picture").hidden = !file;
    byId("as").hidden = !file && !image();
    check("as", kind());
    react.changed();
  }

  /** Put an image on the paper; `anew`: without the words and photos of before. @type {(given: File, as?: Kind, anew?: boolean) => Promise<void>} */
  async function take(given, as, anew = false) {
    const url = URL.createObjectURL(given);
    const said = byId("opening");
    said.textContent = "Opening the image\u2026";
    try {
      const drawn = as ? null : await drawingOf(given);
      if (drawn) {
        await reopen(drawn);
        return;
      }
      const shown = await open(url);
      const source = await toDataUrl(given, shown);
      const mark = { kind: /** @type {const} */ ("image"), source, image: await open(source), as: as ?? kindOf(shown, given.type) };
      await turn(anew);
      paper.replace([mark]);
    } catch {
      // A format that the browser cannot show may still be one that the server reads.
      await turn(anew);
      file = given;
      fileKind = as ?? kindOfFile(given);
      byId("picture-name").textContent = given.name;
      changed();
    } finally {
      said.textContent = "";
      URL.revokeObjectURL(url);
    }
  }

  /** Draw again what was saved, and search for what was searched for beside it. @param {Saved} drawing */
  async function reopen({ search, ...drawn }) {
    await turn(search && read(search));
    paper.do({ kind: "marks", ...drawn });
  }

  /** Take a step, so that Back returns to this; `counts`: and Undo above the photos. @type {(anew?: boolean | Wanted, counts?: boolean) => Promise<void>} */
  async function turn(anew = false, counts = false) {
    if (!empty() || anew) {
      await new Promise((taken) => {
        window.addEventListener("step", () => setTimeout(taken), { once: true });
        react.turn(anew, counts);
      });
    }
  }

  /** Remove the file, which brings the drawing back; without a file, clear the paper. `asStep`: as a step of the history. */
  function clear(asStep = true) {
    if (asStep) { void turn(); }
    if (file) {
      file = null;
      changed();
    } else {
      paper.clear(asStep ? undefined : step);
    }
  }

  return {
    empty, kind, take, turn, clear, open: reopen,
    isFile: () => file !== null,
    /** What is searched with now. @type {() => Promise<Snapshot>} */
    async snapshot() {
      const as = kind();
      if (file) { return { blob: file, kind: as, marks: [], things: [], strokes: [] }; }
      const { marks, things, place } = paper;
      // An image with nothing drawn on it is sent as it is. What is drawn on a photo belongs to the photo.
      if (image() && marks.length === 1) {
        const dots = piecesOf(marks);
        const told = dots.some((one) => one.told !== undefined);
        const own = dots === marks ? [] : thingsOf(dots);
        return { blob: fromDataUrl(image().source), kind: as, marks, things: own, strokes: told ? strokesOf(dots) : [] };
      }
      const drawn = as === "photo" ? { things: [], strokes: [] } : { things, strokes: strokesOf(marks, place) };
      return { blob: await paper.png(), kind: as, marks, ...drawn };
    },
    /** Turn the image on the paper to the right, with what is drawn on it. */
    async turnImage() {
      const [{ dots, ...mark }, ...drawn] = paper.marks;
      const source = turnedRight(mark.image);
      const shown = await open(source);
      const right = (/** @type {Mark} */ one) => turned(one, { x: 0.5, y: 0.5 }, Math.PI / 2);
      if (paper.image === mark.image) { paper.replace([{ ...mark, source, image: shown }, ...drawn.map(right)]); }
    },
    async restore() {
      const kept = await restore();
      // A drawing that was begun in the meantime stays.
      if (kept && !paper.canUndo && !paper.drawing) { paper.past = kept.past; }
    },
    save: async (/** @type {string} */ name) => download(await withDrawing(await paper.png(), paper), `${fileNameOf(name) || "sketch"}.png`),
  };
}

const fileNameOf = (/** @type {string} */ name) => name.replace(/[^\p{L}\p{N} ,-]/gu, "");

/** `take` gets the files that are picked, dropped or pasted; and if there is none, whether an "address" or a "text" came.
 * @param {(files: ArrayLike<File>, other?: string) => void} take */
function listenForFiles(take) {
  const [input, sheet] = [byId("file"), byId("sheet")];
  byId("pick").addEventListener("click", () => input.click());
  input.addEventListener("change", () => {
    take(input.files);
    // Otherwise picking the same file again would be no change.
    input.value = "";
  });
  document.addEventListener("paste", ({ clipboardData, target }) =>
    (target instanceof HTMLInputElement ? take(clipboardData.files) : take(...imagesIn(clipboardData))));
  // Without this, the browser would open a file that is dropped beside the paper, in place of the page.
  for (const kind of /** @type {const} */ (["dragover", "drop"])) {
    document.addEventListener(kind, (event) => {
      if (!holdsImage(event.dataTransfer)) { return; }
      event.preventDefault();
      sheet.classList.toggle("dropping", kind === "dragover");
      if (kind === "drop") { take(...imagesIn(event.dataTransfer)); }
    });
  }
  document.addEventListener("dragleave", ({ relatedTarget }) => relatedTarget || sheet.classList.remove("dropping"));
}

/** The images in what was copied or dragged: files, or in its text or HTML; and what is there beside them. @type {(data: DataTransfer) => [File[], string]} */
function imagesIn(data) {
  const [html, ...texts] = ["text/html", "text/plain", "text/uri-list"].map((type) => data.getData(type).trim());
  const [image] = new DOMParser().parseFromString(html, "text/html").images;
  const all = [...texts, image?.src ?? ""];
  const other = all.some((text) => ADDRESS.test(text)) ? "address" : html || texts[0] ? "text" : "";
  return [[...data.files, ...all.flatMap(pastedImage)], other];
}

/** Whether what is dragged is a file, or the address of one: an image or a link of another page. @type {(data: DataTransfer) => boolean} */
const holdsImage = ({ types }) => types.includes("Files") || types.includes("text/uri-list");
